"""Intervals for metrics: over the images of one run, and over training seeds.

Two different uncertainties: `bootstrap_interval` says what other images of the same
model and data would have given (`jackknife_interval` too, where a resampled image would
be its own neighbour, and `pairs_interval`), `mean_interval` what other training runs
would have.

The bootstrap of a biased statistic is biased twice. A Frechet distance of N samples is
too large by some b; one of N *resampled* samples is too large by about 2 b, and their
spread is smaller than b unless the dimension is tiny. The usual interval between
percentiles of the resampled values then lies above the truth altogether. Here the
resampled values are reflected about the estimate instead (the "basic" interval: Davison
& Hinkley, "Bootstrap Methods and their Application", 1997, Section 5.2), which removes
the bias to first order: the interval is for the value of infinitely many samples.

Measured, Frechet distance of Gaussians, level 0.95, 100 resamples, 60 repetitions
(standard deviation of a coverage of 0.95: 0.03); `kept` is bias="keep", scored against
the mean estimate:

      D     N   truth   mean estimate   percentiles   removed   kept
      8   500   2.404           2.508          0.70      0.88   0.88
     32  1000   1.349           2.028          0.00      0.98   0.97
     32  1000   0.156           0.772          0.00      0.98   1.00
     32  1000   0               0.590          0.00      1.00   1.00
     64   500   1.978           7.028          0.00      0.92   1.00
     64  5000   0.232           0.696          0.00      1.00   1.00
     64   128   1.978          21.787          0.00      0.20   1.00

Both are too wide (up to twice) where the bias is large. With N below about 8 D the
first order is not enough: nothing can be said there about infinitely many samples.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from jax import Array
import numpy as np
from scipy.special import stdtrit


def bootstrap_interval(
  statistic: Callable[..., Array | float],
  arrays: Sequence[Array | np.ndarray],
  *,
  seed: int,
  num: int = 200,
  level: float = 0.95,
  bias: Literal["remove", "keep"] = "remove",
) -> tuple[float, float]:
  """An interval for a statistic of sets of rows, by resampling the rows of each.

      distance = lambda x, y: frechet_distance(moments(x), moments(y))
      low, high = bootstrap_interval(distance, (real, fake), seed=0)

  Args:
    statistic: Maps arrays of the shapes of `arrays` to a scalar. It is called num + 1
      times. What is not to be resampled (moments of a fixed reference) it holds itself.
    arrays: Each [N_i, ...], resampled independently of each other.
    seed: Of numpy's generator, which draws the rows.
    num: Resamples; 200 for a level of 0.95, more for a higher one.
    level: Of confidence, between 0 and 1.
    bias: "remove": the interval is for the value of infinitely many rows; where the
      statistic's bias exceeds its spread it does not hold the estimate itself. "keep":
      for the expectation at these numbers of rows, which is what numbers published with
      as many images are to be compared with; the same interval, shifted back by the
      bias that the resamples show.

  Returns:
    (low, high). A distance's `low` may be below 0: then 0 is not excluded.

  Raises:
    ValueError: for arguments outside these ranges.
  """
  if bias not in ("remove", "keep"):
    raise ValueError(f'bias must be "remove" or "keep", got {bias!r}')
  if num < 2 or not len(arrays):
    raise ValueError("at least 2 resamples of at least one array are needed, got "
                     f"{num} of {len(arrays)}")  # fmt: skip
  _check_level(level)
  rng = np.random.default_rng(seed)
  arrays = [np.asarray(array) for array in arrays]
  draw = lambda array: array[rng.integers(len(array), size=len(array))]
  resampled = np.array([float(statistic(*map(draw, arrays))) for _ in range(num)])
  estimate = float(statistic(*arrays))
  low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
  shift = resampled.mean() - estimate if bias == "keep" else 0.0
  return float(2 * estimate - high + shift), float(2 * estimate - low + shift)


def jackknife_interval(
  value: float, left_out: Sequence[float] | Array | np.ndarray, *, level: float = 0.95
) -> tuple[float, float]:
  """An interval for the expectation of a statistic at this number of rows.

  For statistics that resampling would distort: a row drawn twice is its own nearest
  neighbour. Leaving one out repeats none. The variance, (n - 1)/n times the sum of
  squares of the left-out values about their mean, is that of a mean for a mean, and for
  any symmetric statistic of independent rows at least the true one in expectation
  (Efron & Stein, "The Jackknife Estimate of Variance", 1981: of n - 1 rows).

  Args:
    value: The statistic of all rows.
    left_out: The statistic without row i, or without the i-th of n equal groups.
    level: Of confidence, between 0 and 1.

  Returns:
    value -+ Student's t with n - 1 degrees of freedom times the standard error.

  Raises:
    ValueError: for fewer than 2 values, or a level out of range.
  """
  left_out = np.asarray(left_out, np.float64)
  if left_out.ndim != 1 or len(left_out) < 2:
    raise ValueError(f"a jackknife needs at least 2 values in a row, got shape "
                     f"{list(left_out.shape)}")  # fmt: skip
  _check_level(level)
  count = len(left_out)
  error = np.sqrt((count - 1) * left_out.var())
  half = float(stdtrit(count - 1, (1 + level) / 2) * error)
  return value - half, value + half


def pairs_interval(
  values: Array | np.ndarray, num_rows: int, *, level: float = 0.95
) -> tuple[float, float]:
  """An interval for the mean of h(x_i, x_j) over random pairs of different rows.

  Pairs share rows and are not independent. With v the variance of h, that of the mean
  of P pairs of n rows is at most v (1/P + 2/n), as (Hoeffding, "A Class of Statistics
  with Asymptotically Normal Distribution", 1948) the variance of h's mean over one of
  its arguments is at most v / 2. Equality: h(x, y) = x + y.

  Args:
    values: [P], h of pairs drawn with replacement; at least 2.
    num_rows: n, at least 3.
    level: Of confidence, between 0 and 1.

  Returns:
    (low, high), of at least this level for large P and n.

  Raises:
    ValueError: for fewer values or rows, or a level out of range.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or len(values) < 2 or num_rows < 3:
    raise ValueError(f"expected at least 2 values [P] of at least 3 rows, got shape "
                     f"{list(values.shape)} of {num_rows}")  # fmt: skip
  _check_level(level)
  variance = values.var(ddof=1) / (1 - 2 / num_rows)  # Drawn of n rows, of all.
  error = np.sqrt(variance * (1 / len(values) + 2 / num_rows))
  half = float(stdtrit(min(len(values), num_rows) - 1, (1 + level) / 2) * error)
  return float(values.mean()) - half, float(values.mean()) + half


def mean_interval(
  values: Sequence[float] | Array | np.ndarray, *, level: float = 0.95
) -> tuple[float, float]:
  """Student's t interval for the mean of one metric over training seeds.

  Args:
    values: One number per independent training run; at least 2. With 3 runs the
      interval is 2.5 standard deviations either way, with 5 it is 1.24.
    level: Of confidence, between 0 and 1.

  Returns:
    (low, high), exact for normally distributed values.

  Raises:
    ValueError: for fewer than 2 values, or a level out of range.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or len(values) < 2:
    raise ValueError(f"an interval needs at least 2 values in a row, got shape "
                     f"{list(values.shape)}")  # fmt: skip
  _check_level(level)
  count = len(values)
  error = values.std(ddof=1) / np.sqrt(count)
  half = stdtrit(count - 1, (1 + level) / 2) * error
  return float(values.mean() - half), float(values.mean() + half)


def _check_level(level: float) -> None:
  if not 0 < level < 1:
    raise ValueError(f"level must be between 0 and 1, got {level}")
