"""The experiment runner: one loop for every method."""

from collections.abc import Callable, Sequence
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
from jaxgen.evaluate import (
  Data,
  conditioning,
  draw,
  evaluate,
  local_epoch,
  local_rows,
  with_mask,
)
from jaxgen.log import Log
from jaxgen.method import Method, PyTree, TrainState, averaged
from jaxgen.run import Phase

AHEAD = 1.0  # Seconds of work that may wait on the device, and a signal for it.


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
      batch["row_mask"] == 0 are padding and do not count.
    num_samples: How many samples to draw each time; 0 draws none.
    steps_per_call: Steps in one compiled call, for models so small that dispatch
      bounds them. Changes no result and no logging step. Only where `backend.loop`.
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
  workdir, backend = Path(workdir), backend or parallel.jit_backend()
  phases = [Phase(method, train_data, num_steps), *then]
  for phase in phases:
    check_data(phase.train_data, backend)
  if eval_data is not None:
    check_data(eval_data, backend, training=False)

  def template(step: int) -> TrainState:
    phase = phases[run.phase_at(phases, step)[0]]
    return backend.template(phase.method.init, run.batch_spec(phase.train_data))

  with (
    run.lock(workdir),
    run.stop_signal() as stopped,
    Checkpoints(workdir) as checkpoints,
  ):
    state = checkpoints.restore(template)
    start = 0 if state is None else int(state.step)
    if jax.process_index() == 0:
      on_start()
    total = sum(phase.num_steps for phase in phases)
    with Log(workdir, start, total) as log:
      loop = _Loop(
        workdir, backend, every, eval_data, num_samples, steps_per_call,
        run.keys(seed), checkpoints, log, parallel.in_any_process(stopped),
      )  # fmt: skip
      return loop.train(phases, state and backend.put_state(state), start)


def check_data(data: Any, backend: parallel.Backend, training: bool = True) -> None:
  """Raises the errors of bad data before training starts."""
  if hasattr(data, "check"):
    data.check(training=training)
  if training or hasattr(data, "spec"):  # Else nothing is known of the batches.
    check_batch(run.batch_spec(data), backend)


def check_batch(spec: PyTree, backend: parallel.Backend) -> None:
  """Raises unless the devices can share a batch of these shapes."""
  sizes = {len(x) for x in jax.tree.leaves(spec)}
  if len(sizes) != 1 or next(iter(sizes)) % backend.num_devices:
    raise ValueError(
      f"batch size {sorted(sizes)} must be one number that the "
      f"{backend.num_devices} devices divide"
    )


