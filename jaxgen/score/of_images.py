"""Scores of pixels, and of classifiers that are trained on them."""

import jax
import numpy as np

from jaxgen import data
from jaxgen.metrics.classifier import classification_accuracy_score
from jaxgen.metrics.modes import stacked_modes
from jaxgen.metrics.neighbours import memorisation
from jaxgen.metrics.sliced_wasserstein import sliced_wasserstein
from jaxgen.metrics.ssim import ms_ssim_diversity
from jaxgen.score.cache import CLASSIFIER_STEPS, trained
from jaxgen.score.images import CHUNK, of_source
from jaxgen.score.task import Score, Scores, Task, share

PAIRS = 1_000  # of images, compared for diversity
MNIST = {"batch_size": CHUNK, "image_size": 28, "channels": 1}


def accuracy_scores(task: Task) -> Scores:
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
  return {"cas": share(value, len(held["image"]))}


def sliced_scores(task: Task) -> Scores:
  fake, real = task.pixels(task.samples), task.pixels(task.reference)
  num = min(len(fake), len(real))
  key = jax.random.key(task.seed)
  levels = np.asarray(sliced_wasserstein(fake[:num], real[:num], key=key))
  scores = {f"swd_{real.shape[1] >> i}": Score(float(v)) for i, v in enumerate(levels)}
  return {**scores, "swd": Score(float(levels.mean()))}


def diversity_scores(task: Task) -> Scores:
  found = {}
  for name, images in (("ms_ssim", task.samples), ("reference", task.reference)):
    pixels = task.pixels(images)
    levels = int(np.log2(min(pixels.shape[1:3]) / 11)) + 1
    value = ms_ssim_diversity(
      pixels, jax.random.key(task.seed), PAIRS, levels=max(1, min(5, levels))
    )
    found[name] = float(value)
  return {
    "ms_ssim": Score(found["ms_ssim"]),
    "ms_ssim_of_reference": Score(found["reference"]),
  }


def memorisation_scores(task: Task) -> Scores:
  flat = lambda images: images.reshape(len(images), -1)
  samples, test = (flat(task.pixels(i)) for i in (task.samples, task.test))
  train = task.train.some(60_000)["image"] / np.float32(127.5) - 1
  found = memorisation(samples, flat(train), test)
  shares = {"copied_rate": len(samples), "test_copied_rate": len(test)}
  return {
    name: share(float(v), shares[name]) if name in shares else Score(float(v))
    for name, v in found.items()
  }


def modes_scores(task: Task) -> Scores:
  """Stacked MNIST's, judged by a classifier of MNIST's own digits."""
  digits = [
    of_source(data.tfds_images("mnist", split, **MNIST), f"mnist {split}")
    for split in ("train", "test")
  ]
  judge = trained(*digits)
  found = stacked_modes(task.samples.some(task.samples.count)["image"], judge)
  found["judge_accuracy"] = judge.test_accuracy
  return {name: Score(float(value)) for name, value in found.items()}
