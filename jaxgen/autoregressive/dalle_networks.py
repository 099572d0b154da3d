"""Encoder and decoder of DALL-E's discrete VAE, as the authors published them.

Ramesh et al., "Zero-Shot Text-to-Image Generation" (2021), arXiv 2102.12092, and
github.com/openai/DALL-E: residual blocks of four convolutions through a quarter of the
channels, times a small constant; max-pooling down, nearest neighbours up; convolutions
of 1x1 on either side of the tokens.
"""

from collections.abc import Sequence
import functools
from typing import Any

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.strided_conv import pixel_conv

_conv = functools.partial(
  nn.Conv,
  kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
  conv_general_dilated=pixel_conv,
)


class Block(nn.Module):
  """skip(x) + gain * four convolutions, a relu before each.

  Attributes:
    width: Channels of the output; a quarter of them within.
    kernels: Sides of the four kernels.
    gain: Of the residual path: 1 / (number of blocks)^2.
    dtype: Of the computation.
  """

  width: int
  kernels: Sequence[int]
  gain: float
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    conv = functools.partial(_conv, dtype=self.dtype)
    skip = x if x.shape[-1] == self.width else conv(self.width, (1, 1), name="skip")(x)
    widths = 3 * (self.width // 4,) + (self.width,)
    for dim, side in zip(widths, self.kernels, strict=True):
      x = conv(dim, (side, side))(nn.relu(x))
    return skip + self.gain * x


class Encoder(nn.Module):
  """Images to logits of tokens.

  Attributes:
    num_tokens: K.
    width: Of the first group; the others' are `multiples` of it.
    multiples: A group for each; the sides are halved between them.
    num_blocks: Of a group.
    dtype: Of the computation, but for the last convolution.
  """

  num_tokens: int = 8192
  width: int = 256
  multiples: tuple[int, ...] = (1, 2, 4, 8)
  num_blocks: int = 2
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """f32 [B, H, W, C] -> f32 [B, H / s, W / s, K], s = 2^(groups - 1)."""
    factor = 2 ** (len(self.multiples) - 1)
    if x.shape[1] % factor or x.shape[2] % factor:
      raise ValueError(f"images {x.shape}: expected sides that {factor} divides")
    gain = (len(self.multiples) * self.num_blocks) ** -2
    x = _conv(self.width, (7, 7), dtype=self.dtype)(x)
    for i, multiple in enumerate(self.multiples):
      if i:
        x = nn.max_pool(x, (2, 2), (2, 2))
      for _ in range(self.num_blocks):
        x = Block(multiple * self.width, (3, 3, 3, 1), gain, self.dtype)(x)
    x = nn.relu(x).astype(jnp.promote_types(x.dtype, jnp.float32))
    return _conv(self.num_tokens, (1, 1), name="logits")(x)


class Decoder(nn.Module):
  """One-hot tokens, or relaxed ones, to the parameters of pixels.

  Attributes:
    channels: C, of images.
    first_width: Of the convolution that reads the tokens.
    width: Of the last group; the others' are `multiples` of it.
    multiples: A group for each, from the image inwards, as the encoder's.
    num_blocks: Of a group.
    dtype: Of the computation, but for the first convolution.
  """

  channels: int = 3
  first_width: int = 128
  width: int = 256
  multiples: tuple[int, ...] = (1, 2, 4, 8)
  num_blocks: int = 2
  dtype: Any = None

  @nn.compact
  def __call__(self, tokens: Array) -> Array:
    """f32 [B, h, w, K] -> f32 [B, s h, s w, 2 C]: locations, then log scales."""
    gain = (len(self.multiples) * self.num_blocks) ** -2
    x = _conv(self.first_width, (1, 1), name="tokens")(tokens)
    for i, multiple in enumerate(reversed(self.multiples)):
      if i:
        x = x.repeat(2, axis=1).repeat(2, axis=2)
      for _ in range(self.num_blocks):
        x = Block(multiple * self.width, (1, 3, 3, 3), gain, self.dtype)(x)
    x = _conv(2 * self.channels, (1, 1), dtype=self.dtype)(nn.relu(x))
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
