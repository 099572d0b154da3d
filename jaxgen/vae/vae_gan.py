"""VAE/GAN: Autoencoding beyond pixels using a learned similarity metric.

Larsen, Sonderby, Larochelle & Winther (2015), https://arxiv.org/abs/1512.09300. A VAE
whose decoder is the generator of a GAN, and whose reconstructions are compared by the
features of its discriminator instead of by pixels. Algorithm 1: with

  L_prior = KL(q(z|x) || N(0, I))
  L_llike = -log N(Dis_l(x); Dis_l(x'), I), x' = Dec(z), z ~ q(z|x)
  L_GAN   = -log Dis(x) - log(1 - Dis(x')) - log(1 - Dis(Dec(z_p))), z_p ~ N(0, I)

one pass gives all three, and each network descends on its own part:

  encoder        L_prior + L_llike
  decoder        gamma L_llike - L_GAN
  discriminator  L_GAN

What was looked up is the authors' code (github.com/andersbll/
autoencoding_beyond_pixels), not the paper's tables. Deviations from that code:
  - The terms of L_GAN weigh the same, as in Algorithm 1 (code: the two kinds of fakes
    share a weight; for CelebA real images have 0.66, fakes 0.34), and gamma stands
    beside 1, not 1 - gamma.
  - An image, its reconstruction and a sample pass the discriminator in one batch, as in
    the code; its features come from the same pass (code: from another, without the
    sample, so that batch norm sees other statistics).
  - No margins: the code leaves the decoder or the discriminator as it is on steps on
    which the other is far behind.
  - No weight decay (code: 1e-5), no noise in batch norm, Flax's initial weights, and
    no 1e-3 inside the logarithms, which are taken of scores.
  - Reconstructions and what a trained model encodes use running averages of batch norm.
"""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.losses import gaussian
from jaxgen.losses.adversarial import minimax
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
from jaxgen.vae import variational
from jaxgen.vae.likelihoods import gaussian_pixels
from jaxgen.vae.players import descend, interleave, separate

# Of `variational.tools`.
TOOLS = ("encode", "reconstruct", "denoise", "interpolate", "traverse")


class Level(NamedTuple):
  """Encoder and decoder of a state, as `variational` takes them."""

  encode: Callable[[Array], tuple[Array, Array]]
  decode: Callable[[Array], Array]
  latent_dim: int


def feature_error(features: Array, reconstructed: Array) -> Array:
  """-log N(features; reconstructed, I) in nats, less its constant D / 2 log(2 pi).

  Args:
    features: f32 [B, D], Dis_l(x).
    reconstructed: The same of x'.

  Returns:
    f32 [B].
  """
  return 0.5 * ((features - reconstructed) ** 2).sum(axis=-1)


def gan_loss(real: Array, *fakes: Array) -> Array:
  """L_GAN: cross-entropy in nats of scores of real images and of kinds of fakes.

  Args:
    real: f32 [B].
    *fakes: f32 [B] each.

  Returns:
    f32 [], a mean over examples and a sum over real images and kinds.
  """
  wrong = [jax.nn.softplus(fake).mean() for fake in fakes]
  return jax.nn.softplus(-real).mean() + sum(wrong)


def attribute_shift(z: Array, label: Array) -> Array:
  """z plus the next example's attribute vector, less its own.

  The vector of a label is the mean of the batch's latents that carry it (code: of
  10,000 images with an attribute, less the mean of those without it).

  Args:
    z: f32 [B, D].
    label: i32 [B].

  Returns:
    f32 [B, D].
  """
  same = (label[:, None] == label[None]).astype(z.dtype)
  mean = same @ z / same.sum(axis=1, keepdims=True)
  return z + jnp.roll(mean, -1, axis=0) - mean


