"""Scores of features: distances of two sets of them, neighbours, labels."""

from collections.abc import Iterator

import jax
import numpy as np
from scipy.special import stdtrit

from jaxgen.metrics.bootstrap import bootstrap_interval, mean_interval
from jaxgen.metrics.frechet import (
  Moments,
  frechet_distance,
  moments,
  moments_of,
  standard_error,
)
from jaxgen.metrics.inception_score import inception_score
from jaxgen.metrics.kid import kid, polynomial_mmd
from jaxgen.metrics.prdc import leave_one_out, prdc
from jaxgen.score.cache import features
from jaxgen.score.task import Score, Scores, Task, default, jackknife, share

SUBSET = default(kid, "subset_size")
CHUNK = 4_096  # rows of features in memory at a time
SPREAD = "itself a spread, of subsets"
RESAMPLES = 100  # of the bootstrap


def frechet_scores(task: Task, name: str = "frechet") -> Scores:
  fake = np.asarray(task.sample_features["features"], np.float64)
  with jax.enable_x64(True):
    real = moments_of(_chunks(task.reference_features["features"]))
    scores = {name: _distance(fake, real)}
    if task.test and task.test is not task.reference:
      # What real images score, of which the model has seen none.
      test = features(task.test, task.network, task.backend)["features"]
      rows = np.asarray(test[: len(fake)], np.float64)
      fewer = "" if len(test) >= len(fake) else f"{len(test)}_"  # A larger bias.
      scores[f"{name}_of_{fewer}test"] = _distance(rows, real)
  return scores


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
  """A memory map, a part of it at a time."""
  return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


def _distance(rows: np.ndarray, real: Moments) -> Score:
  value = float(frechet_distance(moments(rows), real))
  error = 1.96 * float(standard_error(rows, real))
  how = "delta method, over samples, at this number of them"
  return Score(value, (value - error, value + error), how)


def mmd_scores(task: Task, name: str = "mmd") -> Scores:
  fake, real = (
    np.asarray(task.rows(f["features"], 50_000), np.float64)
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


def class_scores(task: Task, name: str = "class_score") -> Scores:
  logits = np.asarray(task.sample_features["logits"], np.float64)
  with jax.enable_x64(True):
    mean, std = map(float, inception_score(logits))
  splits = default(inception_score, "num_splits")
  half = float(stdtrit(splits - 1, 0.975)) * std / (splits - 1) ** 0.5
  how = f"t over {splits} splits, for as many images as one has"
  score = Score(mean, (mean - half, mean + half), how)
  return {name: score, f"{name}_std": Score(std, None, SPREAD)}


def prdc_scores(task: Task) -> Scores:
  fake, real = (
    task.rows(f["features"]) for f in (task.sample_features, task.reference_features)
  )
  num = min(len(fake), len(real))
  real, fake = real[:num], fake[:num]
  found = {name: float(value) for name, value in prdc(real, fake).items()}
  without = leave_one_out(real, fake)
  scores = {
    name: jackknife(value, without[name], "samples") for name, value in found.items()
  }
  # Given the real images a mean over samples; of a share near 0 or 1 better so.
  return {**scores, "precision": share(found["precision"], num)}


def labels_scores(task: Task) -> Scores:
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
  none = "no interval of one count: pass --repeats"
  scores["classes"] = Score(scores["classes"].value, None, none)
  asked = task.samples.some(task.samples.count).get("label")
  if asked is not None:  # The labels that a conditional method drew for.
    right = float((logits.argmax(1) == asked).mean())
    scores["label_accuracy"] = share(right, len(logits))
  for name, value in look(task.reference_features["logits"]).items():
    scores[f"{name}_of_reference"] = Score(float(value), None, "of a fixed set")
  return scores
