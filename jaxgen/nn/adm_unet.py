"""ADM, the U-Net of "Diffusion Models Beat GANs on Image Synthesis", as EDM uses it.

Dhariwal & Nichol (2021), arXiv 2105.05233, in the form of Karras et al., "Elucidating
the Design Space of Diffusion-Based Generative Models" (2022), arXiv 2206.00364,
Appendix C and the authors' code, compared in float64 for equal weights.

Deviation: biases start at zero (theirs are uniform, as PyTorch's).
"""

from collections.abc import Callable

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.embed import cosines_first
from jaxgen.nn.resampling_unet import (
  Block,
  Dtype,
  Style,
  augment_labels,
  check_sizes,
  conv,
  dense,
  embed_labels,
  norm,
  zeros,
)


def adm_style(head_dim: int, dropout_rate: float, dtype: Dtype) -> Style:
  """That of all blocks."""
  init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
  return Style(
    init=init,
    attention_init=init,
    epsilon=1e-5,
    scale_and_shift=True,
    head_dim=head_dim,
    dropout_rate=dropout_rate,
    dtype=dtype,
  )


def way_down(
  h: Array, block: Callable, attended: Callable, num_levels: int, num_blocks: int
) -> list[Array]:
  """Activations from first to last, `h` among them.

  Args:
    h: [B, H, W, C], after the first convolution.
    block: (h, channels, name, resample) -> h.
    attended: (h, level, name) -> h, a block with the level's channels and attention.
    num_levels: Of resolution.
    num_blocks: Of every level.
  """
  skips = [h]
  for level in range(num_levels):
    if level > 0:
      h = block(h, h.shape[-1], f"down{level}_resample", resample="down")
      skips.append(h)
    for i in range(num_blocks):
      h = attended(h, level, f"down{level}_{i}")
      skips.append(h)
  return skips


class AdmUNet(nn.Module):
  """Maps a noisy image and its noise level to an image of the same shape.

  The defaults with num_classes=1000 are the network of EDM for ImageNet at 64x64:
  295,899,267 parameters.

  Attributes:
    num_classes: Labels are 0 ... num_classes - 1; 0 is a network without labels.
    augment_dim: Numbers that describe an augmentation; 0 is a network without.
    channels: Channels that the multiples multiply.
    channel_mults: Channels of each level, as multiples of `channels`. Every level has
      half the height and width of the one before.
    num_blocks: Residual blocks per level on the way down; one more on the way up.
    attention_resolutions: Heights in pixels of the levels with self-attention after
      every residual block. The middle always has one.
    head_dim: Channels of an attention head; divides the channels of those levels.
    dropout_rate: In the residual blocks.
    num_outputs: Numbers per value of x: 2 with a learned variance.
    dtype: Of convolutions and products, and of activations between them. Parameters,
      normalisation, softmax and output are float32.
  """

  num_classes: int = 0
  augment_dim: int = 0
  channels: int = 192
  channel_mults: tuple[int, ...] = (1, 2, 3, 4)
  num_blocks: int = 3
  attention_resolutions: tuple[int, ...] = (32, 16, 8)
  head_dim: int = 64
  dropout_rate: float = 0.1
  num_outputs: int = 1
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
    """As `jaxgen.nn.song_unet.SongUNet`, but returns f32 [B, H, W, C num_outputs]."""
    check_sizes(x.shape, len(self.channel_mults), self.attention_resolutions)
    style = adm_style(self.head_dim, self.dropout_rate, self.dtype)
    embedding = self._embed(noise, label, augment, style)

    def block(h: Array, width: int, name: str, **kwargs: object) -> Array:
      return Block(width, style, name=name, **kwargs)(h, embedding, train)

    def attended(h: Array, level: int, name: str) -> Array:
      attention = h.shape[1] in self.attention_resolutions
      width = self.channels * self.channel_mults[level]
      return block(h, width, name, attention=attention)

    top = len(self.channel_mults) - 1
    h = conv(self.channels * self.channel_mults[0], style, "conv_in")(x)
    skips = way_down(h, block, attended, top + 1, self.num_blocks)
    h = block(skips[-1], skips[-1].shape[-1], "middle_0", attention=True)
    h = block(h, h.shape[-1], "middle_1")
    for level in reversed(range(top + 1)):
      if level < top:
        h = block(h, h.shape[-1], f"up{level}_resample", resample="up")
      for i in range(self.num_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = attended(h, level, f"up{level}_{i}")

    h = nn.swish(norm(h, style, "norm_out"))
    wide = style._replace(dtype=jnp.promote_types(self.dtype, jnp.float32))
    return conv(x.shape[-1] * self.num_outputs, wide, "conv_out", init=zeros)(h)

  def _embed(
    self, noise: Array, label: Array | None, augment: Array | None, style: Style
  ) -> Array:
    """What every block is told, [B, 4 channels]."""
    h, size = cosines_first(noise, self.channels), len(noise)
    if self.augment_dim:
      rows = augment_labels(augment, self.augment_dim, size)
      h = h + dense(self.channels, style, "augment", init=zeros, bias=False)(rows)
    h = nn.swish(dense(4 * self.channels, style, "noise1")(h))
    h = dense(4 * self.channels, style, "noise2")(h)
    if self.num_classes:
      rows = embed_labels(label, self.num_classes, size)
      init = nn.initializers.normal(1.0)
      h = h + dense(4 * self.channels, style, "label", init=init, bias=False)(rows)
    return nn.swish(h)
