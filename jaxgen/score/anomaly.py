"""Telling foreign images from the test set by their likelihood under a model."""

from collections.abc import Callable

import jax
import numpy as np

from jaxgen.evaluate import draw
from jaxgen.method import Method, averaged
from jaxgen.metrics.roc import auroc, auroc_interval
from jaxgen.score.images import Images
from jaxgen.score.task import ROWS, Score, Scores, Task, mean, to_unit

BATCH = 100  # Images at a time: an importance sample of each is in memory.
SCORES = ("nll", "bits_per_dim")  # Of an image, large where it is improbable.


def anomaly_scores(task: Task) -> Scores:
  """{"auroc"}: how often an image of the reference is less probable than a test image.

  Raises:
    ValueError: If the method has no likelihood, or reads more than images, or if the
      reference is what it was trained or tested on, or of another shape.
  """
  known = {"train": task.train, "test": task.test}
  for name, images in known.items():
    if images is not None and images.digest() == task.reference.digest():
      raise ValueError(
        f"anomaly compares the test set with foreign images: pass --reference=FOLDER "
        f"or .npz, not the {name} set"
      )
  sets = task.test, task.reference
  if task.reference.shape != task.test.shape:
    raise ValueError(
      f"{task.reference.name} has images {task.reference.shape}, the model "
      f"{task.test.shape}"
    )
  compiled = task.backend.compile_eval(_likelihood(task.loaded.method)[0])
  (unit, usual), (_, foreign) = (_likelihoods(task, compiled, x) for x in sets)
  interval, how = auroc_interval(usual, foreign), "DeLong, over images"
  if interval is None or interval[0] == interval[1]:
    interval, how = None, "no interval where all images of a set rank alike"
  return {
    "auroc": Score(auroc(usual, foreign), interval, how),
    f"{unit}_of_test": mean(usual, "images"),
    f"{unit}_of_reference": mean(foreign, "images"),
  }


def anomaly_settings(method: Method) -> str:
  """Which likelihood it is."""
  tool, name = _likelihood(method)
  return f"{name}: {getattr(tool, 'settings', tool.__module__)}"


def _likelihood(method: Method) -> tuple[Callable, str]:
  """(the function of state, batch and key, what it is called)."""
  if "nll" in method.tools:
    return method.tools["nll"], "nll"
  if method.eval_step is None:
    raise ValueError("anomaly needs a method with a likelihood; this has none")
  return method.eval_step, "evaluation"


def _likelihoods(
  task: Task, compiled: Callable, images: Images
) -> tuple[str, np.ndarray]:
  """(unit, -log p(x) of at most so many images as were asked for)."""
  state = task.backend.put_state(averaged(task.loaded.state))
  pixels = to_unit(images.some(min(task.ruler.num_samples, ROWS), task.seed)["image"])
  found = []
  for start in range(0, len(pixels), BATCH):
    rows = np.arange(start, start + BATCH) % len(pixels)
    key = jax.random.fold_in(jax.random.key(task.seed), start)
    try:
      outputs = draw(compiled, state, {"image": pixels[rows]}, key, task.backend)
    except KeyError as error:
      raise ValueError(f"anomaly: the method reads {error} beside images") from error
    name = next((name for name in SCORES if name in outputs), None)
    if name is None:
      raise ValueError(
        f"anomaly needs one of {SCORES} for every image; the method has "
        f"{sorted(outputs)}"
      )
    found.append(outputs[name])
  return name, np.concatenate(found)[: len(pixels)].astype(np.float64)
