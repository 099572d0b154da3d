"""Kernel inception distance: an unbiased MMD^2 with a polynomial kernel.

Binkowski, Sutherland, Arbel & Gretton, "Demystifying MMD GANs" (2018), arXiv
1801.01401, Section 4: k(x, y) = (x.y / D + 1)^3, averaged over random subsets.

Being unbiased it is negative half of the time for equal distributions, and values of
different counts may be compared. Run it in float64: it is a small difference of means
of third powers.
"""

import functools

import jax
from jax import Array, random
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics.distances import as_pair, map_rows


def polynomial_mmd(
  x: Array | np.ndarray,
  y: Array | np.ndarray,
  *,
  degree: int = 3,
  gamma: float | None = None,
  coef: float = 1.0,
) -> Array:
  """MMD^2 of two sets, unbiased (Gretton et al. 2012, Eq. 3), blockwise.

  Args:
    x: Numbers [N, D], N at least 2.
    y: Numbers [M, D], M at least 2.
    degree: Of the kernel (gamma x.y + coef)^degree.
    gamma: Likewise; 1 / D if None.
    coef: Likewise.

  Returns:
    [] of the dtype of the features; below 0 is possible.

  Raises:
    ValueError: for other shapes.
  """
  x, y = as_pair(x, y)
  if min(len(x), len(y)) < 2:
    raise ValueError(f"MMD needs at least 2 rows a set, got {len(x)} and {len(y)}")
  gamma = 1 / x.shape[1] if gamma is None else gamma
  return _mmd(x, y, degree, gamma, coef)


@functools.partial(jax.jit, static_argnums=2)
def _mmd(x: Array, y: Array, degree: int, gamma: float, coef: float) -> Array:
  def kernel(point: Array, others: Array) -> Array:
    product = jnp.matmul(others, point, precision="highest")
    return (gamma * product + coef) ** degree

  def mean_of_pairs(x: Array) -> Array:
    """The mean kernel of two different rows."""

    def others(row: tuple) -> Array:
      index, point = row
      return jnp.sum(jnp.where(jnp.arange(len(x)) == index, 0, kernel(point, x)))

    sums = map_rows(others, (jnp.arange(len(x)), x), len(x))
    return jnp.mean(sums) / (len(x) - 1)

  across = jnp.mean(map_rows(lambda p: jnp.mean(kernel(p, y)), x, len(y)))
  return mean_of_pairs(x) + mean_of_pairs(y) - 2 * across


def kid(
  x: Array | np.ndarray,
  y: Array | np.ndarray,
  *,
  key: Array,
  num_subsets: int = 100,
  subset_size: int = 1000,
  degree: int = 3,
  gamma: float | None = None,
  coef: float = 1.0,
) -> tuple[Array, Array]:
  """The mean and standard deviation of `polynomial_mmd` over random subsets.

  The deviation is that of one subset (divided by num_subsets, as torch-fidelity and
  torchmetrics do), not the error of the mean: the subsets overlap.

  Args:
    x: Numbers [N, D], N at least subset_size.
    y: Numbers [M, D], M at least subset_size.
    key: Draws the rows of each subset, without replacement.
    num_subsets: How many.
    subset_size: Rows of x and of y in each; at least 2.
    degree: See `polynomial_mmd`.
    gamma: Likewise.
    coef: Likewise.

  Returns:
    Two [] of the dtype of the features.

  Raises:
    ValueError: for other shapes, or a set smaller than a subset.
  """
  x, y = as_pair(x, y)
  if not 2 <= subset_size <= min(len(x), len(y)):
    raise ValueError(f"subset_size must be from 2 to the smaller set's rows, "
                     f"got {subset_size} for {len(x)} and {len(y)} rows")  # fmt: skip
  if num_subsets < 1:
    raise ValueError(f"num_subsets must be at least 1, got {num_subsets}")
  gamma = 1 / x.shape[1] if gamma is None else gamma
  values = [
    _of_subset(subset_key, x, y, subset_size, degree, gamma, coef)
    for subset_key in random.split(key, num_subsets)
  ]
  return jnp.mean(jnp.stack(values)), jnp.std(jnp.stack(values))


@functools.partial(jax.jit, static_argnums=(3, 4))
def _of_subset(
  key: Array, x: Array, y: Array, size: int, degree: int, gamma: float, coef: float
) -> Array:
  """The MMD^2 of so many rows of each set, drawn without replacement."""
  rows = [
    random.choice(k, len(set_), (size,), replace=False)
    for k, set_ in zip(random.split(key), (x, y), strict=True)
  ]
  return _mmd(x[rows[0]], y[rows[1]], degree, gamma, coef)
