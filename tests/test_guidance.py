"""Guidance by the exact classifier of two Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion import ode_samplers, schedules
from jaxgen.diffusion.guidance import classifier_guided
from jaxgen.diffusion.process import vp_linear

PROCESS = vp_linear()
MEANS, STD = jnp.array([-1.0, 2.0]), 0.5


def logits(x, t):
  """log p(x_t, class) + const, [..., 2]."""
  alpha, variance = PROCESS.alpha(t), _variance(t)
  return -((x[..., None] - alpha * MEANS.reshape((1,) * x.ndim + (2,))) ** 2) / (
    2 * variance
  )


def _variance(t):
  return (PROCESS.alpha(t) * STD) ** 2 + PROCESS.sigma(t) ** 2


def of_class(x, t):
  """E[x | x_t, class], [..., 2]."""
  gain = PROCESS.alpha(t) * STD**2 / _variance(t)
  means = MEANS.reshape((1,) * x.ndim + (2,))
  return means + gain * (x[..., None] - PROCESS.alpha(t) * means)


def of_all(x, t):
  return (jax.nn.softmax(logits(x, t)) * of_class(x, t)).sum(-1)


def log_second(x, t):
  """log p(class 1 | x_t), of rows with one value."""
  return jax.nn.log_softmax(logits(x, t))[:, 0, 1]


def test_the_exact_classifier_makes_the_denoiser_of_the_class():
  x = jnp.linspace(-3.0, 3.0, 50)[:, None]
  for t in (0.1, 0.5, 0.9):
    t = jnp.float32(t)
    found = classifier_guided(of_all, PROCESS, log_second)(x, t)
    np.testing.assert_allclose(found, of_class(x, t)[..., 1], rtol=1e-3, atol=1e-4)
    none = classifier_guided(of_all, PROCESS, log_second, 0.0)(x, t)
    np.testing.assert_allclose(none, of_all(x, t), atol=1e-6)


def test_guided_samples_are_of_the_class():
  times = schedules.uniform(100, 1.0)
  start = jax.random.normal(jax.random.key(0), (2048, 1))

  def draw(scale):
    denoise = classifier_guided(of_all, PROCESS, log_second, scale)
    return np.asarray(
      jax.jit(lambda x: ode_samplers.heun(denoise, PROCESS, x, times).x)(start)
    )

  one, two = draw(1.0), draw(3.0)
  np.testing.assert_allclose(one.mean(), 2.0, atol=0.05)
  np.testing.assert_allclose(one.std(), STD, atol=0.05)
  assert two.mean() > one.mean() + 0.02  # Further from the other class.
