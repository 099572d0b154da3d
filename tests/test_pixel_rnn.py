"""PixelRNN: what sees what, sums over all images, steps against whole images."""

import functools

from causality import check_causal, check_sums_to_one, far_from_zero, random_like
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.autoregressive import pixels
from jaxgen.autoregressive.pixel_rnn import (
  DiagonalBiLSTM,
  DiagonalLSTM,
  Network,
  RowLSTM,
  pixel_rnn,
)

KEY = jax.random.key(0)
both = pytest.mark.parametrize("layer", [RowLSTM, DiagonalBiLSTM])


@functools.cache
def made(layer):
  net = Network(2, 2, layer, 6, num_layers=2, first_size=3, head_width=32)
  method = pixel_rnn(net, tx=optax.adam(1e-2), pixels=pixels.levels(2, 2))
  batch = {"image": jnp.zeros((6, 3, 4, 2))}
  return method, net, far_from_zero(method, batch, 0.5), batch


@both
def test_a_value_depends_on_values_before_it_and_no_other(layer):
  _, net, state, _ = made(layer)
  variables = {"params": state.params["net"]}
  run = lambda x: net.apply(variables, x.reshape(1, 3, 4, 2), None).reshape(24, -1)
  x = jax.random.uniform(KEY, (24, 1), minval=-1.0)
  found = check_causal(run, x, sees_all=False)
  if layer is DiagonalBiLSTM:
    # Of the row above all, but its last value only as far as the first convolution
    # goes: the state from the right that saw it would lie beyond the image.
    blind = np.argwhere(np.tril(found == 0, -1))
    assert {(i // 8, j) for i, j in blind} == {(1, 7), (2, 15)}


@both
def test_probabilities_of_all_images_sum_to_one(layer):
  method, _, state, _ = made(layer)

  def log_prob(x):
    image = {"image": 2.0 * x.reshape(-1, 2, 2, 2) - 1.0}
    return jax.jit(method.tools["log_prob"])(state, image, KEY)["log_prob"]

  check_sums_to_one(log_prob, 2, 8)


@both
def test_steps_change_no_sample(layer):
  method, _, state, batch = made(layer)
  fast = jax.jit(method.sample)(state, batch, KEY)["samples"]
  slow = jax.jit(method.tools["sample_uncached"])(state, batch, KEY)["samples"]
  np.testing.assert_array_equal(fast, slow)


def test_the_skewed_map_gives_what_the_recursion_gives():
  layer = DiagonalLSTM(2, 1)
  x = np.random.default_rng(1).standard_normal((1, 3, 4, 4)).astype(np.float32)
  params = random_like(jax.eval_shape(layer.init, KEY, x)["params"])
  found = jax.jit(layer.apply)({"params": params}, x)[0]
  kernel, state = np.asarray(params["to_state"]["kernel"]), np.asarray(params["state"])
  bias = np.asarray(params["to_state"]["bias"])
  sigmoid = lambda v: 1 / (1 + np.exp(-v))
  h, c = np.zeros((2, 4, 5, 2))  # A row above and a column to the left of zeros.
  for i in range(3):
    for j in range(4):
      near = np.concatenate([h[i, j + 1], h[i + 1, j]])
      o, f, u, g = np.split(x[0, i, j] @ kernel + bias + near @ state, 4)
      c[i + 1, j + 1] = sigmoid(f) * c[i + 1, j] + sigmoid(u) * np.tanh(g)
      h[i + 1, j + 1] = sigmoid(o) * np.tanh(c[i + 1, j + 1])
  np.testing.assert_allclose(found, h[1:, 1:], atol=1e-5)
