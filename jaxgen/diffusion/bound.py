"""The bound on the likelihood of a chain of Gaussian steps, for images of 256 levels.

Sohl-Dickstein et al., 2015, arXiv 1503.03585, in the form of Ho et al., 2020, arXiv
2006.11239, Eq. 5: -log p(x) <= L_T + ... + L_0.
"""

from collections.abc import Callable

import jax
from jax import Array, random
import jax.numpy as jnp

from jaxgen.diffusion.noise_prediction import mean as mean_of
from jaxgen.diffusion.process import Process, diffuse
from jaxgen.diffusion.sampling import (
  Levels,
  large_variance,
  levels,
  posterior_mean,
  small_variance,
)
from jaxgen.losses import gaussian

# (x_t, now, then) -> mean and variance of p(x_then | x_now = x_t).
Reverse = Callable[[Array, Levels, Levels], tuple[Array, Array]]


def term(
  x: Array,
  x_t: Array,
  mean: Array,
  variance: Array,
  now: Levels,
  then: Levels,
) -> Array:
  """L_(t-1) of p(x_(t-1) | x_t) = N(mean, variance), elementwise in nats.

  KL(q(x_(t-1) | x_t, x) || p), or in the step into the data -log p(x | x_1), with the
  line cut into 256 levels (Eq. 13).

  Args:
    x: f32 [B, ...], the image.
    x_t: f32 [B, ...].
    mean: f32 [B, ...].
    variance: Of a shape that multiplies x.
    now: Of t, and
    then: of t - 1; [], or of a shape that multiplies x.
  """
  last = then.sigma == 0
  # Each of the two where it does not count: finite, with finite gradients.
  true_variance = jnp.where(last, 1.0, small_variance(now, then))
  kl = gaussian.kl(posterior_mean(x_t, x, now, then), true_variance, mean, variance)
  level = gaussian.log_level(
    x, jnp.where(last, mean, x), jnp.where(last, variance, 1.0)
  )
  return jnp.where(last, -level, kl)


def bits_per_dim(
  reverse: Reverse, process: Process, num_steps: int, x: Array, key: Array
) -> dict[str, Array]:
  """The bound of each image, one draw of x_t for every t = 1, ..., num_steps.

  Args:
    reverse: p(x_(t-1) | x_t); one call per step.
    process: Its times 0, ..., num_steps are used, and p(x_T) = N(0, I).
    num_steps: T.
    x: f32 [B, ...] in [-1, 1], of 256 levels.
    key: Of the draws.

  Returns:
    {"bits_per_dim", "rate": L_T + ... + L_1, "distortion": L_0}, each f32 [B], in bits
    per pixel and channel.
  """

  def bits(t: Array) -> Array:
    now, then = levels(process, t), levels(process, t - 1.0)
    noise = random.normal(random.fold_in(key, t.astype(jnp.int32) - 1), x.shape)
    x_t = diffuse(process, x, t, noise)
    mean, variance = reverse(x_t, now, then)
    return mean_of(term(x, x_t, mean, variance, now, then)) / jnp.log(2.0)

  times = jnp.arange(1.0, num_steps + 1.0)
  last = levels(process, times[-1])
  prior = gaussian.kl(last.alpha * x, last.sigma**2, 0.0, 1.0)
  terms = jax.lax.map(bits, times)
  rate = mean_of(prior) / jnp.log(2.0) + terms[1:].sum(axis=0)
  return {"bits_per_dim": rate + terms[0], "rate": rate, "distortion": terms[0]}


def with_decoder(
  variance: Callable[[Levels, Levels], Array], process: Process, num_steps: int
) -> Callable[[Levels, Levels], Array]:
  """`variance`, but in the step into the data the posterior's of the step before.

  As in the authors' code; the posterior's own is 0 there. Of a chain of one step, beta.
  """
  at = lambda t: levels(process, jnp.float32(t))
  if num_steps > 1:
    decoder = small_variance(at(2), at(1))
  else:
    decoder = large_variance(at(1), at(0))
  return lambda now, then: jnp.where(then.sigma > 0, variance(now, then), decoder)
