"""Scores of runs and folders, kept with what they depend on, and compared."""

from collections.abc import Mapping, Sequence
import hashlib
import json
from pathlib import Path
import time
from typing import Any, NamedTuple

from jaxgen import data, parallel, run
from jaxgen.metrics.bootstrap import mean_interval
from jaxgen.metrics.features import (
  FeatureNetwork,
  inception_features,
  squeezenet_features,
)
from jaxgen.score import scores
from jaxgen.score.cache import classifier_network
from jaxgen.score.images import Images, drawn, of_path, of_source
from jaxgen.score.scores import Score, Task


class Ruler(NamedTuple):
  """How to measure: what the user asks for.

  Attributes:
    metrics: Rows of `scores.METRICS`.
    num_samples: How many to draw.
    features: "classifier", "squeezenet", "inception" or None.
    weights: The file of the network's weights; the classifier has none.
    reference: "train", "test", a folder, or an .npz of images.
    seed: Of samples, subsets and resamples.
    repeats: Sets of samples to draw; above 1 intervals are over them.
  """

  metrics: tuple[str, ...] = ("eval",)
  num_samples: int = 10_000
  features: str | None = None
  weights: str | None = None
  reference: str = "train"
  seed: int = 0
  repeats: int = 1


class Result(NamedTuple):
  """The scores of one run or folder.

  Attributes:
    name: The workdir or folder.
    scores: By name.
    ruler: What must be equal for two numbers to be comparable.
    provenance: What was measured: run, checkpoint, seed, versions.
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
  backend, overrides = backend or parallel.jit_backend(), dict(overrides or {})
  loaded = run.load(workdir, step, overrides)
  sets = _real_images(loaded.built, ruler)
  network = _network(ruler, sets)
  scores.check(list(ruler.metrics), network and network.name)
  drawing = any("samples" in scores.METRICS[m].needs for m in ruler.metrics)
  found = []
  for repeat in range(ruler.repeats):
    seed = ruler.seed + repeat
    samples = drawing and drawn(loaded, ruler.num_samples, seed=seed, backend=backend)
    task = Task(samples or None, *sets, network, loaded, seed, backend)
    found.append(scores.compute(task, list(ruler.metrics)))
  provenance = {
    "workdir": str(workdir),
    "step": int(loaded.state.step),
    "seed": ruler.seed,
    "sampler": _sampler(loaded, overrides),
    "versions": run.versions(),
    "time": time.strftime("%Y-%m-%d %H:%M:%S"),
  }
  name = " ".join([str(workdir), *(f"{k}={v}" for k, v in overrides.items())])
  result = Result(
    name, _over_repeats(found), _fingerprint(ruler, network, sets), provenance
  )
  _append(Path(workdir) / "results.json", result)
  return result


def evaluate_path(
  path: str | Path, ruler: Ruler, *, backend: parallel.Backend | None = None
) -> Result:
  """Scores the images of a folder or .npz, of whatever project."""
  backend = backend or parallel.jit_backend()
  samples = of_path(path)
  if ruler.reference in ("train", "test"):
    raise ValueError(
      f"reference {ruler.reference!r} belongs to a run; for --samples={path} pass "
      "--reference=FOLDER or a file in .npz"
    )
  reference = of_path(ruler.reference)
  sets = (reference, reference, None)
  network = _network(ruler, sets)
  scores.check(list(ruler.metrics), network and network.name)
  task = Task(samples, reference, None, None, network, None, ruler.seed, backend)
  ruler = ruler._replace(num_samples=samples.count)
  found = scores.compute(task, list(ruler.metrics))
  provenance = {
    "samples": samples.digest(),
    "seed": ruler.seed,
    "versions": run.versions(),
    "time": time.strftime("%Y-%m-%d %H:%M:%S"),
  }
  return Result(str(path), found, _fingerprint(ruler, network, sets), provenance)


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


def _network(ruler: Ruler, sets: Sets) -> FeatureNetwork | None:
  _, train, test = sets
  if ruler.features is None:
    return None
  if ruler.features == "classifier":
    if train is None:
      raise ValueError("--features=classifier needs training images with labels")
    return classifier_network(train, test)
  makers = {"squeezenet": squeezenet_features, "inception": inception_features}
  if ruler.features not in makers:
    have = ["classifier", *makers]
    raise ValueError(f"no features {ruler.features!r}; there are {have}")
  if ruler.weights is None:
    raise ValueError(
      f"--features={ruler.features} needs --weights=FILE; no weights are downloaded "
      "(see the README for the file)"
    )
  return makers[ruler.features](ruler.weights)


def _fingerprint(
  ruler: Ruler, network: FeatureNetwork | None, sets: Sets
) -> dict[str, Any]:
  reference = sets[0]
  return {
    "num_samples": ruler.num_samples,
    "repeats": ruler.repeats,
    "features": network and network.fingerprint,
    "resize": network and network.resize,
    "reference": reference and f"{reference.count} images {reference.digest()}",
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
    interval = mean_interval(values)
    how = f"t over {len(values)} sets of samples"
    means[name] = Score(sum(values) / len(values), interval, how)
  return means


def _append(path: Path, result: Result) -> None:
  results = json.loads(path.read_text()) if path.exists() else []
  results.append(to_json(result))
  run.write_text(path, json.dumps(results, indent=1))


def to_json(result: Result) -> dict[str, Any]:
  """A result as plain lists, numbers and strings."""
  plain = {name: score._asdict() for name, score in result.scores.items()}
  return {**result._asdict(), "scores": plain}


def table(results: Sequence[Result]) -> str:
  """Results side by side, one metric a row, with intervals.

  Several runs of one experiment and config also have the mean over them.
  """
  names = list(dict.fromkeys(n for r in results for n in r.scores))
  width = max(map(len, names))
  lines = []
  for result in results:
    step = (
      f" at step {result.provenance['step']}" if "step" in result.provenance else ""
    )
    lines.append(f"{result.name}{step}")
    for name, score in result.scores.items():
      lines.append(f"  {name:{width}}  {_shown(score)}")
  if len(results) > 1:
    lines += ["", *_comparison(results, names, width)]
  lines += ["", *(f"{k}: {v}" for k, v in results[0].ruler.items() if v is not None)]
  return "\n".join(lines)


def markdown(results: Sequence[Result], command: str) -> str:
  """Results as a Markdown table, one a row; what is equal in all stands below it.

  Columns are the run, the entries given for its config, then the scores.

  Args:
    results: Of one ruler.
    command: That makes the table.

  Raises:
    ValueError: The rulers differ; `table` says in what.
  """
  if any(result.ruler != results[0].ruler for result in results):
    raise ValueError("the rulers of these results differ: no table can hold them")
  rows = []
  for result in results:
    changed = result.provenance.get("sampler", {}).get("overrides", {})
    named = {"run": result.provenance.get("workdir", result.name), **changed}
    shown = {k: _cell(score) for k, score in result.scores.items()}
    rows.append({**{k: str(v) for k, v in named.items()}, **shown})
  names = list(dict.fromkeys(name for row in rows for name in row))
  same = [n for n in names if len(rows) > 1 and len({r.get(n) for r in rows}) == 1]
  names = [name for name in names if name not in same]
  lines = [names, ["---"] * len(names), *([r.get(n, "") for n in names] for r in rows)]
  first = results[0]
  below = {n: rows[0][n] for n in same} | {k: v for k, v in first.ruler.items() if v}
  versions = first.provenance["versions"]
  below |= {"hardware": f"{versions['devices']}; {versions['host']}"}
  below |= {"jax": versions["jax"], "date": first.provenance["time"][:10]}
  written = [f"| {' | '.join(line)} |" for line in lines]
  listed = [f"- {name}: {value}" for name, value in below.items()]
  return "\n".join([f"    {command}", "", *written, "", *listed, ""])


def _cell(score: Score) -> str:
  text = f"{score.value:.4g}"
  if score.interval is not None:
    text += f" [{score.interval[0]:.4g}, {score.interval[1]:.4g}]"
  return text


def _shown(score: Score) -> str:
  if score.interval is None:
    return f"{score.value:.5g}"
  low, high = score.interval
  return f"{score.value:.5g}  [{low:.5g}, {high:.5g}]  ({score.how})"


def _comparison(results: Sequence[Result], names: list[str], width: int) -> list[str]:
  """A ranking where the rulers are equal, else in what they differ."""
  first, lines = results[0], []
  differ = sorted({k for r in results for k in r.ruler if r.ruler[k] != first.ruler[k]})
  if differ:
    lines.append("not comparable, and not ranked; the rulers differ:")
    for key in differ:
      lines += [f"  {key}: {r.ruler[key]} ({r.name})" for r in results]
    return lines
  same = len({json.dumps(r.provenance.get("sampler")) for r in results}) == 1
  for name in names:
    values = [(r.scores[name].value, r.name) for r in results if name in r.scores]
    order = sorted(values, reverse=name in HIGHER)
    lines.append(f"{name:{width}}  " + ", ".join(f"{n} {v:.5g}" for v, n in order))
    if same and len(values) > 1:
      low, high = mean_interval([v for v, _ in values])
      mean = sum(v for v, _ in values) / len(values)
      lines[-1] += f"; mean of runs {mean:.5g} [{low:.5g}, {high:.5g}]"
  return ["from best to worst, by value alone:", *lines]


HIGHER = {  # metrics of which more is better
  *("precision", "recall", "density", "coverage", "confidence", "label_entropy"),
  *("classes", "label_accuracy", "class_score", "is", "cas", "modes", "elbo"),
}
