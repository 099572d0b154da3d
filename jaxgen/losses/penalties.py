"""Penalties on the slope of a critic: what keeps it smooth where it is measured.

All are per score and take `score`, images [B, ...] -> scores [N], in which every score
depends on B / N rows only, that follow each other (one, or a pack of them): so the
gradient of the scores' sum holds every score's own gradient. A critic with batch norm
breaks this. They are to be differentiated once more, by the critic's weights; weights
and means are the caller's.
"""

from collections.abc import Callable

import jax
from jax import Array
import jax.numpy as jnp

Score = Callable[[Array], Array]


def between(real: Array, fake: Array, t: Array) -> Array:
  """t real + (1 - t) fake, each score with its own t.

  Args:
    real: float [B, ...].
    fake: float [B, ...].
    t: float [N] in [0, 1]; B / N rows that follow each other share one.
  """
  t = jnp.repeat(t, len(real) // len(t)).reshape(-1, *(1,) * (real.ndim - 1))
  return t * real + (1 - t) * fake


def zero_centered(score: Score, x: Array) -> Array:
  """|d score / d x|^2 of every score: R1 at real images, R2 at generated ones.

  Mescheder et al. (2018), arXiv 1801.04406, Eq. 9 and 10, there times gamma / 2.

  Args:
    score: See the module.
    x: float [B, ...].

  Returns:
    float [N].
  """
  scores, pull_back = jax.vjp(score, x)
  (gradient,) = pull_back(jnp.ones_like(scores))
  return jnp.sum(gradient.reshape(len(scores), -1) ** 2, axis=-1)


def gradient_penalty(
  score: Score, x: Array, *, target: float = 1.0, one_sided: bool = False
) -> Array:
  """(|d score / d x| - target)^2 of every score.

  Gulrajani et al. (2017), arXiv 1704.00028, Eq. 3, there times lambda. A gradient of
  exactly zero has no direction in which to grow: its derivative counts as zero.

  Args:
    score: See the module.
    x: float [B, ...].
    target: The slope that costs nothing.
    one_sided: Whether smaller slopes cost nothing either (Section 4, "Two-sided
      penalty").

  Returns:
    float [N].
  """
  squared = zero_centered(score, x)
  steep = squared > 0
  slope = jnp.where(steep, jnp.sqrt(jnp.where(steep, squared, 1.0)), 0.0)
  excess = slope - target
  return (jnp.maximum(excess, 0.0) if one_sided else excess) ** 2