def vae_gan(
  encoder: nn.Module,
  decoder: nn.Module,
  disc: nn.Module,
  *,
  encoder_tx: optax.GradientTransformation,
  decoder_tx: optax.GradientTransformation,
  disc_tx: optax.GradientTransformation,
  gamma: float,
  gen_loss: Callable[[Array], Array] = minimax.gen,
) -> Method:
  """Three networks, each with its optimiser, updated at once from one pass.

  Args:
    encoder: As `vae_gan_networks.Encoder`, with `latent_dim`.
    decoder: As `Decoder` there.
    disc: As `Discriminator` there: (scores, features).
    encoder_tx: Optimiser of `encoder`.
    decoder_tx: Optimiser of `decoder`.
    disc_tx: Optimiser of `disc`.
    gamma: Weight of L_llike in the decoder's loss; L_llike is a sum over features.
    gen_loss: Scores of fakes f32 [B] -> f32 [], what the decoder minimises in place of
      -L_GAN, for either kind of fake; `non_saturating.gen` does not vanish where the
      discriminator is sure.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]. Metrics: `kl`,
    `feature_error` (L_llike less its constant) in nats per image, `disc_loss` (L_GAN),
    `gen_loss`, each network's own loss and norm of gradients, and the shares of images,
    reconstructions and samples that the discriminator judges right, above or below a
    score of 0; two of three images that it sees are fakes, so that where it cannot tell
    it calls all of them fakes. eval_step gives
    kl, feature_error, the mean squared difference of pixels (of [-1, 1]) and the three
    shares. Tools: encode, reconstruct, denoise, interpolate, traverse and, for batches
    with labels, attributes.
  """
  nets = {"encoder": encoder, "decoder": decoder, "disc": disc}
  optimizers = {"encoder": encoder_tx, "decoder": decoder_tx, "disc": disc_tx}
  weights = {  # Algorithm 1: what each network makes of the parts.
    "encoder": {"kl": 1.0, "feature_error": 1.0},
    "decoder": {"feature_error": gamma, "gen_loss": 1.0},
    "disc": {"disc_loss": 1.0},
  }

  def init(key: Array, batch: Batch) -> TrainState:
    image = batch["image"]
    z = jnp.zeros((len(image), encoder.latent_dim), image.dtype)
    inputs = {"encoder": image, "decoder": z, "disc": image}
    keys = dict(zip(nets, random.split(key, 3), strict=True))
    variables = {n: net.init(keys[n], inputs[n], train=True) for n, net in nets.items()}
    return create_state(variables, optimizers)

  def draw(x: Array, key: Array) -> tuple[Array, Array]:
    """Key of z ~ q(z|x), and z_p."""
    z_key, prior_key = random.split(key)
    shape = (len(x), encoder.latent_dim)
    return z_key, per_example(random.normal(prior_key, shape, x.dtype))

  def parts(params: PyTree, stats: PyTree, x: Array, key: Array) -> tuple:
    """(L_prior, L_llike, L_GAN and the decoder's -L_GAN; accuracies and stats)."""
    stats = dict(stats)

    def run(name: str, x: Array) -> PyTree:
      variables = {"params": params[name], **stats[name]}
      output, stats[name] = nets[name].apply(
        variables, x, train=True, mutable=list(stats[name])
      )
      return output

    z_key, z_prior = draw(x, key)
    mean, log_var = run("encoder", x)
    z = gaussian.sample(mean, log_var, z_key)
    rebuilt, drawn = separate(run("decoder", interleave(z, z_prior)), 2)
    scores, features = run("disc", interleave(x, rebuilt, drawn))
    (real, *fakes), (target, found, _) = separate(scores, 3), separate(features, 3)
    losses = {
      "kl": gaussian.kl_to_standard(mean, log_var).mean(),
      "feature_error": feature_error(target, found).mean(),
      "disc_loss": gan_loss(real, *fakes),
      "gen_loss": sum(map(gen_loss, fakes)),
    }
    return losses, (jax.tree.map(jnp.mean, accuracies(real, *fakes)), stats)

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    forward = lambda params: parts(params, state.stats, batch["image"], key)
    state, metrics, extra = descend(forward, state, optimizers, weights)
    accuracy, stats = extra
    return state.replace(stats=stats), {**metrics, **accuracy}

  def level(state: TrainState) -> Level:
    variables = {n: {"params": state.params[n], **state.stats[n]} for n in nets}
    return Level(
      lambda x: encoder.apply(variables["encoder"], x, train=False),
      lambda z: decoder.apply(variables["decoder"], z, train=False),
      encoder.latent_dim,
    )

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    x, of = batch["image"], level(state)
    variables = {"params": state.params["disc"], **state.stats["disc"]}
    judge = lambda x: disc.apply(variables, x, train=False)
    z_key, z_prior = draw(x, key)
    mean, log_var = of.encode(x)
    rebuilt = of.decode(gaussian.sample(mean, log_var, z_key))
    (real, target), (fake, found) = judge(x), judge(rebuilt)
    return {
      "kl": gaussian.kl_to_standard(mean, log_var),
      "feature_error": feature_error(target, found),
      "pixel_error": ((x - rebuilt) ** 2).mean(axis=(1, 2, 3)),
      **accuracies(real, fake, judge(of.decode(z_prior))[0]),
    }

  pixels = gaussian_pixels(log_var=0.0)  # Images are what the decoder returns.
  levels_of = lambda state: (level(state),)

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    num = len(batch["image"])
    return {"samples": variational.ancestral(levels_of(state), pixels, num, key)}

  def attributes(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """Each image with the attribute of the next one's label: [B, 2, H, W, C].

    Beside its reconstruction; attribute vectors are those of the batch.
    """
    if "label" not in batch:
      raise ValueError(f"attributes need batch['label'], found {sorted(batch)}")
    of = level(state)
    z, _ = of.encode(batch["image"])
    shifted = attribute_shift(z, batch["label"])
    return {"attributes": jnp.stack([of.decode(z), of.decode(shifted)], axis=1)}

  found = variational.tools(levels_of, pixels)
  tools = {name: found[name] for name in TOOLS} | {"attributes": attributes}
  return Method(init, train_step, eval_step, sample, tools)


def accuracies(real: Array, rebuilt: Array, drawn: Array) -> Metrics:
  """Which scores are on the right side of 0, each f32 [B] of zeros and ones."""
  right = {"real": real > 0, "rebuilt": rebuilt < 0, "drawn": drawn < 0}
  return {f"disc_accuracy_{k}": v.astype(real.dtype) for k, v in right.items()}
