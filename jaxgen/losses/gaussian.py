"""Diagonal Gaussians, as (mean, log_var): densities, divergences, draws. In nats.

Kingma & Welling, "Auto-Encoding Variational Bayes" (2013), arXiv 1312.6114.
"""

from jax import Array, random
import jax.numpy as jnp


def log_prob(x: Array, mean: Array, log_var: Array) -> Array:
  """log N(x; mean, e^log_var) in nats, summed over the last axis.

  Args:
    x: f32 [..., D].
    mean: f32 [..., D].
    log_var: f32 [..., D]; natural log of the variance.

  Returns:
    f32 [...].
  """
  squares = (x - mean) ** 2 * jnp.exp(-log_var)
  return -0.5 * jnp.sum(squares + log_var + jnp.log(2 * jnp.pi), axis=-1)


def kl_to_standard(mean: Array, log_var: Array) -> Array:
  """KL(N(mean, e^log_var) || N(0, I)) in nats, summed over the last axis (App. B).

  Args:
    mean: f32 [..., D].
    log_var: f32 [..., D]; natural log of the variance.

  Returns:
    f32 [...], at least 0.
  """
  return 0.5 * jnp.sum(mean**2 + jnp.exp(log_var) - 1.0 - log_var, axis=-1)


def sample(mean: Array, log_var: Array, key: Array) -> Array:
  """mean + e^(log_var / 2) * eps, differentiable in both (Section 2.4).

  Args:
    mean: f32 [..., D].
    log_var: f32 [..., D]; natural log of the variance.
    key: Draws eps ~ N(0, I).

  Returns:
    f32 [..., D].
  """
  return mean + jnp.exp(0.5 * log_var) * random.normal(key, mean.shape, mean.dtype)
