"""Where the time of a run goes: the compiled step, the data, the loop, the saves."""

from collections.abc import Callable, Mapping
import json
from pathlib import Path
import tempfile
import time
from typing import Any

import jax
import numpy as np

from jaxgen import data, evaluate, parallel, run, train
from jaxgen.checkpoint import Checkpoints
from jaxgen.data.source import zeros
from jaxgen.method import averaged


def dry_run(built: Mapping[str, Any], backend: parallel.Backend) -> str:
  """Compiles one step and runs it on synthetic data; says what it needs."""
  method, spec = built["method"], run.batch_spec(built["train_data"])
  train.check_batch(spec, backend)
  state = backend.init(method.init, jax.random.key(0), spec)
  batch = backend.put_batch(next(data.synthetic(spec)(0)))
  step, seconds, cost = compile_step(method, backend, state, batch)
  tick = time.perf_counter()
  state, metrics = step(state, batch, jax.random.key(0))
  values = train.finite_metrics([(1, metrics)])
  lines = [
    f"compiled in {seconds:.1f} s; {time.perf_counter() - tick:.3f} s for a step"
  ]
  lines += [f"{name}: {value}" for name, value in cost.items()]
  lines += [f"{name}: {value:.4g}" for name, value in values.items()]
  return "\n".join(lines)


def compile_step(
  method: Any, backend: parallel.Backend, state: Any, batch: Any
) -> tuple[Callable, float, dict[str, str]]:
  """(train step, seconds it took to compile, its FLOPs and bytes by the compiler)."""
  tick = time.perf_counter()
  step = backend.compile_train(method.train_step)
  compiled = step.lower(state, batch, jax.random.key(0)).compile()
  seconds = time.perf_counter() - tick
  cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
  found = {"FLOPs per step and device": f"{cost.get('flops', float('nan')):.4g}"}
  if memory:
    needs = memory.argument_size_in_bytes + memory.output_size_in_bytes
    needs += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    found["peak memory per device"] = f"{needs / 2**20:.1f} MiB"
  return step, seconds, found


def bench(
  built: Mapping[str, Any], backend: parallel.Backend, num_steps: int, seed: int = 0
) -> str:
  """Measures, in one run, the bare step, the step with data, and the loop of `fit`.

  Two rounds of the first two stand before the loop and two after it; medians count,
  since machines are noisy.
  """
  method, source = built["method"], built["train_data"]
  train.check_data(source, backend)
  spec, key = run.batch_spec(source), jax.random.key(seed)
  state = backend.init(method.init, key, spec)
  batches = evaluate.local_rows(source)(0)
  placed = backend.put_batch(next(batches))
  step, compile_seconds, cost = compile_step(method, backend, state, placed)

  def bare() -> float:
    nonlocal state
    tick = time.perf_counter()
    for _ in range(num_steps):
      state, metrics = step(state, placed, key)
    jax.block_until_ready((state, metrics))
    return (time.perf_counter() - tick) / num_steps

  waited = []

  def with_data() -> float:
    nonlocal state
    tick, wait = time.perf_counter(), 0.0
    for _ in range(num_steps):
      before = time.perf_counter()
      batch = next(batches)
      wait += time.perf_counter() - before
      state, metrics = step(state, backend.put_batch(batch), key)
    jax.block_until_ready((state, metrics))
    total = time.perf_counter() - tick
    waited.append(wait / total)
    return total / num_steps

  def loop() -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
      train.fit(
        method,
        source,
        workdir=folder,
        num_steps=4 * num_steps,
        seed=seed,
        every=train.Every(log=num_steps, save=0),
        backend=backend,
        num_samples=0,
      )
      lines = Path(folder, "timing.jsonl").read_text().splitlines()
    # The first compiles, the last saves.
    return [1.0 / json.loads(line)["steps_per_sec"] for line in lines[1:]]

  bare(), with_data()  # Warm up.
  rounds = [(bare(), with_data()) for _ in range(2)]
  in_fit = loop()
  rounds += [(bare(), with_data()) for _ in range(2)]
  (step_s, data_s), loop_s = np.median(rounds, axis=0), np.median(in_fit)
  overhead = loop_s / data_s - 1.0
  images = len(next(iter(spec.values())))
  one_step = lambda state: step(state, placed, key)[0]
  blocked, slower, total = 1e3 * np.array(save_times(one_step, state, backend))
  lines = [f"{num_steps} steps a round, medians of {len(rounds)} and {len(in_fit)}"]
  for name, seconds in (("step", step_s), ("step + data", data_s), ("fit", loop_s)):
    rate, per_sec = 1 / seconds, images / seconds
    lines.append(
      f"{name:12} {1e3 * seconds:9.3f} ms {rate:10.2f} steps/s {per_sec:12.1f} images/s"
    )
  lines.append(f"waited for data: {100 * float(np.median(waited)):.2f} % of the time")
  lines.append(f"overhead of the loop: {100 * overhead:.2f} %")
  lines.append(f"compile time: {compile_seconds:.2f} s")
  lines += [f"{name}: {value}" for name, value in cost.items()]
  lines.append(
    f"save: {total:.0f} ms, of which the loop waits {blocked:.1f} ms "
    f"({100 * blocked / total:.1f} %); the step after it takes {slower:.1f} ms longer "
    f"(together {100 * (blocked + slower) / total:.1f} %)"
  )
  return "\n".join(lines)


