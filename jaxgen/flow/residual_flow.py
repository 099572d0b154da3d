"""Residual flows: Residual Flows for Invertible Generative Modeling.

Ricky T. Q. Chen, Jens Behrmann, David Duvenaud, Joern-Henrik Jacobsen, 2019.
https://arxiv.org/abs/1906.02735. Blocks z = x + g(x) with Lip(g) < 1 (Behrmann et al.,
2018, arXiv 1811.00995), an unbiased estimate of log |det dz/dx| by a power series with
Russian roulette (Section 3.1, Eq. 6), its gradient as a Neumann series of its own
(Section 3.2, Eq. 8), LipSwish (Section 3.3), inverses by iterating a fixed point.

Deviations from the paper:
  - Dense networks of images as vectors. (Section 5: convolutions, several scales.)
  - The norm is the matrix 2-norm, by a fixed number of power iterations per step, so
    that layers may exceed their bound a little (`LipschitzDense`).
    (Paper: also learned mixed norms; code: iterations to a tolerance.)
  - The evaluation computes the determinant by the Jacobian, exactly: for hundreds of
    dimensions at most. (Section 5: the estimator, with 20 exact terms.)
  - v is of signs. (Code: Gaussian.)
"""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import lax, random
import jax.numpy as jnp
import optax

from jaxgen.flow.likelihood import density
from jaxgen.method import Array, Method, PyTree, per_example
from jaxgen.nn.bijection import ActNorm, Flattened
from jaxgen.nn.lipschitz import LipschitzMlp


class Roulette(NamedTuple):
  """How many terms of a power series are computed, and how they are weighted.

  Attributes:
    num_exact: Terms that always are (Appendix D: 2).
    stop: Probability to stop before each further one (the same: 0.5).
  """

  num_exact: int = 2
  stop: float = 0.5

  def draw(self, key: Array) -> Array:
    """The number of terms, int32 []."""
    return self.num_exact - 1 + random.geometric(key, self.stop, dtype=jnp.int32)

  def survival(self, k: Array) -> Array:
    """P(number of terms >= k), f32 []."""
    return (1 - self.stop) ** jnp.maximum(k - self.num_exact, 0)


ROULETTE = Roulette()


def estimate_log_det(
  fn: Callable[[PyTree, Array], Array],
  variables: PyTree,
  x: Array,
  key: Array,
  roulette: Roulette,
) -> Array:
  """An unbiased estimate of log |det(I + dg/dx)|, whose gradient is unbiased too.

  The value is sum_k (-1)^(k+1) v^T J^k v / (k P(N >= k)), k = 1, ..., N (Eq. 6); the
  gradient is that of w^T J v, with w = sum_k (-1)^k v^T J^k / P(N >= k), k = 0, ..., N,
  held constant (Eq. 8). The series itself is never differentiated. The variance is
  finite where the squared spectral radius of J is below 1 - roulette.stop.

  Args:
    fn: g, (variables, x) -> f32 [B, D], row by row, with a Lipschitz constant below 1.
    variables: Of g.
    x: f32 [B, D].
    key: Draws N and v.
    roulette: N's distribution.

  Returns:
    f32 [B].
  """
  number_key, v_key = random.split(key)
  num_terms = roulette.draw(number_key)
  v = per_example(random.rademacher(v_key, x.shape, x.dtype))
  fixed = lax.stop_gradient(variables)
  _, pull = jax.vjp(lambda x: fn(fixed, x), lax.stop_gradient(x))

  def add_term(k: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
    power, w, value = sums
    power = pull(power)[0]  # v^T J^k
    sign = 1 - 2 * (k % 2)
    weight = sign / roulette.survival(k).astype(x.dtype)
    value -= weight / k * (power * v).sum(-1)
    return power, w + weight * power, value

  start = (v, v, jnp.zeros_like(x[:, 0]))
  _, w, value = lax.fori_loop(1, num_terms + 1, add_term, start)
  _, slope = jax.jvp(lambda x: fn(variables, x), (x,), (v,))
  surrogate = (lax.stop_gradient(w) * slope).sum(-1)
  return lax.stop_gradient(value) + surrogate - lax.stop_gradient(surrogate)


def exact_log_det(fn: Callable[[Array], Array], x: Array) -> Array:
  """log |det(I + dg/dx)| by the Jacobian: f32 [B, D] -> f32 [B]."""
  one = lambda row: row + fn(row[None])[0]
  return jnp.linalg.slogdet(jax.vmap(jax.jacobian(one))(x))[1]


class Block(nn.Module):
  """z = x + g(x), a layer as in `jaxgen.nn.bijection`, on [B, D].

  With train=True log_det is estimated, with draws from the stream "draws".

  Attributes:
    residual: g.
    roulette: Of the estimate.
    max_iterations: Of the inverse.
  """

  residual: nn.Module
  roulette: Roulette = ROULETTE
  max_iterations: int = 1000

  def _fixed(self) -> tuple[Callable[[PyTree, Array], Array], PyTree]:
    net, variables = self.residual.unbind()
    return (lambda variables, x: net.apply(variables, x, False)), variables

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    z = x + self.residual(x, train)  # With train=True its vectors move on, once.
    if self.is_initializing():
      return z, jnp.zeros_like(x[:, 0])
    fn, variables = self._fixed()
    if not train:
      return z, exact_log_det(lambda x: fn(variables, x), x)
    key = self.make_rng("draws")
    return z, estimate_log_det(fn, variables, x, key, self.roulette)

  def inverse(self, z: Array) -> tuple[Array, Array]:
    """By x = z - g(x) until nothing moves but by rounding (Behrmann et al., Alg. 1)."""
    fn, variables = self._fixed()
    least = 10 * jnp.finfo(z.dtype).eps

    def moves(carry: tuple[Array, Array, Array]) -> Array:
      i, x, last = carry
      moved = (jnp.abs(x - last) > least * (1 + jnp.abs(x))).any()
      return (i < self.max_iterations) & moved

    def move(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
      i, x, _ = carry
      return i + 1, z - fn(variables, x), x

    _, x, _ = lax.while_loop(moves, move, (0, z, jnp.full_like(z, jnp.inf)))
    return x, -exact_log_det(lambda x: fn(variables, x), x)


def network(
  shape: tuple[int, int, int],
  *,
  hidden_dims: tuple[int, ...] = (128, 128),
  num_blocks: int = 8,
  bound: float = 0.97,
  roulette: Roulette = ROULETTE,
) -> Flattened:
  """Actnorm and a residual block in turn, and a last actnorm.

  Args:
    shape: (H, W, C) of an image.
    hidden_dims: Of each block.
    num_blocks: Their number.
    bound: Of every layer's 2-norm by power iteration, which finds a little less than
      there is: below 1, with room for that.
    roulette: Of the estimates.
  """
  if not 0 < bound < 1:
    raise ValueError(f"bound={bound}: expected one between 0 and 1")
  size, layers = math.prod(shape), []
  for _ in range(num_blocks):
    block = Block(LipschitzMlp(hidden_dims, bound), roulette)
    layers += [ActNorm(size), block]
  return Flattened(shape, [*layers, ActNorm(size)])


def residual_flow(
  net: nn.Module, *, tx: optax.GradientTransformation, **options: Any
) -> Method:
  """`likelihood.density`, trained on estimates and evaluated exactly.

  Args:
    net: As from `network`.
    tx: Its optimiser.
    **options: Of `likelihood.density`.
  """
  return density(net, tx=tx, **options)
