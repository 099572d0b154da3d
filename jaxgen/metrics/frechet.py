"""The Frechet distance between Gaussians fitted to two sets of features.

Heusel, Ramsauer, Unterthiner, Nessler & Hochreiter, "GANs Trained by a Two Time-Scale
Update Rule Converge to a Local Nash Equilibrium" (2017), arXiv 1706.08500, Eq. 6. With
features of Inception-v3 it is called FID; of another network it must not be.

Moments are merged as Chan, Golub & LeVeque, "Updating Formulae and a Pairwise
Algorithm for Computing Sample Variances" (1979). Run all of it in float64 (inside
`jax.enable_x64(True)`): in float32 the square roots of the smallest eigenvalues are
noise, and the distance is good to about 1e-3 of the trace.

The estimate is biased upwards by about 1/N: compare only distances of equal counts.
"""

from collections.abc import Iterable, Iterator
import functools
from typing import NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics.distances import as_features

CHUNK = 4_096  # Rows in memory at a time.


class Moments(NamedTuple):
  """What a set of features leaves behind: enough for its mean and covariance.

  Attributes:
    count: [], the number of rows, in the dtype of the mean.
    mean: [D].
    scatter: [D, D], the sum over rows of (x - mean)(x - mean)^T.
  """

  count: Array
  mean: Array
  scatter: Array


def moments(features: Array | np.ndarray) -> Moments:
  """The moments of one batch, or of all of it.

  Args:
    features: Numbers [N, D], N at least 1. float64 stays so under x64.

  Raises:
    ValueError: for another shape, or no rows.
  """
  return _moments(as_features(features))


@jax.jit
def _moments(x: Array) -> Moments:
  mean = jnp.mean(x, axis=0)
  centred = x - mean[None]
  scatter = jnp.matmul(centred.T, centred, precision="highest")
  return Moments(jnp.asarray(len(x), x.dtype), mean, scatter)


@jax.jit
def merge(a: Moments, b: Moments) -> Moments:
  """The moments of the union of two disjoint sets (Chan et al., Eq. 2.1)."""
  count, delta = a.count + b.count, b.mean - a.mean
  mean = a.mean + delta * (b.count / count)
  between = jnp.outer(delta, delta) * (a.count * b.count / count)
  return Moments(count, mean, a.scatter + b.scatter + between)


def moments_of(batches: Iterable[np.ndarray]) -> Moments:
  """The moments of all batches together, in float64 whatever JAX's flag is.

  Args:
    batches: Numbers [N_i, D] each; one is in memory at a time.

  Raises:
    ValueError: for another shape, or no batches.
  """
  total = None
  for batch in batches:
    with jax.enable_x64(True):
      part = moments(np.asarray(batch, np.float64))
      total = part if total is None else merge(total, part)
  if total is None:
    raise ValueError("no batches to take moments of")
  return total


def covariance(m: Moments) -> Array:
  """The unbiased covariance [D, D], scatter / (count - 1)."""
  return m.scatter / (m.count - 1)


def frechet_distance(a: Moments, b: Moments) -> Array:
  """|mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)) (Eq. 6).

  A B is not symmetric, and algorithms for its square root break down where A or B is
  singular (fewer rows than dimensions). The trace needs no root of a matrix: with
  A = R R^T, A B = R (R^T B) has the nonzero eigenvalues of R^T B R, which is symmetric
  and positive semidefinite, so that they are real and at least 0; the trace is the sum
  of their square roots. R and they come from symmetric eigendecompositions, which err
  by a few eps of the largest eigenvalue. What is below that is noise and taken as 0:
  a square root would blow it up to sqrt(eps), once per missing dimension.

  Args:
    a: Moments of at least 2 rows.
    b: Likewise, of the same dimension.

  Returns:
    [] of their dtype, at least 0: the *squared* 2-Wasserstein distance, as is usual.

  Raises:
    ValueError: if the dimensions differ or a count is below 2.
  """
  if a.mean.shape != b.mean.shape:
    raise ValueError(f"the moments must have one dimension, got {a.mean.shape[0]} "
                     f"and {b.mean.shape[0]}")  # fmt: skip
  counts = int(a.count), int(b.count)
  if min(counts) < 2:
    raise ValueError(f"a covariance needs at least 2 rows, got counts {counts}")
  return _distance(a.mean, covariance(a), b.mean, covariance(b))


