"""NICE: Non-linear Independent Components Estimation.

Laurent Dinh, David Krueger, Yoshua Bengio, 2014. https://arxiv.org/abs/1410.8516.
Additive coupling of the two halves of an image (Section 3.2), a diagonal scaling on top
(Section 3.3), a logistic or Gaussian prior of independent components (Section 3.4).

Deviations from the paper:
  - The odd and even entries that couplings exchange are those of the image row by row,
    channels last, as the paper's, but z keeps them in place.
  - Images enter as y - 0.5, y in [0, 1]. (Paper: y; no whitening here for CIFAR-10.)
  - Conditioners start with a last layer of zeros: at first the network is the identity.
    (Paper: not said.)
  - The optimiser is the caller's. (Paper: Adam, b1 0.9, b2 0.01, eps 1e-4.)
"""

import math
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import optax

from jaxgen.flow.likelihood import Base, density, logistic
from jaxgen.method import Array, Method
from jaxgen.nn.bijection import backward, forward
from jaxgen.nn.coupling import SplitCoupling


class Conditioner(nn.Module):
  """Fully connected layers with relu, for `SplitCoupling`.

  Attributes:
    hidden_dims: Their widths.
  """

  hidden_dims: tuple[int, ...]

  @nn.compact
  def __call__(self, x: Array, train: bool) -> tuple[Array, None]:
    """f32 [B, D / 2, 1] -> shift of that shape, and no scale."""
    h = x.reshape(len(x), -1)
    for dim in self.hidden_dims:
      h = nn.relu(nn.Dense(dim)(h))
    shift = nn.Dense(math.prod(x.shape[1:]), kernel_init=nn.initializers.zeros)(h)
    return shift.reshape(x.shape), None


class Network(nn.Module):
  """Additive couplings of odd and even entries in turn, then a scale for each entry.

  Attributes:
    shape: (H, W, C) of an image; H W C must be even.
    hidden_dims: Of each conditioner.
    num_couplings: The paper's 4 let every entry depend on every other twice.
  """

  shape: tuple[int, int, int]
  hidden_dims: tuple[int, ...] = (1000,) * 5  # Section 5.1, MNIST
  num_couplings: int = 4

  def setup(self) -> None:
    size = math.prod(self.shape)
    if size % 2:
      raise ValueError(f"shape={self.shape}: expected an even number of values")
    self.couplings = [
      SplitCoupling(Conditioner(self.hidden_dims), flip=i % 2 == 1)
      for i in range(self.num_couplings)
    ]
    self.log_scale = self.param("log_scale", nn.initializers.zeros, (size,))

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    """x f32 [B, H, W, C] -> z f32 [B, D], log_det f32 [B]."""
    h, _ = forward(self.couplings, x.reshape(len(x), -1, 2), train)
    z = h.reshape(len(x), -1) * jnp.exp(self.log_scale)[None]
    return z, jnp.full(len(x), 1, x.dtype) * self.log_scale.sum()

  def inverse(self, z: Array) -> tuple[Array, Array]:
    """z f32 [B, D] -> x f32 [B, H, W, C], log_det f32 [B]."""
    h = z * jnp.exp(-self.log_scale)[None]
    x, _ = backward(self.couplings, h.reshape(len(z), -1, 2))
    log_det = jnp.full(len(z), -1, z.dtype) * self.log_scale.sum()
    return x.reshape(-1, *self.shape), log_det


def nice(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  base: Base = logistic,
  **options: Any,
) -> Method:
  """`likelihood.density` with the paper's prior.

  Args:
    net: As `Network`.
    tx: Its optimiser.
    base: `likelihood.logistic` (MNIST, SVHN, CIFAR-10) or `likelihood.normal` (TFD).
    **options: Of `likelihood.density`.
  """
  return density(net, tx=tx, base=base, **options)
