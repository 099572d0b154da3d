"""Nearest neighbours, and how many samples are copies of training data.

A sample is a copy if its nearest training example is at most a third as far as its
second nearest: Yoon, Choi, Kwon & Ryu, "Diffusion Probabilistic Models Generalize when
They Fail to Memorize" (ICML 2023 workshop); also Gu et al., "On Memorization in
Diffusion Models" (2023), arXiv 2310.02664. Carlini et al., "Extracting Training Data
from Diffusion Models" (2023), arXiv 2301.13188, divide by the mean of 50 neighbours
instead. The ratio needs no scale and no threshold in pixels, so that it means the same
for every data set; but near-duplicates among the training data hide their copies (exact
ones do not hide exact copies): remove them first, and read `test_copied_rate`, the
false alarms of the rule on images that cannot be copies.
"""

from collections.abc import Iterable
import functools

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics.distances import as_pair, map_distances

SPARE = 3  # Candidates beyond k that are measured directly.


def k_nearest(
  x: Array | np.ndarray, y: Array | np.ndarray, k: int
) -> tuple[Array, Array]:
  """The k rows of y nearest to each row of x, nearest first, blockwise.

  The candidates are found by matrix products, then measured by |x - y| itself: the
  distances have no cancellation (that of a copy is exactly 0), and their order is right
  unless more than SPARE others are within rounding of the k-th.

  Args:
    x: Numbers [N, D].
    y: Numbers [M, D], M at least k.
    k: At least 1.

  Returns:
    Euclidean distances [N, k], in the dtype of the features, and int32 rows [N, k].

  Raises:
    ValueError: for other shapes, or k outside 1 .. M.
  """
  x, y = as_pair(x, y)
  if not 1 <= k <= len(y):
    raise ValueError(f"k must be from 1 to the {len(y)} rows of y, got {k}")
  return _k_nearest(x, y, k)


@functools.partial(jax.jit, static_argnums=2)
def _k_nearest(x: Array, y: Array, k: int) -> tuple[Array, Array]:
  num_candidates = min(k + SPARE, len(y))
  find = lambda squared, *_: jax.lax.top_k(-squared, num_candidates)[1]
  candidates = map_distances(find, x, y)

  def measure(row: tuple) -> tuple[Array, Array]:
    point, index = row
    distance = jnp.sqrt(jnp.sum((y[index] - point[None]) ** 2, axis=1))
    order = jnp.argsort(distance)[:k]
    return distance[order], index[order].astype(jnp.int32)

  return jax.lax.map(measure, (x, candidates), batch_size=256)


def nearest(
  x: Array | np.ndarray, y: Array | np.ndarray
) -> tuple[Array, Array]:  # fmt: skip
  """The row of y nearest to each row of x: `k_nearest` with k = 1.

  Returns:
    Euclidean distance [N] and int32 row of y [N].
  """
  distance, index = k_nearest(x, y, 1)
  return distance[:, 0], index[:, 0]


def memorisation(
  samples: Array | np.ndarray,
  train: Array | np.ndarray,
  test: Array | np.ndarray,
  *,
  ratio: float = 1 / 3,
) -> dict[str, Array]:
  """How near samples come to the training data, beside how near test data come.

  Args:
    samples: Numbers [N, D]: pixels, or features.
    train: Numbers [M, D], what the model was trained on, M at least 2.
    test: Numbers [L, D], from the same distribution but never seen.
    ratio: A copy's nearest distance is at most this part of the second nearest.

  Returns:
    nearest_train_distance: mean over samples; well below the next one is suspicious.
    test_nearest_train_distance: mean over test.
    copied_rate: fraction of samples that the rule calls copies.
    test_copied_rate: fraction of test images that it does: its false alarms.
    Each [] of the dtype of the features.

  Raises:
    ValueError: for other shapes, or a ratio outside (0, 1).
  """
  of_samples, copied = copies(samples, train, ratio=ratio)
  of_test, test_copied = copies(test, train, ratio=ratio)
  share = lambda x: jnp.mean(x, dtype=of_samples.dtype)
  return {
    "nearest_train_distance": jnp.mean(of_samples),
    "test_nearest_train_distance": jnp.mean(of_test),
    "copied_rate": share(copied),
    "test_copied_rate": share(test_copied),
  }


def copies(
  samples: Array | np.ndarray, train: Array | np.ndarray, *, ratio: float = 1 / 3
) -> tuple[Array, Array]:
  """Of each sample the distance to the nearest training row, and if it is a copy.

  Args, errors: as `memorisation`.

  Returns:
    [N] of the dtype of the features, and bool [N].
  """
  return copies_of_any(samples, [train], ratio=ratio)


def copies_of_any(
  samples: Array | np.ndarray,
  train: Iterable[Array | np.ndarray],
  *,
  ratio: float = 1 / 3,
) -> tuple[Array, Array]:
  """`copies` where the training data come in parts, one in memory at a time.

  Args:
    samples: As `memorisation`.
    train: Arrays [M_i, D], together of at least 2 rows.
    ratio: As `memorisation`.

  Returns, errors: as `copies`.
  """
  if not 0 < ratio < 1:
    raise ValueError(f"ratio must be between 0 and 1, got {ratio}")
  nearest_two = None
  for part in train:
    found, _ = k_nearest(samples, part, min(2, len(part)))
    if nearest_two is not None:
      found = jnp.sort(jnp.concatenate([nearest_two, found], axis=1), axis=1)[:, :2]
    nearest_two = found
  if nearest_two is None or nearest_two.shape[1] < 2:
    raise ValueError("a second neighbour needs at least 2 training rows")
  first, second = nearest_two[:, 0], nearest_two[:, 1]
  return first, first <= ratio * second
