"""The experiment runner: one loop for every method."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import itertools
from pathlib import Path
import sys
import time
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxgen import parallel, run, viz
from jaxgen.checkpoint import Checkpoints
from jaxgen.method import Batch, Method, PyTree, TrainState, averaged
from jaxgen.run import Phase

Data = Callable[[int], Iterator[Batch]]


@dataclasses.dataclass(frozen=True)
class Every:
  """Steps between actions of the loop; 0 means only at the end of a phase."""

  log: int = 100
  eval: int = 0
  sample: int = 0
  save: int = 1000


def fit(
  method: Method,
  train_data: Data,
  *,
  workdir: str | Path,
  num_steps: int,
  seed: int = 0,
  every: Every = Every(),
  eval_data: Any = None,
  num_samples: int = 64,
  steps_per_call: int = 1,
  then: Sequence[Phase] = (),
  backend: parallel.Backend | None = None,
  on_start: Callable[[], None] = lambda: None,
) -> TrainState:
  """Trains `method`, resuming from `workdir` if it holds a checkpoint.

  What step k computes is a function of (seed, k) and the state, so a run that was
  killed and started again equals an uninterrupted one bit for bit.

  Args:
    method: What to train.
    train_data: first step -> endless host batches from that step on, which must be
      those that a run from 0 would see. Every batch is global; a `jaxgen.data`
      source reads only the rows of this process.
    workdir: Where checkpoints, logs and samples go (see `jaxgen.run`).
    num_steps: Length of training with `method`.
    seed: Root of every key.
    every: How often to log, evaluate, sample and save.
    eval_data: A source, or () -> one pass over the evaluation set; rows with
      batch["mask"] == 0 do not count.
    num_samples: How many samples to draw each time.
    steps_per_call: Steps in one compiled call, for models so small that dispatch
      bounds them. Changes no result and no logging step.
    then: Phases that follow, each with its method, data and length.
    backend: Device placement and compilation; default jit over all devices.
    on_start: Called on process 0 once nothing speaks against starting: the data is
      good, the workdir is locked, its checkpoint fits.

  Returns:
    The final state, or that of the step at which SIGTERM or SIGINT stopped it.

  Raises:
    FloatingPointError: A metric is NaN or infinite; names step and metric.
    OSError: A checkpoint could not be saved; earlier ones are intact.
  """
  backend = backend or parallel.jit_backend()
  phases = [Phase(method, train_data, num_steps), *then]
  loop = _Loop(Path(workdir), phases, backend, seed, every, eval_data, num_samples)
  for phase in phases:
    check_data(phase.train_data, backend)
  if hasattr(eval_data, "check"):
    eval_data.check(training=False)
  with (
    run.lock(loop.workdir),
    run.stop_signal() as stopped,
    Checkpoints(loop.workdir) as loop.checkpoints,
  ):
    state = loop.checkpoints.restore(loop.template)
    if loop.main:
      on_start()
    start = 0 if state is None else int(state.step)
    if state is not None:
      state = backend.put_state(state)
    loop.open(start)
    try:
      return loop.train(state, start, steps_per_call, stopped)
    finally:
      loop.close()


def check_data(data: Any, backend: parallel.Backend) -> None:
  """Raises the errors of bad data before training starts."""
  if hasattr(data, "check"):
    data.check()
  sizes = {len(x) for x in jax.tree.leaves(run.batch_spec(data))}
  if len(sizes) != 1 or next(iter(sizes)) % backend.num_devices:
    raise ValueError(
      f"batch size {sorted(sizes)} must be one number that the "
      f"{backend.num_devices} devices divide"
    )


class _Loop:
  """The state of one call of `fit` that is not the state of the method."""

  def __init__(
    self,
    workdir: Path,
    phases: list[Phase],
    backend: parallel.Backend,
    seed: int,
    every: Every,
    eval_data: Any,
    num_samples: int,
  ) -> None:
    self.workdir, self.phases, self.backend = workdir, phases, backend
    self.every, self.num_samples = every, num_samples
    self.eval_data = eval_data
    self.total = sum(phase.num_steps for phase in phases)
    keys = jax.random.split(jax.random.key(seed), 4)
    self.init_key, self.train_key, self.eval_key, self.sample_key = keys
    self.main = jax.process_index() == 0
    self.log = None

  def template(self, step: int) -> TrainState:
    phase = self.phases[run.phase_at(self.phases, step)[0]]
    return self.backend.template(phase.method.init, run.batch_spec(phase.train_data))

  def open(self, start: int) -> None:
    self.bar = tqdm(
        total=self.total, initial=start, unit="step", disable=not self.main,
        desc="compiling", dynamic_ncols=True, smoothing=0.1,
    )  # fmt: skip
    if self.main:
      self.log = run.Log(self.workdir, start)

  def close(self) -> None:
    self.bar.close()
    if self.log:
      self.log.close()

  def train(
    self,
    state: TrainState | None,
    start: int,
    steps_per_call: int,
    stopped: Callable[[], bool],
  ) -> TrainState:
    index, first = run.phase_at(self.phases, start)
    for number in range(index, len(self.phases)):
      phase = self.phases[number]
      end = first + phase.num_steps
      if state is None or start == first > 0:
        state = self.begin(phase, number, state, first)
      if start < end:
        state = self.train_phase(phase, state, start, end, steps_per_call, stopped)
      start = int(jax.device_get(self.backend.get_state(state).step))
      if start < end:
        break
      first = end
    return self.backend.get_state(state)

  def begin(
    self, phase: Phase, number: int, last: TrainState | None, step: int
  ) -> TrainState:
    key = jax.random.fold_in(self.init_key, number)
    spec = run.batch_spec(phase.train_data)
    state = self.backend.init(phase.method.init, key, spec)
    if phase.carry and last is not None:
      get = self.backend.get_state
      state = self.backend.put_state(phase.carry(get(last), get(state)))
    return state.replace(step=state.step * 0 + step)

  def train_phase(
    self,
    phase: Phase,
    state: TrainState,
    step: int,
    end: int,
    steps_per_call: int,
    stopped: Callable[[], bool],
  ) -> TrainState:
    every, backend = self.every, self.backend
    due = lambda n: step == end or (n and step % n == 0)
    train_step = backend.compile_train(phase.method.train_step)
    batches = local_rows(phase.train_data)(step)
    self.prepare(phase)
    pending, tick, since = [], time.perf_counter(), step
    while step < end:
      stops = [step + steps_per_call, end]
      stops += [n * (step // n + 1) for n in dataclasses.astuple(every) if n]
      count = min(stops) - step
      host = list(itertools.islice(batches, count))
      if len(host) < count:
        raise ValueError(f"train_data ended after step {step + len(host)}; it must not")
      state, metrics = train_step(state, backend.put_batches(host), self.train_key)
      pending.append((step + 1, metrics))
      step += count
      stop = stopped() or self.preempted(step)
      if due(every.log) or due(every.save) or stop:
        last = finite_metrics(pending)
        pending = []
        self.show(step, last)
      if due(every.log) and self.log:
        self.log.write(step, last)
        rate = (step - since) / (time.perf_counter() - tick)
        self.log.write(step, {"steps_per_sec": rate}, file="timing")
        tick, since = time.perf_counter(), step
      if due(every.eval) and self.eval_step:
        self.evaluate(step, state)
      if due(every.sample) and self.sample:
        self.write_samples(step, state)
      if due(every.save) or stop:
        self.checkpoints.save(step, backend.get_state(state))
      if stop:
        break
    return state

  def preempted(self, step: int) -> bool:
    """With several processes, whether all of them should stop at this step."""
    return jax.process_count() > 1 and self.checkpoints.manager.reached_preemption(step)

  def prepare(self, phase: Phase) -> None:
    """Compiles nothing yet; jit does at the first call."""
    method, compile_eval = phase.method, self.backend.compile_eval
    has_eval = self.eval_data is not None and method.eval_step
    self.eval_step = compile_eval(with_mask(method.eval_step)) if has_eval else None
    has_sample = self.num_samples and method.sample
    self.sample = compile_eval(method.sample) if has_sample else None
    if self.sample:
      self.sample_batch = conditioning(phase.train_data, self.num_samples)

  def show(self, step: int, metrics: Mapping[str, float]) -> None:
    self.bar.set_description("training")
    shown = {k: f"{v:.4g}" for k, v in metrics.items() if "loss" in k}
    self.bar.set_postfix(shown or dict(list(metrics.items())[:1]), refresh=False)
    self.bar.update(step - self.bar.n)

  def evaluate(self, step: int, state: TrainState) -> None:
    batches = local_epoch(self.eval_data)
    values = evaluate(
      self.eval_step, averaged(state), batches, self.eval_key, self.backend
    )
    values = finite_metrics([(step, {f"eval_{k}": v for k, v in values.items()})])
    if self.log:
      self.log.write(step, values)

  def write_samples(self, step: int, state: TrainState) -> None:
    batch, key = self.sample_batch, self.sample_key
    outputs = draw(self.sample, averaged(state), batch, key, self.backend)
    if self.main:
      path = self.workdir / "samples" / f"step_{step:08d}.png"
      for name, image in viz.save(path, outputs).items():
        self.log.events.add_image(name, image, step, dataformats="HWC")


def finite_metrics(pending: list[tuple[int, PyTree]]) -> dict[str, float]:
  """The metrics of the last of some steps, all of which must be finite.

  Args:
    pending: (first step, metrics that are scalars or have one entry per step).
  """
  for first, metrics in jax.device_get(pending):
    values = {k: np.atleast_1d(v) for k, v in metrics.items()}
    bad = {k: np.flatnonzero(~np.isfinite(v)) for k, v in values.items()}
    if bad := {k: v[0] for k, v in bad.items() if len(v)}:
      step = first + min(bad.values())
      shown = {k: float(v[min(bad.values())]) for k, v in values.items()}
      raise FloatingPointError(
        f"{', '.join(sorted(bad))} not finite at step {step}: {shown}; "
        "the checkpoints hold the last good states"
      )
  return {k: float(v[-1]) for k, v in values.items()}


def conditioning(data: Data, num: int) -> PyTree:
  """What samples are drawn for: `num` rows of the first batch, sorted by label."""
  batch = {k: np.asarray(v) for k, v in next(iter(data(0))).items()}
  rows = np.arange(num) % len(next(iter(batch.values())))
  if "label" in batch:
    rows = rows[np.argsort(batch["label"][rows], kind="stable")]
  return {k: v[rows] for k, v in batch.items()}


def draw(
  fn: Callable,
  state: TrainState,
  batch: PyTree,
  key: jax.Array,
  backend: parallel.Backend,
) -> dict[str, np.ndarray]:
  """Outputs of a compiled `sample` or tool for any number of rows.

  Args:
    fn: From `backend.compile_eval`.
    state: Averaged, as compiled steps take it.
    batch: Global host batch; the same on every process.
    key: The samples are a function of it, not of the number of devices under jit.
    backend: Where `fn` was compiled.
  """
  num = len(next(iter(batch.values())))
  padded = -(-num // backend.num_devices) * backend.num_devices
  rows = np.arange(padded) % num
  placed = backend.put_batch(_rows({k: v[rows] for k, v in batch.items()}))
  outputs = fn(state, placed, key)
  cut = lambda x: x[:num] if x.ndim and len(x) == padded else x
  return jax.tree.map(cut, jax.device_get(outputs))


def with_mask(eval_step: Callable) -> Callable:
  """`eval_step`, also returning which rows are real, as `evaluate` needs it."""
  return lambda state, batch, key: (eval_step(state, batch, key), batch["row_mask"])


def evaluate(
  eval_step: Callable,
  state: TrainState,
  batches: Iterator[Batch],
  key: jax.Array,
  backend: parallel.Backend,
) -> dict[str, float]:
  """Means of per-example metrics over the real rows of `batches`.

  Args:
    eval_step: `backend.compile_eval(with_mask(method.eval_step))`.
    state: Averaged, as compiled steps take it.
    batches: Host batches of this process; rows whose batch["row_mask"] is 0 are
      padding. Without that entry every row counts.
    key: Batch i uses `fold_in(key, i)`.
    backend: Where `eval_step` was compiled.
  """
  totals, count = {}, 0
  for i, batch in enumerate(batches):
    every_row = np.ones(len(next(iter(batch.values()))), np.float32)
    placed = backend.put_batch({"row_mask": every_row, **batch})
    values, mask = jax.device_get(eval_step(state, placed, jax.random.fold_in(key, i)))
    real = mask > 0
    for name, value in values.items():
      totals[name] = totals.get(name, 0.0) + value[real].sum(dtype=np.float64)
    count += real.sum()
  if not count:
    raise ValueError("eval_data gave no rows to evaluate")
  return {name: float(total / count) for name, total in totals.items()}


def local_rows(data: Data) -> Data:
  """`data`, cut to the rows of every global batch that this process feeds."""
  index, count = jax.process_index(), jax.process_count()
  if count == 1:
    return lambda first: iter(data(first))
  if hasattr(data, "shard"):
    return data.shard(index, count)
  return lambda first: (_rows(batch) for batch in data(first))


def local_epoch(data: Any) -> Iterator[Batch]:
  """One pass over an evaluation set, cut like `local_rows`."""
  if hasattr(data, "epoch"):
    return data.shard(jax.process_index(), jax.process_count()).epoch()
  return map(_rows, data())


def _rows(batch: PyTree) -> PyTree:
  index, count = jax.process_index(), jax.process_count()
  cut = lambda x: x[index * len(x) // count : (index + 1) * len(x) // count]
  return jax.tree.map(cut, batch)


def report(message: str) -> None:
  """Prints a line on process 0, below the progress bar."""
  if jax.process_index() == 0:
    tqdm.write(message, file=sys.stdout)
