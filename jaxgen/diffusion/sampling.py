"""What samplers of `ode_samplers` and `stochastic_samplers` are made of.

A sampler goes from x_t at the first time of a grid to its last, by a denoiser. All have
one signature, sampler(denoise, process, x, times, key, **options):

  denoise: (x_t [B, ...], t []) -> E[x | x_t]; see `process.denoiser`.
  process: Of x_t; see `process`.
  x: float [B, ...], the start, x_t at times[0]: see `prior`. Its dtype is that of the
    computation.
  times: [N + 1]; see `schedules`. Falling, and often ending in the data (sigma = 0);
    samplers without noise may also go the other way, from a time with sigma > 0. Where
    the last time is repeated there are no more steps: see `padded`.
  key: Of the noise; may be left out where a sampler has none.

and return a `Sampled`. Each is one compiled loop, whatever N is. With `times` an
argument of the compiled function it is one program for all N up to a largest:

  sample = jax.jit(lambda x, times: heun(denoise, process, x, times).x)
  sample(x, padded(karras_levels(18), 100))
  sample(x, padded(karras_levels(50), 100))  # compiled already
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array, random
import jax.numpy as jnp
import numpy as np

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


def reported(found: Sampled, samples: Array) -> dict[str, Array]:
  """What a method's `sample` returns: "samples" f32 [B, ...], made of what was found,
  and "num_evaluations" int32 [B], the same for all."""
  number = jnp.full(len(samples), found.num_evaluations, jnp.int32)
  return {"samples": samples, "num_evaluations": number}


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


def padded(times: np.ndarray, length: int) -> np.ndarray:
  """A grid of any number of steps as one of `length`: [length + 1].

  Raises:
    ValueError: if it has more.
  """
  missing = length + 1 - len(times)
  if missing < 0:
    raise ValueError(f"expected at most {length} steps, got {len(times) - 1}")
  return np.append(times, np.full(missing, times[-1]))


def num_steps(times: Array | np.ndarray) -> Array | int:
  """N, without what `padded` has added; known before it runs if `times` is."""
  if isinstance(times, jax.core.Tracer):
    last = jnp.max(jnp.where(times[1:] != times[:-1], jnp.arange(1, len(times)), 0))
    return last.astype(jnp.int32)
  changes = np.flatnonzero(np.diff(np.asarray(times)))
  return int(changes[-1]) + 1 if len(changes) else 0


def scan(step: Callable, process: Process, carry: tuple | Array, times: Array) -> tuple:
  """carry after step(carry, now, then, i) for every step of the grid."""
  dtype = jax.tree.leaves(carry)[0].dtype
  times = times if isinstance(times, jax.core.Tracer) else np.asarray(times)
  if times.ndim != 1 or len(times) < 2:
    raise ValueError(f"times must be a vector of at least 2, got shape {times.shape}")
  grid = levels(process, jnp.asarray(times, dtype))
  at = lambda i: jax.tree.map(lambda a: a[i], grid)
  body = lambda i, carry: step(carry, at(i), at(i + 1), i)
  return jax.lax.fori_loop(0, num_steps(times), body, carry)


def normal(key: Array, like: Array) -> Array:
  """N(0, I) of the shape and dtype of `like`, different for every example."""
  return per_example(random.normal(key, like.shape, like.dtype))


def count(times: Array, of_step: int = 1) -> Array:
  """The number of evaluations for `Sampled`, of so many a step."""
  return jnp.asarray(of_step * num_steps(times), jnp.int32)


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
