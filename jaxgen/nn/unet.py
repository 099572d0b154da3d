"""The U-Net of Denoising Diffusion Probabilistic Models (Ho et al., 2020).

https://arxiv.org/abs/2006.11239, Appendix B and the authors' code. Tested for
equal outputs and gradients against diffusers' port of it (google/ddpm-cifar10-32).
One deviation: layers that the authors draw with variance 1e-10 / fan start at zero.
"""

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.attention import attend
from jaxgen.nn.embed import timestep_embedding

Dtype = jnp.dtype | type

_uniform = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
_zeros = nn.initializers.zeros


class ResBlock(nn.Module):
  """norm, swish, conv, + time, norm, swish, dropout, conv, + shortcut.

  Attributes:
    channels: Output channels.
    num_groups: Groups of both norms; divides the input and output channels.
    dropout_rate: Probability of zeroing a value before the second convolution.
    dtype: Of the products and of the result.
    kernel_init: Of the first convolution and the shortcut.
    time_init: Of what the time is multiplied by; default `kernel_init`.
    time_bias: Whether something is added to that.
  """

  channels: int
  num_groups: int = 32
  dropout_rate: float = 0.0
  dtype: Dtype = jnp.float32
  kernel_init: nn.initializers.Initializer = _uniform
  time_init: nn.initializers.Initializer | None = None
  time_bias: bool = True

  @nn.compact
  def __call__(self, x: Array, time: Array, train: bool) -> Array:
    """(x [B, H, W, C], time [B, D]) -> [B, H, W, channels]."""
    h = nn.swish(_norm(self.num_groups, self.dtype, "norm1")(x))
    h = _conv(self.channels, self.dtype, "conv1", init=self.kernel_init)(h)
    init = self.time_init or self.kernel_init
    layer = _dense(self.channels, self.dtype, "time", init=init, bias=self.time_bias)
    h = h + layer(nn.swish(time))[:, None, None, :]
    h = nn.swish(_norm(self.num_groups, self.dtype, "norm2")(h))
    h = nn.Dropout(self.dropout_rate, deterministic=not train)(h)
    h = _conv(self.channels, self.dtype, "conv2", init=_zeros)(h)
    if x.shape[-1] != self.channels:
      x = _dense(self.channels, self.dtype, "shortcut", init=self.kernel_init)(x)
    return x + h


class SelfAttention(nn.Module):
  """Single-head self-attention over all pixels, plus its input.

  Attributes:
    num_groups: Groups of the norm; divides the channels.
    dtype: Of the products and of the result; the softmax is at least float32.
  """

  num_groups: int = 32
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """x [B, H, W, C] -> [B, H, W, C]."""
    b, height, width, c = x.shape
    h = _norm(self.num_groups, self.dtype, "norm")(x).reshape(b, height * width, c)
    query, key, value = (
      _dense(c, self.dtype, name)(h)[:, :, None] for name in ("query", "key", "value")
    )
    h = attend(query, key, value)[:, :, 0]
    return x + _dense(c, self.dtype, "out", init=_zeros)(h).reshape(x.shape)


