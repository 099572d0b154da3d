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


def cosines_first(t: Array, dim: int) -> Array:
  """Sinusoids of a time step, [cos(t w_0), ..., sin(t w_0), ...].

  The dim / 2 frequencies w_i = 10000^(-i / (dim / 2)) fall from 1 and stay above
  1/10000 (the form of ADM, Dhariwal & Nichol 2021, which DiT took over).

  Args:
    t: int or float [B].
    dim: Length of the embedding; even, at least 2.

  Returns:
    f32 [B, dim] in [-1, 1]; float64 where jax_enable_x64 is on.

  Raises:
    ValueError: If `dim` is odd or below 2.
  """
  if dim % 2 or dim < 2:
    raise ValueError(f"dim must be even and at least 2, got {dim}")
  half = dim // 2
  frequencies = 10000.0 ** (-np.arange(half) / half)
  angles = jnp.asarray(t, float)[:, None] * jnp.asarray(frequencies, float)[None, :]
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def fourier_embedding(t: Array, dim: int, scale: float = 16.0) -> Array:
  """Sinusoids of random frequencies, [sin(2 pi t w_0), ..., cos(2 pi t w_0), ...].

  The dim / 2 frequencies are N(0, scale^2): always the same draw, so that they are no
  part of a state (Song et al. 2021, NCSN++, draw them once per run).

  Args:
    t: float [B].
    dim: Length of the embedding; even, at least 2.
    scale: Standard deviation of the frequencies.

  Returns:
    f32 [B, dim] in [-1, 1]; float64 where jax_enable_x64 is on.

  Raises:
    ValueError: If `dim` is odd or below 2.
  """
  if dim % 2 or dim < 2:
    raise ValueError(f"dim must be even and at least 2, got {dim}")
  frequencies = scale * np.random.default_rng(0).standard_normal(dim // 2)
  angles = jnp.asarray(t, float)[:, None] * jnp.asarray(2 * np.pi * frequencies)[None]
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
