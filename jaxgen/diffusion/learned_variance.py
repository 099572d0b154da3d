"""Networks that learn the mean and the variance of p(x_{t-1} | x_t).

Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), arXiv
2102.09672, Section 3.1: per value of x the network returns the noise and a number v
that mixes the logarithms of the two extreme variances, v = 1 for the larger.
"""

from jax import Array
import jax.numpy as jnp

from jaxgen.diffusion import bound, process, sampling
from jaxgen.diffusion.process import Process
from jaxgen.diffusion.sampling import Levels


def split(outputs: Array) -> tuple[Array, Array]:
  """Outputs [..., 2 C] of a network, in [-1, 1] for v -> noise and v, [..., C]."""
  noise, v = jnp.split(outputs, 2, axis=-1)
  return noise, (v + 1) / 2


def variance(v: Array, small: Array, large: Array) -> Array:
  """Between two variances, geometrically (Eq. 15)."""
  return jnp.exp(v * jnp.log(large) + (1 - v) * jnp.log(small))


def extremes(chain: Process, now: Levels, then: Levels) -> tuple[Array, Array]:
  """The smallest and the largest variance of a step of `process.discrete`.

  The former is the posterior's, in the step into the data that of the step before.
  """
  smallest = bound.with_decoder(sampling.small_variance, chain, int(chain.end))
  return smallest(now, then), sampling.large_variance(now, then)


def bound_term(
  chain: Process, x: Array, x_t: Array, t: Array, noise: Array, v: Array
) -> Array:
  """L_{t-1} of the bound on -log p(x), in nats, elementwise (Eqs. 4 to 7).

  A KL divergence for t > 1, and for t = 1 -log p of the level of x, of 256.

  Args:
    chain: `process.discrete`.
    x: f32 [B, ...] in [-1, 1].
    x_t: f32 [B, ...].
    t: f32 [B], whole, in 1 ... T.
    noise: Predicted, f32 [B, ...].
    v: Predicted, f32 [B, ...].

  Returns:
    f32 [B, ...].
  """
  wide = t.reshape((-1,) + (1,) * (x.ndim - 1))
  now, then = (sampling.levels(chain, s) for s in (wide, wide - 1))
  predicted = process.NOISE.to_x(chain, x_t, noise, t)
  mean = sampling.posterior_mean(x_t, predicted, now, then)
  found = variance(v, *extremes(chain, now, then))
  return bound.term(x, x_t, mean, found, now, then)
