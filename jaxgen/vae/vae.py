"""VAE: Auto-Encoding Variational Bayes (Kingma & Welling, 2013).

https://arxiv.org/abs/1312.6114. Gaussian encoder, Bernoulli decoder, the second
estimator of the bound (Eq. 7, KL in closed form) with one draw of z per example.

Deviations from the paper:
  - The network is the one-layer model of Burda et al. (2015), arXiv 1509.00519: two
    tanh layers of 200 in each half and 50 latents, 425,284 parameters for 28x28
    images. The paper has one layer of 500 in each half (Section 5).
  - No weight decay (paper: a prior N(0, I) on the decoder's weights).
  - The optimiser is the caller's (paper: Adagrad); the loss is a mean over the
    batch (paper: the sum scaled to the data set, Eq. 8).
  - Flax default initialisation (paper: N(0, 0.01)).
"""

import math

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.losses import bernoulli, gaussian
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  create_state,
  per_example,
)

NUM_INTERPOLATION_POINTS = 8


class FullyConnected(nn.Module):
  """Encoder and decoder of the same tanh layers, in opposite order.

  Attributes:
    image_shape: (H, W, C).
    hidden_dims: Widths from the image to the latent.
    latent_dim: Length of z.
  """

  image_shape: tuple[int, int, int]
  hidden_dims: tuple[int, ...] = (200, 200)
  latent_dim: int = 50

  def setup(self) -> None:
    self.encoder = [nn.Dense(dim) for dim in self.hidden_dims]
    self.mean = nn.Dense(self.latent_dim)
    self.log_var = nn.Dense(self.latent_dim)
    self.decoder = [nn.Dense(dim) for dim in reversed(self.hidden_dims)]
    self.logits = nn.Dense(math.prod(self.image_shape))

  def encode(self, x: Array) -> tuple[Array, Array]:
    """x f32 [B, H, W, C] in [0, 1] -> mean and log variance of q(z|x), [B, D]."""
    h = x.reshape(len(x), -1)
    for layer in self.encoder:
      h = nn.tanh(layer(h))
    return self.mean(h), self.log_var(h)

  def decode(self, z: Array) -> Array:
    """z f32 [B, D] -> logits of p(x|z), f32 [B, H, W, C]."""
    h = z
    for layer in self.decoder:
      h = nn.tanh(layer(h))
    return self.logits(h).reshape(-1, *self.image_shape)

  def __call__(self, x: Array) -> Array:
    """Touches every parameter: x [B, H, W, C] -> logits at the mean of q(z|x)."""
    return self.decode(self.encode(x)[0])


def elbo(
  net: nn.Module, params: PyTree, x: Array, key: Array
) -> tuple[Array, Array, Array]:
  """A one-sample estimate of the bound on log p(x), in nats (Eq. 7).

  Args:
    net: Module with `encode` and `decode` as in `FullyConnected`.
    params: Its parameters.
    x: f32 [B, H, W, C] in [0, 1].
    key: Draws z ~ q(z|x).

  Returns:
    elbo, reconstruction E log p(x|z) and KL(q(z|x) || N(0, I)), each f32 [B], with
    elbo = reconstruction - kl.
  """
  mean, log_var = net.apply({"params": params}, x, method="encode")
  z = gaussian.sample(mean, log_var, key)
  logits = net.apply({"params": params}, z, method="decode")
  flat = (len(x), -1)
  reconstruction = bernoulli.log_prob(x.reshape(flat), logits.reshape(flat))
  kl = gaussian.kl_to_standard(mean, log_var)
  return reconstruction - kl, reconstruction, kl


def vae(
  net: nn.Module, *, tx: optax.GradientTransformation, binarize: bool = True
) -> Method:
  """A VAE with a Bernoulli decoder, on images in [-1, 1] read as (image + 1) / 2.

  Args:
    net: Module with `encode`, `decode` and `latent_dim` as in `FullyConnected`.
    tx: Its optimiser.
    binarize: True: every use of an image, in training, evaluation and tools, draws
      each pixel anew as Bernoulli(pixel) ("dynamic binarisation"), so that the
      bound is one on the log-likelihood of binary images. False: grey values stand
      in for the bits, and the "elbo" is a loss that bounds no likelihood.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]. eval_step gives
    elbo, reconstruction and kl in nats per image. Images come back as decoder
    probabilities mapped to [-1, 1]. Tools: encode, reconstruct, interpolate.
  """

  def observe(batch: Batch, key: Array) -> Array:
    """The x of p(x|z), f32 [B, H, W, C] in [0, 1] ({0, 1} if binarize)."""
    grey = (batch["image"] + 1.0) / 2.0
    return random.bernoulli(key, grey).astype(grey.dtype) if binarize else grey

  def posterior(state: TrainState, x: Array) -> tuple[Array, Array]:
    return net.apply({"params": state.params["net"]}, x, method="encode")

  def to_image(state: TrainState, z: Array) -> Array:
    logits = net.apply({"params": state.params["net"]}, z, method="decode")
    return 2.0 * jax.nn.sigmoid(logits) - 1.0

  def init(key: Array, batch: Batch) -> TrainState:
    return create_state({"net": net.init(key, batch["image"])}, {"net": tx})

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    pixel_key, z_key = random.split(key)
    x = observe(batch, pixel_key)

    def loss_fn(params: PyTree) -> tuple[Array, Metrics]:
      bound, reconstruction, kl = elbo(net, params, x, z_key)
      metrics = {"elbo": bound, "reconstruction": reconstruction, "kl": kl}
      return -bound.mean(), jax.tree.map(jnp.mean, metrics)

    (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params["net"]
    )
    state = apply_gradients(state, "net", grads, tx)
    return state, {"loss": loss, **metrics}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    pixel_key, z_key = random.split(key)
    x = observe(batch, pixel_key)
    bound, reconstruction, kl = elbo(net, state.params["net"], x, z_key)
    return {"elbo": bound, "reconstruction": reconstruction, "kl": kl}

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    z = per_example(random.normal(key, (len(batch["image"]), net.latent_dim)))
    return {"samples": to_image(state, z)}

  def encode(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """q(z|x) of each image: mean and log_var, f32 [B, D]."""
    mean, log_var = posterior(state, observe(batch, key))
    return {"mean": mean, "log_var": log_var}

  def reconstruct(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """The images as observed, and decoded from the mean of q(z|x)."""
    x = observe(batch, key)
    mean, _ = posterior(state, x)
    return {"observed": 2.0 * x - 1.0, "reconstructions": to_image(state, mean)}

  def interpolate(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """From each image to the next of the batch: f32 [B, K, H, W, C], K = 8.

    Straight lines between posterior means, both ends included.
    """
    start, _ = posterior(state, observe(batch, key))
    end = jnp.roll(start, -1, axis=0)
    t = jnp.linspace(0.0, 1.0, NUM_INTERPOLATION_POINTS)[None, :, None]
    z = (1.0 - t) * start[:, None] + t * end[:, None]  # [B, K, D]
    images = to_image(state, z.reshape(-1, z.shape[-1]))
    return {"interpolations": images.reshape(*z.shape[:2], *images.shape[1:])}

  tools = {"encode": encode, "reconstruct": reconstruct, "interpolate": interpolate}
  return Method(init, train_step, eval_step, sample, tools)
