"""`jaxgen reproduce`: train, score, and write the number down with all it depends on.

An experiment's docstring says what is measured, in one line:

  Measure: fid (published 3.17) --features=inception --num_samples=50000

The first word is the score that counts; flags are those of `jaxgen evaluate`, where
--weights=FILE is sought beside the experiment's own file. The module may have a SMALL,
overrides of its config for a partial budget, and lines "Measure small:" if another
score tells more of that, "Dataset small:" if its data are others. An experiment that is
itself a part of the published training says which, and is never called outside:

  Budget: partial (4 epochs of 1,500)
"""

from collections.abc import Callable, Mapping, Sequence
import json
import os
from pathlib import Path
import re
import shlex
from typing import Any, NamedTuple

import numpy as np

from jaxgen import listing, parallel, run
from jaxgen.chart import training_seconds
from jaxgen.config import override
from jaxgen.method import TrainState
from jaxgen.metrics.bootstrap import mean_interval
from jaxgen.score.cache import classifier_network
from jaxgen.score.results import Result, Ruler, evaluate_workdir
from jaxgen.seeds import experiment_over_seeds, save_seeds
from jaxgen.train import fit

PARTIAL = "partial budget"
RESULTS = re.compile(r"(?s)(<!-- results: .*? -->\n)(.*)(<!-- end of results -->)")


class Measure(NamedTuple):
  """What an experiment's docstring says is measured.

  Attributes:
    score: The score that counts.
    published: Its published value, or None.
    ruler: How to measure it.
  """

  score: str
  published: float | None
  ruler: Ruler


def measure_of(path: Path, weights: str | None = None, budget: str = "full") -> Measure:
  """Reads the "Measure:" line of an experiment, or that of its small budget."""
  text = told_of(path, "Measure", budget)
  form = r"(\w+)(?: \(published (-?[\d.]+)\))?((?: --\w+=\S+)*)"
  found = re.fullmatch(form, text)
  if not found:
    raise ValueError(
      f"{path}: expected a docstring line like 'Measure: frechet "
      f"--features=classifier', found {text!r}"
    )
  score, published, flags = found.groups()
  options: dict[str, Any] = {}
  for flag in shlex.split(flags):
    key, value = flag.removeprefix("--").split("=", 1)
    if key not in Ruler._fields:
      raise ValueError(f"{path}: unknown --{key}; expected one of {Ruler._fields}")
    options[key] = int(value) if isinstance(Ruler()._asdict()[key], int) else value
  if "weights" in options:
    options["weights"] = os.path.normpath(path.parent / options["weights"])
  if weights:
    options["weights"] = weights
  options["metrics"] = tuple(options.get("metrics", score).split(","))
  return Measure(score, float(published) if published else None, Ruler(**options))


def told_of(path: Path, field: str, budget: str) -> str:
  """An entry of an experiment's docstring, or what it has of its small budget."""
  told = listing.notebook(path, (field, f"{field} small"))
  own = budget == "small" and told[f"{field} small"] != listing.UNSAID
  return told[f"{field} small" if own else field]


def part_of(path: Path) -> str:
  """What part of the published training an experiment is: "", or "(4 epochs of 9)"."""
  told = listing.notebook(path, ("Budget",))["Budget"]
  if told == listing.UNSAID:
    return ""
  if not (found := re.fullmatch(r"partial (\(.+\))", told)):
    raise ValueError(
      f"{path}: expected a docstring line like 'Budget: partial (4 epochs of 1,500)', "
      f"found {told!r}"
    )
  return found[1]


