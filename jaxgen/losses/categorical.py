"""Categorical variables, as logits. In nats."""

import functools

import jax
from jax import Array, random
import jax.numpy as jnp


def log_prob(x: Array, logits: Array) -> Array:
  """log softmax(logits) at x.

  Args:
    x: int32 [...] in 0, ..., K - 1.
    logits: f32 [..., K].

  Returns:
    f32 [...], at most 0.
  """
  chosen = jnp.take_along_axis(logits, x[..., None], axis=-1)[..., 0]
  return chosen - jax.nn.logsumexp(logits, axis=-1)


def draw(logits: Array, key: Array) -> Array:
  """A draw of each, by one uniform number and `quantile`.

  `jax.random.categorical` takes K numbers, which costs more than a small network.

  Args:
    logits: f32 [..., K].
    key: Of the draws.

  Returns:
    int32 [...] in 0, ..., K - 1.
  """
  return quantile(logits, random.uniform(key, logits.shape[:-1], logits.dtype))


def quantile(logits: Array, u: Array) -> Array:
  """The least k with P(0) + ... + P(k) > u: distributed by `logits` if u is uniform.

  Sums are products with triangles of ones, of groups and in them: XLA's `cumsum` is
  dozens of operations, each too small to be worth its start. They are exact to f32,
  whatever the accelerator's default: rounded sums would move the probabilities.

  Args:
    logits: f32 [..., K].
    u: f32 [...] in [0, 1).

  Returns:
    int32 [...] in 0, ..., K - 1.
  """
  p = jax.nn.softmax(logits)
  size = max(d for d in range(1, p.shape[-1] + 1) if d * d <= p.shape[-1])
  num = -(-p.shape[-1] // size)
  p = jnp.pad(p, [(0, 0)] * (p.ndim - 1) + [(0, num * size - p.shape[-1])])
  p = p.reshape(*p.shape[:-1], num, size)
  product = functools.partial(jnp.matmul, precision="highest")
  inside = product(p, jnp.triu(jnp.ones((size, size), p.dtype)))
  before = product(inside[..., -1], jnp.triu(jnp.ones((num, num), p.dtype), 1))
  below = (inside + before[..., None]).reshape(*u.shape, -1)
  # Up to the sum as it was rounded, so that no draw lies beyond the last.
  passed = below <= (u * below[..., -1])[..., None]
  return jnp.sum(passed, axis=-1, dtype=jnp.int32)


def kl_to_uniform(logits: Array) -> Array:
  """KL(softmax(logits) || uniform) = log K - entropy; [..., K] -> [...], in nats."""
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
  return jnp.log(logits.shape[-1]) - entropy


def relaxed_one_hot(logits: Array, gumbel: Array, temperature: Array | float) -> Array:
  """A draw of the Gumbel-softmax (concrete) distribution.

  Jang et al., arXiv 1611.01144, Eq. 2; Maddison et al., arXiv 1611.00712. As the
  temperature falls to 0 it becomes the one-hot vector of argmax(logits + gumbel), a
  draw from softmax(logits).

  Args:
    logits: f32 [..., K].
    gumbel: Standard Gumbel noise of that shape.
    temperature: Above 0.

  Returns:
    f32 [..., K], at least 0, of sum 1.
  """
  return jax.nn.softmax((logits + gumbel) / temperature, axis=-1)
