"""A run on disk: its record, its lock, and how it is loaded again.

workdir/
  config.json        the resolved configuration
  experiment.py      a copy of the experiment file
  run.json           the seed, and for every start versions, devices, git revision
  checkpoints/       Orbax; asynchronous, atomic, the newest three
  metrics.jsonl      one line per event; the same bytes for the same seed
  timing.jsonl       steps per second, which are never the same
  tensorboard/       events
  samples/           drawn from the same latents at every step
  conditioning.npz   the examples (labels, say) that they are drawn for
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import fcntl
import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path
import platform
import signal
import subprocess
import sys
import time
from types import ModuleType
from typing import Any, NamedTuple
import warnings

import jax
from ml_collections import ConfigDict
import numpy as np

from jaxgen import parallel
from jaxgen.checkpoint import Checkpoints
from jaxgen.config import override
from jaxgen.method import Method, PyTree, TrainState


class Phase(NamedTuple):
  """One stretch of training with one method.

  Attributes:
    method: What is trained.
    train_data: first step -> endless batches from that step on (see `train.fit`).
    num_steps: Length of this phase.
    carry: (last state of the phase before, fresh state of this one) -> first
      state; None starts fresh. `step` is set by the runner.
  """

  method: Method
  train_data: Callable[[int], Iterator]
  num_steps: int
  carry: Callable[[TrainState, TrainState], TrainState] | None = None


def batch_spec(train_data: Callable[[int], Iterator]) -> PyTree:
  """The global batch's shapes: `train_data.spec`, or its first batch."""
  spec = getattr(train_data, "spec", None)
  return next(iter(train_data(0))) if spec is None else spec


def phases_of(built: Mapping[str, Any]) -> list[Phase]:
  """The phases described by what an experiment's `build` returned."""
  first = Phase(built["method"], built["train_data"], built["num_steps"])
  return [first, *built.get("then", ())]


def phase_at(phases: list[Phase], step: int) -> tuple[int, int]:
  """(index, first step) of the phase that trains towards `step`."""
  start = 0
  for index, phase in enumerate(phases[:-1]):
    if step <= start + phase.num_steps:
      return index, start
    start += phase.num_steps
  return len(phases) - 1, start


class Keys(NamedTuple):
  """The root keys of a run; see `keys`."""

  init: jax.Array
  steps: jax.Array
  evaluation: jax.Array
  samples: jax.Array


def keys(seed: int) -> Keys:
  """What a run with this seed draws from.

  Phase i starts from `fold_in(init, i)`, step k uses `fold_in(steps, k)`, evaluation
  batch j `fold_in(evaluation, j)`; samples are always drawn with the same key.
  """
  return Keys(*jax.random.split(jax.random.key(seed), 4))


# --- the record -------------------------------------------------------------------


def load_experiment(path: str | os.PathLike) -> ModuleType:
  """Imports an experiment file: a module with `get_config()` and `build(config)`."""
  path = Path(path)
  spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # So that what it defines can be pickled.
  spec.loader.exec_module(module)
  missing = [n for n in ("get_config", "build") if not hasattr(module, n)]
  if missing:
    raise AttributeError(f"{path} defines no {' and no '.join(missing)}")
  return module


def versions() -> dict[str, str]:
  """What computed a result: package versions, devices, git revision."""
  packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jaxgen")
  found = {name: importlib.metadata.version(name) for name in packages}
  git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
  try:
    revision = subprocess.run(git, capture_output=True, text=True, check=False).stdout
  except OSError:  # There is no git.
    revision = ""
  return {
    "python": platform.python_version(),
    **found,
    "git": revision.strip() or "not a git checkout",
    "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    "host": f"{os.cpu_count()} cores, {_processor()}",
  }


def _processor() -> str:
  """The model of the CPU, where the system tells."""
  info = Path("/proc/cpuinfo")
  text = info.read_text() if info.exists() else ""
  names = [x.split(":")[1] for x in text.splitlines() if x.startswith("model name")]
  return names[0].strip() if names else platform.processor() or "unknown processor"


def record(workdir: Path, source: Path, config: ConfigDict, seed: int) -> None:
  """Writes what defines the run; on a second start, checks that it is the same."""
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / "run.json"
  run = json.loads(path.read_text()) if path.exists() else {"seed": seed, "starts": []}
  if run["seed"] != seed:
    raise ValueError(
      f"{workdir} was started with --seed={run['seed']}, not {seed}; "
      "pass that seed or another --workdir"
    )
  resolved = json.loads(config.to_json())
  saved = workdir / "config.json"
  if saved.exists() and (before := json.loads(saved.read_text())) != resolved:
    keys = [k for k in resolved if before.get(k) != resolved[k]]
    warnings.warn(f"resuming {workdir} with another config: {keys}", stacklevel=2)
  run["starts"].append({"time": time.strftime("%Y-%m-%d %H:%M:%S"), **versions()})
  write_text(path, json.dumps(run, indent=2))
  write_text(saved, json.dumps(resolved, indent=2))
  if source.resolve() != (workdir / "experiment.py").resolve():
    write_text(workdir / "experiment.py", source.read_text())


