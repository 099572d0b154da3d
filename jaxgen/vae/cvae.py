"""CVAE: Learning Structured Output Representation using Deep Conditional Generative
Models (Sohn, Lee & Yan, NIPS 2015).

The conditional bound with a learned prior p(z|c), for two conditions c: labels,
and part of an image, which the model completes. The conditional log-likelihood is
estimated by importance sampling.

Deviations from the paper:
  - No recurrent connection from a baseline network's guess, no stochastic
    feed-forward network nor its hybrid objective.
  - Pixels are binarised dynamically, as in the other methods of this family.
  - The optimiser is the caller's.
"""

from collections.abc import Callable
import math
from typing import NamedTuple
import zlib

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.losses import bernoulli, gaussian
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  create_state,
  per_example,
)
from jaxgen.vae.likelihoods import bernoulli_pixels, flat
from jaxgen.vae.training import bound_steps
from jaxgen.vae.variational import NUM_DRAWS, nll, nll_settings

NUM_VARIATIONS = 8


class Condition(NamedTuple):
  """What is known, and what is to be found.

  Attributes:
    read: (batch, x f32 [B, H, W, C] in {0, 1}) -> c, f32 [B, E], and where pixels are
      to be found, bool [B, H, W, C].
    target: The latter given the former, in words.
  """

  read: Callable[[Batch, Array], tuple[Array, Array]]
  target: str


def by_label(num_classes: int) -> Condition:
  """c is batch["label"], one-hot; all of the image is to be found."""

  def read(batch: Batch, x: Array) -> tuple[Array, Array]:
    label = jax.nn.one_hot(batch["label"], num_classes)
    return label, jnp.ones_like(x, bool)

  return Condition(read, "all pixels given the label")


def by_part(mask: np.ndarray | None = None) -> Condition:
  """c is the known part of the image, with where it is; the rest is to be found.

  Args:
    mask: [H, W], 1 = known, for all images; default batch["mask"], [B, H, W, 1].
  """

  def read(batch: Batch, x: Array) -> tuple[Array, Array]:
    given = batch["mask"] if mask is None else jnp.asarray(mask)[None, ..., None]
    known = jnp.broadcast_to(given > 0, x.shape)
    seen = jnp.where(known, 2.0 * x - 1.0, 0.0)
    return jnp.concatenate([flat(seen), flat(known.astype(x.dtype))], axis=-1), ~known

  if mask is None:
    return Condition(read, "pixels outside of each image's mask")
  known = np.asarray(mask) > 0
  where = zlib.crc32(np.packbits(known).tobytes())
  target = f"{known.size - known.sum()} of {known.size} pixels (mask {where:08x})"
  return Condition(read, target)


