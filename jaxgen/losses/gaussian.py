"""Diagonal Gaussians: densities, divergences, draws. In nats.

Kingma & Welling, "Auto-Encoding Variational Bayes" (2013), arXiv 1312.6114, for those
given by (mean, log_var); Ho et al., "Denoising Diffusion Probabilistic Models" (2020),
arXiv 2006.11239, for those given by (mean, var), which are elementwise.
"""

from jax import Array, random
import jax.numpy as jnp
from jax.scipy.stats import norm

FAR = 1e10  # Standard deviations that stand for infinitely many.


def log_prob(x: Array, mean: Array, log_var: Array) -> Array:
  """log N(x; mean, e^log_var) in nats, summed over the last axis.

  Args:
    x: f32 [..., D].
    mean: f32 [..., D].
    log_var: f32 [..., D]; natural log of the variance.

  Returns:
    f32 [...].
  """
  squares = (x - mean) ** 2 * jnp.exp(-log_var)
  return -0.5 * jnp.sum(squares + log_var + jnp.log(2 * jnp.pi), axis=-1)


def kl_to_standard(mean: Array, log_var: Array) -> Array:
  """KL(N(mean, e^log_var) || N(0, I)) in nats, summed over the last axis (App. B).

  Args:
    mean: f32 [..., D].
    log_var: f32 [..., D]; natural log of the variance.

  Returns:
    f32 [...], at least 0.
  """
  return 0.5 * jnp.sum(mean**2 + jnp.exp(log_var) - 1.0 - log_var, axis=-1)


def sample(mean: Array, log_var: Array, key: Array) -> Array:
  """mean + e^(log_var / 2) * eps, differentiable in both (Section 2.4).

  Args:
    mean: f32 [..., D].
    log_var: f32 [..., D]; natural log of the variance.
    key: Draws eps ~ N(0, I).

  Returns:
    f32 [..., D].
  """
  return mean + jnp.exp(0.5 * log_var) * random.normal(key, mean.shape, mean.dtype)


def kl(mean1: Array, var1: Array, mean2: Array | float, var2: Array | float) -> Array:
  """KL(N(mean1, var1) || N(mean2, var2)) in nats, elementwise.

  Args:
    mean1: f32 [...].
    var1: f32 [...] > 0, or of a shape that multiplies it.
    mean2: As mean1.
    var2: As var1.

  Returns:
    f32 [...], at least 0.
  """
  ratio = var1 / var2
  return 0.5 * (ratio - 1.0 - jnp.log(ratio) + (mean1 - mean2) ** 2 / var2)


def log_level(x: Array, mean: Array, var: Array) -> Array:
  """log P(level of x) under N(mean, var), elementwise (Ho et al., Eq. 13).

  The line is cut half way between 256 levels in [-1, 1]; the outer ones reach to
  infinity, so that the probabilities of all levels sum to 1.

  Args:
    x: f32 [...], one of the levels -1, -1 + 2 / 255, ..., 1.
    mean: f32 [...].
    var: f32 [...] > 0, or of a shape that divides it.

  Returns:
    f32 [...] in nats, accurate also far from the mean.
  """
  upper = jnp.where(x > 0.999, jnp.inf, x + 1.0 / 255.0)
  lower = jnp.where(x < -0.999, -jnp.inf, x - 1.0 / 255.0)
  return log_interval(lower, upper, mean, var)


def log_interval(lower: Array, upper: Array, mean: Array, var: Array) -> Array:
  """log of what N(mean, var) gives to the numbers from `lower` to `upper`, elementwise.

  Args:
    lower: f32 [...], or -inf.
    upper: f32 [...] > lower, or inf.
    mean: f32 [...].
    var: f32 [...] > 0, or of a shape that divides it.

  Returns:
    f32 [...] in nats, accurate also far from the mean.
  """
  std = jnp.sqrt(var)

  def standard(bound: Array) -> Array:  # An infinite one has no gradient, not NaN.
    inside = jnp.isfinite(bound)
    z = (jnp.where(inside, bound, 0.0) - mean) / std
    return jnp.where(inside, z, jnp.sign(bound) * FAR)

  upper, lower = standard(upper), standard(lower)
  # By symmetry in the lower tail, where the difference of two CDFs is accurate.
  is_above = upper + lower > 0
  upper, lower = (
    jnp.where(is_above, -lower, upper),
    jnp.where(is_above, -upper, lower),
  )
  log_upper, log_lower = norm.logcdf(upper), norm.logcdf(lower)
  return log_upper + jnp.log1p(-jnp.exp(log_lower - log_upper))
