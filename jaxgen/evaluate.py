"""What a trained state gives: samples, outputs of tools, means over a data set.

`sample` and `evaluate_run` work on a whole run, as `jaxgen.load` returns it; the rest
are the steps that `fit` shares with them.
"""

from collections.abc import Callable, Iterator, Set
import sys
from typing import Any
import warnings

import jax
import numpy as np
from tqdm import tqdm

from jaxgen import parallel, run
from jaxgen.method import Batch, PyTree, TrainState, averaged
from jaxgen.run import Run, batch_spec

Data = Callable[[int], Iterator[Batch]]


def progress(
  total: int | None, title: str, unit: str = "image", **options: Any
) -> tqdm:
  """A bar of tqdm, that writes little where nobody looks; of process 0 only."""
  interval = 0.1 if sys.stderr.isatty() else 10
  options = {"disable": jax.process_index() > 0, "mininterval": interval, **options}
  return tqdm(total=total, desc=title, unit=unit, **options)


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
) -> dict[str, tuple[float, float]]:
  """(mean, its standard error) of per-example metrics over the real rows of `batches`.

  A bar counts them where that takes more than five seconds.

  Args:
    eval_step: `backend.compile_eval(with_mask(method.eval_step))`.
    state: Averaged, as compiled steps take it.
    batches: Host batches of this process; rows whose batch["row_mask"] is 0 are
      padding. Without that entry every row counts.
    key: Batch i uses `fold_in(key, i)`.
    backend: Where `eval_step` was compiled.
  """
  totals, squares, count = {}, {}, 0
  with progress(None, "evaluating", "example", delay=5, leave=False) as bar:
    for i, batch in enumerate(batches):
      every_row = np.ones(len(next(iter(batch.values()))), np.float32)
      placed = backend.put_batch({"row_mask": every_row, **batch})
      found = eval_step(state, placed, jax.random.fold_in(key, i))
      values, mask = jax.device_get(found)
      real = mask > 0
      for name, value in values.items():
        rows = value[real].astype(np.float64)
        totals[name] = totals.get(name, 0.0) + rows.sum()
        squares[name] = squares.get(name, 0.0) + (rows**2).sum()
      count += real.sum()
      bar.update(int(real.sum()))
  if not count:
    raise ValueError("eval_data gave no rows to evaluate")
  results = {}
  for name, total in totals.items():
    mean = total / count
    variance = max(squares[name] / count - mean**2, 0.0)
    results[name] = float(mean), float(np.sqrt(variance / count))
  return results


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


def sample(
  loaded: Run,
  num: int,
  *,
  mode: str = "sample",
  label: int | None = None,
  given: Batch | None = None,
  seed: int = 0,
  backend: parallel.Backend | None = None,
) -> dict[str, np.ndarray]:
  """Draws from a run with its averaged parameters, or applies a tool.

  Args:
    loaded: From `jaxgen.load`.
    num: How many rows of the run's stored conditioning to use.
    mode: "sample" or the name of one of the method's tools.
    label: One class for all of them, or -1 for none, which methods know that were
      trained with some labels dropped; default the stored or given labels.
    given: Entries of the batch in place of stored ones, and further ones that a tool
      takes, such as "image" and "mask"; each has `num` rows. It warns of those that
      the mode does not read, and of images whose labels are not known.
    seed: The outputs are a function of it.
    backend: Default jit over all devices.
  """
  backend = backend or parallel.jit_backend()
  modes = {"sample": loaded.method.sample, **loaded.method.tools}
  if not modes.get(mode):
    have = sorted(name for name, fn in modes.items() if fn)
    raise ValueError(f"the run has no mode {mode!r}, only {have}")
  spec = batch_spec(loaded.phase.train_data)
  if label is not None and "label" not in spec:
    raise ValueError(f"label {label}: the batches have no label, only {sorted(spec)}")
  given = given or {}
  batch = run.conditioning(loaded.workdir, num) | given
  if label is not None:
    if label != -1:
      _warn_of_label(label, loaded)
    batch["label"] = np.full_like(batch["label"], label)
  elif "image" in given and "label" in batch.keys() - given.keys():
    warnings.warn(
      f"the labels of the images given are not known, and taken to be those stored, "
      f"{', '.join(map(str, batch['label'][:8]))} ...: pass --label=N, or --label=-1 "
      "for none where the method was trained with some dropped",
      stacklevel=2,
    )
  if unread := _unread(modes[mode], loaded.state, batch, given.keys()):
    warnings.warn(f"{mode} does not read what is given as {unread}", stacklevel=2)
  state = backend.put_state(averaged(loaded.state))
  fn = backend.compile_eval(modes[mode])
  return draw(fn, state, batch, jax.random.key(seed), backend)


def _warn_of_label(label: int, loaded: Run) -> None:
  """Warns of one outside of those stored: how many the data have is not recorded."""
  stored = np.unique(run.conditioning(loaded.workdir, None)["label"])
  if not 0 <= label <= stored.max():
    known = f"label {label} is not among those stored, 0..{stored.max()}"
    warnings.warn(f"{known}; a class that is none gives no image", stacklevel=3)


def _unread(
  fn: Callable, state: TrainState, batch: Batch, names: Set[str]
) -> list[str]:
  """Those entries of `names` that a tool reads nothing of but the shape."""
  if not names:
    return []
  spec, key = jax.eval_shape(parallel.as_float, batch), jax.random.key(0)
  traced = jax.make_jaxpr(lambda batch: fn(state, batch, key))(spec).jaxpr
  read = {id(x) for equation in traced.eqns for x in equation.invars}
  read |= {id(x) for x in traced.outvars}
  entries = zip(sorted(spec), traced.invars, strict=True)
  return [name for name, x in entries if name in names and id(x) not in read]


def evaluate_run(
  loaded: Run, *, seed: int = 0, backend: parallel.Backend | None = None
) -> dict[str, tuple[float, float]]:
  """(mean, standard error) of the method's own metrics over its evaluation set.

  With the run's own seed, the numbers that it logged.
  """
  backend, data = backend or parallel.jit_backend(), loaded.built.get("eval_data")
  if not loaded.method.eval_step or data is None:
    raise ValueError(f"{loaded.workdir}: its method or experiment has no evaluation")
  fn = backend.compile_eval(with_mask(loaded.method.eval_step))
  state = backend.put_state(averaged(loaded.state))
  key = run.keys(seed).evaluation
  return evaluate(fn, state, local_epoch(data), key, backend)
