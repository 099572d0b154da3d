"""Every metric that `jaxgen evaluate` knows, as a function of two sets of images.

A number that carries the name of a published metric is that metric: "fid", "kid" and
"is" are of Inception's features and nothing else. The same formulas on other features
are "frechet", "mmd" and "class_score".
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np

from jaxgen import data, evaluate, parallel
from jaxgen.metrics.bootstrap import bootstrap_interval, mean_interval
from jaxgen.metrics.classifier import classification_accuracy_score
from jaxgen.metrics.features import FeatureNetwork
from jaxgen.metrics.frechet import frechet_distance, moments, standard_error
from jaxgen.metrics.inception_score import inception_score
from jaxgen.metrics.kid import kid, polynomial_mmd
from jaxgen.metrics.modes import stacked_modes
from jaxgen.metrics.neighbours import memorisation
from jaxgen.metrics.prdc import prdc
from jaxgen.metrics.sliced_wasserstein import sliced_wasserstein
from jaxgen.metrics.ssim import ms_ssim_diversity
from jaxgen.run import Run
from jaxgen.score.cache import CLASSIFIER_STEPS, features, moments_of, trained
from jaxgen.score.images import CHUNK, Images, of_source
from jaxgen.score.pairs import pair_values

ROWS = 10_000  # most rows of a set in metrics of quadratic cost
SUBSET = 1_000  # rows of a subset in KID
RESAMPLES = 100  # of the bootstrap
INCEPTION = "inception-v3"
MNIST = {"batch_size": CHUNK, "image_size": 28, "channels": 1}


class Score(NamedTuple):
  """One number.

  Attributes:
    value: The metric.
    interval: (low, high) of 95 %; None where one set of samples gives none.
    how: Where the interval comes from.
  """

  value: float
  interval: tuple[float, float] | None = None
  how: str = ""


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
    crop: Pixels that pairs of images lose at every side.
  """

  samples: Images
  reference: Images | None
  train: Images | None
  test: Images | None
  network: FeatureNetwork | None
  loaded: Run | None
  seed: int
  backend: parallel.Backend
  crop: int = 0

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

  def pixels(self, images: Images) -> np.ndarray:
    """f32 [N, H, W, C] in [-1, 1] of at most ROWS images."""
    return images.some(ROWS, self.seed)["image"] / np.float32(127.5) - 1


Scores = dict[str, Score]


def _own(task: Task) -> Scores:
  return _over_test_set(task, task.loaded)


def _nll(task: Task) -> Scores:
  """By the method's tool of that name, in place of its evaluation."""
  method = task.loaded.method
  if "nll" not in method.tools:
    have = sorted(method.tools)
    raise ValueError(f"nll needs a method with a tool of that name; it has {have}")
  method = method._replace(eval_step=method.tools["nll"])
  return _over_test_set(task, task.loaded._replace(method=method))


def _over_test_set(task: Task, loaded: Run) -> Scores:
  values = evaluate.evaluate_run(loaded, seed=task.seed, backend=task.backend)
  spread = "1.96 standard errors over the evaluation set"
  return {
    name: Score(mean, (mean - 1.96 * error, mean + 1.96 * error), spread)
    for name, (mean, error) in values.items()
  }


def _frechet(task: Task, name: str = "frechet") -> Scores:
  fake = np.asarray(task.sample_features["features"], np.float64)
  with jax.enable_x64(True):
    real = moments_of(task.reference_features["features"])
    value = float(frechet_distance(moments(fake), real))
    error = 1.96 * float(standard_error(fake, real))
    how = "delta method, over samples, at this number of them"
    scores = {name: Score(value, (value - error, value + error), how)}
    if task.test and task.test is not task.reference:
      # What real images score, of which the model has seen none.
      test = features(task.test, task.network, task.backend)["features"]
      floor = frechet_distance(moments_of(test[: len(fake)]), real)
      fewer = "" if len(test) >= len(fake) else f"{len(test)}_"  # A larger bias.
      scores[f"{name}_of_{fewer}test"] = Score(float(floor))
  return scores


