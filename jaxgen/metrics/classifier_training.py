"""Training of the small classifier, and the classification accuracy score.

Of Ravuri and Vinyals, "Classification Accuracy Score for Conditional Generative Models"
(2019), arXiv 1905.10887. Measured on two busy CPU cores: MNIST 98.98 % with
num_steps=1000 and max_shift=2, 64 s.
"""

from collections.abc import Callable, Iterator
import dataclasses
import inspect
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.metrics.classifier import (
  Classifier,
  Network,
  check_images,
  check_labels,
  to_float,
)

PyTree = Any


def train_classifier(
  images: np.ndarray,
  labels: np.ndarray,
  *,
  num_classes: int,
  num_steps: int,
  seed: int = 0,
  batch_size: int = 128,
  learning_rate: float = 2e-3,
  max_shift: int = 0,
  test: tuple[np.ndarray, np.ndarray] | None = None,
) -> Classifier:
  """Trains on the cross-entropy with Adam, whose rate falls to zero along a cosine.

  The weights are a function of the arguments on one kind of machine with one number of
  cores, over which XLA splits sums: elsewhere their last bits differ. Steps are
  compiled one by one: XLA computes gradients of convolutions inside loops slowly on a
  CPU.

  Args:
    images: uint8, or f32 in [-1, 1], [N, H, W, C], H and W 5..64.
    labels: Integers [N] in 0..num_classes-1.
    num_classes: Number of classes.
    num_steps: Updates.
    seed: Of weights, order and shifts.
    batch_size: Images per update, drawn without replacement within an epoch.
    learning_rate: At the first update.
    max_shift: Images are shifted by up to so many pixels up, down, left and right at
      random, repeating their border; 2 suits 28 pixels.
    test: Images and labels for `test_accuracy`, or None.

  Returns:
    The classifier.

  Raises:
    ValueError: A shape, size, number or label is unfit.
    TypeError: Images are neither uint8 nor float32, or labels no integers.
  """
  check_images(images)
  for array, truth in [(images, labels)] + ([test] if test else []):
    check_labels(array, truth, num_classes)
  if num_steps < 1 or batch_size < 1 or max_shift < 0:
    raise ValueError(
      "num_steps and batch_size must be positive and max_shift not negative, got "
      f"num_steps={num_steps}, batch_size={batch_size}, max_shift={max_shift}"
    )
  shape = images.shape[1:]
  init, step = _training(shape, num_classes, num_steps, learning_rate)
  state = init(jax.random.key(seed))
  batches = _batches(images, np.asarray(labels), batch_size, max_shift, seed)
  for _ in range(num_steps):
    state = step(state, *next(batches))
  classifier = Classifier(state[0], shape, num_classes)
  if test is None:
    return classifier
  return dataclasses.replace(classifier, test_accuracy=classifier.accuracy(*test))


def training_recipe(
  image_shape: tuple[int, int, int], num_classes: int, num_steps: int, **options: Any
) -> str:
  """What, beside its data, makes the classifier of `train_classifier`: for caches.

  Args:
    image_shape: (H, W, C).
    num_classes: As `train_classifier` takes it,
    num_steps: and this,
    **options: and further arguments.

  Returns:
    All arguments with their defaults, and the compiler's input for one update: it
    changes with the network, the loss, the optimiser, and with JAX's own programs.
  """
  bound = inspect.signature(train_classifier).bind(
    None, None, num_classes=num_classes, num_steps=num_steps, **options
  )
  bound.apply_defaults()
  used = {k: v for k, v in bound.arguments.items() if v is not None}
  rate, size = used["learning_rate"], used["batch_size"]
  init, step = _training(image_shape, num_classes, num_steps, rate)
  images = jax.ShapeDtypeStruct((size, *image_shape), jnp.float32)
  labels = jax.ShapeDtypeStruct((size,), jnp.int32)
  state = jax.eval_shape(init, jax.random.key(0))
  return f"{used} {step.lower(state, images, labels).as_text()}"


def classification_accuracy_score(
  images: np.ndarray,
  labels: np.ndarray,
  test_images: np.ndarray,
  test_labels: np.ndarray,
  **options: Any,
) -> float:
  """Accuracy on real test images of a classifier trained on synthetic ones alone.

  Ravuri and Vinyals train a ResNet-50; figures of this network compare with each other
  only, and with the accuracy it reaches when trained on real images.

  Args:
    images: Synthetic; uint8, or f32 in [-1, 1], [N, H, W, C].
    labels: Integers [N]; the classes that the synthetic images were drawn for.
    test_images: Real, like `images`, [M, H, W, C].
    test_labels: Integers [M].
    **options: Of `train_classifier`; `num_classes` and `num_steps` are needed.

  Returns:
    The accuracy in [0, 1].

  Raises:
    ValueError, TypeError: As `train_classifier` and `Classifier.accuracy`.
  """
  classifier = train_classifier(images, labels, **options)
  return classifier.accuracy(test_images, test_labels)


def _training(
  shape: tuple[int, int, int], num_classes: int, num_steps: int, learning_rate: float
) -> tuple[Callable, Callable]:
  """key -> the first state; (state, images, labels) -> the next, compiled."""
  network = Network(num_classes)
  tx = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

  def init(key: Array) -> PyTree:
    params = network.init(key, jnp.zeros((1, *shape)))["params"]
    return params, tx.init(params)

  def step(state: PyTree, images: Array, labels: Array) -> PyTree:
    params, opt = state

    def loss(params: PyTree) -> Array:
      logits = network.apply({"params": params}, images)["logits"]
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return jnp.mean(losses)

    updates, opt = tx.update(jax.grad(loss)(params), opt, params)
    return optax.apply_updates(params, updates), opt

  return init, jax.jit(step, donate_argnums=0)


def _batches(
  images: np.ndarray, labels: np.ndarray, batch_size: int, max_shift: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Endless shuffled, shifted batches: (f32 images in [-1, 1], i32 labels)."""
  rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
  n, height, width, _ = images.shape
  sides = ((0, 0), (max_shift, max_shift), (max_shift, max_shift), (0, 0))
  padded = np.pad(images, sides, mode="edge")
  while True:
    order = np.resize(rng.permutation(n), max(n, batch_size))
    for start in range(0, len(order) - batch_size + 1, batch_size):
      rows = order[start : start + batch_size]
      up, left = rng.integers(0, 2 * max_shift + 1, (2, batch_size, 1))
      y, x = up + np.arange(height), left + np.arange(width)
      batch = padded[rows[:, None, None], y[:, :, None], x[:, None, :]]
      yield to_float(batch), labels[rows].astype(np.int32)
