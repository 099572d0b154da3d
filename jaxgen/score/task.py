"""What `jaxgen evaluate` is asked, what it looks at, and a number that it finds."""

import dataclasses
import functools
import inspect
from typing import Any, NamedTuple

import numpy as np

from jaxgen import parallel
from jaxgen.metrics.bootstrap import jackknife_interval, mean_interval
from jaxgen.metrics.features import FeatureNetwork
from jaxgen.run import Run
from jaxgen.score.cache import features
from jaxgen.score.images import Images

ROWS = 10_000  # most rows of a set in metrics of quadratic cost


class Ruler(NamedTuple):
  """How to measure: what the user asks for.

  Attributes:
    metrics: Rows of `scores.METRICS`.
    num_samples: How many to draw.
    features: As `networks.network_of` takes it, or None.
    weights: The file of the network's weights; a classifier's may be left out, and is
      then trained.
    reference: "train", "test", a folder, or an .npz of images.
    train: Of the images of a folder what their model was trained on, and
    test: what it never saw, each a folder or .npz, or None; a run has its own.
    seed: Of samples, subsets and resamples.
    repeats: Sets of samples to draw; above 1 intervals are over them.
    neighbours: Of precision, recall, density and coverage.
    crop: Pixels that pairs of images lose at every side.
    backbone: The file of LPIPS' network, and
    heads: that of its linear layers.
  """

  metrics: tuple[str, ...] = ("eval",)
  num_samples: int = 10_000
  features: str | None = None
  weights: str | None = None
  reference: str = "train"
  seed: int = 0
  repeats: int = 1
  crop: int = 0
  backbone: str | None = None
  heads: str | None = None
  neighbours: int = 5
  train: str | None = None
  test: str | None = None


DEFAULT = Ruler()


class Score(NamedTuple):
  """One number.

  Attributes:
    value: The metric.
    interval: (low, high) of 95 %; None where one set of samples gives none.
    how: Where the interval comes from, or why there is none.
  """

  value: float
  interval: tuple[float, float] | None = None
  how: str = ""


Scores = dict[str, Score]


@dataclasses.dataclass(frozen=True)
class Task:
  """What is scored against what.

  Attributes:
    samples: What is scored.
    reference: The real images it is compared with.
    train: What the model was trained on, and
    test: real images that it never saw; None where unknown.
    network: Whose features count; None for metrics of pixels only.
    loaded: The run that drew the samples; None for a folder.
    seed: Of subsets, resamples, patches and pairs.
    backend: Where networks run.
    ruler: What was asked.
  """

  samples: Images
  reference: Images | None
  train: Images | None
  test: Images | None
  network: FeatureNetwork | None
  loaded: Run | None
  seed: int
  backend: parallel.Backend
  ruler: Ruler = DEFAULT

  @functools.cached_property
  def sample_features(self) -> dict[str, np.ndarray]:
    return features(self.samples, self.network, self.backend)

  @functools.cached_property
  def reference_features(self) -> dict[str, np.ndarray]:
    return features(self.reference, self.network, self.backend)

  def rows(self, array: np.ndarray, most: int = ROWS) -> np.ndarray:
    """At most so many rows, the same for the same seed; in memory."""
    if len(array) <= most:
      return np.asarray(array)
    chosen = np.random.default_rng(self.seed).permutation(len(array))[:most]
    return np.asarray(array[np.sort(chosen)])

  def pixels(self, images: Images, most: int = ROWS) -> np.ndarray:
    """f32 [N, H, W, C] in [-1, 1] of at most so many images."""
    return to_unit(images.some(most, self.seed)["image"])


def to_unit(images: np.ndarray) -> np.ndarray:
  """uint8 to f32 in [-1, 1]."""
  return images / np.float32(127.5) - 1


def share(value: float, count: int) -> Score:
  """A share of so many images, with Wilson's interval."""
  square = 1.96**2 / count
  middle = (value + square / 2) / (1 + square)
  half = (square * (value * (1 - value) + square / 4)) ** 0.5 / (1 + square)
  return Score(value, (middle - half, middle + half), "binomial, by Wilson's formula")


def mean(values: np.ndarray, of: str) -> Score:
  """The mean of independent values, with Student's interval if all are finite."""
  found = float(np.mean(values))
  if not np.isfinite(found) or len(values) < 2:
    return Score(found, None, "" if len(values) > 1 else "no interval of one")
  return Score(found, mean_interval(values), f"t over {of}")


def jackknife(value: float, left_out: np.ndarray, of: str) -> Score:
  """A statistic, with an interval from those without each of its parts."""
  if not np.ptp(left_out):
    return Score(value, None, f"no interval: no one of the {of} makes a difference")
  how = f"jackknife, over {of}, at this number of them"
  return Score(value, jackknife_interval(value, left_out), how)


def default(function: Any, name: str) -> Any:
  """The default of a function's argument."""
  return inspect.signature(function).parameters[name].default
