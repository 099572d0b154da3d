"""Learned perceptual image patch similarity, LPIPS v0.1.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"
(2018), arXiv 1801.03924, as the authors' package lpips 0.1.4 computes it. Tested for
equal values and gradients.

The weights are the user's to bring: a network of torchvision and the linear heads.
"""

from collections.abc import Callable
import functools
from pathlib import Path
from typing import NamedTuple

import jax
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.alexnet import AlexNet, alexnet_variables
from jaxgen.nn.pretrained import load_weights
from jaxgen.nn.squeezenet import SqueezeNet, squeezenet_variables
from jaxgen.nn.torch_file import file_hash
from jaxgen.nn.vgg import VGG16, vgg16_variables

_SHIFT = (-0.030, -0.088, -0.188)  # of ImageNet's normalisation, for [-1, 1]
_SCALE = (0.458, 0.448, 0.450)
_ALEX = tuple(f"relu{i}" for i in range(1, 6))
_VGG = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
_SQUEEZE = ("conv1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")


class _Backbone(NamedTuple):
  file: str  # of torchvision
  net: Callable
  variables: Callable  # path -> variables
  taps: tuple[str, ...]
  channels: tuple[int, ...]


_BACKBONES = {
  "alex": _Backbone(
    "alexnet-owt-7be5be79.pth",
    AlexNet().apply,
    alexnet_variables,
    _ALEX,
    (64, 192, 384, 256, 256),
  ),
  "squeeze": _Backbone(
    "squeezenet1_1-b8a52dc0.pth",
    SqueezeNet("1.1").apply,
    lambda path: squeezenet_variables("1.1", path),
    _SQUEEZE,
    (64, 128, 256, 384, 384, 512, 512),
  ),
  "vgg": _Backbone(
    "vgg16-397923af.pth",
    VGG16().apply,
    vgg16_variables,
    _VGG,
    (64, 128, 256, 512, 512),
  ),
}
BACKBONE_FILES = {name: parts.file for name, parts in _BACKBONES.items()}


class LPIPS(NamedTuple):
  """What `lpips` measures with; from `load_lpips`.

  Attributes:
    fingerprint: The backbone's name and hashes of both files.
    taps: normalised images [B, H, W, 3] -> layers [B, H', W', C], in order. A pytree
      whose leaves are the weights: pass it to a jitted function as an argument.
    heads: A weight per channel, f32 [C], for each layer.
  """

  fingerprint: str
  taps: Callable[[Array], tuple[Array, ...]]
  heads: tuple[Array, ...]


def lpips(images: Array, references: Array, network: LPIPS) -> Array:
  """Perceptual distance of each image to its reference (Eq. 1); 0 if they are equal.

  Computed in the dtype of the images, and differentiable.

  Args:
    images: f32 [B, H, W, 3] in [-1, 1], RGB; at least 32 x 32, published at 64 and up.
    references: Of the same shape, dtype and range.
    network: From `load_lpips`.

  Returns:
    f32 [B].

  Raises:
    ValueError: If the shapes differ or are not [B, H, W, 3], or they are so
      small that a layer of the network is empty.
  """
  if images.shape != references.shape or images.ndim != 4 or images.shape[-1] != 3:
    raise ValueError(
      f"expected two [B, H, W, 3], got {images.shape} and {references.shape}"
    )
  total = jnp.zeros(images.shape[0], images.dtype)
  pairs = zip(_layers(images, network), _layers(references, network), strict=True)
  for (ours, theirs), head in zip(pairs, network.heads, strict=True):
    squares = (ours - theirs) ** 2 * head.astype(ours.dtype)[None, None, None]
    total = total + squares.sum(axis=-1).mean(axis=(1, 2))
  return total


def load_lpips(
  backbone: str, backbone_path: str | Path, heads_path: str | Path
) -> LPIPS:
  """Reads the weights of LPIPS from files that the user has.

  Args:
    backbone: "alex", "squeeze" or "vgg".
    backbone_path: torchvision's alexnet-owt-7be5be79.pth, squeezenet1_1-b8a52dc0.pth
      or vgg16-397923af.pth; or `.npz` with the same names.
    heads_path: The package's weights/v0.1/<backbone>.pth, or an `.npz` with
      <backbone>/lin0, lin1 ..., each f32 [C].

  Returns:
    What `lpips` takes.

  Raises:
    FileNotFoundError: If a file is missing; with the name of the file that is wanted.
    ValueError: If the backbone is unknown or a file holds other weights.
  """
  if backbone not in _BACKBONES:
    raise ValueError(f"expected a backbone of {sorted(_BACKBONES)}, got {backbone!r}")
  parts = _BACKBONES[backbone]
  wanted = {
    backbone_path: f"torchvision's {parts.file}",
    heads_path: f"the linear heads v0.1 of {backbone!r}",
  }
  for path, file in wanted.items():
    if not Path(path).is_file():
      raise FileNotFoundError(
        f"{path}: no such file; LPIPS with {backbone!r} needs {file}, and no other "
        "network is used in its place"
      )
  return LPIPS(
    f"lpips-{backbone}-{file_hash(backbone_path)}-{file_hash(heads_path)}",
    jax.tree_util.Partial(_tapped(backbone), parts.variables(backbone_path)),
    _heads(backbone, parts.channels, heads_path),
  )


@functools.cache  # Traced once for both images, compiled once for all weights.
def _tapped(backbone: str) -> Callable[[dict, Array], tuple[Array, ...]]:
  parts = _BACKBONES[backbone]
  layers = lambda variables, x: tuple(parts.net(variables, x)[n] for n in parts.taps)
  return jax.jit(layers)


def _layers(images: Array, network: LPIPS) -> list[Array]:
  """All taps, each pixel's channels of unit length."""
  shift, scale = (
    jnp.asarray(values, images.dtype)[None, None, None] for values in (_SHIFT, _SCALE)
  )
  layers = network.taps((images - shift) / scale)
  if any(0 in layer.shape for layer in layers):
    raise ValueError(f"images {images.shape} are too small: a layer is empty")
  return [_unit(layer) for layer in layers]


def _unit(x: Array) -> Array:
  """x / (|x| + 1e-10) over the channels.

  Where all are zero the gradient is not a number; the ReLU before it takes it for 0.
  """
  return x / (jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True)) + 1e-10)


def _heads(
  backbone: str, channels: tuple[int, ...], path: str | Path
) -> tuple[Array, ...]:
  weights, heads = load_weights(path), []
  for i, count in enumerate(channels):
    names = f"{backbone}.lin{i}", f"lin{i}.model.1.weight"
    found = [weights[name] for name in names if name in weights]
    if not found or found[0].size != count:
      raise ValueError(
        f"{path}: not the heads of LPIPS with {backbone!r}: expected {count} weights "
        f"in {names[0]} or {names[1]}, got {[list(w.shape) for w in found]}"
      )
    heads.append(jnp.asarray(found[0].reshape(-1), jnp.float32))
  return tuple(heads)
