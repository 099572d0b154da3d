"""Equalised layers, pixel norm and minibatch standard deviation against definitions."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.nn.equalized import EqualConv, EqualDense, minibatch_stddev, pixel_norm


@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
@pytest.mark.parametrize("gain", [1.0, 2**0.5])
def test_outputs_have_the_variance_of_the_gain(gain, lr_multiplier):
  x = jax.random.normal(jax.random.key(0), (64, 400))
  layer = EqualDense(500, gain=gain, lr_multiplier=lr_multiplier)
  y, _ = layer.init_with_output(jax.random.key(1), x)
  assert float(y.std()) == pytest.approx(gain, rel=0.02)
  x = jax.random.normal(jax.random.key(0), (8, 6, 6, 64))
  layer = EqualConv(64, gain=gain, padding="VALID")
  y, variables = layer.init_with_output(jax.random.key(1), x)
  assert float(y.std()) == pytest.approx(gain, rel=0.03)
  assert float(variables["params"]["kernel"].std()) == pytest.approx(1.0, rel=0.03)


def test_adam_moves_a_layer_by_its_multiplier():
  """A step of size r moves the kernel in use by r * lr_multiplier / sqrt(fan in)."""
  x = jnp.ones((1, 16))
  layer, rate = EqualDense(1, lr_multiplier=0.1, bias_init=3.0), 1e-3
  params = jax.jit(layer.init)(jax.random.key(0), x)
  assert float(layer.apply(params, 0 * x)[0, 0]) == pytest.approx(3.0)
  tx = optax.adam(rate)
  loss = lambda p: layer.apply(p, x).sum()
  updates, _ = tx.update(jax.grad(loss)(params), tx.init(params))
  change = loss(optax.apply_updates(params, updates)) - loss(params)
  expected = -rate * 0.1 * (16 / 16**0.5 + 1)  # Sixteen weights and a bias.
  assert float(change) == pytest.approx(expected, rel=1e-2)


def test_a_convolution_is_flax_s_with_a_scaled_kernel():
  x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
  y, variables = EqualConv(4).init_with_output(jax.random.key(1), x)
  params = variables["params"] | {"kernel": variables["params"]["kernel"] / 27**0.5}
  expected = nn.Conv(4, (3, 3)).apply({"params": params}, x)
  np.testing.assert_allclose(y, expected, atol=1e-6)


def test_pixel_norm_gives_unit_mean_square():
  x = 7.0 * jax.random.normal(jax.random.key(0), (2, 3, 3, 5))
  np.testing.assert_allclose((pixel_norm(x) ** 2).mean(-1), 1.0, rtol=1e-5)
  np.testing.assert_array_equal(pixel_norm(jnp.zeros((1, 4))), 0.0)


def test_minibatch_stddev_is_the_mean_deviation_within_groups():
  x = np.random.default_rng(0).normal(size=(8, 3, 3, 6)).astype(np.float32)
  y = np.asarray(minibatch_stddev(jnp.asarray(x), 4, 2))
  assert y.shape == (8, 3, 3, 8)
  np.testing.assert_array_equal(y[..., :6], x)
  for group in range(2):
    for channel in range(2):
      part = x[4 * group : 4 * group + 4, :, :, 3 * channel : 3 * channel + 3]
      expected = np.sqrt(part.var(axis=0) + 1e-8).mean()
      got = y[4 * group : 4 * group + 4, :, :, 6 + channel]
      np.testing.assert_allclose(got, expected, rtol=1e-5)
  same = jnp.broadcast_to(jnp.asarray(x[:1]), x.shape)
  np.testing.assert_allclose(minibatch_stddev(same)[..., -1], 1e-4, rtol=1e-3)


def test_numbers_that_do_not_divide_are_errors():
  with pytest.raises(ValueError, match="group_size 4 must divide the batch size 6"):
    minibatch_stddev(jnp.zeros((6, 2, 2, 3)))
