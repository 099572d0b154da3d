"""Discrete images as continuous ones: noise, its inverse, and what it costs in nats.

Images are [B, ...] in [-1, 1]. Level k of n (0, ..., n - 1) becomes (k + u) / n with
u in [0, 1); a density of that in [0, 1]^D, averaged over u, bounds the probability of
the levels from below (Theis, van den Oord & Bethge, "A Note on the Evaluation of
Generative Models", 2015, arXiv 1511.01844, Section 3.1).
"""

import math

import jax
from jax import Array, random
import jax.numpy as jnp


def levels(image: Array, num_levels: int = 256) -> Array:
  """The level of each value, as float: f32 [...] in 0, ..., num_levels - 1.

  Args:
    image: f32 [...] in [-1, 1], of 256 levels.
    num_levels: Fewer merge neighbours (Glow's 5 bits are 32 levels).

  Raises:
    ValueError: for a number of levels that does not divide 256.
  """
  if num_levels < 2 or 256 % num_levels:
    raise ValueError(f"num_levels={num_levels}: expected 2, 4, ..., or 256")
  return jnp.floor(jnp.round((image + 1) * 127.5) / (256 // num_levels))


def dequantize(image: Array, u: Array, num_levels: int = 256) -> Array:
  """(level + u) / num_levels.

  Args:
    image: f32 [...] in [-1, 1].
    u: f32 of that shape, in [0, 1).
    num_levels: See `levels`.

  Returns:
    f32 [...] in [0, 1].
  """
  return (levels(image, num_levels) + u) / num_levels


def uniform(image: Array, key: Array, num_levels: int = 256) -> Array:
  """`dequantize` with u ~ U[0, 1): f32 [...] in [0, 1]."""
  u = random.uniform(key, image.shape, image.dtype)
  return dequantize(image, u, num_levels)


def variational(noise: Array, log_q: Array) -> tuple[Array, Array]:
  """Noise of any density as u in (0, 1), for `dequantize` (Flow++).

  Ho et al. (2019), arXiv 1902.00275: log p(y) - log q(u | image), averaged over u ~ q,
  bounds the log-likelihood that `uniform` bounds with log q = 0.

  Args:
    noise: f32 [B, ...], drawn from q.
    log_q: f32 [B]; log q(noise | image) in nats.

  Returns:
    u, f32 [B, ...], and log q(u | image) in nats, f32 [B].
  """
  slope = jax.nn.log_sigmoid(noise) + jax.nn.log_sigmoid(-noise)
  return jax.nn.sigmoid(noise), log_q - _sum(slope)


def quantize(y: Array, num_levels: int = 256) -> Array:
  """The image of a dequantised one, at any u: f32 [...] in [-1, 1].

  Args:
    y: f32 [...]; outside of [0, 1] the nearest level counts.
    num_levels: The lowest is -1, the highest 1.
  """
  level = jnp.clip(jnp.floor(y * num_levels), 0, num_levels - 1)
  return level * (2 / (num_levels - 1)) - 1


def logit(y: Array, alpha: float) -> tuple[Array, Array]:
  """log(s / (1 - s)) of s = alpha + (1 - 2 alpha) y.

  Dinh et al. (2016), arXiv 1605.08803, Section 4.1, whose alpha is 0.05 and who map to
  [alpha, 1] instead; MAF's is 1e-6.

  Args:
    y: f32 [B, ...] in [0, 1].
    alpha: In (0, 0.5): keeps s off 0 and 1.

  Returns:
    f32 [B, ...], and log |det| of the Jacobian, f32 [B].
  """
  if not 0 < alpha < 0.5:
    raise ValueError(f"alpha={alpha}: expected one between 0 and 0.5")
  s = alpha + (1 - 2 * alpha) * y
  # Of 1 - s by its own sum: near 1 its rounding would decide the result.
  rest = alpha + (1 - 2 * alpha) * (1 - y)
  log_s, log_rest = jnp.log(s), jnp.log(rest)
  return log_s - log_rest, _sum(math.log(1 - 2 * alpha) - log_s - log_rest)


def inverse_logit(v: Array, alpha: float) -> Array:
  """The y of `logit`; slightly outside of [0, 1] for v that no y has."""
  return (jax.nn.sigmoid(v) - alpha) / (1 - 2 * alpha)


def nats(log_density: Array, num_values: int, num_levels: int = 256) -> Array:
  """-log P(levels) of the density of `dequantize`'s output; a bound on average.

  Args:
    log_density: [B], of y in [0, 1]^D, in nats; with `variational`, less log q(u).
    num_values: D.
    num_levels: A level is a cube of volume num_levels^-D.

  Returns:
    [B]. Divided by D log 2 it is bits per dimension.
  """
  return num_values * math.log(num_levels) - log_density


def _sum(x: Array) -> Array:
  return x.reshape(len(x), -1).sum(-1)