@dataclasses.dataclass
class _Loop:
  """What one call of `fit` works with, apart from the state."""

  workdir: Path
  backend: parallel.Backend
  every: Every
  eval_data: Any
  num_samples: int
  steps_per_call: int
  keys: run.Keys
  checkpoints: Checkpoints
  log: Log
  stopped: Callable[[], bool]

  def train(
    self, phases: list[Phase], state: TrainState | None, step: int
  ) -> TrainState:
    """From `step` (whose phase `state` fits, unless it is None) to the end."""
    index, first = run.phase_at(phases, step)
    for number, phase in enumerate(phases[index:], index):
      if state is None or step == first > 0:
        state = self.begin(phase, number, state, step)
      end = first + phase.num_steps
      if step < end:
        step, state = self.train_phase(phase, state, step, end)
      if step < end:  # Stopped by a signal.
        break
      first = end
    return self.backend.get_state(state)

  def begin(
    self, phase: Phase, number: int, last: TrainState | None, step: int
  ) -> TrainState:
    """The first state of a phase."""
    key = jax.random.fold_in(self.keys.init, number)
    spec = run.batch_spec(phase.train_data)
    state = self.backend.init(phase.method.init, key, spec)
    if phase.carry and last is not None:
      get = self.backend.get_state
      state = self.backend.put_state(phase.carry(get(last), get(state)))
    return state.replace(step=state.step * 0 + step)

  def train_phase(
    self, phase: Phase, state: TrainState, step: int, end: int
  ) -> tuple[int, TrainState]:
    """(last step, its state): `end`, or where a signal stopped it."""
    every, backend = self.every, self.backend
    due = lambda n: step == end or (n and step % n == 0)
    if backend.loop:
      train_step = backend.compile_loop(phase.method.train_step)
      put, at_once = backend.put_batches, self.steps_per_call
    else:
      train_step = backend.compile_train(phase.method.train_step)
      put, at_once = lambda batches: backend.put_batch(*batches), 1
    batches = local_rows(phase.train_data)(step)
    evaluate_state, sample_state = self.evaluator(phase), self.sampler(phase)
    pending, tick, since, stop = [], time.perf_counter(), step, False
    calls, ahead = 0, 1
    while step < end and not stop:
      stops = [n * (step // n + 1) for n in dataclasses.astuple(every) if n]
      count = min(step + at_once, end, *stops) - step
      before = time.perf_counter()
      host = list(itertools.islice(batches, count))
      if len(host) < count:
        raise ValueError(f"train_data ended after step {step + len(host)}; it must not")
      state, metrics = train_step(state, put(host), self.keys.steps)
      pending.append((step + 1, metrics))
      step, calls = step + count, calls + 1
      if calls <= 2:  # The second compiles nothing and tells how long one takes.
        jax.block_until_ready(metrics)
        ahead = 1 + int(AHEAD / (time.perf_counter() - before))
      elif len(pending) > ahead:
        jax.block_until_ready(pending[-ahead - 1])
      self.log.move(step)
      stop = self.stopped()
      if due(every.log) or due(every.save) or stop:
        last = finite_metrics(pending)
        pending = []
        self.log.show(step, last)
      if due(every.log):
        self.log.write(step, last)
        rate = (step - since) / (time.perf_counter() - tick)
        self.log.write(step, {"steps_per_sec": rate}, file="timing")
        tick, since = time.perf_counter(), step
      if due(every.eval):
        evaluate_state(step, state)
      if due(every.sample):
        sample_state(step, state)
      if due(every.save) or stop:
        self.checkpoints.save(step, backend.get_state(state))
    return step, state

  def evaluator(self, phase: Phase) -> Callable[[int, TrainState], None]:
    if self.eval_data is None or phase.method.eval_step is None:
      return lambda step, state: None
    fn = self.backend.compile_eval(with_mask(phase.method.eval_step))

    def write(step: int, state: TrainState) -> None:
      batches = local_epoch(self.eval_data)
      values = evaluate(
        fn, averaged(state), batches, self.keys.evaluation, self.backend
      )
      values = {f"eval_{name}": mean for name, (mean, _) in values.items()}
      self.log.write(step, finite_metrics([(step, values)]))

    return write

  def sampler(self, phase: Phase) -> Callable[[int, TrainState], None]:
    if not self.num_samples or phase.method.sample is None:
      return lambda step, state: None
    fn = self.backend.compile_eval(phase.method.sample)
    batch = conditioning(phase.train_data, self.num_samples)
    decode = getattr(phase.train_data, "decode", None)
    if jax.process_index() == 0:
      np.savez(self.workdir / "conditioning.npz", **batch)

    def write(step: int, state: TrainState) -> None:
      outputs = draw(fn, averaged(state), batch, self.keys.samples, self.backend)
      if jax.process_index() == 0:
        name = f"step_{step:08d}{viz.suffix(outputs, decode)}"
        grids = viz.save(self.workdir / "samples" / name, outputs, decode)
        self.log.images(step, grids)
        if name.endswith(".txt"):
          self.log.text(step, decode(outputs["samples"]))

    return write


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


def report(message: str) -> None:
  """Prints a line on process 0, below the progress bar."""
  if jax.process_index() == 0:
    tqdm.write(message, file=sys.stdout)
