"""Samplers that draw noise on their way. Their signature is that of `sampling`."""

from collections.abc import Callable

from jax import Array, random
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.ode_samplers import heun_count, heun_step
from jaxgen.diffusion.process import Denoiser, Process
from jaxgen.diffusion.sampling import (
  Levels,
  Sampled,
  count,
  levels,
  normal,
  num_steps,
  posterior_mean,
  scan,
  small_variance,
  x_and_noise,
)


def ddim(
  denoise: Denoiser,
  process: Process,
  x: Array,
  times: Array,
  key: Array | None = None,
  *,
  eta: float = 0.0,
) -> Sampled:
  """Song et al., 2020, arXiv 2010.02502, Eq. 12 and 16. N evaluations.

  eta = 0: without noise, and then `euler`. eta = 1: `ancestral` with the variance of
  the posterior.

  Raises:
    ValueError: if eta is not 0 and there is no key.
  """
  if eta != 0.0 and key is None:
    raise ValueError(f"eta={eta} draws noise: pass a key")

  def step(x: Array, now: Levels, then: Levels, i: Array) -> Array:
    clean, noise = x_and_noise(denoise, process, x, now)
    if eta == 0.0:
      return then.alpha * clean + then.sigma * noise
    variance = eta**2 * small_variance(now, then)
    old = jnp.sqrt(jnp.maximum(then.sigma**2 - variance, 0.0))
    fresh = jnp.sqrt(variance) * normal(random.fold_in(key, i), x)
    return then.alpha * clean + old * noise + fresh

  return Sampled(scan(step, process, x, times), count(times))


def chain(
  reverse: Callable[[Array, Levels, Levels], tuple[Array, Array]],
  process: Process,
  x: Array,
  times: Array,
  key: Array,
) -> Sampled:
  """Draws from p(x_then | x_now) = N(mean, variance), step by step. N evaluations.

  Args:
    reverse: (x, now, then) -> mean and variance. None of its noise is added in a step
      into the data (sigma = 0).
    process: As for all samplers, and so on.
  """

  def step(x: Array, now: Levels, then: Levels, i: Array) -> Array:
    return draw(*reverse(x, now, then), then, random.fold_in(key, i))

  return Sampled(scan(step, process, x, times), count(times))


def draw(mean: Array, variance: Array, then: Levels, key: Array) -> Array:
  """One of N(mean, variance), but the mean where `then` is the data."""
  return mean + jnp.where(then.sigma > 0, jnp.sqrt(variance), 0.0) * normal(key, mean)


def ancestral(
  denoise: Denoiser,
  process: Process,
  x: Array,
  times: Array,
  key: Array,
  *,
  variance: Callable[[Levels, Levels], Array] = small_variance,
) -> Sampled:
  """Ho et al., 2020, arXiv 2006.11239, Algorithm 2. N evaluations.

  Args:
    variance: `small_variance` or `large_variance`, the two choices of Section 3.2.
  """

  def reverse(x: Array, now: Levels, then: Levels) -> tuple[Array, Array]:
    mean = posterior_mean(x, denoise(x, now.t), now, then)
    return mean, variance(now, then)

  return chain(reverse, process, x, times, key)


def stochastic_heun(
  denoise: Denoiser,
  process: Process,
  x: Array,
  times: Array,
  key: Array,
  *,
  churn: float = 40.0,
  churn_from: float = 0.05,
  churn_to: float = 50.0,
  inflation: float = 1.003,
) -> Sampled:
  """Heun's method with noise added before each step (Karras et al., Algorithm 2).

  Args:
    churn: S_churn: N times the relative rise of the noise level, at most sqrt(2) - 1 a
      step. 0 makes it `heun`.
    churn_from: S_tmin: no rise at noise levels sigma / alpha below it,
    churn_to: S_tmax: nor above this one.
    inflation: S_noise: the standard deviation of the new noise.
  """
  rise = jnp.minimum(churn / num_steps(times), np.sqrt(2.0) - 1.0)

  def step(x: Array, now: Levels, then: Levels, i: Array) -> Array:
    level = now.sigma / now.alpha
    inside = (level >= churn_from) & (level <= churn_to) & (level < jnp.inf)
    inside &= rise > 0
    t = jnp.where(inside, process.time(level * (1.0 + rise)), now.t)
    up = levels(process, t.astype(x.dtype))
    ratio = jnp.where(inside, up.alpha / now.alpha, 1.0)
    variance = jnp.where(inside, up.sigma**2 - (ratio * now.sigma) ** 2, 0.0)
    noise = inflation * normal(random.fold_in(key, i), x)
    x = ratio * x + jnp.sqrt(jnp.maximum(variance, 0.0)) * noise
    return heun_step(denoise, process, x, up, then)

  return Sampled(scan(step, process, x, times), heun_count(process, x, times))


def predictor_corrector(
  denoise: Denoiser,
  process: Process,
  x: Array,
  times: Array,
  key: Array,
  *,
  snr: float = 0.16,
  num_corrections: int = 1,
) -> Sampled:
  """Langevin steps at each time, then an ancestral one to the next.

  (Song et al., 2021, arXiv 2011.13456, Algorithm 1 and Appendix G.) The size of a
  Langevin step is 2 (snr |noise| / |score|)^2. Norms are those of each example, and
  |noise| is its expectation, the root of the number of values; in the authors' code
  both are means over the batch. N (num_corrections + 1) evaluations.
  """
  axes, num_values = tuple(range(1, x.ndim)), x[0].size

  def correct(x: Array, now: Levels, key: Array) -> Array:
    score = -x_and_noise(denoise, process, x, now)[1] / now.sigma
    square = jnp.sum(score**2, axis=axes, keepdims=True)
    size = 2.0 * snr**2 * num_values / square
    return x + size * score + jnp.sqrt(2.0 * size) * normal(key, x)

  def step(x: Array, now: Levels, then: Levels, i: Array) -> Array:
    *correct_keys, predict_key = random.split(
      random.fold_in(key, i), num_corrections + 1
    )
    for correct_key in correct_keys:
      x = correct(x, now, correct_key)
    mean = posterior_mean(x, denoise(x, now.t), now, then)
    return mean + jnp.sqrt(small_variance(now, then)) * normal(predict_key, x)

  found = scan(step, process, x, times)
  return Sampled(found, count(times, 1 + num_corrections))
