"""A small classifier, where no pretrained network can be had, with its file.

It serves as feature network of Frechet distances and the like, and as judge of labels
(modes, confidence, entropy). `classifier_training` makes it. Features of two
classifiers are not comparable: make one, save it, and report its `fingerprint` and test
accuracy with every number it gives.

The network is ours: three 3x3 convolutions of 32, 64 and 128 channels, halving until a
side has at most 4 pixels, a dense layer of 128 and one of `num_classes`; ReLU between.
"""

import dataclasses
import functools
import hashlib
import os
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

PyTree = Any
FEATURE_DIM = 128


class Network(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, x: Array) -> dict[str, Array]:
    for channels in (32, 64, 128):
      strides = 2 if min(x.shape[1:3]) > 4 else 1
      x = nn.relu(nn.Conv(channels, (3, 3), strides)(x))
    features = nn.relu(nn.Dense(FEATURE_DIM)(x.reshape(x.shape[0], -1)))
    return {"logits": nn.Dense(self.num_classes)(features), "features": features}


@functools.partial(jax.jit, static_argnums=0)
def _outputs(network: Network, params: PyTree, x: Array) -> dict[str, Array]:
  return network.apply({"params": params}, x)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("params",),
  meta_fields=("image_shape", "num_classes", "test_accuracy"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
  """A trained classifier, a tree of its weights; made by `train_classifier` or `load`.

  Attributes:
    params: Weights, float32.
    image_shape: (H, W, C) of the images it takes.
    num_classes: Labels are 0..num_classes-1.
    test_accuracy: On the test set it was trained with, in [0, 1]; None without one.
  """

  params: PyTree
  image_shape: tuple[int, int, int]
  num_classes: int
  test_accuracy: float | None = None

  def apply(self, x: Array) -> dict[str, Array]:
    """Both outputs of a batch; pure and differentiable.

    Args:
      x: f32 [B, H, W, C] in [-1, 1].

    Returns:
      {"logits": f32 [B, num_classes], before the softmax; "features": f32 [B, 128],
      the non-negative input of the last layer}.

    Raises:
      ValueError: The images are not [B, *image_shape].
      TypeError: They are not floating point.
    """
    self._check_shape(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
      raise TypeError(f"expected floats in [-1, 1], got {x.dtype}")
    return _outputs(Network(self.num_classes), self.params, x)

  def logits(self, x: Array) -> Array:
    """f32 [B, H, W, C] in [-1, 1] -> f32 [B, num_classes]; see `apply`."""
    return self.apply(x)["logits"]

  def features(self, x: Array) -> Array:
    """f32 [B, H, W, C] in [-1, 1] -> f32 [B, 128]; see `apply`."""
    return self.apply(x)["features"]

  def predict(self, images: np.ndarray, batch_size: int = 500) -> dict[str, np.ndarray]:
    """`apply` for any number of images, compiled, in batches of one size.

    Args:
      images: uint8, or f32 in [-1, 1], [N, H, W, C]; N at least 1.
      batch_size: Images at a time.

    Returns:
      {"logits": f32 [N, num_classes], "features": f32 [N, 128]}.

    Raises:
      ValueError, TypeError: As `apply`, or there are no images.
    """
    check_images(images)
    self._check_shape(images)
    network, batches = Network(self.num_classes), []
    for start in range(0, len(images), batch_size):
      batch = images[start : start + batch_size]
      padding = np.zeros((batch_size - len(batch), *batch.shape[1:]), batch.dtype)
      padded = to_float(np.concatenate([batch, padding]))
      outputs = _outputs(network, self.params, padded)
      batches.append({k: np.asarray(v)[: len(batch)] for k, v in outputs.items()})
    return {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}

  def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose largest logit is at their label, in [0, 1].

    Args:
      images: uint8, or f32 in [-1, 1], [N, H, W, C].
      labels: Integers [N].

    Raises:
      ValueError, TypeError: As `predict`, or a label is none of the classes.
    """
    check_labels(images, labels, self.num_classes)
    predicted = self.predict(images)["logits"].argmax(-1)
    return float(np.mean(predicted == np.asarray(labels)))

  @property
  def fingerprint(self) -> str:
    """SHA-256 of the weights, with their names and shapes, in hexadecimal."""
    digest = hashlib.sha256()
    for name, weight in sorted(self._weights().items()):
      digest.update(f"{name} {weight.dtype} {weight.shape}\n".encode())
      digest.update(weight.tobytes())
    return digest.hexdigest()

  def _weights(self) -> dict[str, np.ndarray]:
    flat = traverse_util.flatten_dict(self.params, sep="/")
    return {name: np.asarray(weight) for name, weight in flat.items()}

  def _check_shape(self, x: Array | np.ndarray) -> None:
    if x.ndim != 4 or x.shape[1:] != self.image_shape:
      height, width, channels = self.image_shape
      raise ValueError(
        f"expected images [B, {height}, {width}, {channels}], got shape {x.shape}"
      )

  def save(self, path: str | os.PathLike) -> None:
    """Writes the classifier to `path`, which must end in .npz."""
    if not os.fspath(path).endswith(".npz"):
      raise ValueError(f"expected a path that ends in .npz, got {os.fspath(path)!r}")
    np.savez(
      path,
      image_shape=self.image_shape,
      num_classes=self.num_classes,
      test_accuracy=np.nan if self.test_accuracy is None else self.test_accuracy,
      fingerprint=self.fingerprint,
      **{f"params/{name}": weight for name, weight in self._weights().items()},
    )


def load(path: str | os.PathLike) -> Classifier:
  """The classifier that `Classifier.save` wrote.

  Raises:
    FileNotFoundError: There is no such file.
    ValueError: It is no classifier, or its weights are not those that were saved.
  """
  name = os.fspath(path)
  try:
    with np.load(path, allow_pickle=False) as archive:
      saved = dict(archive)
    weights = {
      key.removeprefix("params/"): saved[key]
      for key in saved
      if key.startswith("params/")
    }
    accuracy = float(saved["test_accuracy"])
    classifier = Classifier(
      jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(weights, sep="/")),
      tuple(saved["image_shape"].tolist()),
      int(saved["num_classes"]),
      None if np.isnan(accuracy) else accuracy,
    )
    expected = str(saved["fingerprint"])
  except FileNotFoundError:
    raise FileNotFoundError(f"no file {name!r}") from None
  except Exception as error:  # no zip, no array, a key missing, ...
    raise ValueError(f"{name}: not a saved classifier ({error!r})") from error
  if classifier.fingerprint != expected:
    raise ValueError(
      f"{name}: the weights have fingerprint {classifier.fingerprint}, expected "
      f"{expected}"
    )
  return classifier


def to_float(images: np.ndarray) -> np.ndarray:
  """0..255 to [-1, 1]; floats as they are."""
  return images / np.float32(127.5) - 1 if images.dtype == np.uint8 else images


def check_images(images: np.ndarray) -> None:
  if images.ndim != 4 or not len(images):
    raise ValueError(f"expected images [N, H, W, C], N > 0, got shape {images.shape}")
  if not all(5 <= side <= 64 for side in images.shape[1:3]):
    raise ValueError(f"expected sides of 5 to 64 pixels, got shape {images.shape}")
  if images.dtype not in (np.uint8, np.float32):
    raise TypeError(f"expected uint8, or float32 in [-1, 1], got {images.dtype}")
  if images.dtype == np.float32 and not np.all(np.abs(images) <= 1):
    raise ValueError(
      f"expected float32 in [-1, 1], got values in [{images.min()}, {images.max()}]"
    )


def check_labels(images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
  labels = np.asarray(labels)
  if labels.dtype.kind not in "iu":
    raise TypeError(f"expected integer labels, got {labels.dtype}")
  if labels.shape != (len(images),):
    raise ValueError(
      f"expected one label per image, got shape {labels.shape} for {len(images)} images"
    )
  if labels.min() < 0 or labels.max() >= num_classes:
    raise ValueError(
      f"labels must be 0..{num_classes - 1}, got {labels.min()}..{labels.max()}"
    )
