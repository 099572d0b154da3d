"""Coupling layers: layers as in `jaxgen.nn.bijection`.

A conditioner is a module (x, train) -> shift, log_scale, each of the shape of what is
to be transformed; log_scale is None for additive coupling.
"""

from flax import linen as nn
from jax import Array
import jax.numpy as jnp
import numpy as np

from jaxgen.nn.bijection import affine, inverse_affine


def checkerboard(height: int, width: int, flip: bool = False) -> np.ndarray:
  """1 where row + column is odd (even if `flip`), else 0: bool [1, H, W, 1]."""
  rows, columns = np.indices((height, width))
  return ((rows + columns + flip) % 2).astype(bool)[None, :, :, None]


def channel_mask(num_channels: int, flip: bool = False) -> np.ndarray:
  """1 in the first half of the channels (second if `flip`): bool [1, 1, 1, C]."""
  first = np.arange(num_channels) < num_channels // 2
  return (first != flip)[None, None, None, :]


class MaskedCoupling(nn.Module):
  """Entries outside of a mask, transformed given those inside.

  Dinh et al. (2016), arXiv 1605.08803, Eq. 9.

  Attributes:
    conditioner: Its input is x with zeros outside of the mask; what it says about
      entries inside has no effect.
    mask: bool, of a shape that broadcasts to x: 1 where x passes unchanged.
  """

  conditioner: nn.Module
  mask: np.ndarray

  def _parameters(self, x: Array, train: bool) -> tuple[Array, Array | None]:
    shift, log_scale = self.conditioner(jnp.where(self.mask, x, 0), train)
    outside = lambda v: jnp.where(self.mask, 0, v)
    return outside(shift), None if log_scale is None else outside(log_scale)

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    return affine(x, *self._parameters(x, train))

  def inverse(self, z: Array) -> tuple[Array, Array]:
    return inverse_affine(z, *self._parameters(z, False))


class SplitCoupling(nn.Module):
  """One half of the last axis, transformed given the other.

  Dinh et al. (2014), arXiv 1410.8516, Section 3.2. Cheaper than `MaskedCoupling`, whose
  conditioner sees zeros.

  Attributes:
    conditioner: Its input is the half that passes unchanged.
    flip: False: the first half passes, as in `channel_mask`.
  """

  conditioner: nn.Module
  flip: bool = False

  def _halves(self, x: Array) -> tuple[Array, Array]:
    first, second = jnp.split(x, 2, axis=-1)
    return (second, first) if self.flip else (first, second)

  def _join(self, passed: Array, other: Array) -> Array:
    halves = (other, passed) if self.flip else (passed, other)
    return jnp.concatenate(halves, axis=-1)

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    passed, other = self._halves(x)
    other, log_det = affine(other, *self.conditioner(passed, train))
    return self._join(passed, other), log_det

  def inverse(self, z: Array) -> tuple[Array, Array]:
    passed, other = self._halves(z)
    other, log_det = inverse_affine(other, *self.conditioner(passed, False))
    return self._join(passed, other), log_det
