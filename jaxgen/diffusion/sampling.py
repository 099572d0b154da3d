"""What samplers of `ode_samplers` and `stochastic_samplers` are made of.

A sampler goes from x_t at the first time of a grid to its last, by a denoiser. All have
one signature, sampler(denoise, process, x, times, key, **options):

  denoise: (x_t [B, ...], t []) -> E[x | x_t]; see `process.denoiser`.
  process: Of x_t; see `process`.
  x: float [B, ...], the start, x_t at times[0]: see `prior`. Its dtype is that of the
    computation.
  times: [N + 1]; see `schedules`. Falling, and often ending in the data (sigma = 0);
    samplers without noise may also go the other way, from a time with sigma > 0.
  key: Of the noise; may be left out where a sampler has none.

and return a `Sampled`. Each is one `lax.scan` of N steps, whatever N is.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array, random
import jax.numpy as jnp

from jaxgen.diffusion.process import Denoiser, Process, noise_of
from jaxgen.method import per_example


class Sampled(NamedTuple):
  """What a sampler returns.

  Attributes:
    x: x_t at the last time, [B, ...].
    num_evaluations: int32 []; calls of the denoiser, for the whole batch at once.
  """

  x: Array
  num_evaluations: Array


class Levels(NamedTuple):
  """A process at one time, or at each of a grid."""

  t: Array
  alpha: Array
  sigma: Array


def levels(process: Process, t: Array) -> Levels:
  """The process at t, of any shape."""
  return Levels(t, process.alpha(t), process.sigma(t))


def prior(process: Process, key: Array, like: Array, t: Array | float) -> Array:
  """Where sampling starts: N(0, sigma_t^2 I), of the shape and dtype of `like`."""
  sigma = process.sigma(jnp.asarray(t, like.dtype))
  return sigma * normal(key, like)


def scan(step: Callable, process: Process, carry: tuple | Array, times: Array) -> tuple:
  """carry after step(carry, now, then, i) for every step of the grid."""
  dtype = jax.tree.leaves(carry)[0].dtype
  times = jnp.asarray(times, dtype)
  if times.ndim != 1 or len(times) < 2:
    raise ValueError(f"times must be a vector of at least 2, got shape {times.shape}")
  grid = levels(process, times)
  now, then = (
    jax.tree.map(lambda a, s=s: a[s], grid) for s in (slice(-1), slice(1, None))
  )
  body = lambda carry, at: (step(carry, *at), None)
  return jax.lax.scan(body, carry, (now, then, jnp.arange(len(times) - 1)))[0]


def normal(key: Array, like: Array) -> Array:
  """N(0, I) of the shape and dtype of `like`, different for every example."""
  return per_example(random.normal(key, like.shape, like.dtype))


def count(number: int) -> Array:
  """The number of evaluations for `Sampled`."""
  return jnp.asarray(number, jnp.int32)


def x_and_noise(
  denoise: Denoiser, process: Process, x: Array, now: Levels
) -> tuple[Array, Array]:
  """D and e at x: x = alpha D + sigma e."""
  clean = denoise(x, now.t)
  return clean, noise_of(process, x, clean, now.t)


def move(x: Array, slopes: tuple[Array, Array], now: Levels, then: Levels) -> Array:
  """x after a step over which D and e are constant."""
  clean, noise = slopes
  return x + (then.alpha - now.alpha) * clean + (then.sigma - now.sigma) * noise


def small_variance(now: Levels, then: Levels) -> Array:
  """That of q(x_then | x_now, x), beta tilde of Ho et al.; 0 into the data."""
  return (then.sigma / now.sigma) ** 2 * large_variance(now, then)


def large_variance(now: Levels, then: Levels) -> Array:
  """That of q(x_now | x_then), beta of Ho et al."""
  kept = then.sigma * now.alpha / then.alpha
  return (now.sigma - kept) * (now.sigma + kept)


def posterior_mean(x: Array, clean: Array, now: Levels, then: Levels) -> Array:
  """That of q(x_then | x_now = x, clean) (Ho et al., Eq. 7)."""
  ratio = now.alpha / then.alpha
  of_x_t = ratio * (then.sigma / now.sigma) ** 2
  return then.alpha * large_variance(now, then) / now.sigma**2 * clean + of_x_t * x
