"""Discretised logistics against float64 arithmetic of the definition."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.losses.logistic import log_level, mixture_log_level

LEVELS = np.arange(256) / 127.5 - 1


def probability(x, mean, log_scale):
  """Differences of the CDF in float64: relatively accurate near the mean only."""
  cdf = lambda v: 1 / (1 + np.exp(-(v - mean) / np.exp(log_scale)))
  upper = np.where(x > 0.999, 1.0, cdf(x + 1 / 255))
  lower = np.where(x < -0.999, 0.0, cdf(x - 1 / 255))
  return upper - lower


def test_equals_the_definition_where_that_is_accurate():
  for mean, log_scale in ((0.3, -3.0), (-0.99, -2.0), (1.2, -1.0), (0.0, 1.0)):
    expected = probability(LEVELS, mean, log_scale)
    near = expected > 1e-6
    found = log_level(jnp.asarray(LEVELS, jnp.float32), mean, jnp.float32(log_scale))
    np.testing.assert_allclose(found[near], np.log(expected[near]), rtol=1e-4)


def test_levels_sum_to_one_and_tails_are_straight_lines():
  x = jnp.asarray(LEVELS, jnp.float32)
  for mean in (-3.0, -1.0, 0.123, 1.0, 40.0):
    for log_scale in (-7.0, -3.0, 0.0, 3.0):
      found = log_level(x, mean, jnp.float32(log_scale))
      assert np.isfinite(found).all() or log_scale == -7.0
      np.testing.assert_allclose(np.exp(found).sum(), 1.0, rtol=2e-5)
  # Far from the mean the log falls by 2 / 255 / scale from level to level.
  far = log_level(x, -1.0, jnp.float32(-5.0))[100:254]
  np.testing.assert_allclose(np.diff(far), -2 / 255 * np.exp(5.0), rtol=1e-3)
  slopes = jax.jit(jax.grad(lambda m: log_level(x, m, jnp.float32(-5.0))[200]))(-1.0)
  np.testing.assert_allclose(slopes, np.exp(5.0), rtol=1e-4)


def test_a_mixture_sums_to_one_and_weighs_its_parts():
  rng = np.random.default_rng(0)
  logits, means, log_scales = rng.standard_normal((3, 1, 5)).astype(np.float32)
  x = jnp.asarray(LEVELS, jnp.float32)
  found = mixture_log_level(x, logits, means, log_scales - 2)
  np.testing.assert_allclose(np.exp(found).sum(), 1.0, rtol=1e-5)
  weights = np.exp(logits) / np.exp(logits).sum()
  parts = probability(LEVELS[:, None], means, log_scales - 2)
  np.testing.assert_allclose(np.exp(found), (weights * parts).sum(-1), rtol=1e-4)