def bench_sample(
  built: Mapping[str, Any],
  backend: parallel.Backend,
  num: int = 8,
  seed: int = 0,
  rounds: int = 3,
) -> str:
  """Measures `sample` against the same draws with everything computed anew.

  Autoregressive methods keep what earlier positions gave (a cache, a state). Their tool
  "sample_uncached" keeps nothing: one whole forward pass for each position, the same
  keys, so the same "samples". Both are timed in turns, with untrained parameters and
  random conditioning, each call until its results are there.

  Args:
    built: What `build(config)` returned.
    backend: Where to compile.
    num: How many samples to draw at once.
    seed: Of parameters, conditioning and samples.
    rounds: Timed calls of each; medians count.

  Raises:
    ValueError: The method has no "sample_uncached".
  """
  method, spec = built["method"], run.batch_spec(built["train_data"])
  uncached = method.tools.get("sample_uncached")
  if uncached is None or method.sample is None:
    raise ValueError(
      f"the method has no tool 'sample_uncached' to compare its sample with, only "
      f"{sorted(method.tools)}"
    )
  key = jax.random.key(seed)
  state = averaged(backend.init(method.init, key, spec))
  rows = {k: zeros((num, *a.shape[1:]), a.dtype) for k, a in spec.items()}
  batch = next(data.synthetic(rows, seed)(0))
  fns = {"sample": method.sample, "sample_uncached": uncached}
  compiled = {name: backend.compile_eval(fn) for name, fn in fns.items()}
  found, times = {}, {name: [] for name in fns}
  for _ in range(rounds + 1):  # The first compiles.
    for name, fn in compiled.items():
      tick = time.perf_counter()
      found[name] = evaluate.draw(fn, state, batch, key, backend)["samples"]
      times[name].append(time.perf_counter() - tick)
  seconds = {name: float(np.median(calls[1:])) for name, calls in times.items()}
  lines = [f"{num} samples at once, medians of {rounds} calls"]
  for name, median in seconds.items():
    rate, first = num / median, times[name][0]
    lines.append(
      f"{name:16} {median:9.3f} s {rate:10.2f} samples/s, first call {first:.1f} s"
    )
  lines.append(f"speed-up: {seconds['sample_uncached'] / seconds['sample']:.1f}x")
  same = np.isclose(found["sample"], found["sample_uncached"], atol=1e-4).mean()
  lines.append(f"equal values: {100 * same:.2f} %")
  return "\n".join(lines)


def save_times(
  step: Callable, state: Any, backend: parallel.Backend, repeats: int = 5
) -> tuple[float, float, float]:
  """What saving costs the loop, in seconds, medians.

  Args:
    step: state -> the next state; donates its argument.
    state: The first.
    backend: Of both.

  Returns:
    (how long `save` blocks, how much longer the next step takes than one without a
    save: on a CPU it copies what is still being read; until a checkpoint is on disk).
  """

  def seconds(run: Callable) -> tuple[float, Any]:
    tick = time.perf_counter()
    out = jax.block_until_ready(run())
    return time.perf_counter() - tick, out

  times = []
  with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder)) as saves:
    for count in range(1, repeats + 2):
      usual, state = seconds(lambda: step(state))  # noqa: B023
      blocked, _ = seconds(lambda: saves.save(count, backend.get_state(state)))  # noqa: B023
      after, state = seconds(lambda: step(state))  # noqa: B023
      rest, _ = seconds(saves.wait)
      times.append((blocked, max(after - usual, 0.0), blocked + after + rest))
  return tuple(np.median(times[1:], axis=0))  # The first warms up.
