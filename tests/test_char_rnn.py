"""Char-RNN: causal, a distribution, one step at a time what it is at once."""

import functools

from causality import check_causal, check_sums_to_one
from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.autoregressive import tokens as shared
from jaxgen.autoregressive.char_rnn import Network, char_rnn
from jaxgen.nn.rnn import StackedRNN

CELLS = pytest.mark.parametrize("cell", [nn.OptimizedLSTMCell, nn.GRUCell])


@functools.cache
def network(cell):
  """(network, parameters) of two layers, far from zero."""
  net = Network(StackedRNN(2, 4, cell), 3)
  params = jax.jit(net.init)(random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
  return net, jax.tree.map(lambda x: 2.0 * x + 0.1, params)


@CELLS
def test_each_prediction_sees_all_earlier_tokens_and_no_others(cell):
  net, params = network(cell)

  def predict(x):
    logits = net.apply({"params": params}, x[None], method="predict")[0]
    return jnp.concatenate([jnp.zeros((1, 3)), logits[:-1]])

  check_causal(predict, random.normal(random.key(2), (5, 3)))


@CELLS
def test_probabilities_of_all_sequences_sum_to_one(cell):
  net, params = network(cell)
  first = lambda rest: jnp.zeros((len(rest), 1), jnp.int32)
  log_prob = lambda rest: (
    -shared.nats(net, params, jnp.concatenate([first(rest), rest], axis=1)).sum(axis=1)
  )
  check_sums_to_one(log_prob, num_values=3, length=4)


@CELLS
def test_steps_give_the_logits_of_the_whole(cell):
  net, params = network(cell)
  tokens = random.randint(random.key(5), (4, 6), 0, 3)
  whole = jax.jit(net.apply)({"params": params}, tokens)
  step = jax.jit(functools.partial(net.apply, {"params": params}, method="step"))
  carry = net.apply({"params": params}, 4, method="start")
  for i in range(6):
    carry, logits = step(carry, tokens[:, i], i)
    np.testing.assert_allclose(logits, whole[:, i], rtol=1e-4, atol=1e-6)


def test_the_state_changes_no_sample():
  net, params = network(nn.OptimizedLSTMCell)
  method = char_rnn(net, tx=optax.sgd(0.0), prompt=(1,))
  batch = {"tokens": jnp.zeros((32, 6), jnp.int32)}
  state = jax.jit(method.init)(random.key(0), batch).replace(params={"net": params})
  draw = lambda fn: jax.jit(fn)(state, batch, random.key(1))["samples"]
  cached, uncached = draw(method.sample), draw(method.tools["sample_uncached"])
  np.testing.assert_array_equal(cached, uncached)
  assert len(np.unique(cached, axis=0)) > 4


def test_one_layer_is_the_lstm_of_the_book():
  """Against its equations, in numpy."""
  net = StackedRNN(1, 3)
  x = random.normal(random.key(0), (2, 4, 5))
  params = jax.jit(net.init)(random.key(1), x)["params"]
  (cell,) = jax.device_get(params).values()
  x, sigmoid = np.asarray(x), lambda a: 1 / (1 + np.exp(-a))
  h = c = np.zeros((2, 3))
  found = jax.jit(net.apply)({"params": params}, jnp.asarray(x))
  for t in range(4):
    gate = lambda name, h=h, t=t: (
      x[:, t] @ cell[f"i{name}"]["kernel"]
      + h @ cell[f"h{name}"]["kernel"]
      + cell[f"h{name}"]["bias"]
    )
    c = sigmoid(gate("f")) * c + sigmoid(gate("i")) * np.tanh(gate("g"))
    h = sigmoid(gate("o")) * np.tanh(c)
    np.testing.assert_allclose(found[:, t], h, rtol=1e-4, atol=1e-6)
