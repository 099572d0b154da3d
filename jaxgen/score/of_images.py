"""Scores of pixels, and of classifiers that are trained on them."""

import jax
import numpy as np

from jaxgen.metrics import classifier
from jaxgen.metrics.bootstrap import pairs_interval
from jaxgen.metrics.classifier_training import classification_accuracy_score
from jaxgen.metrics.modes import leave_one_out, modes_and_kl, modes_of_images
from jaxgen.metrics.neighbours import copies_of_any
from jaxgen.metrics.sliced_wasserstein import leave_groups_out, sliced_wasserstein
from jaxgen.metrics.ssim import most_levels, ms_ssim_pairs
from jaxgen.score.cache import CLASSIFIER_STEPS, MOST
from jaxgen.score.images import Images
from jaxgen.score.task import (
  ROWS,
  Ruler,
  Score,
  Scores,
  Task,
  default,
  jackknife,
  mean,
  share,
  to_unit,
)

PAIRS = 1_000  # of images, compared for diversity
STACKED = 26_000  # images of stacked MNIST, the protocol's number
likeness = jax.jit(ms_ssim_pairs, static_argnums=2, static_argnames="levels")


def accuracy_scores(task: Task) -> Scores:
  rows, held = task.samples.some(MOST), task.test.some(MOST)
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
  return {"cas": share(value, len(held["image"]))}


def sliced_scores(task: Task) -> Scores:
  num = min(ROWS, task.samples.count, task.reference.count)
  sets = [task.pixels(images, num) for images in (task.samples, task.reference)]
  key = jax.random.key(task.seed)
  levels = np.asarray(sliced_wasserstein(*sets, key=key), np.float64)
  groups = min(num, default(leave_groups_out, "num_groups"))
  without = leave_groups_out(*sets, key=key, num_groups=groups)
  without = np.asarray(without, np.float64)
  names = [f"swd_{sets[0].shape[1] >> i}" for i in range(len(levels))] + ["swd"]
  values = [*levels, levels.mean()]
  parts = [*without.T, without.mean(1)]
  of = f"{groups} groups of images of both sets"
  return {
    name: jackknife(float(value), part, of)
    for name, value, part in zip(names, values, parts, strict=True)
  }


def diversity_settings(ruler: Ruler, reference: Images) -> str:
  """Pairs, and the number of levels, that the reference's size allows."""
  levels = most_levels(reference.shape)
  return f"{PAIRS} pairs, {levels} levels, seed {ruler.seed}"


def diversity_scores(task: Task) -> Scores:
  scores, levels = {}, most_levels(task.reference.shape)
  for name, images in (
    ("ms_ssim", task.samples),
    ("ms_ssim_of_reference", task.reference),
  ):
    pixels, key = task.pixels(images), jax.random.key(task.seed)
    values = likeness(pixels, key, PAIRS, levels=max(1, levels))
    interval = pairs_interval(values, len(pixels))
    how = "over images and pairs; an upper bound, as pairs share images"
    scores[name] = Score(float(np.mean(values)), interval, how)
  return scores


def memorisation_scores(task: Task) -> Scores:
  flat = lambda images: images.reshape(len(images), -1)
  sets = [flat(task.pixels(images)) for images in (task.samples, task.test)]
  train = (flat(to_unit(chunk)) for chunk in task.train.chunks(ROWS))
  found = map(np.asarray, copies_of_any(np.concatenate(sets), train))
  scores = {}
  parts = zip(*(np.split(values, [len(sets[0])]) for values in found), strict=True)
  for prefix, (distance, copied) in zip(("", "test_"), parts, strict=True):
    scores[f"{prefix}nearest_train_distance"] = mean(distance, "images")
    scores[f"{prefix}copied_rate"] = share(float(copied.mean()), len(copied))
  return scores


def modes_scores(task: Task) -> Scores:
  """Stacked MNIST's, judged by a classifier of MNIST's own digits.

  Real images, if there are any, are judged, too: as many as samples are the floor, and
  `kl_to_data` compares with the frequencies of STACKED of them, or of the samples'
  number (it is infinite for a mode that none of these has).
  """
  if task.ruler.features != "classifier" or not task.ruler.weights:
    raise ValueError(
      "modes needs --features=classifier --weights=FILE, a classifier of the 28x28 "
      "digits of MNIST such as experiments/rulers/mnist_28.npz"
    )
  judge = classifier.load(task.ruler.weights)
  labels = modes_of_images(task.samples.some(task.samples.count)["image"], judge)
  without = leave_one_out(labels, 1000)
  scores = {
    name: jackknife(float(value), without[name], "samples")
    for name, value in modes_and_kl(labels, 1000).items()
  }
  if task.reference is not None:
    real = task.reference.some(max(len(labels), STACKED), task.seed)["image"]
    real = modes_of_images(real, judge)
    floor = modes_and_kl(task.rows(real, len(labels)), 1000)
    scores |= {f"{name}_of_data": Score(float(x)) for name, x in floor.items()}
    frequencies = np.bincount(real, minlength=1000)
    scores["kl_to_data"] = Score(modes_and_kl(labels, 1000, frequencies)["kl"])
  if judge.test_accuracy is not None:
    scores["judge_accuracy"] = Score(judge.test_accuracy)
  return scores
