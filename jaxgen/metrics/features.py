"""Networks whose features scores compare: Fréchet and kernel distances and the like.

A score is named by the network, its weights and the resizer; `fingerprint` and
`resize` belong beside every number.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
from jax import Array
import jax.numpy as jnp

from jaxgen.nn import inception, squeezenet
from jaxgen.nn.torch_file import file_hash
from jaxgen.ops.resize import resize_pil, resize_tf1_bilinear, resize_torch_bilinear


class FeatureNetwork(NamedTuple):
  """Images to features.

  Attributes:
    name: Of the network, e.g. "inception-v3".
    fingerprint: The name and a hash of the weights' file; equal fingerprints and equal
      `resize` mean comparable features.
    resize: How images are brought to the network's size.
    apply: f32 [B, H, W, C] in 0..255, C 1 (repeated) or 3 (RGB) -> {"features": f32
      [B, D], and "logits": f32 [B, K] if the network has classes}. Compiled within; a
      pytree whose leaves are the weights. A function that is to be jitted around it
      should take it as an argument, or the weights become constants of the program.
      Images are not rounded here: score what a file of 8 bits would hold.
  """

  name: str
  fingerprint: str
  resize: str
  apply: Callable[[Array], dict[str, Array]]


CLEAN = "pil-bicubic-"  # `resize` of those that take each image as clean-fid does


def clean_size(network: FeatureNetwork) -> int | None:
  """The side to which a network brings each image by clean-fid's rule, or None."""
  if not network.resize.startswith(CLEAN):
    return None
  return int(network.resize.removeprefix(CLEAN))


def inception_features(
  path: str | Path, *, convention: str = "torch-fidelity"
) -> FeatureNetwork:
  """Inception v3 of FID: 2048 features, 1008 logits.

  "logits" are without the last layer's bias, as the Inception score takes them.

  Args:
    path: See `jaxgen.nn.inception.inception_variables`.
    convention: Whose resizing and scaling to repeat: "torch-fidelity" (that of the
      original TensorFlow graph), "clean-fid" (antialiased bicubic) or "pytorch-fid".

  Returns:
    The network, at 299 x 299 pixels.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it holds other weights, or the convention is unknown.
  """
  if convention not in _CONVENTIONS:
    raise ValueError(f"expected one of {sorted(_CONVENTIONS)}, got {convention!r}")
  resize, prepare = _CONVENTIONS[convention]

  def apply(variables: dict, images: Array) -> dict[str, Array]:
    out = _inception(variables, prepare(_rgb(images)))
    return {"features": out["pool"], "logits": out["logits_unbiased"]}

  apply = jax.tree_util.Partial(apply, inception.inception_variables(path))
  name = "inception-v3"
  return FeatureNetwork(name, f"{name}-{file_hash(path)}", resize, apply)


def squeezenet_features(path: str | Path) -> FeatureNetwork:
  """SqueezeNet 1.0 with Caffe's weights: 512 features (the mean of fire9), 1000 logits.

  For distances of this project's own, where Inception's weights are missing. They are
  not to be called FID, nor compared with published numbers.

  Args:
    path: See `jaxgen.nn.squeezenet.squeezenet_variables`.

  Returns:
    The network, at 227 x 227 pixels, antialiased bicubic.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it holds other weights.
  """

  def apply(variables: dict, images: Array) -> dict[str, Array]:
    images = _clean_resize(_rgb(images), squeezenet.SIZE)
    mean = jnp.asarray(squeezenet.CAFFE_MEAN, images.dtype)[None, None, None]
    out = _squeezenet(variables, images[..., ::-1] - mean)  # to BGR
    return {name: out[name] for name in ("features", "logits")}

  apply = jax.tree_util.Partial(apply, squeezenet.squeezenet_variables("1.0", path))
  name = "squeezenet-1.0"
  return FeatureNetwork(name, f"{name}-{file_hash(path)}", f"{CLEAN}227", apply)


_inception = jax.jit(inception.InceptionV3().apply)
_squeezenet = jax.jit(squeezenet.SqueezeNet("1.0").apply)


def _rgb(images: Array) -> Array:
  if images.ndim != 4 or images.shape[-1] not in (1, 3):
    raise ValueError(f"expected images [B, H, W, 1 or 3], got {images.shape}")
  return images if images.shape[-1] == 3 else jnp.repeat(images, 3, axis=-1)


def _clean_resize(images: Array, size: int) -> Array:
  return jnp.clip(resize_pil(images, (size, size), "bicubic"), 0, 255)


def _square(images: Array, resize: Callable) -> Array:
  return resize(images, (inception.SIZE, inception.SIZE))


_CONVENTIONS = {  # name: resize, preparation
  "torch-fidelity": (
    "tf1-bilinear-299",
    lambda images: (_square(images, resize_tf1_bilinear) - 128) / 128,
  ),
  "clean-fid": (
    f"{CLEAN}299",
    lambda images: (_clean_resize(images, inception.SIZE) - 128) / 128,
  ),
  "pytorch-fid": (
    "torch-bilinear-299",
    lambda images: 2 * _square(images / 255, resize_torch_bilinear) - 1,
  ),
}
