"""RealNVP: Density Estimation Using Real NVP.

Laurent Dinh, Jascha Sohl-Dickstein, Samy Bengio, 2016. https://arxiv.org/abs/1605.08803.
Affine coupling with checkerboard and channel-wise masks (Sections 3.2 to 3.4),
alternating (3.5), in several scales (3.6), residual conditioners, batch normalisation
between couplings with its determinant (3.7), logits of images as input (4.1).

Deviations from the paper:
  - No weight normalisation in the conditioners, and no skip connections to their
    output; batch normalisation in them as in the paper.
  - Batch normalisation uses the batch's own statistics in training. (Section 3.7: a
    running average that the batch's are mixed into.)
  - Channel-wise couplings see the half that passes instead of zeros in the other.
  - Squeezing keeps the pixels of a square in the order of rows. (Code: reordered before
    half leaves.)
  - The logit is of alpha + (1 - 2 alpha) y. (Section 4.1: alpha + (1 - alpha) y.)
  - No L2 penalty on the scales of weights, no flipped images: `tx` and data are the
    caller's.
"""

from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import optax

from jaxgen.flow.likelihood import density
from jaxgen.method import Array, Method
from jaxgen.nn.bijection import FlowBatchNorm
from jaxgen.nn.coupling import MaskedCoupling, SplitCoupling, checkerboard
from jaxgen.nn.multi_scale import MultiScale, Squeeze, check_sides
from jaxgen.nn.strided_conv import Conv1x1


class ResidualConditioner(nn.Module):
  """Residual blocks of two 3x3 convolutions (He et al., 2016, pre-activation).

  Attributes:
    num_channels: Of what is to be transformed.
    width: Channels of the blocks.
    num_blocks: Their number.
  """

  num_channels: int
  width: int
  num_blocks: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
    norm = lambda h: nn.relu(nn.BatchNorm(not train, momentum=0.9)(h))
    conv = lambda h: nn.Conv(self.width, (3, 3), use_bias=False)(h)
    h = conv(x)
    for _ in range(self.num_blocks):
      h = h + conv(norm(conv(norm(h))))
    zeros = nn.initializers.zeros
    raw = Conv1x1(2 * self.num_channels, kernel_init=zeros)(norm(h))
    shift, log_scale = jnp.split(raw, 2, axis=-1)
    most = self.param("most", nn.initializers.ones, (self.num_channels,))
    return shift, jnp.tanh(log_scale) * most[None, None, None]  # Section 4.1


def network(
  shape: tuple[int, int, int],
  *,
  num_scales: int = 3,
  width: int = 64,
  num_blocks: int = 8,
) -> MultiScale:
  """RealNVP's bijection (Section 3.6).

  At each scale but the last three couplings with checkerboard masks, a squeeze, three
  channel-wise ones, with twice the width, and half of the channels leave; at the last,
  four with checkerboard masks.

  Args:
    shape: (H, W, C) of an image; H and W divisible by 2^(num_scales - 1).
    num_scales: Their number; the paper goes on down to 4x4 pixels.
    width: Of conditioners at the first scale; doubled at each squeeze.
    num_blocks: Residual blocks of a conditioner.
  """
  check_sides(shape, num_scales - 1)
  height, width_, c = shape
  levels = []
  for i in range(num_scales):
    last = i == num_scales - 1
    layers = []
    for j in range(4 if last else 3):
      mask = checkerboard(height, width_, flip=j % 2 == 1)
      conditioner = ResidualConditioner(c, width, num_blocks)
      layers += [MaskedCoupling(conditioner, mask), FlowBatchNorm(c)]
    if not last:
      height, width_, c, width = height // 2, width_ // 2, 4 * c, 2 * width
      layers.append(Squeeze())
      for j in range(3):
        conditioner = ResidualConditioner(c // 2, width, num_blocks)
        layers += [SplitCoupling(conditioner, flip=j % 2 == 1), FlowBatchNorm(c)]
      c //= 2
    levels.append(layers)
  return MultiScale(levels, shape)


def realnvp(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  alpha: float = 0.05,
  **options: Any,
) -> Method:
  """`likelihood.density` of logits of images.

  Args:
    net: As from `network`.
    tx: Its optimiser.
    alpha: Of the logit (Section 4.1).
    **options: Of `likelihood.density`.
  """
  return density(net, tx=tx, logit_alpha=alpha, **options)