def _mmd(task: Task, name: str = "mmd") -> Scores:
  fake, real = (
    np.asarray(task.rows(f["features"], 50_000), np.float64)
    for f in (task.sample_features, task.reference_features)
  )
  size = min(SUBSET, len(fake), len(real))
  with jax.enable_x64(True):
    key = jax.random.key(task.seed)
    mean, std = kid(fake, real, key=key, subset_size=size)
    scores = {name: Score(float(mean)), f"{name}_std": Score(float(std))}
    blocks = min(len(fake), len(real)) // size
    if blocks > 1:
      order = np.random.default_rng(task.seed).permutation(len(real))
      parts = [
        float(
          polynomial_mmd(
            fake[i * size : (i + 1) * size], real[order[i * size : (i + 1) * size]]
          )
        )
        for i in range(min(blocks, 20))
      ]
      low, high = mean_interval(parts)
      how = f"t of {len(parts)} disjoint subsets"
      scores[name] = Score(float(mean), (low, high), how)
  return scores


def _class_score(task: Task, name: str = "class_score") -> Scores:
  logits = np.asarray(task.sample_features["logits"], np.float64)
  with jax.enable_x64(True):
    mean, std = inception_score(logits)
  return {name: Score(float(mean)), f"{name}_std": Score(float(std))}


def _prdc(task: Task) -> Scores:
  fake, real = (
    task.rows(f["features"]) for f in (task.sample_features, task.reference_features)
  )
  num = min(len(fake), len(real))
  found = prdc(real[:num], fake[:num], k=5)
  return {name: Score(float(value)) for name, value in found.items()}


