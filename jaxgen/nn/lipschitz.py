"""Layers whose Lipschitz constant is kept below 1: g of a residual flow's x + g(x).

Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen (2018), "Invertible Residual Networks",
arXiv 1811.00995; Chen, Behrmann, Duvenaud & Jacobsen (2019), "Residual Flows for
Invertible Generative Modeling", arXiv 1906.02735.
"""

from flax import linen as nn
import jax
from jax import Array, lax, random
import jax.numpy as jnp

STATISTICS = "power_iteration"
STEEPEST = 1.1  # Above the largest slope of swish, 1.0998.


def lip_swish(x: Array, beta: Array) -> Array:
  """x sigmoid(softplus(beta) x) / 1.1, of slopes in [-1, 1] (Chen et al., 3.3)."""
  return x * jax.nn.sigmoid(jax.nn.softplus(beta) * x) / STEEPEST


class LipschitzDense(nn.Module):
  """A dense layer whose kernel has a 2-norm of `bound` at most, as far as is known.

  Behrmann et al. (2018), Section 2.1: W times min(1, bound / sigma), sigma = |W^T v|
  for v after `num_iterations` of v = normalize(W W^T v) in every step with train=True,
  kept in the collection `STATISTICS`. sigma comes from below: with |W| = (1 + e) sigma
  the norm is (1 + e) bound. So v belongs to these weights and to no others.

  Attributes:
    num_outputs: Of the layer.
    bound: Below 1, with room for e.
    num_iterations: Per step.
  """

  num_outputs: int
  bound: float = 0.97
  num_iterations: int = 5

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    shape = (x.shape[-1], self.num_outputs)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = self.param("bias", nn.initializers.zeros, (self.num_outputs,))
    first = lambda: random.normal(self.make_rng("params"), shape[:1])
    v = self.variable(STATISTICS, "v", first)
    fixed, direction = lax.stop_gradient(kernel), v.value
    if train or self.is_initializing():
      for _ in range(self.num_iterations):
        direction = fixed @ (direction @ fixed)
        direction /= jnp.linalg.norm(direction) + 1e-12
    if train and not self.is_initializing():
      v.value = direction
    direction = direction / (jnp.linalg.norm(direction) + 1e-12)
    sigma = jnp.linalg.norm(direction @ kernel)
    return x @ (kernel * jnp.minimum(1.0, self.bound / sigma)) + bias[None]


class LipschitzMlp(nn.Module):
  """Activation and dense layer in turn, back to the first width.

  Its slopes are below 1 where `bound` leaves room enough, see `LipschitzDense`.

  Attributes:
    hidden_dims: Widths between the layers.
    bound: Of every layer.
  """

  hidden_dims: tuple[int, ...]
  bound: float

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """f32 [B, D] -> f32 [B, D]."""
    h = x
    for i, dim in enumerate((*self.hidden_dims, x.shape[-1])):
      beta = self.param(f"beta_{i}", nn.initializers.constant(0.5), ())
      h = LipschitzDense(dim, self.bound)(lip_swish(h, beta), train)
    return h
