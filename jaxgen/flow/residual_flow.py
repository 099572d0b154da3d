"""Residual flows: Residual Flows for Invertible Generative Modeling.

Ricky T. Q. Chen, Jens Behrmann, David Duvenaud, Joern-Henrik Jacobsen, 2019.
https://arxiv.org/abs/1906.02735. Blocks z = x + g(x) with Lip(g) < 1 (Behrmann et al.,
2018, arXiv 1811.00995), an unbiased estimate of log |det dz/dx| by a power series with
Russian roulette (Section 3.1, Eq. 6), its gradient as a Neumann series of its own
(Section 3.2, Eq. 8), LipSwish (Section 3.3), inverses by iterating a fixed point.

Two networks: `network`, of dense layers on images as vectors, whose determinant is
computed exactly in the evaluation, for hundreds of dimensions at most; and
`conv_network`, the paper's for images (Section 5), which is evaluated by the estimator
with more terms, as the paper's is.

Deviations from the paper:
  - The norm is the 2-norm, by a fixed number of power iterations per step, so that
    layers may exceed their bound a little (`jaxgen.nn.lipschitz`).
    (Paper: also learned mixed norms; code: iterations to a tolerance.)
  - N is geometric, as Section 3.1 has it. (Code for images: Poisson of mean 2.)
  - v is of signs. (Code: Gaussian.)
  - The weights evaluated are the last ones. (Code: an average of them, for which it
    runs the power iterations anew.)
  - No scale's channels leave early, which is the paper's for images of 32x32 at most.
  - Gradients keep all that they need. (Section 3.2: a block's is taken on the way
    forth, in memory that does not grow with their number.)
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
from jaxgen.nn.bijection import ActNorm, Chain, Flattened, row_sum
from jaxgen.nn.lipschitz import LipschitzConvNet, LipschitzMlp
from jaxgen.nn.multi_scale import Squeeze, check_sides


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
EVALUATION = Roulette(num_exact=20)  # Section 5


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
    fn: g, (variables, x) -> f32 [B, ...], row by row, with slopes below 1.
    variables: Of g.
    x: f32 [B, ...].
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
    value -= weight / k * row_sum(power * v)
    return power, w + weight * power, value

  start = (v, v, jnp.zeros(len(x), x.dtype))
  _, w, value = lax.fori_loop(1, num_terms + 1, add_term, start)
  _, slope = jax.jvp(lambda x: fn(variables, x), (x,), (v,))
  surrogate = row_sum(lax.stop_gradient(w) * slope)
  return lax.stop_gradient(value) + surrogate - lax.stop_gradient(surrogate)


def exact_log_det(fn: Callable[[Array], Array], x: Array) -> Array:
  """log |det(I + dg/dx)| by the Jacobian: f32 [B, ...] -> f32 [B]."""
  one = lambda row: row + fn(row.reshape(1, *x.shape[1:])).reshape(-1)
  rows = x.reshape(len(x), -1)
  return jnp.linalg.slogdet(jax.vmap(jax.jacobian(one))(rows))[1]


class Block(nn.Module):
  """z = x + g(x), a layer as in `jaxgen.nn.bijection`.

  With train=True log_det is estimated, with draws from the stream "draws"; so it is
  without, unless `evaluation` is None.

  Attributes:
    residual: g.
    roulette: Of the estimate in training.
    evaluation: Of that without; None: log_det is computed by the Jacobian.
    max_iterations: Of the inverse, whose own log_det is by the Jacobian always.
  """

  residual: nn.Module
  roulette: Roulette = ROULETTE
  evaluation: Roulette | None = None
  max_iterations: int = 1000

  def _fixed(self) -> tuple[Callable[[PyTree, Array], Array], PyTree]:
    net, variables = self.residual.unbind()
    return (lambda variables, x: net.apply(variables, x, False)), variables

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    z = x + self.residual(x, train)  # With train=True its vectors move on, once.
    if self.is_initializing():
      return z, jnp.zeros(len(x), x.dtype)
    fn, variables = self._fixed()
    roulette = self.roulette if train else self.evaluation
    if roulette is None:
      return z, exact_log_det(lambda x: fn(variables, x), x)
    return z, estimate_log_det(fn, variables, x, self.make_rng("draws"), roulette)

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


def conv_network(
  shape: tuple[int, int, int],
  *,
  num_blocks: tuple[int, ...] = (16, 16, 16),
  width: int = 512,
  dense_dims: tuple[int, ...] = (128, 128),
  num_dense: int = 4,
  bound: float = 0.98,
  roulette: Roulette = ROULETTE,
  evaluation: Roulette | None = EVALUATION,
) -> Chain:
  """Blocks of 3x3, 1x1 and 3x3 convolutions in several scales, then dense ones.

  Actnorm is the first layer and comes after every block; squeezes of 2x2 pixels are
  between the scales. The very first block has no activation before it.

  Args:
    shape: (H, W, C) of an image; H and W divisible by 2^(scales - 1).
    num_blocks: Of each scale; the default is that of the authors' code.
    width: Channels inside of a block.
    dense_dims: Of the dense blocks, which see all of an image.
    num_dense: Their number.
    bound: As of `network`.
    roulette: Of the estimates in training.
    evaluation: Of those of evaluations, see `Block`.
  """
  if not 0 < bound < 1:
    raise ValueError(f"bound={bound}: expected one between 0 and 1")
  check_sides(shape, len(num_blocks) - 1)
  height, width_, c = shape
  layers = [ActNorm(c)]
  for scale, count in enumerate(num_blocks):
    if scale:
      height, width_, c = height // 2, width_ // 2, 4 * c
      layers.append(Squeeze())
    for i in range(count):
      g = LipschitzConvNet(width, bound, activated_first=bool(scale or i))
      layers += [Block(g, roulette, evaluation), ActNorm(c)]
  dense = []
  for _ in range(num_dense):
    block = Block(LipschitzMlp(dense_dims, bound), roulette, evaluation)
    dense += [block, ActNorm(math.prod(shape))]
  return Chain([*layers, Flattened((height, width_, c), dense)])


def residual_flow(
  net: nn.Module, *, tx: optax.GradientTransformation, **options: Any
) -> Method:
  """`likelihood.density`, trained on estimates of the determinant.

  Args:
    net: As from `network` or `conv_network`.
    tx: Its optimiser.
    **options: Of `likelihood.density`.
  """
  return density(net, tx=tx, **options)
