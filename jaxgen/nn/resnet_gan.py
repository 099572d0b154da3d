"""The residual generator and discriminator of WGAN-GP and SNGAN for small images.

Gulrajani et al. (2017), arXiv 1704.00028, and Miyato et al. (2018), arXiv 1802.05957,
Table 4; labels enter as in Miyato & Koyama (2018), arXiv 1802.05637. At the defaults
(32x32x3, no labels): 4,276,739 parameters in the generator, 1,053,825 in the
discriminator, those of torch-mimicry's WGAN-GP and SNGAN, to which outputs and
gradients are equal (tests/test_sngan.py) but for two choices, where this follows the
papers' own code:
  - Images are doubled by repeating pixels; torch-mimicry interpolates linearly.
  - A block's shortcut sees what entered the block. In torch-mimicry the ReLU at the
    head of a discriminator block works in place, so its shortcut sees the ReLU's
    output.
Biases start at zero and every kernel as Glorot & Bengio's.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.progressive import downsample, upsample
from jaxgen.nn.spectral import spectral_norm
from jaxgen.nn.strided_conv import pixel_conv


def glorot(gain: float) -> Callable:
  """Uniform of variance gain * 2 / (fan in + fan out)."""
  return nn.initializers.variance_scaling(gain, "fan_avg", "uniform")


def label_embedding_init(key: Array, shape: tuple, dtype: Any = jnp.float32) -> Array:
  """Scales of 1 and shifts of 0 for every class: [num_classes, 2 C]."""
  half = jnp.ones((shape[0], shape[1] // 2), dtype)
  return jnp.concatenate([half, 0 * half], axis=1)


class BatchNorm(nn.Module):
  """Batch norm, with a scale and a shift for every class if there are classes.

  Attributes:
    num_classes: 0 for one scale and shift for all.
    dtype: Of the result; statistics are float32.
  """

  num_classes: int = 0
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, label: Array | None, train: bool) -> Array:
    """(x [B, H, W, C], label i32 [B] or None) -> [B, H, W, C]."""
    one_for_all = self.num_classes == 0
    x = nn.BatchNorm(
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      use_scale=one_for_all,
      use_bias=one_for_all,
      dtype=self.dtype,
      name="norm",
    )(x)
    if one_for_all:
      return x
    scale, shift = jnp.split(
      nn.Embed(
        self.num_classes,
        2 * x.shape[-1],
        embedding_init=label_embedding_init,
        dtype=self.dtype,
        name="label",
      )(label)[:, None, None],
      2,
      axis=-1,
    )
    return scale * x + shift


class GeneratorBlock(nn.Module):
  """norm, relu, double, conv, norm, relu, conv, + double, 1x1 conv of the input.

  Attributes:
    channels: Output channels.
    num_classes: Of the batch norms.
    upsample: [B, H, W, C] -> [B, 2H, 2W, C].
    dtype: Of the computation.
  """

  channels: int
  num_classes: int = 0
  upsample: Callable = upsample
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, label: Array | None, train: bool) -> Array:
    """x [B, H, W, C] -> [B, 2H, 2W, channels]."""

    def conv(size: int, gain: float, name: str) -> nn.Conv:
      size = (size, size)
      kwargs = dict(kernel_init=glorot(gain), dtype=self.dtype, name=name)
      kwargs["conv_general_dilated"] = pixel_conv
      return nn.Conv(self.channels, size, **kwargs)

    norm = lambda name: BatchNorm(self.num_classes, self.dtype, name=name)
    h = nn.relu(norm("norm_1")(x, label, train))
    h = conv(3, 2.0, "conv_1")(self.upsample(h))
    h = nn.relu(norm("norm_2")(h, label, train))
    h = conv(3, 2.0, "conv_2")(h)
    return h + conv(1, 1.0, "shortcut")(self.upsample(x))


class Generator(nn.Module):
  """Latents to images of side base_size * 2^num_doublings.

  Attributes:
    channels: Of the image.
    width: Channels of every layer but the last.
    num_doublings: Blocks.
    base_size: Side of the first layer's output: 4 for 32 pixels, 7 for 28.
    num_classes: If not 0, the blocks' batch norms have a scale and a shift per class.
    upsample: [B, H, W, C] -> [B, 2H, 2W, C].
    dtype: Of the computation; parameters and the returned images are float32.
  """

  channels: int = 3
  width: int = 256
  num_doublings: int = 3
  base_size: int = 4
  num_classes: int = 0
  upsample: Callable = upsample
  dtype: Any = None

  @nn.compact
  def __call__(self, z: Array, label: Array | None = None, *, train: bool) -> Array:
    """z f32 [B, latent_dim], label i32 [B] -> f32 [B, H, W, C] in [-1, 1]."""
    side = self.base_size
    init = dict(kernel_init=glorot(1.0), dtype=self.dtype)
    x = nn.Dense(side * side * self.width, name="first", **init)(z)
    x = x.reshape(-1, side, side, self.width)
    for level in range(self.num_doublings):
      x = GeneratorBlock(
        self.width, self.num_classes, self.upsample, self.dtype, name=f"block_{level}"
      )(x, label, train)
    x = nn.relu(BatchNorm(0, self.dtype, name="norm")(x, None, train))
    x = nn.Conv(self.channels, (3, 3), name="last", **init)(x)
    return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class DiscriminatorBlock(nn.Module):
  """relu, conv, relu, conv, halve, + 1x1 conv, halve of the input.

  Attributes:
    channels: Output channels.
    first: Whether the input is an image: no ReLU on it, and its shortcut is halved
      before it is convolved (the same, but cheaper).
    down: Whether the block halves the side. One that does not has no convolution in
      its shortcut unless the channels change.
    spectral: Whether every kernel is spectrally normalised.
    dtype: Of the computation.
  """

  channels: int
  first: bool = False
  down: bool = False
  spectral: bool = False
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """x [B, H, W, C] -> [B, H, W, channels], or half of H and W."""

    def conv(size: int, gain: float, name: str) -> Callable:
      size = (size, size)
      kwargs = dict(kernel_init=glorot(gain), dtype=self.dtype, name=name)
      kwargs["conv_general_dilated"] = pixel_conv
      layer = nn.Conv(self.channels, size, **kwargs)
      return spectral_norm(layer, train=train) if self.spectral else layer

    h = conv(3, 2.0, "conv_1")(x if self.first else nn.relu(x))
    h = conv(3, 2.0, "conv_2")(nn.relu(h))
    h = downsample(h) if self.down else h
    if self.down or x.shape[-1] != self.channels:
      x = downsample(x) if self.down and self.first else x
      x = conv(1, 1.0, "shortcut")(x)
      x = downsample(x) if self.down and not self.first else x
    return h + x


class Discriminator(nn.Module):
  """Images to scores: two blocks that halve, two that do not, a pool, a line.

  No norm mixes examples, so that gradient penalties may be used.

  Attributes:
    width: Channels of every layer.
    num_classes: If not 0, the score gains <embedding of the label, pooled features>.
    spectral: Whether every kernel and the embedding are spectrally normalised; the
      vectors are in the collection "spectral_norm".
    pool: How pixels become one, as `jnp.mean` (WGAN-GP) or `jnp.sum` (SNGAN).
    dtype: Of the computation; parameters and scores are float32.
  """

  width: int = 128
  num_classes: int = 0
  spectral: bool = False
  pool: Callable = jnp.mean
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
    """(x f32 [B, H, W, C] in [-1, 1], label i32 [B] or None) -> scores f32 [B].

    Raises:
      ValueError: If H or W is not a multiple of 4.
    """
    if x.shape[1] % 4 or x.shape[2] % 4:
      raise ValueError(
        f"images of {x.shape[1]}x{x.shape[2]} pixels; expected multiples of 4"
      )
    for level in range(4):
      x = DiscriminatorBlock(
        self.width,
        first=level == 0,
        down=level < 2,
        spectral=self.spectral,
        dtype=self.dtype,
        name=f"block_{level}",
      )(x, train)
    x = self.pool(nn.relu(x), axis=(1, 2))
    init = dict(dtype=self.dtype)
    wrap = lambda f: spectral_norm(f, train=train) if self.spectral else f
    score = wrap(nn.Dense(1, kernel_init=glorot(1.0), name="last", **init))(x)[:, 0]
    if self.num_classes:
      embed = nn.Embed(
        self.num_classes, self.width, embedding_init=glorot(1.0), name="label", **init
      )
      score += jnp.sum(wrap(embed)(label) * x, axis=-1)
    return score.astype(jnp.promote_types(score.dtype, jnp.float32))
