"""Scores of runs and folders, kept with what they depend on, and compared."""

from collections.abc import Mapping, Sequence
import functools
import hashlib
import json
from pathlib import Path
import resource
import sys
import time
from typing import Any, NamedTuple

import jax

from jaxgen import data, parallel, run
from jaxgen.metrics.bootstrap import mean_interval
from jaxgen.metrics.features import FeatureNetwork
from jaxgen.score import scores
from jaxgen.score.images import Images, digest_of, drawn, of_files, of_path, of_source
from jaxgen.score.networks import network_of
from jaxgen.score.task import Ruler, Score, Task


class Result(NamedTuple):
  """The scores of one run or folder.

  Attributes:
    name: The workdir or folder.
    scores: By name.
    ruler: What must be equal for two numbers to be comparable.
    provenance: What was measured (run, checkpoint, seed, hashes of the samples), by
      what (versions), how long it took and the most memory it held.
  """

  name: str
  scores: dict[str, Score]
  ruler: dict[str, Any]
  provenance: dict[str, Any]


def evaluate_workdir(
  workdir: str | Path,
  ruler: Ruler,
  *,
  step: int | None = None,
  overrides: Mapping[str, Any] | None = None,
  backend: parallel.Backend | None = None,
) -> Result:
  """Scores a run and appends the result to its results.json.

  Args:
    workdir: Of the run.
    ruler: How to measure.
    step: Which checkpoint; default the newest.
    overrides: Other entries of the config, as `run.load` takes them.
    backend: Default jit over all devices.
  """
  if ruler.train or ruler.test:
    raise ValueError("--train and --test go with --samples; a run has its own")
  start = time.monotonic()
  backend, overrides = backend or parallel.jit_backend(), dict(overrides or {})
  loaded = run.load(workdir, step, overrides)
  sets = _real_images(loaded.built, ruler)
  network = network_of(ruler, *sets[1:])
  scores.check(list(ruler.metrics), network and network.name)
  drawing = any("samples" in scores.METRICS[m].needs for m in ruler.metrics)
  found, digests = [], []
  for repeat in range(ruler.repeats):
    seed = ruler.seed + repeat
    samples = drawing and drawn(loaded, ruler.num_samples, seed=seed, backend=backend)
    task = Task(samples or None, *sets, network, loaded, seed, backend, ruler)
    found.append(scores.compute(task, list(ruler.metrics)))
    digests += [samples.digest()] if drawing else []
  kept = _fingerprint(ruler, network, sets, loaded)
  provenance = {
    "workdir": str(workdir),
    "step": int(loaded.state.step),
    "seed": ruler.seed,
    "sampler": _sampler(loaded, overrides),
    "config": json.loads(loaded.config.to_json()),
    "samples": digests,
    **_circumstances(start),
  }
  name = " ".join([str(workdir), *(f"{k}={v}" for k, v in overrides.items())])
  result = Result(name, _over_repeats(found), kept, provenance)
  _append(Path(workdir) / "results.json", result)
  return result


def evaluate_path(
  path: str | Path, ruler: Ruler, *, backend: parallel.Backend | None = None
) -> Result:
  """Scores the images of a folder or .npz, of whatever project.

  Args:
    path: Of the images.
    ruler: How to measure. Its reference may be "train" or "test" if it names those.
    backend: Default jit over all devices.
  """
  start, backend = time.monotonic(), backend or parallel.jit_backend()
  if ruler.repeats > 1:
    raise ValueError(
      f"--repeats={ruler.repeats} draws sets of samples; these samples are given"
    )
  places = {"train": ruler.train, "test": ruler.test}
  places["reference"] = places.get(ruler.reference, ruler.reference)
  used = [name for name in ruler.metrics if name in scores.METRICS]
  for name in used:
    _check_given(name, places, path)
  given = [path, *filter(None, places.values())]
  by_file = all(scores.METRICS[name].pairs for name in used)
  by_file = by_file and all(Path(p).is_dir() for p in given)
  read = functools.cache(of_files if by_file else of_path)  # Once where two are one.
  samples = read(path)
  reference, train, test = (
    places[name] and read(places[name]) for name in ("reference", "train", "test")
  )
  network = network_of(ruler, train or reference, test)
  scores.check(list(ruler.metrics), network and network.name)
  ruler = ruler._replace(num_samples=samples.count)
  sets = (reference, train, test)
  task = Task(samples, *sets, network, None, ruler.seed, backend, ruler)
  found = scores.compute(task, list(ruler.metrics))
  kept = _fingerprint(ruler, network, sets)
  provenance = {
    "samples": [samples.digest()],
    "seed": ruler.seed,
    **_circumstances(start),
  }
  return Result(str(path), found, kept, provenance)


