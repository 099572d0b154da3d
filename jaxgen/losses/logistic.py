"""Logistic distributions cut into 256 levels, and mixtures of them. In nats.

Salimans et al., "PixelCNN++" (2017), arXiv 1701.05517, Section 2.1.
"""

from typing import NamedTuple

import jax
from jax import Array, random
import jax.numpy as jnp

from jaxgen.losses import categorical

MIN_LOG_SCALE = -7.0  # The floor of the authors' code: an eighth of a level's width.


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


class Mixture(NamedTuple):
  """A mixture of K logistics over the C channels of a pixel (Section 2.2).

  Attributes:
    logits: f32 [..., K].
    means: f32 [..., C, K], of a channel where all channels before it are 0.
    log_scales: f32 [..., C, K].
    slopes: f32 [..., C (C - 1) / 2, K]; what is added to the mean of channel 1 for each
      unit of channel 0, then to that of channel 2 for channels 0 and 1, and so on.
  """

  logits: Array
  means: Array
  log_scales: Array
  slopes: Array


def num_outputs(channels: int, num_mixtures: int) -> int:
  """Length of the last axis that `mixture` reads."""
  return num_mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)


def mixture(outputs: Array, channels: int, num_mixtures: int) -> Mixture:
  """A network's outputs as a mixture: slopes by tanh, log scales floored.

  Args:
    outputs: f32 [..., num_outputs(channels, num_mixtures)].
    channels: C.
    num_mixtures: K.
  """
  parts = outputs.reshape(*outputs.shape[:-1], -1, num_mixtures)
  means = parts[..., 1 : 1 + channels, :]
  log_scales = parts[..., 1 + channels : 1 + 2 * channels, :]
  return Mixture(
    parts[..., 0, :],
    means,
    jnp.maximum(log_scales, MIN_LOG_SCALE),
    jnp.tanh(parts[..., 1 + 2 * channels :, :]),
  )


def _mean(p: Mixture, c: int, x: Array) -> Array:
  """Mean of channel c given those before it in x [..., C]: [..., K]."""
  first = c * (c - 1) // 2
  slopes = p.slopes[..., first : first + c, :]
  return p.means[..., c, :] + jnp.sum(slopes * x[..., :c, None], axis=-2)


def component_means(p: Mixture) -> Array:
  """Means of the channels of each component, f32 [..., C, K]; not of levels."""
  means = []
  for c in range(p.means.shape[-2]):
    first = c * (c - 1) // 2
    shifts = [p.slopes[..., first + b, :] * mean for b, mean in enumerate(means)]
    means.append(p.means[..., c, :] + sum(shifts))
  return jnp.stack(means, axis=-2)


def log_pixel(x: Array, p: Mixture) -> Array:
  """log of sum_k pi_k prod_c P_k(level of x_c | x_0, ..., x_(c - 1)).

  Args:
    x: f32 [..., C], of the levels -1, -1 + 2 / 255, ..., 1.
    p: Of those pixels.

  Returns:
    f32 [...], at most 0.
  """
  parts = jax.nn.log_softmax(p.logits)
  for c in range(x.shape[-1]):
    mean, log_scale = _mean(p, c, x), p.log_scales[..., c, :]
    parts = parts + log_level(x[..., c, None], mean, log_scale)
  return jax.nn.logsumexp(parts, axis=-1)


def draw_pixel(p: Mixture, key: Array) -> Array:
  """Draws from what `log_pixel` gives the probabilities of: f32 [..., C] in [-1, 1].

  A logistic variable, clipped, then rounded to the nearest level.
  """
  which_key, noise_key = random.split(key)
  k = categorical.draw(p.logits, which_key)
  chosen = lambda a: jnp.take_along_axis(a, k[..., None, None], axis=-1)
  p = Mixture(p.logits, *(chosen(a) for a in p[1:]))  # Of K = 1.
  channels = p.means.shape[-2]
  noise = random.logistic(noise_key, p.means.shape[:-1], p.means.dtype)
  x = jnp.zeros_like(noise)
  for c in range(channels):
    value = _mean(p, c, x)[..., 0] + jnp.exp(p.log_scales[..., c, 0]) * noise[..., c]
    level = jnp.round((jnp.clip(value, -1.0, 1.0) + 1.0) * 127.5)
    x = x.at[..., c].set(level / 127.5 - 1.0)
  return x
