"""Guidance: samples that are likelier to be of their class.

  - Ho & Salimans, 2022, arXiv 2207.12598: without a classifier, `guided`.
  - Dhariwal & Nichol, 2021, arXiv 2105.05233: by the gradient of one that knows noisy
    images, `classifier_guided`.

Labels are int32 [B]; one below 0 is none, to every network of `jaxgen.nn` with labels.
"""

from collections.abc import Callable

import jax
from jax import Array, random
import jax.numpy as jnp

from jaxgen.diffusion.process import Denoiser, Process

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


def classifier_guided(
  denoise: Denoiser,
  process: Process,
  log_prob: Callable[[Array, Array], Array],
  scale: float = 1.0,
) -> Denoiser:
  """The denoiser whose score is that of x_t plus scale grad log p(label | x_t).

  With scale 1 and the exact classifier it is the denoiser of the class. It needs
  alpha > 0.

  Args:
    denoise: Of images of all classes.
    process: Of x_t.
    log_prob: (x_t [B, ...], t []) -> log p(label of the row | x_t), [B].
    scale: Of the gradient; above 1 exaggerates the class.
  """

  def guided_denoise(x_t: Array, t: Array) -> Array:
    gradient = jax.grad(lambda x: log_prob(x, t).sum())(x_t)
    gain = process.sigma(t) ** 2 / process.alpha(t)  # D = (x_t + sigma^2 score) / alpha
    return denoise(x_t, t) + scale * gain * gradient

  return guided_denoise
