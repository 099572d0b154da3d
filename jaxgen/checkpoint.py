"""Checkpoints: Orbax, asynchronous and atomic, verified bit for bit when read."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import contextlib
import dataclasses
import json
from pathlib import Path
import shutil
import time
from types import ModuleType
from typing import Any
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxgen.method import PyTree, TrainState

CHECKSUM = "checksum.json"
MIN_COLUMNS = 512  # Short rows take numpy long to add up.


def digest(leaves: Sequence[Any], xp: ModuleType = np) -> tuple[Any, Any]:
  """(whether every float is finite, a checksum of every bit) of the arrays of a state.

  The checksum is a sum of products of integers modulo 2^32, so it does not depend
  on how the state is sharded. Storage formats do not notice a flipped bit.

  Args:
    leaves: Arrays of numpy, or of jax under jit.
    xp: `numpy`, or `jax.numpy`: both give the same; on a CPU, XLA takes five times as
      long over sums of integers.
  """
  finite, total = xp.bool_(True), xp.uint32(0)
  for i, x in enumerate(leaves):
    if jnp.issubdtype(x.dtype, jnp.inexact):
      finite &= xp.isfinite(x).all()
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
      x = xp.stack([x.real, x.imag])
    bits = x.view(f"uint{8 * x.dtype.itemsize}") if x.dtype != bool else x
    # Weighted by position within the last axes, without a reshape, which would gather
    # a sharded array: each column is added up, then weighted.
    axis, length = x.ndim, 1
    while axis and length < MIN_COLUMNS:
      axis -= 1
      length *= x.shape[axis]
    columns = bits.sum(axis=tuple(range(axis)), dtype=xp.uint32)
    weights = 2 * xp.arange(length, dtype=xp.uint32) + xp.uint32(1)
    weighted = columns * weights.reshape(columns.shape)
    total += weighted.sum(dtype=xp.uint32) * xp.uint32((2 * i + 1) % 2**32)
  return finite, total


device_digest = jax.jit(lambda leaves: digest(leaves, jnp))


def start_digest(state: PyTree) -> Callable[[], tuple[bool, int]]:
  """() -> `digest` of a state that may be donated as soon as this has returned.

  Arrays of numpy are read when the digest is asked for, others on their devices now.
  """
  leaves = jax.tree.leaves(state)
  if all(isinstance(x, np.ndarray | np.generic) for x in leaves):

    def compute() -> tuple[bool, int]:
      with np.errstate(over="ignore"):
        finite, checksum = digest(leaves)
      return bool(finite), int(checksum)

    return compute
  finite, checksum = device_digest(leaves)
  return lambda: (bool(finite), int(checksum))


def on_host(state: PyTree) -> PyTree:
  """The arrays of a state in the memory of its process, if one process has them all.

  On CPUs they are views: an array with a view is copied before it is donated.
  """
  if jax.process_count() > 1:
    return state
  return jax.tree.map(np.asarray, jax.device_get(state))


class ChecksumHandler(ocp.AsyncCheckpointHandler):
  """Writes the checksum of a state beside it, while the loop goes on."""

  async def async_save(
    self, directory: Any, args: "ChecksumSave"
  ) -> list[ocp.future.Future]:
    """Starts; the checkpoint counts once the returned future is done."""

    async def write() -> None:
      finite, checksum = args.compute()
      if not finite:
        raise FloatingPointError(f"the state is not finite after step {args.step}")
      if jax.process_index() == 0:
        (directory / CHECKSUM).write_text(json.dumps(checksum))

    return [ocp.future.CommitFutureAwaitingContractedSignals(write())]

  def save(self, directory: Any, args: "ChecksumSave") -> None:
    """As `async_save`, to its end."""
    for future in asyncio.run(self.async_save(directory, args)):
      future.result()

  def restore(self, directory: Any, args: "ChecksumRestore") -> int:
    """The checksum."""
    return json.loads((directory / CHECKSUM).read_text())


@ocp.args.register_with_handler(ChecksumHandler, for_save=True)
@dataclasses.dataclass
class ChecksumSave(ocp.args.CheckpointArgs):
  """What `ChecksumHandler` saves: the step, and what `start_digest` returns."""

  step: int
  compute: Callable[[], tuple[bool, int]]


@ocp.args.register_with_handler(ChecksumHandler, for_restore=True)
@dataclasses.dataclass
class ChecksumRestore(ocp.args.CheckpointArgs):
  """Asks `ChecksumHandler` for the checksum."""


class Checkpoints:
  """The checkpoints/ of a run: asynchronous saves, verified restores."""

  def __init__(self, workdir: Path, *, read_only: bool = False) -> None:
    self.path = (workdir / "checkpoints").absolute()
    self.read_only = read_only
    self._thread = futures.ThreadPoolExecutor(1, "checkpoints")
    self._written = futures.Future()  # What becomes of the last save.
    self._written.set_result(None)
    if read_only and not self.path.exists():
      raise FileNotFoundError(f"{workdir} holds no checkpoint yet")
    self._open()

  def _open(self) -> None:
    keep = {} if self.read_only else {"max_to_keep": 3}
    self.manager = ocp.CheckpointManager(
      self.path,
      options=ocp.CheckpointManagerOptions(read_only=self.read_only, **keep),
      item_handlers={
        "state": ocp.StandardCheckpointHandler(),
        "checksum": ChecksumHandler(),
      },
    )

  def save(self, step: int, state: TrainState) -> None:
    """Starts saving `state`, which must be finite, and returns.

    Orbax takes its time over many small arrays before it goes on by itself: one process
    waits for the copy in its memory only, and leaves the rest to a thread. Several
    processes save in the loop, since they wait for each other on the way.

    Raises:
      OSError: The save before this one failed.
      FloatingPointError: Its state was not finite; nothing of it is kept.
    """
    if jax.process_count() > 1:
      self._start(step, state)
      return
    self._written.result()
    self._written = self._thread.submit(self._write, step, on_host(state))

  def _start(self, step: int, state: TrainState) -> None:
    with self._clear_errors(step):
      items = ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        checksum=ChecksumSave(step, start_digest(state)),
      )
      self.manager.save(step, args=items, force=True)

  def _write(self, step: int, state: TrainState) -> None:
    self._start(step, state)
    with self._clear_errors(step):
      self.manager.wait_until_finished()

  def wait(self) -> None:
    """Returns when the last save is on disk; raises what `save` raises."""
    self._written.result()
    with self._clear_errors(self.manager.latest_step()):
      self.manager.wait_until_finished()

  def _newest(self) -> str:
    steps = [int(p.name) for p in self.path.iterdir() if p.name.isdigit()]
    newest = (
      f"the newest, of step {max(steps)}, is intact" if steps else "there is none"
    )
    return f"earlier checkpoints in {self.path}: {newest}"

  @contextlib.contextmanager
  def _clear_errors(self, step: int | None) -> Iterator[None]:
    try:
      yield
    except FloatingPointError as error:
      raise FloatingPointError(f"{error}; {self._newest()}") from error
    except Exception as error:
      free = shutil.disk_usage(self.path).free / 2**20
      raise OSError(
        f"saving a checkpoint (step {step} or the one before) failed: {_reason(error)} "
        f"[{free:.0f} MiB free]; {self._newest()}; run the same command to resume"
      ) from error

  def restore(
    self, template: Callable[[int], TrainState], step: int | None = None
  ) -> TrainState | None:
    """The newest intact state (or that of `step`); None if there is none.

    Args:
      template: step -> the abstract state that a checkpoint of that step must fit.
      step: The one to restore.

    Raises:
      ValueError: The checkpoint does not fit the template; lists what differs.
      OSError: There are checkpoints, but none is intact; nothing is changed.
    """
    steps = sorted(self.manager.all_steps(), reverse=True)
    if step is not None and step not in steps:
      raise FileNotFoundError(f"no checkpoint of step {step}, only of {steps[::-1]}")
    corrupt = {}
    for candidate in steps if step is None else [step]:
      state = template(candidate)
      found, corrupt[candidate] = self._read(candidate, state)
      if found and start_digest(on_host(found.state))()[1] != found.checksum:
        corrupt[candidate] = "its checksum differs"
      if corrupt[candidate] is None:
        del corrupt[candidate]
        self._set_aside(corrupt)
        return found.state
    if corrupt:
      raise OSError(
        f"no intact checkpoint in {self.path}: {corrupt}; nothing was changed. "
        "Put back a copy, or choose another workdir to start anew"
      )
    return None

  def _read(self, step: int, like: PyTree) -> tuple[Any, str | None]:
    """((state, checksum), None), or (None, why it cannot be read)."""
    try:
      saved = self.manager.item_metadata(step).state.tree
    except Exception as error:
      return None, _reason(error)
    if differences := _differences(saved, like):
      listed = "\n  ".join(differences[:20])
      raise ValueError(
        f"checkpoint {self.path / str(step)} does not fit the method "
        f"({len(differences)} differences):\n  {listed}"
      )
    items = ocp.args.Composite(
      state=ocp.args.StandardRestore(like), checksum=ChecksumRestore()
    )
    try:
      return self.manager.restore(step, args=items), None
    except Exception as error:
      return None, _reason(error)

  def _set_aside(self, corrupt: dict[int, str]) -> None:
    """Warns of corrupt checkpoints and moves them where no save meets them."""
    for step, reason in corrupt.items():
      text = (
        f"checkpoint {self.path / str(step)} is corrupt ({reason}); used an older one"
      )
      if not self.read_only:
        self.manager.close()
        aside = self.path.parent / f"corrupt_{step}_{time.time_ns()}"
        (self.path / str(step)).rename(aside)
        self._open()
        text += f" and moved it to {aside}"
      warnings.warn(text, stacklevel=4)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: type | None, *_: Any) -> None:
    try:
      self.wait()
    except (OSError, FloatingPointError):
      with contextlib.suppress(Exception):  # It would say the same, less clearly.
        self.manager.close()
      if kind is None:  # Never hide the error that is already on its way.
        raise
    else:
      self.manager.close()
    finally:
      self._thread.shutdown()


def _reason(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _differences(saved: PyTree, like: PyTree) -> list[str]:
  describe = lambda x: f"{jnp.dtype(x.dtype).name}{list(x.shape)}"
  name = lambda k: str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))))

  def flat(tree: PyTree) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(map(name, path)): describe(x) for path, x in leaves}

  saved, like = flat(saved), flat(like)
  nothing = "nothing"
  return [
    f"{path}: saved {saved.get(path, nothing)}, method has {like.get(path, nothing)}"
    for path in sorted(saved.keys() | like.keys())
    if saved.get(path) != like.get(path)
  ]
