"""VAE of text: the bound, word dropout, annealing, and decoding from z."""

import functools

from causality import all_sequences, check_causal, check_sums_to_one
import jax
from jax import random
import jax.numpy as jnp
from jax.scipy.special import logsumexp
import numpy as np
import optax
import pytest

from jaxgen.autoregressive.vae_text import Network, sigmoid_annealing, vae_text
from jaxgen.nn.rnn import StackedRNN

NET = Network(StackedRNN(1, 4), StackedRNN(1, 4), 3, 3, 1)
UNKNOWN = 3


def make(**kwargs):
  options = dict(tx=optax.sgd(1.0), kl_weight=lambda step: 1.0)
  return vae_text(NET, **{**options, **kwargs})


@functools.cache
def state():
  made = make().init(random.key(0), {"tokens": jnp.zeros((2, 4), jnp.int32)})
  return made.replace(params=jax.tree.map(lambda x: 1.5 * x + 0.1, made.params))


def log_likelihood(z, tokens):
  """log p(x|z), from the decoder's logits alone."""
  variables = {"params": state().params["net"]}
  inputs = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=UNKNOWN)
  logits = jax.nn.log_softmax(NET.apply(variables, z, inputs, method="decode"))
  return jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0].sum(axis=1)


def test_the_decoder_is_causal_given_z():
  variables = {"params": state().params["net"]}
  z = jnp.ones((1, 1))

  def predict(x):  # x: inputs, which are one position late
    logits = NET.apply(variables, z, x[None], method="predict")[0]
    return jnp.concatenate([jnp.zeros((1, 3)), logits[:-1]])

  check_causal(predict, random.normal(random.key(0), (4, 3)))
  at_z = lambda tokens: log_likelihood(jnp.full((len(tokens), 1), 0.3), tokens)
  check_sums_to_one(at_z, num_values=3, length=3)


def test_the_elbo_is_below_the_likelihood_by_the_divergence_of_the_posterior():
  """log p(x) = E elbo + KL(q(z|x) || p(z|x)), both by quadrature over z."""
  state()  # Made outside of what is traced below.
  tokens = jnp.asarray(all_sequences(3, 2))[:4]
  grid = jnp.linspace(-9, 9, 901)
  log_step = jnp.log(grid[1] - grid[0])
  at = lambda z: log_likelihood(jnp.full((4, 1), z), tokens)
  log_joint = jax.lax.map(at, grid) + jax.scipy.stats.norm.logpdf(grid)[:, None]
  log_p = logsumexp(log_joint, axis=0) + log_step
  mean, log_var = NET.apply({"params": state().params["net"]}, tokens, method="encode")
  std = jnp.exp(0.5 * log_var[:, 0])
  log_q = jax.scipy.stats.norm.logpdf(grid[:, None], mean[:, 0][None], std[None])
  weights = jnp.exp(log_q + log_step)
  elbo = (weights * (log_joint - log_q)).sum(axis=0)
  gap = (weights * (log_q - log_joint + log_p[None])).sum(axis=0)
  eval_step = jax.jit(make().eval_step)
  draws = [eval_step(state(), {"tokens": tokens}, random.key(i)) for i in range(400)]
  found = np.stack([d["elbo"] for d in draws])
  error = found.std(axis=0) / np.sqrt(len(draws))
  assert (np.abs(found.mean(axis=0) - elbo) < 4 * error + 1e-4).all()
  np.testing.assert_allclose(elbo + gap, log_p, rtol=1e-4)
  assert (gap > 0).all()
  one = draws[0]
  np.testing.assert_allclose(one["elbo"], one["reconstruction"] - one["kl"], rtol=1e-5)
  np.testing.assert_allclose(one["nats_per_token"], -one["elbo"] / 2, rtol=1e-5)


def test_annealing():
  weight = sigmoid_annealing(100, 10)
  np.testing.assert_allclose(weight(100), 0.5)
  np.testing.assert_allclose(weight(110), 1 / (1 + np.exp(-1)), rtol=1e-6)
  assert weight(0) < 1e-4
  batch = {"tokens": jnp.zeros((2, 4), jnp.int32)}
  method = make(kl_weight=lambda step: jnp.where(step < 5, 0.25, 1.0))
  for step, expected in ((4, 0.25), (5, 1.0)):
    at = state().replace(step=jnp.int32(step))
    _, m = jax.jit(method.train_step)(at, batch, random.key(0))
    np.testing.assert_allclose(
      m["loss"], (-m["reconstruction"] + expected * m["kl"]) / 4, rtol=1e-5
    )


def test_with_all_words_dropped_the_decoder_sees_none():
  """Then p(x_i) depends on z and on i alone: orders of the tokens are alike."""
  tokens = jnp.array([[0, 1, 2, 1]])
  variables = {"params": state().params["net"]}
  none = jnp.full((1, 4), UNKNOWN)
  method = make(word_dropout=1.0, tx=optax.sgd(0.0))
  key = random.key(3)
  _, metrics = jax.jit(method.train_step)(state(), {"tokens": tokens}, key)
  mean, log_var = NET.apply(variables, tokens, method="encode")
  z = mean + jnp.exp(0.5 * log_var) * random.normal(random.split(key, 4)[0], (1, 1))
  logits = jax.nn.log_softmax(NET.apply(variables, z, none, method="decode"))
  expected = sum(float(logits[0, i, t]) for i, t in enumerate([0, 1, 2, 1]))
  np.testing.assert_allclose(metrics["reconstruction"], expected, rtol=1e-5)
  with pytest.raises(ValueError, match=r"word_dropout=1.5: expected in \[0, 1\]"):
    make(word_dropout=1.5)


def test_decoding_from_codes():
  batch = {"tokens": random.randint(random.key(0), (6, 5), 0, 3)}
  method = make()
  tool = lambda name: jax.jit(method.tools[name])(state(), batch, random.key(1))
  z = tool("encode")["z"]
  reconstructions = tool("reconstruct")["reconstructions"]
  # Greedy: each token is the most likely after those before it.
  variables = {"params": state().params["net"]}
  inputs = jnp.pad(reconstructions[:, :-1], ((0, 0), (1, 0)), constant_values=UNKNOWN)
  logits = NET.apply(variables, z, inputs, method="decode")
  np.testing.assert_array_equal(reconstructions, logits.argmax(axis=-1))
  homotopies = tool("interpolate")["homotopies"]
  assert homotopies.shape == (6, 7, 5)
  np.testing.assert_array_equal(homotopies[:, 0], reconstructions)
  np.testing.assert_array_equal(homotopies[:, -1], jnp.roll(reconstructions, -1, 0))