def reproduce(
  path: Path,
  name: str,
  *,
  runs: Path,
  results: Path,
  seeds: int = 3,
  budget: str = "full",
  overrides: Mapping[str, str] | None = None,
  weights: str | None = None,
  together: bool = False,
  backend: parallel.Backend | None = None,
) -> dict[str, Any]:
  """Trains (or resumes) an experiment for every seed, scores it, writes the result.

  Args:
    path: The experiment's file.
    name: "family/method_dataset".
    runs: Workdirs are runs/name/seed_k (runs/name/small/seed_k on a small budget).
    results: The result is results/name.json.
    seeds: Seeds 0, ..., seeds - 1.
    budget: "full": the config as it is; "small": with the experiment's SMALL.
    overrides: Further entries of the config; the result then counts as partial.
    weights: File of the feature network, in place of the one that "Measure:" names.
    together: Train all seeds in one process and one compiled step, for small dense
      networks (`jaxgen.seeds` says when it pays off); else one after another.
    backend: Default jit over all devices.

  Returns:
    What was written.
  """
  if budget not in ("full", "small"):
    raise ValueError(f"budget {budget!r}: expected 'full' or 'small'")
  if seeds < 1:
    raise ValueError(f"seeds={seeds}: expected at least 1")
  measure = measure_of(path, weights, budget)
  backend = backend or parallel.jit_backend()
  module = run.load_experiment(path)
  small = getattr(module, "SMALL", {}) if budget == "small" else {}
  changes = {**small, **(overrides or {})}
  folder = runs / name / "small" if changes else runs / name
  workdirs = [folder / f"seed_{seed}" for seed in range(seeds)]
  if together:
    over = lambda built: experiment_over_seeds(built, range(seeds))
    state = _train(module, path, changes, folder, 0, backend, over)
    save_seeds(folder, state, range(seeds))
  else:
    for seed, workdir in enumerate(workdirs):
      _train(module, path, changes, workdir, seed, backend)
  found = [evaluate_workdir(w, measure.ruler, backend=backend) for w in workdirs]
  timed = [folder] if together else workdirs
  seconds = [round(training_seconds(w / "timing.jsonl"), 1) for w in timed]
  partial = bool(changes or part_of(path))
  result = summary(name, measure, found, partial, seconds)
  flags = [f"--config.{key}={value}" for key, value in (overrides or {}).items()]
  flags += ["--budget=small"] if budget == "small" else []
  flags += ["--together"] if together else []
  flags += [f"--weights={Path(weights).name}"] if weights else []
  result["command"] = shlex.join([*result["command"].split(), *flags])
  result["published_in"] = listing.notebook(path)["Published"]
  result["dataset"] = told_of(path, "Dataset", budget)
  target = results / f"{name}.json"
  target.parent.mkdir(parents=True, exist_ok=True)
  run.write_text(target, json.dumps(result, indent=1) + "\n")
  return result


def _train(
  module: Any,
  path: Path,
  changes: Mapping[str, Any],
  workdir: Path,
  seed: int,
  backend: parallel.Backend,
  change: Callable[[dict], dict] = lambda built: built,
) -> TrainState:
  config = module.get_config()
  override(config, dict(changes))
  start: Callable[[], None] = lambda: run.record(workdir, path, config, seed)
  built = change(module.build(config))
  state = fit(**built, workdir=workdir, seed=seed, backend=backend, on_start=start)
  total = sum(phase.num_steps for phase in run.phases_of(built))
  if int(state.step) < total:
    raise KeyboardInterrupt(f"stopped at step {int(state.step)} of {total}")
  return state


def summary(
  name: str,
  measure: Measure,
  found: Sequence[Result],
  partial: bool,
  wall_clock: Sequence[float],
) -> dict[str, Any]:
  """The result of some runs, one per seed, as it is written."""
  if measure.score not in found[0].scores:
    have = sorted(found[0].scores)
    raise ValueError(f"{name} measures {measure.score!r}, but the scores are {have}")
  scores = {}
  for key in found[0].scores:
    values = [r.scores[key].value for r in found]
    interval = mean_interval(values) if len(set(values)) > 1 else None
    how = f"t over {len(values)} training seeds"
    if len(set(values)) == 1:  # One seed, or the seed changes nothing.
      _, interval, how = found[0].scores[key]
    scores[key] = {
      "mean": float(np.mean(values)),
      "interval": interval and list(interval),
      "interval_from": how,
      "values": values,
    }
  versions = found[0].provenance["versions"]
  return {
    "name": name,
    "score": measure.score,
    "published": measure.published,
    "verdict": verdict(measure.published, scores[measure.score]["interval"], partial),
    "scores": scores,
    "seeds": len(found),
    "steps": found[0].provenance["step"],
    "fingerprint": dict(found[0].ruler),
    "sampler": found[0].provenance.get("sampler"),
    "evaluation_seed": found[0].provenance.get("seed"),
    "hardware": f"{versions['devices']}; {versions['host']}",
    "training_seconds": list(wall_clock),
    "evaluation_seconds": [r.provenance["seconds"] for r in found],
    "peak_host_bytes": [r.provenance["peak_host_bytes"] for r in found],
    "sample_digests": [r.provenance["samples"] for r in found],
    "versions": versions,
    "command": f"jaxgen reproduce {name} --seeds={len(found)}",
    "date": found[0].provenance["time"][:10],
  }