class UNet(nn.Module):
  """Maps a noisy image and its time step to an image of the same shape.

  The defaults are the CIFAR-10 network of the paper: 35,746,307 parameters for
  32x32x3 images. The output is zero until the first update.

  Attributes:
    channels: Channels of the first level; the time embedding has 4 times as many.
    channel_mults: Channels of each level, as multiples of `channels`. Every level
      has half the height and width of the one before.
    num_res_blocks: Residual blocks per level on the way down; one more on the
      way up.
    attention_resolutions: Heights in pixels of the levels with self-attention
      after every residual block. The middle always has one.
    num_groups: Groups of every GroupNorm; divides the channels of every level.
    dropout_rate: Dropout in the residual blocks.
    dtype: Of convolutions and products, and of activations between them.
      Parameters, normalisation, softmax and output are float32.
    out_channels: Of the output; None for those of the image. Twice as many give a
      network that also learns variances.
  """

  channels: int = 128
  channel_mults: tuple[int, ...] = (1, 2, 2, 2)
  num_res_blocks: int = 2
  attention_resolutions: tuple[int, ...] = (16,)
  num_groups: int = 32
  dropout_rate: float = 0.1
  dtype: Dtype = jnp.float32
  out_channels: int | None = None

  @nn.compact
  def __call__(self, x: Array, t: Array, train: bool = False) -> Array:
    """Predicts the noise in `x`.

    Args:
      x: f32 [B, H, W, C]; H and W divisible by 2^(len(channel_mults) - 1).
      t: i32 or f32 [B]; time step, counted from 0.
      train: Whether dropout is on (it then needs the "dropout" key).

    Returns:
      f32 [B, H, W, C], or with `out_channels` in place of C.

    Raises:
      ValueError: If the image does not halve evenly from level to level, if an
        attention resolution is the height of no level, or if `num_groups` does
        not divide the channels of a level.
    """
    self._check(x.shape)
    out_channels = self.out_channels or x.shape[-1]
    widths = [self.channels * mult for mult in self.channel_mults]
    last = len(widths) - 1

    time = timestep_embedding(t, self.channels)
    time = _dense(4 * self.channels, self.dtype, "time1")(time)
    time = _dense(4 * self.channels, self.dtype, "time2")(nn.swish(time))

    def residual(h: Array, width: int, name: str) -> Array:
      block = ResBlock(
        width, self.num_groups, self.dropout_rate, self.dtype, name=f"{name}_res"
      )
      return block(h, time, train)

    def attention(h: Array, name: str) -> Array:
      return SelfAttention(self.num_groups, self.dtype, name=f"{name}_attention")(h)

    def block(h: Array, width: int, name: str) -> Array:
      h = residual(h, width, name)
      return attention(h, name) if h.shape[1] in self.attention_resolutions else h

    h = _conv(self.channels, self.dtype, "conv_in")(x)
    skips = [h]
    for level, width in enumerate(widths):
      for i in range(self.num_res_blocks):
        h = block(h, width, f"down{level}_{i}")
        skips.append(h)
      if level < last:
        h = _conv(width, self.dtype, f"down{level}_conv", strides=2)(h)
        skips.append(h)

    h = residual(h, widths[last], "middle_0")
    h = attention(h, "middle")
    h = residual(h, widths[last], "middle_1")

    for level, width in reversed(list(enumerate(widths))):
      for i in range(self.num_res_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = block(h, width, f"up{level}_{i}")
      if level > 0:
        h = h.repeat(2, axis=1).repeat(2, axis=2)  # nearest neighbour
        h = _conv(width, self.dtype, f"up{level}_conv")(h)

    h = nn.swish(_norm(self.num_groups, self.dtype, "norm_out")(h))
    return _conv(out_channels, _wide(self.dtype), "conv_out", init=_zeros)(h)

  def _check(self, shape: tuple[int, ...]) -> None:
    height, width = shape[1:3]
    factor = 2 ** (len(self.channel_mults) - 1)
    if height % factor or width % factor:
      raise ValueError(
        f"{len(self.channel_mults)} levels (channel_mults={self.channel_mults}) "
        f"need height and width divisible by {factor}, got {height}x{width}"
      )
    heights = [height // 2**level for level in range(len(self.channel_mults))]
    unknown = set(self.attention_resolutions) - set(heights)
    if unknown:
      raise ValueError(
        f"attention_resolutions must be among the heights of the levels, "
        f"{heights}, got {self.attention_resolutions}"
      )
    widths = [self.channels * mult for mult in self.channel_mults]
    if any(width % self.num_groups for width in [self.channels, *widths]):
      raise ValueError(
        f"num_groups must divide the channels of every level, {widths}, "
        f"got {self.num_groups}"
      )


def _wide(dtype: Dtype) -> Dtype:
  """`dtype`, but at least float32."""
  return jnp.promote_types(dtype, jnp.float32)


def _norm(num_groups: int, dtype: Dtype, name: str) -> nn.GroupNorm:
  return nn.GroupNorm(num_groups, epsilon=1e-6, dtype=_wide(dtype), name=name)


def _dense(
  features: int,
  dtype: Dtype,
  name: str,
  init: nn.initializers.Initializer = _uniform,
  bias: bool = True,
) -> nn.Dense:
  return nn.Dense(features, bias, dtype=dtype, kernel_init=init, name=name)


def _conv(
  features: int,
  dtype: Dtype,
  name: str,
  strides: int = 1,
  init: nn.initializers.Initializer = _uniform,
) -> nn.Conv:
  """A 3x3 convolution; odd borders go to the bottom and right, as in TensorFlow."""
  return nn.Conv(features, (3, 3), strides, dtype=dtype, kernel_init=init, name=name)
