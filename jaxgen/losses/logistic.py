"""Logistic distributions cut into 256 levels, and mixtures of them. In nats.

Salimans et al., "PixelCNN++" (2017), arXiv 1701.05517, Section 2.1.
"""

import jax
from jax import Array
import jax.numpy as jnp


def log_level(x: Array, mean: Array, log_scale: Array) -> Array:
  """log P(level of x) under Logistic(mean, e^log_scale), elementwise (Eq. 2).

  The line is cut half way between 256 levels in [-1, 1]; the outer ones reach to
  infinity, so that the probabilities of all levels sum to 1. Accurate also far from the
  mean, by sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a)).

  Args:
    x: f32 [...], one of the levels -1, -1 + 2 / 255, ..., 1.
    mean: f32 [...].
    log_scale: f32 [...]; natural log of the scale.

  Returns:
    f32 [...], at most 0.
  """
  inverse = jnp.exp(-log_scale)
  below_upper = jax.nn.log_sigmoid((x - mean + 1.0 / 255.0) * inverse)
  above_lower = jax.nn.log_sigmoid(-(x - mean - 1.0 / 255.0) * inverse)
  inside = below_upper + above_lower + jnp.log(-jnp.expm1(-2.0 / 255.0 * inverse))
  outer = jnp.where(x > 0.999, above_lower, below_upper)
  return jnp.where(jnp.abs(x) > 0.999, outer, inside)


def mixture_log_level(
  x: Array, logits: Array, means: Array, log_scales: Array
) -> Array:
  """log of sum_k pi_k P_k(level of x), pi = softmax(logits) (Eq. 1).

  Args:
    x: f32 [...], one of the levels -1, -1 + 2 / 255, ..., 1.
    logits: f32 [..., K].
    means: f32 [..., K].
    log_scales: f32 [..., K].

  Returns:
    f32 [...], at most 0.
  """
  parts = log_level(x[..., None], means, log_scales)
  return jax.nn.logsumexp(jax.nn.log_softmax(logits) + parts, axis=-1)


def rgb_mixture_log_level(
  x: Array, logits: Array, means: Array, log_scales: Array, coefficients: Array
) -> Array:
  """log P(levels of a pixel), components shared by its three channels (Eq. 3).

  Green's mean moves with red, blue's with red and green, within each component.

  Args:
    x: f32 [..., 3], each of the levels -1, -1 + 2 / 255, ..., 1.
    logits: f32 [..., K].
    means: f32 [..., 3, K].
    log_scales: f32 [..., 3, K].
    coefficients: f32 [..., 3, K]; of red in green, of red in blue, of green in blue.

  Returns:
    f32 [...], at most 0.
  """
  parts = log_level(
    x[..., None], rgb_means(x[..., None], means, coefficients), log_scales
  )
  return jax.nn.logsumexp(jax.nn.log_softmax(logits) + parts.sum(axis=-2), axis=-1)


def rgb_means(x: Array, means: Array, coefficients: Array) -> Array:
  """Means of the channels given those before: x [..., 3, 1 or K] -> [..., 3, K]."""
  red, green, _ = jnp.moveaxis(x, -2, 0)
  c0, c1, c2 = jnp.moveaxis(coefficients, -2, 0)
  shift = jnp.stack([jnp.zeros_like(c0), c0 * red, c1 * red + c2 * green], axis=-2)
  return means + shift
