"""Scores of features: distances of two sets of them, neighbours, labels."""

import jax
import numpy as np
from scipy.special import stdtrit

from jaxgen.metrics.bootstrap import bootstrap_interval, mean_interval
from jaxgen.metrics.frechet import (
  Moments,
  chunks,
  frechet_distance,
  moments_of,
  standard_error,
)
from jaxgen.metrics.inception_score import inception_score
from jaxgen.metrics.kid import kid, polynomial_mmd
from jaxgen.metrics.prdc import leave_one_out, prdc
from jaxgen.score.cache import features
from jaxgen.score.task import ROWS, Score, Scores, Task, default, jackknife, share

SUBSET = default(kid, "subset_size")
MOST = 50_000  # rows of a set whose kernel is taken
SPREAD = "itself a spread, of subsets"
RESAMPLES = default(bootstrap_interval, "num")


def frechet_scores(task: Task, name: str = "frechet") -> Scores:
  fake = task.sample_features["features"]
  with jax.enable_x64(True):
    real = moments_of(chunks(task.reference_features["features"]))
    scores = {name: _distance(fake, real)}
    if task.test and task.test is not task.reference:
      # What real images score, of which the model has seen none.
      test = features(task.test, task.network, task.backend)["features"]
      rows = task.rows(test, len(fake))
      fewer = "" if len(test) >= len(fake) else f"{len(test)}_"  # A larger bias.
      scores[f"{name}_of_{fewer}test"] = _distance(rows, real)
  return scores


def _distance(rows: np.ndarray, real: Moments) -> Score:
  own = moments_of(chunks(rows))
  value = float(frechet_distance(own, real))
  error = 1.96 * float(standard_error(rows, real, own))
  how = "delta method, over samples, at this number of them"
  return Score(value, (value - error, value + error), how)


def mmd_scores(task: Task, name: str = "mmd") -> Scores:
  fake, real = (
    np.asarray(task.rows(f["features"], MOST), np.float64)
    for f in (task.sample_features, task.reference_features)
  )
  size = min(SUBSET, len(fake), len(real))
  with jax.enable_x64(True):
    key = jax.random.key(task.seed)
    mean, std = kid(fake, real, key=key, subset_size=size)
    none = f"no interval of fewer than two subsets of {size}: pass --repeats"
    scores = {name: Score(float(mean), None, none)}
    scores[f"{name}_std"] = Score(float(std), None, SPREAD)
    blocks = min(len(fake), len(real)) // size
    if blocks > 1:
      rng = np.random.default_rng(task.seed)
      orders = rng.permutation(len(fake)), rng.permutation(len(real))
      block = lambda i: slice(i * size, (i + 1) * size)
      parts = [
        float(polynomial_mmd(fake[orders[0][block(i)]], real[orders[1][block(i)]]))
        for i in range(min(blocks, 20))
      ]
      low, high = mean_interval(parts)
      how = f"t of {len(parts)} disjoint subsets"
      scores[name] = Score(float(mean), (low, high), how)
  return scores


def class_scores(task: Task, name: str = "class_score") -> Scores:
  logits = np.asarray(task.sample_features["logits"], np.float64)
  with jax.enable_x64(True):
    # Shuffled, as sets of files are in order of their classes.
    mean, std = map(float, inception_score(logits, key=jax.random.key(task.seed)))
  splits = default(inception_score, "num_splits")
  half = float(stdtrit(splits - 1, 0.975)) * std / (splits - 1) ** 0.5
  how = f"t over {splits} splits, for as many images as one has"
  score = Score(mean, (mean - half, mean + half), how)
  return {name: score, f"{name}_std": Score(std, None, SPREAD)}


def prdc_scores(task: Task) -> Scores:
  sets = [f["features"] for f in (task.sample_features, task.reference_features)]
  num = min(ROWS, *map(len, sets))
  fake, real = (task.rows(features, num) for features in sets)
  k = task.ruler.neighbours
  found = {name: float(value) for name, value in prdc(real, fake, k=k).items()}
  without = leave_one_out(real, fake, k=k)
  scores = {
    name: jackknife(value, without[name], "samples") for name, value in found.items()
  }
  # Given the real images a mean over samples; of a share near 0 or 1 better so.
  return {**scores, "precision": share(found["precision"], num)}


def labels_scores(task: Task) -> Scores:
  """What the classifier sees: how sure it is, and how even the classes are."""

  def look(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each image how sure, and of which class."""
    parts = (np.asarray(chunk, np.float64) for chunk in chunks(logits))
    sure = [1 / np.exp(x - x.max(1, keepdims=True)).sum(1) for x in parts]
    return np.concatenate(sure), np.argmax(logits, axis=1)

  def entropy(labels: np.ndarray) -> float:
    counts = np.bincount(labels) / len(labels)
    seen = counts[counts > 0]
    return float(-(seen * np.log(seen)).sum())

  sure, labels = look(task.sample_features["logits"])
  scores = {}
  for name, statistic, rows in (
    ("confidence", np.mean, sure),
    ("label_entropy", entropy, labels),
  ):
    interval = bootstrap_interval(
      statistic, (rows,), seed=task.seed, num=RESAMPLES, bias="keep"
    )
    scores[name] = Score(float(statistic(rows)), interval, f"bootstrap of {RESAMPLES}")
  none = "no interval of one count: pass --repeats"
  scores["classes"] = Score(float(len(np.unique(labels))), None, none)
  asked = task.samples.labels()
  if asked is not None:  # The labels that a conditional method drew for.
    scores["label_accuracy"] = share(float((labels == asked).mean()), len(labels))
  sure, labels = look(task.reference_features["logits"])
  of_real = np.mean(sure), entropy(labels), len(np.unique(labels))
  for name, value in zip(
    ("confidence", "label_entropy", "classes"), of_real, strict=True
  ):
    scores[f"{name}_of_reference"] = Score(float(value), None, "of a fixed set")
  return scores
