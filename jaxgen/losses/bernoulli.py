"""Independent Bernoulli variables, as logits. In nats."""

import jax
from jax import Array
import jax.numpy as jnp


def log_prob(x: Array, logits: Array) -> Array:
  """log Bernoulli(x; sigmoid(logits)) in nats, summed over the last axis.

  For x strictly between 0 and 1 this is minus the cross-entropy between
  Bernoulli(x) and the model: a loss, not the log-likelihood of anything.

  Args:
    x: f32 [..., D] in [0, 1].
    logits: f32 [..., D]; log odds of a one.

  Returns:
    f32 [...], at most 0.
  """
  return jnp.sum(x * logits - jax.nn.softplus(logits), axis=-1)
