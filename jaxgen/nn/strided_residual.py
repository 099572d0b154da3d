"""Strided convolutions and residual blocks: encoders and decoders of images.

As in van den Oord et al. (2017), arXiv 1711.00937, Section 4.1, and Razavi et al.
(2019), arXiv 1906.00446, Section 3.1, with the 3x3 convolution between the two parts
that the authors' example (Sonnet's vqvae_example) has.
"""

from typing import Any

from flax import linen as nn
from jax import Array

from jaxgen.nn.strided_conv import Conv1x1, ConvTranspose


class ResidualStack(nn.Module):
  """x + conv1x1(relu(conv3x3(relu(x)))), several times, and a last relu.

  Attributes:
    width: Channels of x.
    residual_width: Channels between the two convolutions.
    num_blocks: How many times.
    dtype: Of the computation.
  """

  width: int
  residual_width: int
  num_blocks: int
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, H, W, width] -> the same shape."""
    for _ in range(self.num_blocks):
      h = nn.Conv(self.residual_width, (3, 3), dtype=self.dtype)(nn.relu(x))
      x = x + Conv1x1(self.width, dtype=self.dtype)(nn.relu(h))
    return nn.relu(x)


class Encoder(nn.Module):
  """4x4 convolutions of stride 2, a 3x3 one, residual blocks.

  Attributes:
    strided: Channels of each convolution of stride 2, from the image inwards.
    width: Channels of what comes out.
    residual_width: Of `ResidualStack`.
    num_blocks: Of `ResidualStack`.
    dtype: Of the computation.
  """

  strided: tuple[int, ...]
  width: int
  residual_width: int
  num_blocks: int = 2
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, H, W, C] -> [B, H / s, W / s, width], s = 2 ** len(strided)."""
    factor = 2 ** len(self.strided)
    if x.shape[1] % factor or x.shape[2] % factor:
      raise ValueError(
        f"input {x.shape}: expected a height and width that {factor} divides, for "
        f"{len(self.strided)} halvings"
      )
    for dim in self.strided:
      x = nn.relu(nn.Conv(dim, (4, 4), (2, 2), dtype=self.dtype)(x))
    x = nn.Conv(self.width, (3, 3), dtype=self.dtype)(x)
    return ResidualStack(self.width, self.residual_width, self.num_blocks, self.dtype)(
      x
    )


class Decoder(nn.Module):
  """A 3x3 convolution, residual blocks, transposed 4x4 convolutions of stride 2.

  Attributes:
    channels: Of what comes out.
    strided: As the encoder's: the last transposed convolution has `channels` outputs,
      the one before it the first of these, and so on.
    width: Channels of the residual blocks.
    residual_width: Of `ResidualStack`.
    num_blocks: Of `ResidualStack`.
    dtype: Of the computation.
  """

  channels: int
  strided: tuple[int, ...]
  width: int
  residual_width: int
  num_blocks: int = 2
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, H, W, C] -> [B, s H, s W, channels], s = 2 ** len(strided)."""
    x = nn.Conv(self.width, (3, 3), dtype=self.dtype)(x)
    x = ResidualStack(self.width, self.residual_width, self.num_blocks, self.dtype)(x)
    up = lambda dim: ConvTranspose(dim, (4, 4), (2, 2), dtype=self.dtype)
    for dim in self.strided[-2::-1]:
      x = nn.relu(up(dim)(x))
    return up(self.channels)(x)
