"""MADE: a dense network whose output i sees only the inputs before i.

Germain, Gregor, Murray & Larochelle (2015), arXiv 1502.03509; and the flow layer on top
of it, Papamakarios, Pavlakou & Murray (2017), arXiv 1705.07057.

The order of D inputs is int [D], a permutation of 0, ..., D - 1: input j comes before
input i where order[j] < order[i].
"""

from flax import linen as nn
import jax
from jax import Array, lax
import jax.numpy as jnp
import numpy as np

from jaxgen.nn.bijection import affine, inverse_affine


def hidden_degrees(num_inputs: int, num_units: int) -> np.ndarray:
  """Which inputs hidden units see: those with order[j] <= degree. int [num_units].

  0, ..., D - 2 in turn. (Germain et al. draw them.)
  """
  return np.arange(num_units) % max(1, num_inputs - 1)


class MaskedDense(nn.Module):
  """A dense layer, kernel times mask.

  Attributes:
    mask: bool [inputs, outputs].
    is_zero: Whether the kernel starts at 0; else it is normal with variance 1 / inputs.
  """

  mask: np.ndarray
  is_zero: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    init = nn.initializers
    start = init.zeros if self.is_zero else init.lecun_normal()
    kernel = self.param("kernel", start, self.mask.shape)
    bias = self.param("bias", init.zeros, self.mask.shape[1:])
    return x @ jnp.where(self.mask, kernel, 0) + bias[None]


class Made(nn.Module):
  """f32 [B, D] -> f32 [B, D, K]; what is said about i depends on inputs before i alone.

  All outputs start at 0.

  Attributes:
    order: See this module.
    hidden_dim: Units of every hidden layer. Fewer than D - 1 leave some inputs unseen.
    num_blocks: Residual blocks of two layers, pre-activation, after a first layer that
      has no activation (as Durkan et al., arXiv 1906.04032); or plain layers.
    num_outputs: K, numbers said about each input.
    is_residual: Which of the two.
  """

  order: np.ndarray
  hidden_dim: int
  num_blocks: int = 1
  num_outputs: int = 1
  is_residual: bool = True

  @nn.compact
  def __call__(self, x: Array) -> Array:
    order, size = np.asarray(self.order), len(self.order)
    if sorted(order) != list(range(size)):
      raise ValueError(f"order={order}: expected a permutation of 0 to {size - 1}")
    degrees = hidden_degrees(size, self.hidden_dim)
    said = np.repeat(order, self.num_outputs)
    hidden = lambda: MaskedDense(degrees[:, None] <= degrees[None])
    h = MaskedDense(order[:, None] <= degrees[None])(x)
    for _ in range(self.num_blocks):
      if self.is_residual:
        g = hidden()(nn.relu(h))
        h = h + hidden()(nn.relu(g))
      else:
        h = hidden()(nn.relu(h))
    h = h if self.is_residual else nn.relu(h)
    out = MaskedDense(degrees[:, None] < said[None], is_zero=True)(h)
    return out.reshape(len(x), size, self.num_outputs)


class AffineAutoregressive(nn.Module):
  """x e^log_scale + shift, both of entry i functions of the entries before i.

  A layer as in `jaxgen.nn.bijection`, on [B, D]. `__call__` is one pass of the
  conditioner; `inverse` is D of them, each of which settles one entry.

  Attributes:
    conditioner: (x, train) -> shift, log_scale, with the order of `Made`.
    order: That order.
  """

  conditioner: nn.Module
  order: np.ndarray

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    return affine(x, *self.conditioner(x, train))

  def inverse(self, z: Array) -> tuple[Array, Array]:
    net, variables = self.conditioner.unbind()
    sequence = jnp.asarray(np.argsort(self.order))

    def known_one_more(i: Array, x: Array) -> Array:
      found, _ = inverse_affine(z, *net.apply(variables, x, False))
      # Those not yet known stay 0: made up, they could overflow.
      known = jax.nn.one_hot(sequence[i], z.shape[-1], dtype=bool)[None]
      return jnp.where(known, found, x)

    x = lax.fori_loop(0, z.shape[-1], known_one_more, jnp.zeros_like(z))
    _, log_det = inverse_affine(z, *net.apply(variables, x, False))
    return x, log_det
