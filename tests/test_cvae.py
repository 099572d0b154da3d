"""CVAE: what is conditioned on, what is counted, log-likelihoods by enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.losses import bernoulli
from jaxgen.vae.cvae import (
  Network,
  by_label,
  by_part,
  cvae,
  quarters,
  unknown_log_prob,
)

KEY = jax.random.key(4)
SHAPE = (2, 2, 1)
HALF = by_part(quarters(2, 2))
MASK = quarters(2, 1)  # The lower left pixel is known.


def test_quarters_are_where_they_are_said_to_be():
  np.testing.assert_array_equal(MASK, [[0, 0], [1, 0]])
  np.testing.assert_array_equal(quarters(2, 2), [[1, 0], [1, 0]])
  np.testing.assert_array_equal(quarters(2, 3), [[1, 0], [1, 1]])
  assert quarters(28, 1).mean() == 0.25
  with pytest.raises(ValueError, match="num=4: expected 1, 2 or 3"):
    quarters(28, 4)


def test_conditions():
  image = jnp.array([[1.0, 0.0], [1.0, 1.0]]).reshape(1, *SHAPE)
  c, unknown = by_part(MASK).read({}, image)
  np.testing.assert_array_equal(c, [[0, 0, 1, 0, 0, 0, 1, 0]])
  np.testing.assert_array_equal(unknown[0, ..., 0], MASK == 0)
  mask = jnp.array([[1.0, 1.0], [0.0, 0.0]]).reshape(1, *SHAPE)
  c, unknown = by_part().read({"mask": mask}, image)
  np.testing.assert_array_equal(c, [[1, -1, 0, 0, 1, 1, 0, 0]])
  c, unknown = by_label(3).read({"label": jnp.array([2])}, image)
  np.testing.assert_array_equal(c, [[0, 0, 1]])
  assert unknown.all()


def test_known_pixels_count_for_nothing():
  x = jnp.array([[1.0, 0.0], [1.0, 1.0]]).reshape(1, *SHAPE)
  logits = jnp.array([[0.5, -2.0], [3.0, 1.0]]).reshape(1, *SHAPE)
  unknown = jnp.asarray(MASK == 0).reshape(1, *SHAPE)
  expected = bernoulli.log_prob(jnp.array([1.0, 0.0, 1.0]), jnp.array([0.5, -2.0, 1.0]))
  for one in (bernoulli.log_prob, bernoulli.fast_log_prob):
    masked = unknown_log_prob(one, unknown)
    np.testing.assert_allclose(masked(x, logits), expected[None], rtol=1e-5)
    many = masked(x[:, None], jnp.stack([logits] * 5, 1))  # Draws of z.
    np.testing.assert_allclose(many, jnp.full((1, 5), expected), rtol=1e-5)
  gradient = jax.grad(lambda l: unknown_log_prob(bernoulli.log_prob, unknown)(x, l)[0])
  assert gradient(logits)[0, 1, 0, 0] == 0
  assert np.all(gradient(logits)[unknown] != 0)


@pytest.fixture(scope="module")
def trained():
  """Images of which the left column tells the right one up to a coin toss."""
  net = Network(SHAPE, (16,), 2)
  method = cvae(net, tx=optax.adam(0.01), condition=HALF)
  left = np.array(list(itertools.product([0, 1], repeat=2)) * 16)  # [64, 2]
  coin = (np.arange(64) // 4 % 2)[:, None]
  x = np.stack([left, np.where(coin, left, 1 - left)], axis=-1)
  image = jnp.asarray(2.0 * x - 1).reshape(64, *SHAPE)
  batch = {"image": image}

  @jax.jit
  def run(state):
    def one(state, key):
      state, metrics = method.train_step(state, batch, key)
      return state.replace(step=state.step + 1), metrics

    return jax.lax.scan(one, state, jax.random.split(KEY, 2000))

  start = jax.jit(method.init)(KEY, batch)
  state, metrics = run(start)
  return net, method, start, state, batch, metrics


def test_nll_is_minus_log_p_of_the_rest_and_sums_to_one(trained):
  """Over all right columns, for every left one, by importance sampling."""
  net, method, start, state, batch, _ = trained
  every = np.array(list(itertools.product([-1.0, 1.0], repeat=4))).reshape(16, *SHAPE)
  nll = jax.jit(method.tools["nll"])
  # Small weights, with a q near to the posterior; learnt ones, with rare large draws.
  small = start.replace(params=jax.tree.map(lambda w: 0.5 * w, start.params))
  for one, atol in ((small, 0.01), (state, 0.2)):
    # The estimate of p, not of its logarithm, is unbiased: the mean of many is better.
    draws = [
      np.exp(-nll(one, {"image": jnp.asarray(every)}, key)["nll"])
      for key in jax.random.split(KEY, 20)
    ]
    p = np.mean(draws, axis=0).reshape(2, 2, 2, 2)
    np.testing.assert_allclose(p.sum((1, 3)), np.ones((2, 2)), atol=atol)
  found = nll(state, batch, KEY)["nll"].mean()
  rough = cvae(net, tx=optax.adam(0.01), condition=HALF, nll_draws=1).tools["nll"]
  assert jax.jit(rough)(state, batch, KEY)["nll"].mean() > found + 0.01
  # Between one coin toss, which is left of the data, and the two of an untrained net.
  assert np.log(2) - 0.03 < found < 1.5 * np.log(2)
