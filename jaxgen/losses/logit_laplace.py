"""The logit-Laplace distribution on (0, 1): of sigmoid(y), y Laplace.

Ramesh et al., "Zero-Shot Text-to-Image Generation" (2021), arXiv 2102.12092, where
pixels are moved off the ends of the interval first.
"""

import jax
from jax import Array
import jax.numpy as jnp

EPSILON = 0.1  # Pixels fill [EPSILON, 1 - EPSILON], in the authors' code as well.


def log_prob(x: Array, location: Array, log_scale: Array) -> Array:
  """log of exp(-|logit(x) - location| / scale) / (2 scale x (1 - x)), in nats.

  Args:
    x: In (0, 1).
    location: Of the Laplace distribution of logit(x); its median.
    log_scale: Natural log of the scale.

  Returns:
    The log density of each value.
  """
  logit = jnp.log(x) - jnp.log1p(-x)
  distance = jnp.abs(logit - location) * jnp.exp(-log_scale)
  return -distance - jnp.log(2.0) - log_scale - jnp.log(x) - jnp.log1p(-x)


def from_image(image: Array) -> Array:
  """[-1, 1] -> [EPSILON, 1 - EPSILON]."""
  return EPSILON + (1.0 - 2.0 * EPSILON) * 0.5 * (image + 1.0)


def to_image(location: Array) -> Array:
  """The image of the median; clipped to [-1, 1]."""
  x = (jax.nn.sigmoid(location) - EPSILON) / (1.0 - 2.0 * EPSILON)
  return jnp.clip(2.0 * x - 1.0, -1.0, 1.0)
