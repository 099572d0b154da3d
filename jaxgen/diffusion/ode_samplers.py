"""Samplers without noise: rules to solve the ODE of a noising process.

Their signature is that of `sampling`. The ODE is dx_t = D d alpha + e d sigma, with D
the denoiser and e = (x_t - alpha D) / sigma, the noise that it leaves. It holds in any
time, and is regular where alpha = 0 and up to where sigma = 0. The methods are rules to
integrate D and e over a step: those of the papers where these are about
alpha = 1, and `process.rescaled` turns any other denoiser into one of `process.edm`.
"""

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.process import Denoiser, Process
from jaxgen.diffusion.sampling import (
  Levels,
  Sampled,
  count,
  move,
  num_steps,
  scan,
  x_and_noise,
)

NUM_NODES = 8  # Of the quadrature in `adams_bashforth`.
EXACT = jax.lax.Precision.HIGHEST


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
  return Sampled(scan(step, process, x, times), count(times))


def heun(
  denoise: Denoiser, process: Process, x: Array, times: Array, key: Array | None = None
) -> Sampled:
  """The mean of D and e at both ends of a step: order 2 (Karras et al., Algorithm 1).

  An Euler step into sigma = 0. 2 N evaluations, or 2 N - 1 with such a step.
  """
  del key
  step = lambda x, now, then, i: heun_step(denoise, process, x, now, then)
  return Sampled(scan(step, process, x, times), heun_count(process, x, times))


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
  return Sampled(scan(step, process, (x, past), times)[0], count(times))


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
  return Sampled(scan(step, process, carry, times)[0], count(times))


def heun_step(
  denoise: Denoiser, process: Process, x: Array, now: Levels, then: Levels
) -> Array:
  """x after one step of `heun` from now to then."""
  first = x_and_noise(denoise, process, x, now)
  better = lambda: trapezoid(denoise, process, x, first, now, then)
  return jax.lax.cond(then.sigma > 0, better, lambda: move(x, first, now, then))


def trapezoid(
  denoise: Denoiser,
  process: Process,
  x: Array,
  first: tuple[Array, Array],
  now: Levels,
  then: Levels,
) -> Array:
  """`heun_step` to a sigma above 0; `first` is D and e at its start.

  Levels [], or of as many dimensions as x for one of each example.
  """
  second = x_and_noise(denoise, process, move(x, first, now, then), then)
  means = tuple(0.5 * (a + b) for a, b in zip(first, second, strict=True))
  return move(x, means, now, then)


def heun_count(process: Process, x: Array, times: Array) -> Array:
  """Evaluations of `heun` on a grid."""
  inside = process.sigma(jnp.asarray(times, x.dtype)[1:]) > 0
  inside &= jnp.arange(len(times) - 1) < num_steps(times)
  return count(times) + jnp.sum(inside, dtype=jnp.int32)


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
