"""RQ-NSF (C): neural spline flows with coupling layers.

Conor Durkan, Artur Bekasov, Iain Murray, George Papamakarios, "Neural Spline Flows",
2019. https://arxiv.org/abs/1906.04032. Monotonic rational-quadratic splines with linear
tails in coupling layers, residual conditioners, linear layers by their LU decomposition
before each and after the last, a standard normal base.

Deviations from the paper:
  - Dense conditioners and full matrices for images too, which are taken as vectors.
    (Paper: convolutions, several scales and 1x1 convolutions, as Glow.)
  - Actnorm before each linear layer, as the paper has it for images only. No batch
    normalisation or dropout in conditioners.
  - Matrices start as random permutations. (Paper: times LU near the identity.)
  - Conditioners start at 0, where the splines are the identity; softmax inputs are not
    divided by the square root of the width. (Code: uniform; divided.)
  - No autoregressive form, RQ-NSF (AR).
"""

import math
from typing import Any

from flax import linen as nn
import optax

from jaxgen.flow.likelihood import density
from jaxgen.method import Array, Method
from jaxgen.nn.bijection import ActNorm, Flattened, Invertible1x1, permutation
from jaxgen.nn.coupling import SplitCoupling
from jaxgen.ops import spline


class Conditioner(nn.Module):
  """Residual blocks of two dense layers, pre-activation.

  Attributes:
    num_values: Of what is to be transformed.
    num_bins: K.
    hidden_dim: Width of the blocks.
    num_blocks: Their number.
  """

  num_values: int
  num_bins: int
  hidden_dim: int
  num_blocks: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """f32 [B, N] -> what `spline.knots` takes, f32 [B, num_values, 3 K - 1]."""
    h = nn.Dense(self.hidden_dim)(x)
    for _ in range(self.num_blocks):
      g = nn.Dense(self.hidden_dim)(nn.relu(h))
      h = h + nn.Dense(self.hidden_dim)(nn.relu(g))
    size = spline.num_parameters(self.num_bins)
    zeros = nn.initializers.zeros
    raw = nn.Dense(self.num_values * size, kernel_init=zeros)(h)
    return raw.reshape(len(x), self.num_values, size)


class SplineCoupling(SplitCoupling):
  """`SplitCoupling` by a spline for each value, not an affine map.

  Attributes:
    conditioner: As `Conditioner`.
    bound: The splines are the identity outside of [-bound, bound].
  """

  bound: float = 3.0

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    passed, other = self._halves(x)
    knots = spline.knots(self.conditioner(passed, train), self.bound)
    other, log_slope = spline.forward(other, knots)
    return self._join(passed, other), log_slope.sum(-1)

  def inverse(self, z: Array) -> tuple[Array, Array]:
    passed, other = self._halves(z)
    knots = spline.knots(self.conditioner(passed, False), self.bound)
    other, log_slope = spline.inverse(other, knots)
    return self._join(passed, other), log_slope.sum(-1)


def network(
  shape: tuple[int, int, int],
  *,
  hidden_dim: int = 256,
  num_layers: int = 10,
  num_blocks: int = 2,
  num_bins: int = 8,
  bound: float = 3.0,
) -> Flattened:
  """Actnorm, linear layer and spline coupling in turn, then a last linear layer.

  Args:
    shape: (H, W, C) of an image; H W C must be even.
    hidden_dim: Of conditioners.
    num_layers: Couplings; each linear layer mixes the halves anew.
    num_blocks: Of conditioners.
    num_bins: K (8 in the paper's tables).
    bound: Of the splines (paper: 3).
  """
  size, layers = math.prod(shape), []
  if size % 2:
    raise ValueError(f"shape={shape}: expected an even number of values")
  linear = lambda: Invertible1x1(size, kernel_init=permutation)
  for _ in range(num_layers):
    conditioner = Conditioner(size // 2, num_bins, hidden_dim, num_blocks)
    coupling = SplineCoupling(conditioner, bound=bound)
    layers += [ActNorm(size), linear(), coupling]
  return Flattened(shape, [*layers, linear()])


def neural_spline(
  net: nn.Module, *, tx: optax.GradientTransformation, **options: Any
) -> Method:
  """`likelihood.density` of images; num_levels=32 are the paper's 5 bits.

  Args:
    net: As from `network`.
    tx: Its optimiser.
    **options: Of `likelihood.density`.
  """
  return density(net, tx=tx, **options)
