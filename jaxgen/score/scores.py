"""The table of metrics that `jaxgen evaluate` knows.

A number that carries the name of a published metric is that metric: "fid", "kid" and
"is" are of Inception's features and nothing else. The same formulas on other features
are "frechet", "mmd" and "class_score".
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

from jaxgen import evaluate
from jaxgen.method import Method
from jaxgen.metrics.inception_score import inception_score
from jaxgen.metrics.sliced_wasserstein import sliced_wasserstein
from jaxgen.run import Run
from jaxgen.score import anomaly, of_features, of_images, pairs
from jaxgen.score.cache import MOST
from jaxgen.score.images import Images
from jaxgen.score.task import ROWS, Ruler, Score, Scores, Task, default

INCEPTION = "inception-v3"


def _own(task: Task) -> Scores:
  return _over_test_set(task, task.loaded)


def _nll(task: Task) -> Scores:
  """By the method's tool of that name, in place of its evaluation."""
  method = task.loaded.method
  method = method._replace(eval_step=_nll_tool(method))
  return _over_test_set(task, task.loaded._replace(method=method))


def _nll_tool(method: Method) -> Callable:
  if "nll" not in method.tools:
    have = sorted(method.tools)
    raise ValueError(f"nll needs a method with a tool of that name; it has {have}")
  return method.tools["nll"]


def _nll_settings(method: Method) -> str:
  """What the tool says of itself, or else the module that it is of."""
  tool = _nll_tool(method)
  return getattr(tool, "settings", tool.__module__)


def _over_test_set(task: Task, loaded: Run) -> Scores:
  values = evaluate.evaluate_run(loaded, seed=task.seed, backend=task.backend)
  spread = "1.96 standard errors over the evaluation set"
  return {
    name: Score(mean, (mean - 1.96 * error, mean + 1.96 * error), spread)
    for name, (mean, error) in values.items()
  }


class Metric(NamedTuple):
  """A row of the table; the README says what each is.

  Attributes:
    compute: Task -> scores by name.
    needs: What of the task must be there.
    inception: Whether the name is earned by Inception's features alone.
    pairs: Whether images are compared file by file, and may differ in size.
    settings: (Ruler, reference) -> what else the number depends on, in words.
    tool_settings: Method -> the same of the tool that is used.
  """

  compute: Callable[[Task], Scores]
  needs: tuple[str, ...]
  inception: bool = False
  pairs: bool = False
  settings: Callable[[Ruler, Images | None], str] = lambda *_: ""
  tool_settings: Callable[[Method], str] = lambda method: ""


ONE, BOTH = ("samples", "network"), ("samples", "reference", "network")
KERNEL = lambda *_: (
  f"cubic kernel, subsets of at most {of_features.SUBSET} of at most {of_features.MOST}"
)
SPLITS = lambda *_: f"{default(inception_score, 'num_splits')} splits, shuffled"
NEIGHBOURS = lambda ruler, _: (
  f"{ruler.neighbours} neighbours, as many of each at random, at most {ROWS}"
)
STEPS = lambda *_: f"{of_images.CLASSIFIER_STEPS} steps, at most {MOST} images"
COPIES = lambda *_: f"at most {ROWS} samples, all training images"
SLICES = lambda ruler, _: (
  f"{default(sliced_wasserstein, 'patches_per_image')} patches an image, "
  f"{default(sliced_wasserstein, 'num_directions')} directions, as many of each at "
  f"random, at most {ROWS}, seed {ruler.seed}"
)


def _lpips(backbone: str) -> Metric:
  settings = functools.partial(pairs.lpips_settings, backbone=backbone)
  compute = functools.partial(pairs.lpips_scores, backbone=backbone)
  return Metric(compute, ("samples", "reference"), pairs=True, settings=settings)


def _named(compute: Callable, name: str) -> Callable[[Task], Scores]:
  return functools.partial(compute, name=name)


METRICS = {
  "eval": Metric(_own, ("loaded",)),
  "nll": Metric(_nll, ("loaded",), tool_settings=_nll_settings),
  "anomaly": Metric(
    anomaly.anomaly_scores,
    ("loaded", "test", "reference"),
    tool_settings=anomaly.anomaly_settings,
  ),
  "frechet": Metric(of_features.frechet_scores, BOTH),
  "mmd": Metric(of_features.mmd_scores, BOTH, settings=KERNEL),
  "prdc": Metric(of_features.prdc_scores, BOTH, settings=NEIGHBOURS),
  "labels": Metric(of_features.labels_scores, BOTH),
  "class_score": Metric(of_features.class_scores, ONE, settings=SPLITS),
  "fid": Metric(_named(of_features.frechet_scores, "fid"), BOTH, True),
  "kid": Metric(_named(of_features.mmd_scores, "kid"), BOTH, True, settings=KERNEL),
  "is": Metric(_named(of_features.class_scores, "is"), ONE, True, settings=SPLITS),
  "modes": Metric(of_images.modes_scores, ONE),
  "cas": Metric(of_images.accuracy_scores, ("samples", "test"), settings=STEPS),
  "swd": Metric(of_images.sliced_scores, ("samples", "reference"), settings=SLICES),
  "ms_ssim": Metric(
    of_images.diversity_scores,
    ("samples", "reference"),
    settings=of_images.diversity_settings,
  ),
  "memorisation": Metric(
    of_images.memorisation_scores, ("samples", "train", "test"), settings=COPIES
  ),
  "pairs": Metric(
    pairs.pairs_scores,
    ("samples", "reference"),
    pairs=True,
    settings=lambda ruler, _: f"crop {ruler.crop}",
  ),
  "lpips_alex": _lpips("alex"),
  "lpips_squeeze": _lpips("squeeze"),
  "lpips_vgg": _lpips("vgg"),
}


def check(names: list[str], network_name: str | None) -> None:
  """Raises for metrics that do not exist or whose name the network does not earn."""
  if unknown := [name for name in names if name not in METRICS]:
    raise ValueError(f"no metric {unknown}; there are {sorted(METRICS)}")
  other = {"fid": "frechet", "kid": "mmd", "is": "class_score"}
  for name in names:
    metric = METRICS[name]
    if metric.inception and network_name != INCEPTION:
      raise ValueError(
        f"{name} is defined by Inception's features, and these are {network_name}'s; "
        f"ask for {other[name]}, or pass --features=inception --weights=FILE"
      )
    if "network" in metric.needs and network_name is None:
      raise ValueError(f"{name} needs --features")


def compute(task: Task, names: list[str]) -> Scores:
  """All scores of the named metrics."""
  for name in names:
    missing = [n for n in METRICS[name].needs if getattr(task, n) is None]
    if missing:
      raise ValueError(f"{name} needs what is not there: {', '.join(missing)}")
  scores = {}
  for name in names:
    scores |= METRICS[name].compute(task)
  return scores
