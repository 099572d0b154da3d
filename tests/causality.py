"""Proofs that a model is autoregressive, and that it is a distribution.

For tests of every method whose log p(x) is a sum of log p(x_i | x_0, ..., x_{i-1}).
"""

import itertools

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
import numpy as np


def dependence(predict, inputs):
  """Which predictions depend on which inputs, by the Jacobian.

  Args:
    predict: f32 [N, ...] -> f32 [M, ...] along the same order of positions: entry i
      are the parameters of p(x_i | ...), of one example without a batch axis. Images
      are flattened to [H * W, C], or to [H * W * C, 1] if channels are in the order.
    inputs: f32 [N, ...]; what stands for x, embedded if x is discrete. Random values,
      since a derivative may vanish by chance at zeros.

  Returns:
    Sums of |d predict(inputs)[i] / d inputs[j]|, numpy [M, N]; exactly 0 where there is
    no dependence.
  """
  # Forwards: a program without a backward pass is compiled in half of the time.
  jacobian = np.asarray(jax.jit(jax.jacfwd(predict))(inputs))
  flat = np.abs(jacobian).reshape(len(jacobian), -1, len(inputs), inputs[0].size)
  return flat.sum(axis=(1, 3))


def check_causal(predict, inputs, sees_all=True):
  """Asserts that p(x_i | ...) depends on inputs j < i, and on no others.

  Args:
    predict: See `dependence`.
    inputs: See `dependence`.
    sees_all: Whether each i sees every j < i; otherwise, with a limited field of view,
      only that every i > 0 sees something.

  Returns:
    What `dependence` found.
  """
  found = dependence(predict, inputs)
  assert np.isfinite(found).all()
  future = np.triu(np.ones(found.shape, bool))  # j >= i
  leaks = [tuple(map(int, pair)) for pair in np.argwhere(future & (found != 0))]
  assert not leaks, f"d predict[i] / d inputs[j] is not zero for (i, j) in {leaks[:9]}"
  past = np.tril(np.ones(found.shape, bool), -1)
  seen = (found != 0) | ~past
  if sees_all:
    blind = [tuple(map(int, pair)) for pair in np.argwhere(~seen)]
    assert not blind, f"predict[i] does not see inputs[j] for (i, j) in {blind[:9]}"
  else:
    assert (found != 0).any(axis=1)[1:].all(), "some predictions see nothing"
  return found


def random_like(shapes, scale=1.0, seed=0):
  """Parameters of those shapes, all of them far from zero and from each other."""
  rng = np.random.default_rng(seed)
  draw = lambda x: scale * rng.standard_normal(x.shape).astype(np.float32)
  return jax.tree.map(draw, shapes)


def far_from_zero(method, batch, scale=1.0, seed=0):
  """A state of such parameters, and zeros else; `init`, for shapes, is not compiled."""
  shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
  state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  return state.replace(params=random_like(shapes.params, scale, seed))


def all_sequences(num_values, length):
  """Every sequence over 0, ..., num_values - 1; int32 [num_values^length, length]."""
  return np.array(
    list(itertools.product(range(num_values), repeat=length)), dtype=np.int32
  )


def check_sums_to_one(log_prob, num_values, length, rtol=1e-5):
  """Asserts that exp(log_prob) summed over a tiny space is 1.

  Args:
    log_prob: int32 [B, length] -> f32 [B], in nats.
    num_values: Values of every element. num_values ** length should be at most some
      thousands.
    length: Of a sequence; of an image H * W * C, which `log_prob` reshapes.
    rtol: Tolerance.
  """
  values = jax.jit(log_prob)(jnp.asarray(all_sequences(num_values, length)))
  assert values.shape == (num_values**length,)
  np.testing.assert_allclose(np.exp(logsumexp(values)), 1.0, rtol=rtol)