def _check_given(name: str, places: Mapping[str, str | None], path: str | Path) -> None:
  """Raises if images that a metric needs were not given."""
  needs = scores.METRICS[name].needs
  if "loaded" in needs:
    raise ValueError(f"{name} belongs to a run: pass a workdir for --samples={path}")
  if missing := [need for need in needs if need in places and not places[need]]:
    flags = " and ".join(f"--{need}=FOLDER" for need in missing)
    raise ValueError(f"{name} of --samples={path} needs {flags}, or files in .npz")


Sets = tuple[Images | None, Images | None, Images | None]


def _real_images(built: dict[str, Any], ruler: Ruler) -> Sets:
  """(reference, train, test) of an experiment; only sources of images have them."""
  source = lambda name: (
    isinstance(built.get(name), data.Source) and "image" in built[name].spec
  )
  train = of_source(built["train_data"], "train") if source("train_data") else None
  test = of_source(built["eval_data"], "test") if source("eval_data") else None
  if ruler.reference in ("train", "test"):
    return (train if ruler.reference == "train" else test), train, test
  return of_path(ruler.reference), train, test


def _fingerprint(
  ruler: Ruler,
  network: FeatureNetwork | None,
  sets: Sets,
  loaded: run.Run | None = None,
) -> dict[str, Any]:
  reference, train, test = sets
  needs = {need for name in ruler.metrics for need in scores.METRICS[name].needs}
  evaluated_on = test.digest() if test and "test" in needs else None
  eval_data = loaded and loaded.built.get("eval_data")
  if isinstance(eval_data, data.Source) and needs & {"loaded", "test"}:
    evaluated_on = digest_of(eval_data)
  told = {
    name: scores.METRICS[name].settings(ruler, reference) for name in ruler.metrics
  }
  if loaded:
    own = {name: scores.METRICS[name].tool_settings(loaded.method) for name in told}
    told = {name: own[name] or text for name, text in told.items()}
  return {
    "num_samples": ruler.num_samples,
    "repeats": ruler.repeats,
    "features": network and network.fingerprint,
    "resize": network and network.resize,
    "reference": reference and f"{reference.count} images {reference.digest()}",
    "trained_on": train.digest() if train and "train" in needs else None,
    "evaluated_on": evaluated_on,
    "settings": "; ".join(f"{k}: {v}" for k, v in told.items() if v) or None,
  }


def _circumstances(start: float) -> dict[str, Any]:
  """Versions, the time, what it took; the most memory is of the process until now."""
  kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  devices = [device.memory_stats() for device in jax.local_devices()]
  return {
    "versions": run.versions(),
    "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    "seconds": round(time.monotonic() - start, 1),
    "peak_host_bytes": kibibytes * (1 if sys.platform == "darwin" else 1024),
    "peak_device_bytes": [stats and stats["peak_bytes_in_use"] for stats in devices],
  }


def _sampler(loaded: run.Run, overrides: dict[str, Any]) -> dict[str, Any]:
  """What decides how samples are drawn: the experiment and its config."""
  files = ("experiment.py", "config.json")
  digest = lambda name: hashlib.sha256((loaded.workdir / name).read_bytes())
  found = {name: digest(name).hexdigest()[:16] for name in files}
  return {**found, "overrides": overrides}


def _over_repeats(found: Sequence[dict[str, Score]]) -> dict[str, Score]:
  if len(found) == 1:
    return found[0]
  means = {}
  for name in found[0]:
    values = [f[name].value for f in found]
    if len(set(values)) == 1:  # Of the reference alone, say: they bound nothing.
      means[name] = found[0][name]
      continue
    how = f"t over {len(values)} sets of samples"
    means[name] = Score(sum(values) / len(values), mean_interval(values), how)
  return means


def _append(path: Path, result: Result) -> None:
  results = json.loads(path.read_text()) if path.exists() else []
  results.append(to_json(result))
  run.write_text(path, json.dumps(results, indent=1))


def to_json(result: Result) -> dict[str, Any]:
  """A result as plain lists, numbers and strings."""
  plain = {name: score._asdict() for name, score in result.scores.items()}
  return {**result._asdict(), "scores": plain}
