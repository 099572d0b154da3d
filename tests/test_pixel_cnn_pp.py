"""PixelCNN++: the likelihood against quadrature, what sees what, drawing, counts."""

import functools

from causality import check_causal, check_sums_to_one, far_from_zero
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate, stats

from jaxgen.autoregressive.pixel_cnn_pp import Network, pixel_cnn_pp
from jaxgen.losses import logistic

KEY = jax.random.key(0)
LEVELS = np.arange(256) / 127.5 - 1


def parameters(channels, num_mixtures, *, seed=0, log_scale=-2.0):
  rng = np.random.default_rng(seed)
  size = logistic.num_outputs(channels, num_mixtures)
  outputs = rng.standard_normal(size).astype(np.float32)
  first = (1 + channels) * num_mixtures
  outputs[num_mixtures:first] *= 0.3  # means
  outputs[first : first + channels * num_mixtures] += log_scale
  return outputs


def cell(x):
  """Of the line, what counts as level x."""
  low = -np.inf if x < -0.999 else x - 1 / 255
  return low, np.inf if x > 0.999 else x + 1 / 255


def by_quadrature(x, outputs, num_mixtures):
  """p of one pixel of three channels, from the definition, in float64."""
  k = num_mixtures
  weights, mean, scale, slope = np.split(outputs.astype(np.float64), [k, 4 * k, 7 * k])
  weights = np.exp(weights) / np.exp(weights).sum()
  mean, scale = mean.reshape(3, k), np.exp(scale).reshape(3, k)
  slope, total = np.tanh(slope).reshape(3, k), 0.0
  for i in range(k):
    centres = (
      mean[0, i],
      mean[1, i] + slope[0, i] * x[0],
      mean[2, i] + slope[1, i] * x[0] + slope[2, i] * x[1],
    )
    parts = [
      integrate.quad(stats.logistic(m, s).pdf, *cell(v), epsabs=1e-13)[0]
      for v, m, s in zip(x, centres, scale[:, i], strict=True)
    ]
    total += weights[i] * np.prod(parts)
  return total


def test_a_pixel_has_the_probability_that_integration_gives():
  rng, outputs = np.random.default_rng(1), parameters(3, 3)
  pixels = np.concatenate([
    LEVELS[rng.integers(90, 166, (6, 3))],
    [[-1.0, 1.0, 1 / 255], [1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]],
  ])  # fmt: skip

  @jax.jit
  def log_prob(x):
    p = logistic.mixture(jnp.asarray(outputs), 3, 3)
    spread = logistic.Mixture(*(jnp.broadcast_to(a, (9, *a.shape)) for a in p))
    return logistic.log_pixel(x, spread)

  found = np.exp(log_prob(pixels.astype(np.float32)))
  expected = [by_quadrature(x, outputs, 3) for x in pixels]
  np.testing.assert_allclose(found, expected, rtol=2e-4)


@pytest.mark.parametrize("channels", [1, 2])
def test_probabilities_of_all_pixels_sum_to_one(channels):
  grid = np.stack(np.meshgrid(*[LEVELS] * channels, indexing="ij"), -1)

  @jax.jit
  def log_prob(x):
    p = logistic.mixture(jnp.asarray(parameters(channels, 2)), channels, 2)
    spread = logistic.Mixture(*(jnp.broadcast_to(a, (len(x), *a.shape)) for a in p))
    return logistic.log_pixel(x, spread)

  total = np.exp(log_prob(grid.reshape(-1, channels).astype(np.float32))).sum()
  np.testing.assert_allclose(total, 1.0, rtol=1e-4)


def test_probabilities_of_all_images_sum_to_one():
  """Of two pixels of 256 levels, by a network of one resolution."""
  net = Network(1, width=4, num_blocks=1, num_mixtures=2, num_levels=1)
  method = pixel_cnn_pp(net, tx=optax.sgd(0.0), ema_decay=None)
  state = far_from_zero(method, {"image": np.zeros((1, 1, 2, 1), np.float32)})

  def log_prob(x):
    image = {"image": (x / 127.5 - 1.0).reshape(-1, 1, 2, 1)}
    return method.tools["log_prob"](state, image, KEY)["log_prob"]

  check_sums_to_one(log_prob, 256, 2, rtol=1e-4)


def test_frequencies_of_draws_are_probabilities():
  p = logistic.mixture(jnp.asarray(parameters(2, 2, log_scale=-4.5)), 2, 2)
  p = p._replace(log_scales=p.log_scales.clip(-5.0, -4.0))
  num = 40_000
  spread = logistic.Mixture(*(jnp.broadcast_to(a, (num, *a.shape)) for a in p))
  drawn = np.asarray(jax.jit(logistic.draw_pixel)(spread, KEY))
  codes = np.rint((drawn + 1) * 127.5).astype(int) @ [256, 1]
  values, counts = np.unique(codes, return_counts=True)
  often = values[np.argsort(counts)[-20:]]
  x = jnp.asarray(LEVELS[np.stack([often // 256, often % 256], -1)], jnp.float32)
  few = logistic.Mixture(*(a[:20] for a in spread))
  expected = np.exp(logistic.log_pixel(x, few))
  found = np.sort(counts)[-20:] / num
  np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(expected.max() / num))


@functools.cache
def made(channels):
  net = Network(channels, width=4, num_blocks=1, num_mixtures=1)
  method = pixel_cnn_pp(net, tx=optax.adam(1e-2))
  batch = {"image": jnp.zeros((3, 4, 4, channels))}
  return method, net, far_from_zero(method, batch, 0.5), batch


def test_a_pixel_depends_on_pixels_before_it_and_no_other():
  _, net, state, _ = made(3)
  variables = {"params": state.params["net"]}

  def predict(x):
    return net.apply(variables, x.reshape(1, 4, 4, 3), None).reshape(len(x), -1)

  x = jax.random.uniform(KEY, (16, 3), minval=-1.0)
  check_causal(predict, x)


def test_the_cache_changes_no_sample():
  method, _, state, batch = made(3)
  fast = jax.jit(method.sample)(state, batch, KEY)["samples"]
  slow = jax.jit(method.tools["sample_uncached"])(state, batch, KEY)["samples"]
  np.testing.assert_array_equal(fast, slow)
  level = (np.asarray(fast) + 1) * 127.5
  np.testing.assert_allclose(level, np.rint(level), atol=1e-4)
  assert np.std(fast) > 0.2


def test_numbers_of_parameters_are_the_reference_implementation_s():
  for channels, width, expected in (
    (3, 160, 53_659_080),
    (1, 160, 53_644_220),
    (3, 80, 13_440_840),
  ):
    init = functools.partial(Network(channels, width).init, KEY)
    shapes = jax.eval_shape(init, jnp.zeros((1, 32, 32, channels)), None)
    assert sum(p.size for p in jax.tree.leaves(shapes)) == expected


def test_sides_that_cannot_be_halved_are_refused():
  with pytest.raises(ValueError, match="expected sides that 4 divides"):
    Network(1, 4).init(KEY, jnp.zeros((1, 6, 8, 1)), None)