def verdict(
  published: float | None, interval: Sequence[float] | None, partial: bool
) -> str:
  """Where the published value lies: inside or outside our 95 % interval."""
  if partial:
    return PARTIAL
  if published is None:
    return "nothing published to compare with"
  if interval is None:
    return "no interval to compare with"
  return "inside" if interval[0] <= published <= interval[1] else "outside"


# --- the table --------------------------------------------------------------------


def results_table(experiments: Path) -> str:
  """All experiments as a Markdown table; every number is from a result's file."""
  header = ("Experiment", "Dataset", "Published", "Ours, mean [95 %]", "Seeds")
  rows = [header, ("---",) * len(header)]
  for path in sorted(experiments.glob("*/*.py")):
    name = f"{path.parent.name}/{path.stem}"
    file = experiments / "results" / f"{name}.json"
    ours, budget = ("not measured", ""), "full"
    if file.exists():
      result = json.loads(file.read_text())
      budget = "small" if "--budget=small" in result["command"].split() else "full"
      known = _measured_as_told(result, measure_of(path, budget=budget).ruler)
      part = part_of(path) if budget == "full" else ""
      ours = _ours(result, known, part), str(result["seeds"])
    fields = told_of(path, "Dataset", budget), listing.notebook(path)["Published"]
    told = (field.replace("|", r"\|") for field in fields)
    rows.append((f"`{name}`", *told, *ours))
  return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _measured_as_told(result: Mapping[str, Any], ruler: Ruler) -> bool:
  """Whether the classifier, if one is named, is that which the result was found by."""
  if ruler.features != "classifier" or not ruler.weights:
    return True
  named = classifier_network(None, None, ruler.weights).fingerprint
  return result["fingerprint"]["features"] == named


def _ours(result: Mapping[str, Any], as_told: bool, part: str) -> str:
  """The score that counts, that of real test images, and where all of them are."""
  name, scores = result["score"], result["scores"]
  text = f"**{name} {scores[name]['mean']:.4g}**"
  if interval := scores[name]["interval"]:
    text += f" [{interval[0]:.4g}, {interval[1]:.4g}]"
  for key in scores:
    if found := re.fullmatch(rf"{name}_of_(\d*)_?test", key):
      text += f"; {found[1]} test images".replace("  ", " ")
      text += f" {scores[key]['mean']:.4g}"
  if not result["verdict"].startswith("nothing published"):
    text += f"; {result['verdict']}"
  if result["verdict"] == PARTIAL and part:
    text += f" {part}"
  if result["verdict"] == "outside":
    side = "above" if result["published"] > interval[1] else "below"
    text += f": {result['published']:.4g} is {side}"
  if not as_told:
    text += "; by another classifier than that of the other rows"
  return f"{text} ([all](experiments/results/{result['name']}.json))"


def write_table(readme: Path, experiments: Path) -> None:
  """Replaces the table between the marks in a README."""
  text = readme.read_text()
  if not RESULTS.search(text):
    raise ValueError(
      f"{readme}: no '<!-- results: ... -->' ... '<!-- end of results -->'"
    )
  table = results_table(experiments)
  readme.write_text(RESULTS.sub(lambda m: m[1] + table + m[3], text))
