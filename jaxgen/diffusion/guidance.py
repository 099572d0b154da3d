"""Classifier-free guidance: Ho & Salimans, 2022, arXiv 2207.12598.

Labels are int32 [B]; one below 0 is none, to every network of `jaxgen.nn` with labels.
"""

from collections.abc import Callable

from jax import Array, random
import jax.numpy as jnp

NO_LABEL = -1


def drop_labels(key: Array, label: Array, rate: float) -> Array:
  """Every label with probability 1 - `rate`, else none; i32 [B]."""
  dropped = random.bernoulli(key, rate, label.shape)
  return jnp.where(dropped, NO_LABEL, label)


def guided(
  predict: Callable[[Array, Array, Array], Array],
  label: Array,
  scale: float,
  guide: Callable[[Array], Array] = lambda prediction: jnp.ones((), bool),
) -> Callable[[Array, Array], Array]:
  """none + scale (labelled - none), in one call of the network on twice the rows.

  Args:
    predict: (x [B, ...], t [B], label i32 [B]) -> prediction [B, ...].
    label: i32 [B].
    scale: 1 is the network as it is, and calls it on B rows.
    guide: The prediction -> bool that broadcasts to it, which values are guided; the
      others are those with labels.

  Returns:
    (x [B, ...], t []) -> prediction [B, ...].
  """

  def plain(x: Array, t: Array) -> Array:
    return predict(x, jnp.full(len(x), t), label)

  def both(x: Array, t: Array) -> Array:
    labels = jnp.concatenate([label, jnp.full_like(label, NO_LABEL)])
    found = predict(jnp.concatenate([x, x]), jnp.full(2 * len(x), t), labels)
    labelled, none = jnp.split(found, 2)
    return jnp.where(guide(labelled), none + scale * (labelled - none), labelled)

  return plain if scale == 1.0 else both