def quarters(side: int, num: int) -> np.ndarray:
  """A mask [side, side] whose lower left, left, or all but upper right are known."""
  if num not in (1, 2, 3):
    raise ValueError(f"num={num}: expected 1, 2 or 3 quarters")
  mask = np.zeros((side, side), np.float32)
  mask[side // 2 :, : side // 2] = 1
  if num > 1:
    mask[:, : side // 2] = 1
  if num > 2:
    mask[side // 2 :] = 1
  return mask


class Network(nn.Module):
  """Dense networks of p(z|c), q(z|x, c) and p(x|z, c), with ReLU.

  Attributes:
    image_shape: (H, W, C).
    hidden_dims: Widths of the layers of each, from the input on.
    latent_dim: Length of z.
  """

  image_shape: tuple[int, int, int]
  hidden_dims: tuple[int, ...] = (500, 500)
  latent_dim: int = 50

  def setup(self) -> None:
    layers = lambda: [nn.Dense(dim) for dim in self.hidden_dims]
    self.prior_layers, self.encoder, self.decoder = layers(), layers(), layers()
    self.prior_out = nn.Dense(2 * self.latent_dim)
    self.encoder_out = nn.Dense(2 * self.latent_dim)
    self.logits = nn.Dense(math.prod(self.image_shape))

  def _through(self, layers: list, *inputs: Array) -> Array:
    h = jnp.concatenate(inputs, axis=-1)
    for layer in layers:
      h = nn.relu(layer(h))
    return h

  def prior(self, c: Array) -> tuple[Array, Array]:
    """c f32 [B, E] -> mean and log variance of p(z|c), [B, D]."""
    return tuple(jnp.split(self.prior_out(self._through(self.prior_layers, c)), 2, -1))

  def encode(self, x: Array, c: Array) -> tuple[Array, Array]:
    """x f32 [B, H, W, C] in {0, 1}, c -> mean and log variance of q(z|x, c)."""
    h = self._through(self.encoder, flat(x), c)
    return tuple(jnp.split(self.encoder_out(h), 2, -1))

  def decode(self, z: Array, c: Array) -> Array:
    """z f32 [B, D], c -> logits of p(x|z, c), f32 [B, H, W, C]."""
    return self.logits(self._through(self.decoder, z, c)).reshape(-1, *self.image_shape)

  def __call__(self, x: Array, c: Array) -> tuple[Array, Array]:
    """Touches every parameter."""
    return self.decode(self.encode(x, c)[0], c), self.prior(c)[0]


class Given(NamedTuple):
  """A level of `variational` for one batch of conditions."""

  net: nn.Module
  c: Array

  def encode(self, x: Array) -> tuple[Array, Array]:
    return self.net.encode(x, self.c)

  def decode(self, z: Array) -> Array:
    """Of len(z) / len(c) draws for each condition, side by side."""
    return self.net.decode(z, jnp.repeat(self.c, len(z) // len(self.c), axis=0))


def unknown_log_prob(log_prob: Callable, unknown: Array) -> Callable:
  """A `log_prob` of `losses.bernoulli` over the pixels [B, H, W, C] to be found."""

  def masked(x: Array, logits: Array) -> Array:
    where = unknown.reshape(len(unknown), *(1,) * (x.ndim - 4), *unknown.shape[1:])
    # A certain zero that is zero has probability 1, and no gradient.
    x, logits = jnp.where(where, x, 0.0), jnp.where(where, logits, -1e9)
    return log_prob(flat(x), flat(logits))

  return masked


def cvae(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  condition: Condition,
  nll_draws: int = NUM_DRAWS,
) -> Method:
  """A conditional VAE with Bernoulli pixels, on images in [-1, 1].

  Args:
    net: Module with `prior`, `encode`, `decode` and `latent_dim` as in `Network`.
    tx: Its optimiser.
    condition: `by_label(...)` or `by_part(...)`.
    nll_draws: Importance samples for each image of the tool nll; the fewer, the larger
      an NLL comes out.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1], and what the condition
    reads. eval_step gives elbo, reconstruction and kl of what is to be found, in nats
    per image. Samples are means of the decoder with what is known put in. Tools:
    variations, nll.
  """
  pixels = bernoulli_pixels()
  bound_to = lambda params: net.bind({"params": params})

  def observe(batch: Batch, key: Array) -> tuple[Array, Array, Array]:
    x = pixels.observe(batch["image"], key)
    return x, *condition.read(batch, x)

  def init(key: Array, batch: Batch) -> TrainState:
    x = jnp.zeros_like(batch["image"])
    c, _ = condition.read(batch, x)
    return create_state({"net": net.init(key, x, c)}, {"net": tx})

  def terms(params: PyTree, batch: Batch, key: Array) -> Metrics:
    pixel_key, z_key = random.split(key)
    x, c, unknown = observe(batch, pixel_key)
    bound = bound_to(params)
    (mean, log_var), (mean0, log_var0) = bound.encode(x, c), bound.prior(c)
    z = gaussian.sample(mean, log_var, z_key)
    log_prob = unknown_log_prob(bernoulli.log_prob, unknown)
    reconstruction = log_prob(x, bound.decode(z, c))
    kl = gaussian.kl(mean, jnp.exp(log_var), mean0, jnp.exp(log_var0)).sum(axis=-1)
    return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}

  train_step, eval_step = bound_steps(terms, lambda means, _: -means["elbo"], tx)

  def draw(state: TrainState, batch: Batch, num: int, key: Array) -> Array:
    """`num` images for each condition, [B, num, H, W, C] in [-1, 1]."""
    pixel_key, z_key = random.split(key)
    x, c, unknown = observe(batch, pixel_key)
    given = Given(bound_to(state.params["net"]), c)
    mean, log_var = given.net.prior(c)
    noise = per_example(random.normal(z_key, (len(c), num, mean.shape[-1])))
    z = mean[:, None] + jnp.exp(0.5 * log_var)[:, None] * noise
    found = pixels.mean(given.decode(z.reshape(-1, z.shape[-1])))
    found = found.reshape(len(c), num, *found.shape[1:])
    return jnp.where(unknown[:, None], found, pixels.to_image(x)[:, None])

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    return {"samples": draw(state, batch, 1, key)[:, 0]}

  def variations(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """Eight images for each condition: f32 [B, 8, H, W, C]."""
    return {"variations": draw(state, batch, NUM_VARIATIONS, key)}

  def nll_tool(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """-log p(what is to be found | c) in nats by `nll_draws` importance samples."""
    pixel_key, z_key = random.split(key)
    x, c, unknown = observe(batch, pixel_key)
    given = Given(bound_to(state.params["net"]), c)
    log_prob = unknown_log_prob(bernoulli.fast_log_prob, unknown)
    prior = given.net.prior(c)
    return {"nll": nll((given,), log_prob, x, z_key, nll_draws, prior)}

  nll_tool.settings = nll_settings(condition.target, nll_draws)
  tools = {"variations": variations, "nll": nll_tool}
  return Method(init, train_step, eval_step, sample, tools)