def standard_error(
  features: Array | np.ndarray, reference: Moments, own: Moments | None = None
) -> Array:
  """Of the distance of a set of features from a reference that is held fixed.

  By the delta method: std of `influence` over the rows, / sqrt(N). It says how far the
  estimate may be from its own expectation for N rows, whose bias it leaves alone.

  Args:
    features: Numbers [N, D]; N well above D, or the error is too small.
    reference: Moments of the same dimension.
    own: Those of the features, if they are at hand.

  Returns:
    [] of their dtype, in the distance's unit.
  """
  found = influence(features, reference, own)
  return jnp.std(found) / jnp.sqrt(jnp.asarray(len(found), found.dtype))


def influence(
  features: Array | np.ndarray, reference: Moments, own: Moments | None = None
) -> Array:
  """How much each row moves the distance: N d distance / d (weight of the row), [N].

  With A, B the covariances, the distance has the gradients 2 (mean_a - mean_b) and
  I - T, where T = R^-T (R^T B R)^(1/2) R^-1 is the optimal transport from A to B
  (Dowson & Landau 1982), taken on the range of A = R R^T.

  Args:
    features: Numbers [N, D], N at least 2; CHUNK rows are in memory at a time.
    reference: Moments of the same dimension.
    own: Those of the features, if they are at hand.

  Returns:
    [N] in the dtype of the moments.
  """
  own = moments(features) if own is None else own
  slope = _slope(covariance(own), reference)
  parts = [
    _moved(jnp.asarray(rows, own.mean.dtype), own, slope, reference.mean)
    for rows in chunks(features)
  ]
  linear, quadratic = (jnp.concatenate(part) for part in zip(*parts, strict=True))
  return linear + quadratic - jnp.mean(quadratic)


def chunks(rows: Array | np.ndarray) -> Iterator[Array | np.ndarray]:
  """Rows of features, or of a memory map of them, CHUNK at a time."""
  return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


@jax.jit
def _slope(cov: Array, reference: Moments) -> Array:
  """The gradient I - T by the covariance."""
  values, vectors = jnp.linalg.eigh(cov)
  values = _without_noise(values)
  root = vectors * jnp.sqrt(values)[None]
  safe = jnp.where(values > 0, values, 1)
  inverse = jnp.where(values > 0, 1 / jnp.sqrt(safe), 0)[:, None] * vectors.T
  m, u = jnp.linalg.eigh(_product(root.T, covariance(reference), root))
  half = u * jnp.sqrt(_without_noise(m))[None] ** 0.5
  transport = _product(inverse.T, half)
  return jnp.eye(len(cov), dtype=cov.dtype) - _product(transport, transport.T)


@jax.jit
def _moved(x: Array, own: Moments, slope: Array, mean: Array) -> tuple[Array, Array]:
  """The linear part of some rows' influence, and the quadratic, not yet centred."""
  centred = x - own.mean[None]
  unbiased = own.count / (own.count - 1)
  quadratic = unbiased * jnp.sum(_product(centred, slope) * centred, axis=1)
  return 2 * _product(centred, own.mean - mean), quadratic


def _product(*xs: Array) -> Array:
  return functools.reduce(lambda a, b: jnp.matmul(a, b, precision="highest"), xs)


@jax.jit
def _distance(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> Array:
  values, vectors = jnp.linalg.eigh(cov_a)
  root = vectors * jnp.sqrt(_without_noise(values))[None]  # R
  inner = _product(root.T, cov_b, root)
  trace = jnp.sum(jnp.sqrt(_without_noise(jnp.linalg.eigvalsh(inner))))
  squares = jnp.sum((mean_a - mean_b) ** 2)
  distance = squares + jnp.trace(cov_a) + jnp.trace(cov_b) - 2 * trace
  return jnp.maximum(distance, 0)  # Rounding can leave -eps; NaN stays NaN.


def _without_noise(values: Array) -> Array:
  """Eigenvalues of a positive semidefinite matrix, those within rounding of 0 as 0."""
  noise = 10 * jnp.finfo(values.dtype).eps * jnp.max(values)
  return jnp.where(values > noise, values, jnp.where(jnp.isnan(values), values, 0))
