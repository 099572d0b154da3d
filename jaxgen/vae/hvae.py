"""Hierarchical VAE: ladder inference, in the network of VDVAE.

Sonderby, Raiko, Maaloe, Sonderby, Winther, "Ladder Variational Autoencoders" (2016),
https://arxiv.org/abs/1602.02282: inference goes down the same hierarchy as generation,
and the KL's weight rises from 0 (warm-up). Child, "Very Deep VAEs Generalize
Autoregressive Models and Can Outperform Them on Images" (2020),
https://arxiv.org/abs/2011.10650: the blocks and their initialisation, skipped updates.
Kingma et al. (2016), arXiv 1606.04934: free bits for each latent.

Deviations from the papers:
  - q(z | above, x) is a network of both, as in VDVAE. (Ladder VAE: the precision-
    weighted product of p and of what the encoder says.) No batch normalisation.
  - Networks see images as the likelihood observes them (VDVAE's code: normalised).
  - Every resolution has a bias image (VDVAE's code: those up to 64).
  - `patch` and `middle` of the network are not VDVAE's: 1 and a quarter there.
  - A skipped update leaves the optimiser's count of steps behind, and still moves the
    average of the parameters (VDVAE's code: neither).
  - The average's decay rises with the steps, see `update_ema`.
  - Images come back as means of the decoder (VDVAE: drawn from it).
"""

import math

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  create_state,
  update_ema,
)
from jaxgen.ops.paths import NUM_POINTS, lerp
from jaxgen.vae.hvae_blocks import kl, log_ratio
from jaxgen.vae.likelihoods import Likelihood, bernoulli_pixels
from jaxgen.vae.variational import NUM_DRAWS, corrupt, nll_in_chunks, nll_settings

TEMPERATURE = 0.1  # Of what "by_level" draws (VDVAE's code).


