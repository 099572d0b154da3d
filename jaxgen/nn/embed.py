"""Embeddings of scalars."""

from jax import Array
import jax.numpy as jnp
import numpy as np


def timestep_embedding(t: Array, dim: int) -> Array:
  """Sinusoids of a time step, [sin(t w_0), ..., cos(t w_0), ...].

  The dim / 2 frequencies w_i = 10000^(-i / (dim / 2 - 1)) fall from 1 to 1/10000
  (the form of Ho et al. 2020; Vaswani et al. 2017 interleave, and divide by dim / 2).

  Args:
    t: int or float [B].
    dim: Length of the embedding; even, at least 4.

  Returns:
    f32 [B, dim] in [-1, 1]; float64 where jax_enable_x64 is on.

  Raises:
    ValueError: If `dim` is odd or below 4.
  """
  if dim % 2 or dim < 4:
    raise ValueError(f"dim must be even and at least 4, got {dim}")
  half = dim // 2
  frequencies = 10000.0 ** (-np.arange(half) / (half - 1))
  angles = jnp.asarray(t, float)[:, None] * jnp.asarray(frequencies, float)[None, :]
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
