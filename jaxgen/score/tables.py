"""Results as text: side by side, ranked where that means something, in Markdown."""

from collections.abc import Sequence
import json
import math

from jaxgen.metrics.bootstrap import mean_interval
from jaxgen.score.results import Result
from jaxgen.score.task import Score

HIGH = {  # more is better
  *("precision", "recall", "density", "coverage", "confidence", "label_entropy"),
  *("classes", "label_accuracy", "class_score", "is", "cas", "modes", "elbo", "auroc"),
  *("log_prob", "psnr", "psnr_y", "ssim", "ssim_y"),
  *("pairs_ms_ssim", "pairs_ms_ssim_y"),
}
LOW = {  # less is better
  *("frechet", "fid", "mmd", "kid", "swd", "copied_rate", "loss", "mse", "nll"),
  *("lpips_alex", "lpips_squeeze", "lpips_vgg"),
  *("bits_per_dim", "bits_per_token", "bits_per_sample", "nats_per_token"),
}


def direction(name: str) -> str | None:
  """ "high" or "low", whichever is better; None where neither is, or nobody said."""
  if name in HIGH:
    return "high"
  return "low" if name in LOW or name.startswith("swd_") else None


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
    return f"{score.value:.5g}" + (f"  ({score.how})" if score.how else "")
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
  samplers = {json.dumps(r.provenance.get("sampler")) for r in results}
  same = len(samplers) == 1 and samplers != {"null"}  # Folders are no seeds of a run.
  for name in names:
    values = [(r.scores[name].value, r.name) for r in results if name in r.scores]
    if best := direction(name):
      values.sort(reverse=best == "high")
    shown = ", ".join(f"{n} {v:.5g}" for v, n in values)
    lines.append(f"{name:{width}}  {shown}" + ("" if best else "; no order"))
    finite = all(math.isfinite(v) for v, _ in values)
    if same and finite and len({v for v, _ in values}) > 1:
      low, high = mean_interval([v for v, _ in values])
      mean = sum(v for v, _ in values) / len(values)
      lines[-1] += f"; mean of runs {mean:.5g} [{low:.5g}, {high:.5g}]"
  return ["from best to worst, by value alone:", *lines]
