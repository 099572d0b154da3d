"""How well one number tells two sets apart: the area under the ROC curve."""

import numpy as np


def auroc(negatives: np.ndarray, positives: np.ndarray) -> float:
  """P(positive > negative) + P(equal) / 2, of one at random of each.

  Args:
    negatives: float [N], scores of what should have low ones.
    positives: float [M].

  Raises:
    ValueError: If a set is empty or a score is not a number.
  """
  return float(_shares(negatives, positives).mean())


def auroc_interval(
  negatives: np.ndarray, positives: np.ndarray
) -> tuple[float, float] | None:
  """Of 95 %, by DeLong, DeLong & Clarke-Pearson (1988); None for fewer than 2 of a set.

  The variances of both placements, each divided by its number. With one set wholly
  above the other they are zero, and the interval is a point.
  """
  if min(len(negatives), len(positives)) < 2:
    return None
  of_positives = _shares(negatives, positives)
  of_negatives = 1.0 - _shares(positives, negatives)
  variance = sum(x.var(ddof=1) / len(x) for x in (of_positives, of_negatives))
  middle, half = of_positives.mean(), 1.96 * np.sqrt(variance)
  return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


def _shares(below: np.ndarray, scores: np.ndarray) -> np.ndarray:
  """For each of `scores` the share of `below` under it, equal ones counting half."""
  below, scores = (np.asarray(x, np.float64) for x in (below, scores))
  for values in (below, scores):
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
      raise ValueError(
        f"expected numbers in a vector, got shape {values.shape} of them"
      )
  ranked = np.sort(below)
  ends = (np.searchsorted(ranked, scores, side) for side in ("left", "right"))
  return sum(ends) / (2.0 * len(below))