def _labels(task: Task) -> Scores:
  """What the classifier sees: how sure it is, and how even the classes are."""

  def look(logits: np.ndarray) -> dict[str, float]:
    logits = np.asarray(logits, np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    counts = np.bincount(p.argmax(1), minlength=p.shape[1]) / len(p)
    seen = counts[counts > 0]
    return {
      "confidence": p.max(1).mean(),
      "label_entropy": -(seen * np.log(seen)).sum(),
      "classes": len(seen),
    }

  logits = np.asarray(task.sample_features["logits"])
  scores = {}
  for name, value in look(logits).items():
    statistic = lambda x, name=name: look(x)[name]
    interval = bootstrap_interval(
      statistic, (logits,), seed=task.seed, num=RESAMPLES, bias="keep"
    )
    scores[name] = Score(float(value), interval, f"bootstrap of {RESAMPLES}")
  scores["classes"] = Score(scores["classes"].value)
  asked = task.samples.some(task.samples.count).get("label")
  if asked is not None:  # The labels that a conditional method drew for.
    share = float((logits.argmax(1) == asked).mean())
    scores["label_accuracy"] = _share(share, len(logits))
  for name, value in look(task.reference_features["logits"]).items():
    scores[f"{name}_of_reference"] = Score(float(value))
  return scores


def _accuracy(task: Task) -> Scores:
  rows, held = task.samples.some(60_000), task.test.some(60_000)
  if "label" not in rows:
    raise ValueError("cas needs samples that depend on labels; these do not")
  value = classification_accuracy_score(
    rows["image"],
    rows["label"],
    held["image"],
    held["label"],
    num_classes=int(held["label"].max()) + 1,
    num_steps=CLASSIFIER_STEPS,
    max_shift=rows["image"].shape[1] // 14,
  )
  return {"cas": _share(value, len(held["image"]))}


def _share(value: float, count: int) -> Score:
  """A share of so many images, with Wilson's interval."""
  square = 1.96**2 / count
  middle = (value + square / 2) / (1 + square)
  half = (square * (value * (1 - value) + square / 4)) ** 0.5 / (1 + square)
  return Score(value, (middle - half, middle + half), "binomial, by Wilson's formula")


def _pairs(task: Task) -> Scores:
  """Each image against the reference of the same place in the order."""
  if task.loaded:
    raise ValueError("pairs needs --samples=FOLDER: what a run draws has no partners")
  if task.samples.count != task.reference.count:
    counts = f"{task.samples.count} and {task.reference.count}"
    raise ValueError(f"pairs needs as many images as references, got {counts}")
  batches = zip(task.samples.batches(), task.reference.batches(), strict=True)
  found = [pair_values(a["image"], b["image"], task.crop) for a, b in batches]
  scores = {}
  for name in found[0]:
    values = np.concatenate([f[name] for f in found])
    mean = float(values.mean())
    scores[name] = Score(mean)
    if np.isfinite(mean):  # Equal images have an infinite PSNR.
      error = 1.96 * float(values.std()) / len(values) ** 0.5
      how = "1.96 standard errors over the pairs"
      scores[name] = Score(mean, (mean - error, mean + error), how)
  return scores


def _sliced(task: Task) -> Scores:
  fake, real = task.pixels(task.samples), task.pixels(task.reference)
  num = min(len(fake), len(real))
  key = jax.random.key(task.seed)
  levels = np.asarray(sliced_wasserstein(fake[:num], real[:num], key=key))
  scores = {f"swd_{real.shape[1] >> i}": Score(float(v)) for i, v in enumerate(levels)}
  return {**scores, "swd": Score(float(levels.mean()))}


def _diversity(task: Task) -> Scores:
  found = {}
  for name, images in (("ms_ssim", task.samples), ("reference", task.reference)):
    pixels = task.pixels(images)
    levels = int(np.log2(min(pixels.shape[1:3]) / 11)) + 1
    value = ms_ssim_diversity(
      pixels, jax.random.key(task.seed), 1000, levels=max(1, min(5, levels))
    )
    found[name] = float(value)
  return {
    "ms_ssim": Score(found["ms_ssim"]),
    "ms_ssim_of_reference": Score(found["reference"]),
  }


def _memorisation(task: Task) -> Scores:
  flat = lambda images: images.reshape(len(images), -1)
  samples, test = (flat(task.pixels(i)) for i in (task.samples, task.test))
  train = task.train.some(60_000)["image"] / np.float32(127.5) - 1
  found = memorisation(samples, flat(train), test)
  shares = {"copied_rate": len(samples), "test_copied_rate": len(test)}
  return {
    name: _share(float(v), shares[name]) if name in shares else Score(float(v))
    for name, v in found.items()
  }


def _modes(task: Task) -> Scores:
  """Stacked MNIST's, judged by a classifier of MNIST's own digits."""
  digits = [
    of_source(data.tfds_images("mnist", split, **MNIST), f"mnist {split}")
    for split in ("train", "test")
  ]
  judge = trained(*digits)
  found = stacked_modes(task.samples.some(task.samples.count)["image"], judge)
  found["judge_accuracy"] = judge.test_accuracy
  return {name: Score(float(value)) for name, value in found.items()}


class Metric(NamedTuple):
  """A row of the table; the README says what each is.

  Attributes:
    compute: Task -> scores by name.
    needs: What of the task must be there.
    inception: Whether the name is earned by Inception's features alone.
    settings: What else its number depends on; may name fields of `results.Ruler`.
  """

  compute: Callable[[Task], Scores]
  needs: tuple[str, ...]
  inception: bool = False
  settings: str = ""


ONE, BOTH = ("samples", "network"), ("samples", "reference", "network")
KERNEL = f"cubic kernel, subsets of at most {SUBSET}"
SPLITS = "10 splits"
NEIGHBOURS = f"5 neighbours, at most {ROWS} of each"
METRICS = {
  "eval": Metric(_own, ("loaded",)),
  "nll": Metric(_nll, ("loaded",)),
  "frechet": Metric(_frechet, BOTH),
  "mmd": Metric(_mmd, BOTH, settings=f"mmd: {KERNEL}"),
  "prdc": Metric(_prdc, BOTH, settings=f"prdc: {NEIGHBOURS}"),
  "labels": Metric(_labels, BOTH),
  "class_score": Metric(_class_score, ONE, settings=f"class_score: {SPLITS}"),
  "fid": Metric(functools.partial(_frechet, name="fid"), BOTH, True),
  "kid": Metric(functools.partial(_mmd, name="kid"), BOTH, True, f"kid: {KERNEL}"),
  "is": Metric(functools.partial(_class_score, name="is"), ONE, True, f"is: {SPLITS}"),
  "modes": Metric(_modes, ("samples",)),
  "cas": Metric(
    _accuracy, ("samples", "test"), settings=f"cas: {CLASSIFIER_STEPS} steps"
  ),
  "swd": Metric(_sliced, ("samples", "reference"), settings="swd: seed {seed}"),
  "ms_ssim": Metric(
    _diversity, ("samples", "reference"), settings="ms_ssim: 1000 pairs, seed {seed}"
  ),
  "memorisation": Metric(_memorisation, ("samples", "train", "test")),
  "pairs": Metric(_pairs, ("samples", "reference"), settings="pairs: crop {crop}"),
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
  scores = {}
  for name in names:
    missing = [n for n in METRICS[name].needs if getattr(task, n) is None]
    if missing:
      raise ValueError(f"{name} needs what is not there: {', '.join(missing)}")
    scores |= METRICS[name].compute(task)
  return scores
