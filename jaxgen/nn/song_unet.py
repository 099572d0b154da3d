"""DDPM++ and NCSN++, the U-Nets of score-based generative modelling, as EDM uses them.

Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations"
(2021), arXiv 2011.13456, in the form of Karras et al., "Elucidating the Design Space of
Diffusion-Based Generative Models" (2022), arXiv 2206.00364, Appendix C and the authors'
code, compared in float64 for equal weights.

Deviations: layers that the authors draw with weights 1e-5 times as large start at zero;
the random frequencies of NCSN++ are the same in every run.
"""

from collections.abc import Callable
from typing import Literal

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.embed import fourier_embedding, timestep_embedding
from jaxgen.nn.resampling_unet import (
  BOX,
  Block,
  Dtype,
  Style,
  Taps,
  augment_labels,
  check_sizes,
  conv,
  dense,
  embed_labels,
  norm,
  zeros,
)
from jaxgen.ops.upfirdn import fir_taps, separable2d

_scaled = nn.initializers.variance_scaling


class SongUNet(nn.Module):
  """Maps a noisy image and its noise level to an image of the same shape.

  The defaults are DDPM++ for CIFAR-10 in EDM: 55,732,739 parameters for 32x32x3
  images, 55,734,147 with 10 classes, 55,735,299 with augmentation labels as well.
  NCSN++ is noise_embedding="fourier", embedding_mult=2, residual_input=True,
  taps=BINOMIAL: 56,400,643.

  Attributes:
    num_classes: Labels are 0 ... num_classes - 1; 0 is a network without labels.
    augment_dim: Numbers that describe an augmentation; 0 is a network without.
    channels: Channels that the multiples multiply.
    channel_mults: Channels of each level, as multiples of `channels`. Every level has
      half the height and width of the one before.
    num_blocks: Residual blocks per level on the way down; one more on the way up.
    attention_resolutions: Heights in pixels of the levels with self-attention after
      every residual block on the way down, and after the last on the way up. The middle
      always has one.
    dropout_rate: In the residual blocks.
    noise_embedding: How the noise level is embedded.
    embedding_mult: Length of that embedding over `channels`.
    residual_input: Whether every level sees the image through strided convolutions.
    taps: Filter of changes of resolution.
    dtype: Of convolutions and products, and of activations between them. Parameters,
      normalisation, softmax and output are float32.
  """

  num_classes: int = 0
  augment_dim: int = 0
  channels: int = 128
  channel_mults: tuple[int, ...] = (2, 2, 2)
  num_blocks: int = 4
  attention_resolutions: tuple[int, ...] = (16,)
  dropout_rate: float = 0.13
  noise_embedding: Literal["positional", "fourier"] = "positional"
  embedding_mult: int = 1
  residual_input: bool = False
  taps: Taps = BOX
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Array,
    noise: Array,
    label: Array | None = None,
    augment: Array | None = None,
    train: bool = False,
  ) -> Array:
    """The raw network, F of Eq. 7.

    Args:
      x: f32 [B, H, W, C]; H and W divisible by 2^(len(channel_mults) - 1).
      noise: f32 [B]; the noise level, as c_noise maps it.
      label: i32 [B], or None; those below 0 are no label.
      augment: f32 [B, augment_dim], or None for images as they are.
      train: Whether dropout is on (it then needs the "dropout" key).

    Returns:
      f32 [B, H, W, C].

    Raises:
      ValueError: If shapes do not fit, see `jaxgen.nn.resampling_unet`.
    """
    check_sizes(x.shape, len(self.channel_mults), self.attention_resolutions)
    style = Style(
      init=_scaled(1.0, "fan_avg", "uniform"),
      attention_init=_scaled(0.2, "fan_avg", "uniform"),
      epsilon=1e-6,
      skip_scale=0.5**0.5,
      project_skips=True,
      taps=self.taps,
      dropout_rate=self.dropout_rate,
      dtype=self.dtype,
    )
    embedding = self._embed(noise, label, augment, style)

    def block(h: Array, width: int, name: str, **kwargs: object) -> Array:
      return Block(width, style, name=name, **kwargs)(h, embedding, train)

    skips = self._down(x, block, style)
    h = skips[-1]
    top = len(self.channel_mults) - 1
    for level, mult in reversed(list(enumerate(self.channel_mults))):
      if level == top:
        h = block(h, h.shape[-1], "middle_0", attention=True)
        h = block(h, h.shape[-1], "middle_1")
      else:
        h = block(h, h.shape[-1], f"up{level}_resample", resample="up")
      for i in range(self.num_blocks + 1):
        last = i == self.num_blocks
        attention = last and h.shape[1] in self.attention_resolutions
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = block(h, self.channels * mult, f"up{level}_{i}", attention=attention)

    h = nn.swish(norm(h, style, "norm_out"))
    wide = style._replace(dtype=jnp.promote_types(self.dtype, jnp.float32))
    return conv(x.shape[-1], wide, "conv_out", init=zeros)(h)

  def _embed(
    self, noise: Array, label: Array | None, augment: Array | None, style: Style
  ) -> Array:
    """What every block is told, [B, 4 channels]."""
    width = self.channels * self.embedding_mult
    kinds = {"positional": timestep_embedding, "fourier": fourier_embedding}
    h = kinds[self.noise_embedding](noise, width)
    if self.num_classes:
      rows = embed_labels(label, self.num_classes, len(noise))
      h = h + dense(width, style, "label")(rows * self.num_classes**0.5)
    if self.augment_dim:
      rows = augment_labels(augment, self.augment_dim, len(noise))
      h = h + dense(width, style, "augment", bias=False)(rows)
    h = nn.swish(dense(4 * self.channels, style, "noise1")(h))
    return nn.swish(dense(4 * self.channels, style, "noise2")(h))

  def _down(self, x: Array, block: Callable, style: Style) -> list[Array]:
    """The way down: everything that the way up looks at, from first to last."""
    h = conv(self.channels, style, "conv_in")(x)
    skips, image = [h], x
    for level, mult in enumerate(self.channel_mults):
      if level > 0:
        h = block(h, h.shape[-1], f"down{level}_resample", resample="down")
        if self.residual_input:
          image = _strided(image, h.shape[-1], style, f"down{level}_image")
          h = image = (h + image) * style.skip_scale
        skips.append(h)
      for i in range(self.num_blocks):
        attention = h.shape[1] in self.attention_resolutions
        h = block(h, self.channels * mult, f"down{level}_{i}", attention=attention)
        skips.append(h)
    return skips


def _strided(x: Array, features: int, style: Style, name: str) -> Array:
  """A 3x3 convolution and then the filter, of which every second pixel is kept."""
  margin = (len(style.taps) - 1) // 2
  h = conv(features, style, name, padding=1 + margin)(x)
  return separable2d(h, fir_taps(style.taps), down=2)
