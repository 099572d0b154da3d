"""Mu-law companding: amplitudes as levels that are finer near zero (ITU-T G.711)."""

from jax import Array
import jax.numpy as jnp


def encode(x: Array, num_levels: int = 256) -> Array:
  """The nearest level, after sign(x) ln(1 + mu |x|) / ln(1 + mu), mu = num_levels - 1.

  Args:
    x: f32 [...] in [-1, 1]; beyond, the outermost level counts.
    num_levels: Of the result.

  Returns:
    int32 [...] in 0, ..., num_levels - 1.
  """
  mu = num_levels - 1
  squeezed = jnp.sign(x) * jnp.log1p(mu * jnp.abs(x)) / jnp.log1p(mu)
  level = jnp.round((squeezed + 1.0) / 2.0 * mu)
  return jnp.clip(level, 0, mu).astype(jnp.int32)


def decode(level: Array, num_levels: int = 256) -> Array:
  """The amplitude that `encode` maps to the middle of a level: f32 [...] in [-1, 1]."""
  mu = num_levels - 1
  squeezed = 2.0 * level / mu - 1.0
  return jnp.sign(squeezed) * jnp.expm1(jnp.abs(squeezed) * jnp.log1p(mu)) / mu