def write_text(path: Path, text: str) -> None:
  """Replaces a file in one step, so that a kill leaves the old or the new one."""
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_text(text)
  temporary.replace(path)


def conditioning(workdir: str | os.PathLike, num: int | None) -> dict[str, np.ndarray]:
  """`num` of the examples that the run's samples are drawn for, spread evenly, or all.

  They lie in the workdir, so that drawing and tools need no data set.
  """
  path = Path(workdir) / "conditioning.npz"
  if not path.exists():
    raise FileNotFoundError(
      f"{path} is missing: the run drew no samples (num_samples=0)"
    )
  with np.load(path) as rows:
    found = {k: rows[k] for k in rows.files}
  rows_of = lambda x: x if num is None else x[np.arange(num) * len(x) // num]
  return {k: rows_of(x) for k, x in found.items()}


class Run(NamedTuple):
  """A trained run: `method.sample(averaged(state), batch, key)` draws from it."""

  workdir: Path
  method: Method
  state: TrainState
  config: ConfigDict
  built: dict[str, Any]
  phase: Phase


def load(
  workdir: str | os.PathLike,
  step: int | None = None,
  overrides: Mapping[str, Any] | None = None,
) -> Run:
  """The method, state and configuration of a run, for samples and second stages.

  Args:
    workdir: Written by `jaxgen train`. It may be training at this moment.
    step: Which checkpoint; default the newest that is intact.
    overrides: Other values for entries of the config, by dotted key: of what the
      parameters do not depend on, such as how to sample.
  """
  workdir = Path(workdir)
  for name in ("experiment.py", "config.json"):
    if not (workdir / name).exists():
      raise FileNotFoundError(f"{workdir} holds no run: {name} is missing")
  module = load_experiment(workdir / "experiment.py")
  config = module.get_config()
  override(config, json.loads((workdir / "config.json").read_text()))
  override(config, overrides or {})
  built = module.build(config)
  phases = phases_of(built)

  def template(step: int) -> TrainState:
    phase = phases[phase_at(phases, step)[0]]
    backend = parallel.jit_backend(jax.local_devices()[:1])
    return backend.template(phase.method.init, batch_spec(phase.train_data))

  with Checkpoints(workdir, read_only=True) as checkpoints:
    state = checkpoints.restore(template, step)
  if state is None:
    raise FileNotFoundError(f"{workdir} holds no checkpoint yet")
  phase = phases[phase_at(phases, int(state.step))[0]]
  return Run(workdir, phase.method, state, config, built, phase)


def first_stage(
  workdir: str | os.PathLike, experiment: str, key: str = "stage_one"
) -> Run:
  """`load`, for a second stage: where nothing is trained, an error that says how to.

  Args:
    workdir: Of a run of `experiment`.
    experiment: "family/method_dataset".
    key: Entry of the config that names the workdir.
  """
  try:
    return load(workdir)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f"no first stage: {error}. Train it by 'jaxgen train {experiment} "
      f"--workdir={workdir}', or pass --config.{key}=WORKDIR"
    ) from error


# --- one process per workdir, stopped politely ------------------------------------


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
  """Holds `workdir` for this process; freed by its end, however it ends."""
  if jax.process_index() > 0:  # Process 0 holds it for all.
    yield
    return
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(f"no folder can be made at {workdir}: {error.strerror}") from error
  with open(workdir / "lock", "a+") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise RuntimeError(
        f"{workdir} is in use by process {file.read().strip() or '?'}; "
        "stop it, or choose another --workdir"
      ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    yield


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
  """Yields a function that says whether SIGTERM or SIGINT asked to stop.

  A second signal acts at once. Outside the main thread signals are left alone.
  """
  asked = False

  def handle(number: int, _: Any) -> None:
    nonlocal asked
    if asked:
      raise KeyboardInterrupt
    asked = True
    name = signal.Signals(number).name
    print(f"\n{name}: finishing this step and saving ...", file=sys.stderr, flush=True)

  numbers = (signal.SIGTERM, signal.SIGINT)
  try:
    before = [signal.signal(number, handle) for number in numbers]
  except ValueError:
    yield lambda: False
    return
  try:
    yield lambda: asked
  finally:
    for number, handler in zip(numbers, before, strict=True):
      signal.signal(number, handler or signal.SIG_DFL)
