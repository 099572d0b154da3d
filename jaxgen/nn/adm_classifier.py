"""A classifier of noisy images: the way down of ADM's U-Net, and attention that pools.

Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis" (2021), arXiv
2105.05233, Section 4.3; its blocks are those of `jaxgen.nn.adm_unet`. The pooling is
that of CLIP (Radford et al., 2021, arXiv 2103.00020): the mean over positions looks at
all of them.

Deviations: those of `jaxgen.nn.adm_unet`; the last layer starts at zero, so that at
first all classes are equally likely.
"""

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.adm_unet import adm_style, way_down
from jaxgen.nn.attention import attend
from jaxgen.nn.embed import cosines_first
from jaxgen.nn.resampling_unet import (
  Block,
  Dtype,
  Style,
  check_sizes,
  conv,
  dense,
  norm,
  zeros,
)


class AdmClassifier(nn.Module):
  """Maps a noisy image and its time to logits.

  The defaults are, from memory of the authors' code, those for ImageNet at 64x64.

  Attributes:
    num_classes: Number of logits.
    channels: Channels that the multiples multiply.
    channel_mults: Channels of each level, as multiples of `channels`. Every level has
      half the height and width of the one before.
    num_blocks: Residual blocks per level.
    attention_resolutions: Heights in pixels of the levels with self-attention after
      every residual block. The middle always has one.
    head_dim: Channels of an attention head; divides the channels of those levels.
    dtype: Of convolutions and products, and of activations between them. Parameters,
      normalisation, softmax and output are float32.
  """

  num_classes: int
  channels: int = 128
  channel_mults: tuple[int, ...] = (1, 2, 3, 4)
  num_blocks: int = 4
  attention_resolutions: tuple[int, ...] = (32, 16, 8)
  head_dim: int = 64
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, t: Array) -> Array:
    """Logits of the classes.

    Args:
      x: f32 [B, H, W, C]; H and W divisible by 2^(len(channel_mults) - 1).
      t: f32 [B]; time, of the order of 1,000 where there is the most noise.

    Returns:
      f32 [B, num_classes].

    Raises:
      ValueError: If shapes do not fit, see `jaxgen.nn.resampling_unet`.
    """
    check_sizes(x.shape, len(self.channel_mults), self.attention_resolutions)
    style = adm_style(self.head_dim, 0.0, self.dtype)
    time = cosines_first(t, self.channels)
    time = nn.swish(dense(4 * self.channels, style, "time1")(time))
    time = nn.swish(dense(4 * self.channels, style, "time2")(time))

    def block(h: Array, width: int, name: str, **kwargs: object) -> Array:
      return Block(width, style, name=name, **kwargs)(h, time, False)

    def attended(h: Array, level: int, name: str) -> Array:
      attention = h.shape[1] in self.attention_resolutions
      width = self.channels * self.channel_mults[level]
      return block(h, width, name, attention=attention)

    num_levels = len(self.channel_mults)
    h = conv(self.channels * self.channel_mults[0], style, "conv_in")(x)
    h = way_down(h, block, attended, num_levels, self.num_blocks)[-1]
    h = block(h, h.shape[-1], "middle_0", attention=True)
    h = block(h, h.shape[-1], "middle_1")
    h = AttentionPool(style, name="pool")(nn.swish(norm(h, style, "norm_out")))
    wide = style._replace(dtype=jnp.promote_types(self.dtype, jnp.float32))
    return dense(self.num_classes, wide, "logits", init=zeros)(h)


class AttentionPool(nn.Module):
  """[B, H, W, C] -> [B, C]: attention of the mean to itself and to every position.

  Attributes:
    style: Of the network.
  """

  style: Style

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Positions are told apart by parameters, so that the size is that of `init`."""
    style, c = self.style, x.shape[-1]
    rows = x.reshape(len(x), -1, c)
    rows = jnp.concatenate([rows.mean(axis=1, keepdims=True), rows], axis=1)
    init = nn.initializers.normal(c**-0.5)
    rows += self.param("positions", init, (1, *rows.shape[1:])).astype(rows.dtype)
    heads = lambda h: h.reshape(len(h), -1, c // style.head_dim, style.head_dim)
    query = heads(dense(c, style, "query")(rows[:, :1]))
    key, value = (heads(dense(c, style, name)(rows)) for name in ("key", "value"))
    return attend(query, key, value).reshape(len(x), c)