def clip_and_skip(
  tx: optax.GradientTransformation, *, clip_norm: float, skip_norm: float
) -> optax.GradientTransformation:
  """`tx` after clipping by the global norm; no update at all from `skip_norm` on.

  Child (2020): rare gradients of a huge norm would spoil the parameters. Gradients
  that are not finite are skipped too, and the optimiser's state stays as it was.
  """

  def update(grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
    norm = optax.tree.norm(grads)
    keep = norm < skip_norm
    factor = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
    clipped = jax.tree.map(lambda g: g * factor, grads)
    updates, new = tx.update(clipped, state, params)
    updates = jax.tree.map(lambda u: jnp.where(keep, u, 0.0), updates)
    return updates, jax.tree.map(lambda a, b: jnp.where(keep, a, b), new, state)

  return optax.GradientTransformation(tx.init, update)


def hvae(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  likelihood: Likelihood | None = None,
  free_bits: float = 0.0,
  warmup_steps: int = 0,
  ema_decay: float | None = None,
  nll_draws: int = NUM_DRAWS,
) -> Method:
  """A hierarchical VAE on images in [-1, 1].

  Args:
    net: Module as `hvae_networks.Ladder`, with the outputs of the likelihood.
    tx: Its optimiser; `clip_and_skip` as in VDVAE. The loss is in nats per value.
    likelihood: p(x | z); default `bernoulli_pixels()`, binarised dynamically.
    free_bits: In nats, for each block: a KL whose mean over the batch is below it has
      no gradient (Kingma et al. 2016, there lambda).
    warmup_steps: Over which the KL's weight rises from 0 to 1.
    ema_decay: Of averaged parameters; None keeps no average.
    nll_draws: Importance samples for each image of the tool nll; the fewer, the larger
      an NLL comes out.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]. eval_step gives elbo,
    reconstruction, kl and kl_R for each resolution R in nats per image, and
    bits_per_dim of -elbo. Images come back as means of the decoder. Tools: reconstruct,
    denoise, interpolate, by_level, nll.
  """
  likelihood = likelihood or bernoulli_pixels()
  bound_of = lambda state: net.bind({"params": state.params["net"]})
  observe = lambda batch, key: likelihood.observe(batch["image"], key)

  def init(key: Array, batch: Batch) -> TrainState:
    ema = ("net",) if ema_decay is not None else ()
    return create_state({"net": net.init(key, batch["image"])}, {"net": tx}, ema=ema)

  def terms(params: PyTree, batch: Batch, key: Array) -> tuple[Array, Array]:
    """Reconstruction, f32 [B], and the KL of every block, f32 [L, B], in nats."""
    pixel_key, z_key = random.split(key)
    x, bound = observe(batch, pixel_key), net.bind({"params": params})
    outputs, latents = bound.infer(bound.encode(x), z_key)
    return likelihood.log_prob(x, outputs), jnp.stack([kl(z) for z in latents])

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    weight = jnp.minimum(1.0, (state.step + 1) / max(warmup_steps, 1))

    def loss_fn(params: PyTree) -> tuple[Array, Metrics]:
      reconstruction, kls = (a.mean(axis=-1) for a in terms(params, batch, key))
      loss = weight * jnp.maximum(kls, free_bits).sum() - reconstruction
      elbo = reconstruction - kls.sum()
      return loss / batch["image"][0].size, {"elbo": elbo, "kl": kls.sum()}

    (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params["net"]
    )
    state = apply_gradients(state, "net", grads, tx)
    if ema_decay is not None:
      state = update_ema(state, ema_decay)
    norm = optax.tree.norm(grads)
    return state, {"loss": loss, "grad_norm": norm, **metrics}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    reconstruction, kls = terms(state.params["net"], batch, key)
    elbo, total, first = reconstruction - kls.sum(axis=0), {}, 0
    for size, _, num in reversed(net.levels):
      total[f"kl_{size}"] = kls[first : first + num].sum(axis=0)
      first += num
    bits = -elbo / (batch["image"][0].size * math.log(2))
    whole = {"elbo": elbo, "reconstruction": reconstruction, "kl": kls.sum(axis=0)}
    return {**whole, "bits_per_dim": bits, **total}

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    outputs, _ = bound_of(state).generate(len(batch["image"]), key)
    return {"samples": likelihood.mean(outputs)}

  def posterior_means(state: TrainState, x: Array) -> tuple[Array, list[Array]]:
    """The image of the means of q(z | x), top to bottom, and these means."""
    bound = bound_of(state)
    outputs, latents = bound.infer(bound.encode(x), None)
    return likelihood.mean(outputs), [latent.z for latent in latents]

  def reconstruct(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """The images as observed, and decoded from the means of q(z | x)."""
    x = observe(batch, key)
    found, _ = posterior_means(state, x)
    return {"observed": likelihood.to_image(x), "reconstructions": found}

  def denoise(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """Images with a quarter of their pixels made black or white, and decoded."""
    pixel_key, noise_key = random.split(key)
    x = likelihood.observe(corrupt(batch["image"], noise_key), pixel_key)
    found, _ = posterior_means(state, x)
    return {"corrupted": likelihood.to_image(x), "denoised": found}

  def interpolate(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """From each image to the next of the batch: f32 [B, 8, H, W, C].

    Straight lines between posterior means in every block, both ends included.
    """
    pixel_key, z_key = random.split(key)
    _, means = posterior_means(state, observe(batch, pixel_key))
    t = jnp.linspace(0.0, 1.0, NUM_POINTS)

    def walk(z: Array) -> Array:
      start = z.reshape(len(z), -1)
      points = lerp(start, jnp.roll(start, -1, axis=0), t)
      return points.reshape(-1, *z.shape[1:])

    num = len(batch["image"])
    given = [walk(z) for z in means]
    images = likelihood.mean(bound_of(state).generate(len(given[0]), z_key, given)[0])
    return {"interpolations": images.reshape(num, NUM_POINTS, *images.shape[1:])}

  def by_level(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """What the latents of the lowest resolutions say of an image: f32 [B, L + 1, ...].

    Image i has the posterior means of the i lowest resolutions, and the others drawn
    at a temperature of 0.1 from the prior.
    """
    pixel_key, z_key = random.split(key)
    bound, images, count = bound_of(state), [], 0
    _, means = posterior_means(state, observe(batch, pixel_key))
    for num in (0, *(level[2] for level in reversed(net.levels))):
      count += num
      given = means[:count]
      outputs, _ = bound.generate(len(batch["image"]), z_key, given, TEMPERATURE)
      images.append(likelihood.mean(outputs))
    return {"by_level": jnp.stack(images, axis=1)}

  def nll(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """-log p(x) of each image in nats by `nll_draws` importance samples, f32 [B].

    Also a score of anomaly: large for images that the model finds improbable.
    """
    pixel_key, z_key = random.split(key)
    x, bound = observe(batch, pixel_key), bound_of(state)
    seen = bound.encode(x)

    def weights_of(num_draws: int, draw_key: Array) -> Array:
      rows = lambda a: jnp.repeat(a[None], num_draws, axis=0).reshape(-1, *a.shape[1:])
      outputs, latents = bound.infer([rows(a) for a in seen], draw_key)
      log_p = likelihood.fast_log_prob(rows(x), outputs)
      return (log_p + sum(map(log_ratio, latents))).reshape(num_draws, len(x))

    most = max(x[0].size, *(a[0].size for a in seen))
    return {"nll": nll_in_chunks(weights_of, len(x), most, z_key, nll_draws)}

  nll.settings = nll_settings(likelihood.of, nll_draws)
  tools = {
    "reconstruct": reconstruct,
    "denoise": denoise,
    "interpolate": interpolate,
    "by_level": by_level,
    "nll": nll,
  }
  return Method(init, train_step, eval_step, sample, tools)
