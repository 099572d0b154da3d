"""Samplers: from x_t at the first time of a grid to its last, by a denoiser.

All have one signature, sampler(denoise, process, x, times, key, **options):

  denoise: (x_t [B, ...], t []) -> E[x | x_t]; see `process.denoiser`.
  process: Of x_t; see `process`.
  x: float [B, ...], the start, x_t at times[0]: see `prior`. Its dtype is that of the
    computation.
  times: [N + 1]; see `schedules`. Falling, and often ending in the data (sigma = 0);
    samplers without noise may also go the other way, from a time with sigma > 0.
  key: Of the noise; may be left out where a sampler has none.

and return a `Sampled`. Each is one `lax.scan` of N steps, whatever N is.

The ODE of all deterministic ones is dx_t = D d alpha + e d sigma, with D the denoiser
and e = (x_t - alpha D) / sigma, the noise that it leaves. It holds in any time, and is
regular where alpha = 0 and up to where sigma = 0. The methods are rules to integrate D
and e over a step, which makes them those of the papers where these are about
alpha = 1: `rescaled` turns any other denoiser into one of `edm`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array, random
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.process import Denoiser, Process, noise_of
from jaxgen.method import per_example

NUM_NODES = 8  # Of the quadrature in `adams_bashforth`.
EXACT = jax.lax.Precision.HIGHEST


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
  return sigma * _normal(key, like)


# --- deterministic ------------------------------------------------------------


def euler(
  denoise: Denoiser, process: Process, x: Array, times: Array, key: Array | None = None
) -> Sampled:
  """D and e constant over a step: order 1, N evaluations.

  The same as DDIM without noise, as k-diffusion's Euler for `edm`, and as Euler steps
  in t for `straight`.
  """
  del key
  step = lambda x, now, then, i: move(
    x, x_and_noise(denoise, process, x, now), now, then
  )
  return Sampled(_scan(step, process, x, times), _count(len(times) - 1))


def heun(
  denoise: Denoiser, process: Process, x: Array, times: Array, key: Array | None = None
) -> Sampled:
  """The mean of D and e at both ends of a step: order 2 (Karras et al., Algorithm 1).

  An Euler step into sigma = 0. 2 N evaluations, or 2 N - 1 with such a step.
  """
  del key
  step = lambda x, now, then, i: _heun_step(denoise, process, x, now, then)
  return Sampled(_scan(step, process, x, times), _heun_count(process, x, times))


def adams_bashforth(
  denoise: Denoiser,
  process: Process,
  x: Array,
  times: Array,
  key: Array | None = None,
  *,
  order: int = 4,
) -> Sampled:
  """D and e as polynomials in t through the last `order` steps; N evaluations.

  For `edm` it is k-diffusion's linear multistep method. The first steps use as many
  as there are: order 3 and above needs a grid where these steps are short.

  Raises:
    ValueError: for an order below 1.
  """
  del key
  if order < 1:
    raise ValueError(f"order must be at least 1, got {order}")
  times = jnp.asarray(times, x.dtype)
  of_x, of_noise = _multistep_weights(process, times, order)  # each [N, order]

  def step(carry: tuple, now: Levels, then: Levels, i: Array) -> tuple:
    x, past = carry
    found = jnp.stack(x_and_noise(denoise, process, x, now))
    past = jnp.concatenate([found[None], past[:-1]])  # [order, 2, B, ...], newest first
    weights = jnp.stack([of_x[i], of_noise[i]], axis=1)
    return x + jnp.tensordot(weights, past, 2, precision=EXACT), past

  past = jnp.zeros((order, 2, *x.shape), x.dtype)
  return Sampled(_scan(step, process, (x, past), times)[0], _count(len(times) - 1))


def dpm_solver_pp_2m(
  denoise: Denoiser, process: Process, x: Array, times: Array, key: Array | None = None
) -> Sampled:
  """DPM-Solver++(2M), order 2 (Lu et al., 2022, arXiv 2211.01095, Algorithm 2).

  D linear in lambda = log(alpha / sigma), the rest exact: the order is that in the
  largest step of lambda. The first step, and one into sigma = 0, are of order 1.
  N evaluations.
  """
  del key

  def step(carry: tuple, now: Levels, then: Levels, i: Array) -> tuple:
    x, last_clean, last_h = carry
    clean = denoise(x, now.t)
    h = jnp.log(then.alpha / then.sigma) - jnp.log(now.alpha / now.sigma)
    linear = (i > 0) & (then.sigma > 0)
    extra = jnp.where(linear, 0.5 * h / last_h, 0.0)
    slope = jnp.where(linear, clean - last_clean, 0.0)
    shrink = then.sigma / now.sigma
    x = shrink * x + (then.alpha - shrink * now.alpha) * (clean + extra * slope)
    return x, clean, h

  carry = x, jnp.zeros_like(x), jnp.ones((), x.dtype)
  return Sampled(_scan(step, process, carry, times)[0], _count(len(times) - 1))


# --- with noise ---------------------------------------------------------------


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
    fresh = jnp.sqrt(variance) * _normal(random.fold_in(key, i), x)
    return then.alpha * clean + old * noise + fresh

  return Sampled(_scan(step, process, x, times), _count(len(times) - 1))


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

  return Sampled(_scan(step, process, x, times), _count(len(times) - 1))


def draw(mean: Array, variance: Array, then: Levels, key: Array) -> Array:
  """One of N(mean, variance), but the mean where `then` is the data."""
  return mean + jnp.where(then.sigma > 0, jnp.sqrt(variance), 0.0) * _normal(key, mean)


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
  rise = min(churn / (len(times) - 1), np.sqrt(2.0) - 1.0)

  def step(x: Array, now: Levels, then: Levels, i: Array) -> Array:
    level = now.sigma / now.alpha
    inside = (level >= churn_from) & (level <= churn_to) & (level < jnp.inf)
    inside &= rise > 0
    t = jnp.where(inside, process.time(level * (1.0 + rise)), now.t)
    up = levels(process, t.astype(x.dtype))
    ratio = jnp.where(inside, up.alpha / now.alpha, 1.0)
    variance = jnp.where(inside, up.sigma**2 - (ratio * now.sigma) ** 2, 0.0)
    noise = inflation * _normal(random.fold_in(key, i), x)
    x = ratio * x + jnp.sqrt(jnp.maximum(variance, 0.0)) * noise
    return _heun_step(denoise, process, x, up, then)

  return Sampled(_scan(step, process, x, times), _heun_count(process, x, times))


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
    return x + size * score + jnp.sqrt(2.0 * size) * _normal(key, x)

  def step(x: Array, now: Levels, then: Levels, i: Array) -> Array:
    *correct_keys, predict_key = random.split(
      random.fold_in(key, i), num_corrections + 1
    )
    for correct_key in correct_keys:
      x = correct(x, now, correct_key)
    mean = posterior_mean(x, denoise(x, now.t), now, then)
    return mean + jnp.sqrt(small_variance(now, then)) * _normal(predict_key, x)

  found = _scan(step, process, x, times)
  return Sampled(found, _count((len(times) - 1) * (num_corrections + 1)))


# --- parts --------------------------------------------------------------------


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


def _heun_step(
  denoise: Denoiser, process: Process, x: Array, now: Levels, then: Levels
) -> Array:
  first = x_and_noise(denoise, process, x, now)
  guess = move(x, first, now, then)

  def better() -> Array:
    second = x_and_noise(denoise, process, guess, then)
    means = tuple(0.5 * (a + b) for a, b in zip(first, second, strict=True))
    return move(x, means, now, then)

  return jax.lax.cond(then.sigma > 0, better, lambda: guess)


def _heun_count(process: Process, x: Array, times: Array) -> Array:
  ends = process.sigma(jnp.asarray(times, x.dtype)[1:])
  return len(ends) + jnp.sum(ends > 0, dtype=jnp.int32)


def _multistep_weights(process: Process, t: Array, order: int) -> tuple[Array, Array]:
  """Integrals of Lagrange's polynomials L_j over d alpha and d sigma: each [N, order].

  By parts, so that no derivative of alpha and sigma is needed: L_j alpha at the ends
  minus the integral of L_j' alpha dt, by Gauss and Legendre's rule.
  """
  back = np.arange(len(t) - 1)[:, None] - np.arange(order)
  nodes, known = t[np.maximum(back, 0)], jnp.asarray(back >= 0)  # each [N, order]

  def polynomials(s: Array, nodes: Array, known: Array) -> Array:
    """L_j(s) for every node j, [order]; 0 if it is not known."""
    gaps = nodes[:, None] - nodes[None, :]
    others = known[None, :] & ~jnp.eye(order, dtype=bool)
    factors = jnp.where(others, (s - nodes[None, :]) / jnp.where(others, gaps, 1), 1)
    return jnp.where(known, jnp.prod(factors, axis=1), 0.0)

  slopes = jax.jacfwd(polynomials)
  points, weights = np.polynomial.legendre.leggauss(NUM_NODES)

  def of_step(start: Array, end: Array, nodes: Array, known: Array) -> tuple:
    inside = start + (end - start) * jnp.asarray((points + 1) / 2, t.dtype)
    share = (end - start) * jnp.asarray(weights / 2, t.dtype)
    rates = jax.vmap(slopes, (0, None, None))(inside, nodes, known)
    at = lambda s, f: polynomials(s, nodes, known) * f(s)
    over = lambda f: (
      at(end, f) - at(start, f) - jnp.dot(share * f(inside), rates, precision=EXACT)
    )
    return over(process.alpha), over(process.sigma)

  return jax.vmap(of_step)(t[:-1], t[1:], nodes, known)


def _scan(
  step: Callable, process: Process, carry: tuple | Array, times: Array
) -> tuple:
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


def _normal(key: Array, like: Array) -> Array:
  return per_example(random.normal(key, like.shape, like.dtype))


def _count(number: int) -> Array:
  return jnp.asarray(number, jnp.int32)
