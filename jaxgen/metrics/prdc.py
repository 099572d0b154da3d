"""Precision, recall, density and coverage of samples against real data.

Kynkaanniemi, Karras, Laine, Lehtinen & Aila, "Improved Precision and Recall Metric for
Assessing Generative Models" (2019), arXiv 1904.06991, Eq. 1 and 2 (k = 3 there).
Naeem, Oh, Uh, Choi & Yoo, "Reliable Fidelity and Diversity Metrics for Generative
Models" (2020), arXiv 2002.09797, Eq. 5 and 6 (k = 5 there).

All rest on balls around the points of a set that reach to each one's k-th nearest
neighbour in its own set, itself not counted. A ball contains its surface (<=, Eq. 1 of
Kynkaanniemi et al., torch-fidelity; the `prdc` package has <): this differs on exact
ties only, and lets a copy of a point that the set holds k + 1 times count as inside.
"""

import functools

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics.distances import as_pair, map_distances, within

ROWS_AT_ONCE = 1_024  # of the real set, when fakes are left out: one byte per pair


def prdc(
  real: Array | np.ndarray, fake: Array | np.ndarray, *, k: int = 5
) -> dict[str, Array]:
  """All four, blockwise: memory grows with the features, time with their square.

  Args:
    real: Numbers [N, D], N above k.
    fake: Numbers [M, D], M above k. The papers take M = N.
    k: Neighbours; at least 1.

  Returns:
    precision: fraction of fake inside some real ball.
    recall: fraction of real inside some fake ball.
    density: mean number of real balls around a fake, divided by k; may exceed 1.
    coverage: fraction of real balls with a fake inside.
    Each [] of the dtype of the features.

  Raises:
    ValueError: for other shapes, or k outside 1 .. min(N, M) - 1.
  """
  real, fake = as_pair(real, fake, "real", "fake")
  if not 1 <= k < min(len(real), len(fake)):
    raise ValueError(f"k must be at least 1 and below the rows of both sets, "
                     f"got {k} for {len(real)} and {len(fake)} rows")  # fmt: skip
  real_radii, fake_radii = _radii(real, k), _radii(fake, k)
  balls = _balls_around(fake, real, real_radii)
  in_fake, covered = _seen_from(real, fake, real_radii, fake_radii)
  return {
    "precision": jnp.mean(balls > 0, dtype=real.dtype),
    "recall": jnp.mean(in_fake, dtype=real.dtype),
    "density": jnp.mean(balls, dtype=real.dtype) / k,
    "coverage": jnp.mean(covered, dtype=real.dtype),
  }


def leave_one_out(
  real: Array | np.ndarray, fake: Array | np.ndarray, *, k: int = 5
) -> dict[str, np.ndarray]:
  """`prdc` of `fake` without its row j, for every j: what a jackknife needs.

  Exact, ties up to rounding apart, in three to four times the time of one `prdc`. Where
  row j is missing, so is its ball, and the balls of those whose neighbour it was reach
  to the next.

  Args:
    real: As `prdc`.
    fake: Numbers [M, D], M above k + 1.
    k: As `prdc`.

  Returns:
    The same names, each f64 [M].

  Raises:
    ValueError: as `prdc`, with one row less.
  """
  real, fake = as_pair(real, fake, "real", "fake")
  if not 1 <= k < min(len(real), len(fake) - 1):
    raise ValueError(f"k must be at least 1 and below the rows of both sets without "
                     f"one, got {k} for {len(real)} and {len(fake)} rows")  # fmt: skip
  near, wider, neighbours = _two_radii(fake, k)
  radii = _radii(real, k)
  balls = np.asarray(_balls_around(fake, real, radii), np.int64)
  in_fake, covered = np.zeros((2, len(fake)), np.int64)  # Changes, in real rows.
  before = np.zeros(2, np.int64)
  for start in range(0, len(real), ROWS_AT_ONCE):
    rows = slice(start, start + ROWS_AT_ONCE)
    found = _changes(real[rows], fake, radii[rows], near, wider, neighbours)
    totals, *changes = (np.asarray(f, np.int64) for f in found)
    before += totals
    in_fake += changes[0]
    covered += changes[1]
  others = len(fake) - 1
  return {
    "precision": ((balls > 0).sum() - (balls > 0)) / others,
    "recall": (before[0] + in_fake) / len(real),
    "density": (balls.sum() - balls) / k / others,
    "coverage": (before[1] + covered) / len(real),
  }


@functools.partial(jax.jit, static_argnums=1)
def _two_radii(x: Array, k: int) -> tuple[Array, Array, Array]:
  """Squared distances [N] to the k-th and the next nearest other row; the k nearest."""

  def nearest(squared: Array, slack: Array, index: Array) -> tuple:
    del slack
    others = jnp.where(jnp.arange(len(squared)) == index, jnp.inf, squared)
    found, rows = jax.lax.top_k(-others, k + 1)
    return -found[k - 1], -found[k], rows[:k]

  return map_distances(nearest, x, x)


@jax.jit
def _changes(
  real: Array,
  fake: Array,
  real_radii: Array,
  near: Array,
  wider: Array,
  neighbours: Array,
) -> tuple[Array, Array, Array]:
  """How many real rows are recalled and covered, [2]; by how much that changes [M]."""

  def of_row(squared: Array, slack: Array, _: Array, radius: Array) -> tuple:
    inside = within(squared, near, slack)
    almost = ~inside & within(squared, wider, slack)
    # Without whom a ball that misses this row by one neighbour would hold it.
    gives = jnp.zeros(len(inside), bool).at[neighbours].max(almost[:, None])
    count = jnp.sum(inside)
    gained, lost = (count == 0) & gives, (count == 1) & inside & ~gives
    within_own = within(squared, radius, slack)
    uncovered = (jnp.sum(within_own) == 1) & within_own
    recalled = gained.astype(jnp.int8) - lost.astype(jnp.int8)
    both = jnp.stack([count > 0, jnp.any(within_own)])
    return both, recalled, -uncovered.astype(jnp.int8)

  found = map_distances(of_row, real, fake, real_radii)
  return tuple(jnp.sum(f, axis=0, dtype=jnp.int32) for f in found)


@functools.partial(jax.jit, static_argnums=1)
def _radii(x: Array, k: int) -> Array:
  """Squared distances [N] to the k-th nearest other row."""

  def kth(squared: Array, slack: Array, index: Array) -> Array:
    del slack
    others = jnp.where(jnp.arange(len(squared)) == index, jnp.inf, squared)
    # min, not [-1]: of a sliced top_k XLA makes a full sort, ten times as slow.
    return -jnp.min(jax.lax.top_k(-others, k)[0])

  return map_distances(kth, x, x)


@jax.jit
def _balls_around(fake: Array, real: Array, radii: Array) -> Array:
  """How many real balls each fake lies in: int32 [M]."""
  inside = lambda squared, slack, _: jnp.sum(
    within(squared, radii, slack), dtype=jnp.int32
  )
  return map_distances(inside, fake, real)


@jax.jit
def _seen_from(
  real: Array, fake: Array, real_radii: Array, fake_radii: Array
) -> tuple[Array, Array]:
  """Whether each real lies in a fake ball; whether its own ball holds a fake."""

  def both(squared: Array, slack: Array, _: Array, radius: Array) -> tuple:
    inside = jnp.any(within(squared, fake_radii, slack))
    return inside, jnp.any(within(squared, radius, slack))

  return map_distances(both, real, fake, real_radii)
