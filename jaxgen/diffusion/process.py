"""Gaussian noising processes q(x_t | x) = N(alpha_t x, sigma_t^2 I), and denoisers.

All diffusion and flow-matching methods noise an image x in this way and learn the mean
of what it was, E[x | x_t], in one of several parametrisations. Here are the two
functions alpha and sigma of the papers, and the parametrisations; `sampling` is about
what to do with the mean.

  - Ho et al., 2020, arXiv 2006.11239: `discrete`, `NOISE`.
  - Song et al., 2021, arXiv 2011.13456: `vp_linear`, `sub_vp`, `ve`, `SCORE`.
  - Nichol & Dhariwal, 2021, arXiv 2102.09672: `vp_cosine`.
  - Salimans & Ho, 2022, arXiv 2202.00512: `V`.
  - Karras et al., 2022, arXiv 2206.00364: `edm`.
  - Lipman et al., 2023, arXiv 2210.02747, and Liu et al., 2023, arXiv 2209.03003:
    `straight`, `VELOCITY`, with data at t = 0 as in the others.

Equation numbers are from memory, the functions are tested against their definitions.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

# (x_t f32 [B, ...], t f32 []) -> E[x | x_t] f32 [B, ...], for any t with sigma_t > 0.
Denoiser = Callable[[Array, Array], Array]


class Process(NamedTuple):
  """Functions of time, elementwise; noise grows with time.

  Attributes:
    alpha: What is left of the image, at least 0.
    sigma: Standard deviation of the noise.
    time: Inverse of the noise level sigma / alpha in [0, inf]. time(0) is the data.
    end: The time of the most noise, where sampling starts.
  """

  alpha: Callable[[Array], Array]
  sigma: Callable[[Array], Array]
  time: Callable[[Array], Array]
  end: float


def vp_linear(beta_min: float = 0.1, beta_max: float = 20.0) -> Process:
  """Variance preserving, t in [0, 1], with beta(t) linear (Song et al., Eq. 33)."""
  decay, time = _linear(beta_min, beta_max)
  return Process(
    alpha=lambda t: jnp.exp(-decay(t)),
    sigma=lambda t: jnp.sqrt(-jnp.expm1(-2.0 * decay(t))),
    time=lambda level: time(0.5 * jnp.log1p(level**2)),
    end=1.0,
  )


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Process:
  """As `vp_linear`, with its variance of the noise as the deviation (Song, Eq. 29)."""
  decay, time = _linear(beta_min, beta_max)
  return Process(
    alpha=lambda t: jnp.exp(-decay(t)),
    sigma=lambda t: -jnp.expm1(-2.0 * decay(t)),
    time=lambda level: time(jnp.arcsinh(0.5 * level)),
    end=1.0,
  )


def _linear(beta_min: float, beta_max: float) -> tuple[Callable, Callable]:
  """-log alpha for a linear beta(t), and its inverse."""
  rise = beta_max - beta_min
  decay = lambda t: 0.25 * rise * t**2 + 0.5 * beta_min * t

  def time(d: Array) -> Array:
    return 2.0 * d / (0.5 * beta_min + jnp.sqrt(0.25 * beta_min**2 + rise * d))

  return decay, time


def vp_cosine(offset: float = 0.008) -> Process:
  """Variance preserving, t in [0, 1], alpha of a cosine (Nichol & Dhariwal, Eq. 17).

  alpha = 0 at t = 1. With offset 0, alpha = cos(pi t / 2) and sigma = sin(pi t / 2).
  """
  start = 0.5 * np.pi * offset / (1.0 + offset)
  angle = lambda t: 0.5 * np.pi * (t + offset) / (1.0 + offset)

  def sigma(t: Array) -> Array:  # cos(a)^2 - cos(b)^2 = sin(b - a) sin(b + a)
    squares = jnp.sin(angle(t) - start) * jnp.sin(angle(t) + start)
    return jnp.sqrt(jnp.maximum(squares, 0.0)) / np.cos(start)

  def time(level: Array) -> Array:
    b = jnp.arctan2(jnp.sqrt(level**2 + np.sin(start) ** 2), np.cos(start))
    return b * (1.0 + offset) / (0.5 * np.pi) - offset

  alpha = lambda t: jnp.maximum(jnp.cos(angle(t)), 0.0) / np.cos(start)
  return Process(alpha, sigma, time, end=1.0)


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Process:
  """Variance exploding, sigma geometric in t in [0, 1] (Song et al., Eq. 30).

  sigma = sigma_min at t = 0; the data are at t = -inf.
  """
  log_ratio = np.log(sigma_max / sigma_min)
  return Process(
    alpha=jnp.ones_like,
    sigma=lambda t: sigma_min * jnp.exp(log_ratio * t),
    time=lambda level: jnp.log(level / sigma_min) / log_ratio,
    end=1.0,
  )


def edm(sigma_max: float = 80.0) -> Process:
  """Variance exploding, with the noise level as time: alpha = 1, sigma = t."""
  return Process(jnp.ones_like, jnp.array, jnp.array, end=sigma_max)


def straight() -> Process:
  """Straight paths from data to noise, t in [0, 1]: alpha = 1 - t, sigma = t."""
  return Process(
    alpha=lambda t: 1.0 - t,
    sigma=jnp.array,
    time=lambda level: 1.0 / (1.0 + 1.0 / level),
    end=1.0,
  )


def discrete(betas: np.ndarray | Sequence[float]) -> Process:
  """The Markov chain with variances `betas` (Ho et al., Eq. 2 and 4).

  Step t of T has t = 1, ..., T; the data have t = 0. Between steps the noise level is
  linear in t.

  Args:
    betas: [T] in (0, 1); used in float64.

  Raises:
    ValueError: for other betas.
  """
  betas = np.asarray(betas, np.float64)
  if betas.ndim != 1 or not np.all((betas > 0) & (betas < 1)):
    raise ValueError(f"betas must be a vector with entries in (0, 1), got {betas}")
  log_alpha_bar = np.cumsum(np.log1p(-betas))
  levels = np.append(0.0, np.sqrt(np.expm1(-log_alpha_bar)))
  steps = np.arange(len(levels), dtype=np.float64)

  def between(t: Array, of: np.ndarray, values: np.ndarray) -> Array:
    of, values = (jnp.asarray(a, t.dtype) for a in (of, values))
    return jnp.interp(t, of, values)

  level = lambda t: between(t, steps, levels)
  return Process(
    alpha=lambda t: jax.lax.rsqrt(1.0 + level(t) ** 2),
    sigma=lambda t: level(t) * jax.lax.rsqrt(1.0 + level(t) ** 2),
    time=lambda level: between(jnp.asarray(level), levels, steps),
    end=float(len(betas)),
  )


def log_snr(process: Process, t: Array) -> Array:
  """log(alpha^2 / sigma^2), natural; in [-inf, inf]."""
  return 2.0 * (jnp.log(process.alpha(t)) - jnp.log(process.sigma(t)))


def diffuse(process: Process, x: Array, t: Array, noise: Array) -> Array:
  """x_t of q(x_t | x), given standard normal `noise`.

  Args:
    process: Which.
    x: f32 [B, ...].
    t: f32 [] or [B].
    noise: f32 [B, ...].

  Returns:
    f32 [B, ...].
  """
  return _at(process.alpha, t, x) * x + _at(process.sigma, t, x) * noise


def noise_of(process: Process, x_t: Array, x: Array, t: Array) -> Array:
  """The noise for which `diffuse` gives x_t; needs sigma_t > 0."""
  return (x_t - _at(process.alpha, t, x) * x) / _at(process.sigma, t, x)


class Prediction(NamedTuple):
  """What a network is trained to predict. Times are f32 [] or [B].

  Attributes:
    target: (process, x, noise, t) -> its value where x and the noise are known.
    to_x: (process, x_t, prediction, t) -> x. Linear in the prediction: of a mean given
      x_t it makes E[x | x_t].
  """

  target: Callable[[Process, Array, Array, Array], Array]
  to_x: Callable[[Process, Array, Array, Array], Array]


def _x_of_noise(process: Process, x_t: Array, noise: Array, t: Array) -> Array:
  return (x_t - _at(process.sigma, t, x_t) * noise) / _at(process.alpha, t, x_t)


def _score(process: Process, x: Array, noise: Array, t: Array) -> Array:
  return -noise / _at(process.sigma, t, noise)


def _x_of_score(process: Process, x_t: Array, score: Array, t: Array) -> Array:
  return _x_of_noise(process, x_t, -_at(process.sigma, t, x_t) * score, t)


def _v(process: Process, x: Array, noise: Array, t: Array) -> Array:
  return _at(process.alpha, t, x) * noise - _at(process.sigma, t, x) * x


def _x_of_v(process: Process, x_t: Array, v: Array, t: Array) -> Array:
  alpha, sigma = _at(process.alpha, t, x_t), _at(process.sigma, t, x_t)
  return (alpha * x_t - sigma * v) / (alpha**2 + sigma**2)


def _velocity(process: Process, x: Array, noise: Array, t: Array) -> Array:
  return _rate(process.alpha, t, x) * x + _rate(process.sigma, t, x) * noise


def _x_of_velocity(process: Process, x_t: Array, velocity: Array, t: Array) -> Array:
  alpha, sigma = _at(process.alpha, t, x_t), _at(process.sigma, t, x_t)
  alpha_rate, sigma_rate = _rate(process.alpha, t, x_t), _rate(process.sigma, t, x_t)
  across = alpha_rate * sigma - sigma_rate * alpha
  return (sigma * velocity - sigma_rate * x_t) / across


X = Prediction(lambda process, x, noise, t: x, lambda process, x_t, x, t: x)
NOISE = Prediction(lambda process, x, noise, t: noise, _x_of_noise)  # Needs alpha > 0.
SCORE = Prediction(_score, _x_of_score)  # Of q(x_t), at x_t. Needs alpha and sigma > 0.
V = Prediction(_v, _x_of_v)  # alpha noise - sigma x
VELOCITY = Prediction(_velocity, _x_of_velocity)  # d x_t / dt at fixed x and noise


def denoiser(predict: Denoiser, process: Process, prediction: Prediction) -> Denoiser:
  """E[x | x_t] by a network: (x_t [B, ...], t []) -> prediction [B, ...]."""
  return lambda x_t, t: prediction.to_x(process, x_t, predict(x_t, t), t)


def clipped(denoise: Denoiser) -> Denoiser:
  """The same, with results in [-1, 1]."""
  return lambda x_t, t: jnp.clip(denoise(x_t, t), -1.0, 1.0)


def rescaled(denoise: Denoiser, process: Process) -> Denoiser:
  """The denoiser of x_t / alpha_t at time sigma_t / alpha_t, i.e. of process `edm`.

  Samplers take other steps in these coordinates. Needs alpha > 0.
  """

  def rescaled_denoise(y: Array, level: Array) -> Array:
    t = process.time(level)
    return denoise(process.alpha(t) * y, t)

  return rescaled_denoise


def flow(denoise: Denoiser, process: Process) -> Denoiser:
  """dx_t / dt of the ODE whose solutions have the distributions of x_t at all times.

  (Song et al., Eq. 13; Lipman et al., Eq. 8.) Needs sigma > 0.
  """

  def slope(x_t: Array, t: Array) -> Array:
    x = denoise(x_t, t)
    return VELOCITY.target(process, x, noise_of(process, x_t, x, t), t)

  return slope


def _at(function: Callable[[Array], Array], t: Array, x: Array) -> Array:
  """function(t), with axes of length 1 to multiply x by."""
  return function(t).reshape(t.shape + (1,) * (x.ndim - t.ndim))


def _rate(function: Callable[[Array], Array], t: Array, x: Array) -> Array:
  """The derivative of the function at t, with axes of length 1 to multiply x by."""
  rate = lambda t: jax.jvp(function, (t,), (jnp.ones_like(t),))[1]
  return _at(rate, t, x)
