"""The step of every GAN that makes one discriminator and one generator update."""

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.losses.adversarial import AdversarialLoss
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
  update_ema,
)

NUM_INTERPOLATION_POINTS = 8


def lerp(a: Array, b: Array, t: Array) -> Array:
  """(1 - t) a + t b on a straight line.

  Args:
    a: f32 [B, D], the point at t = 0.
    b: f32 [B, D], the point at t = 1.
    t: f32 [K].

  Returns:
    f32 [B, K, D].
  """
  t = t[None, :, None]
  return (1.0 - t) * a[:, None] + t * b[:, None]


def slerp(a: Array, b: Array, t: Array) -> Array:
  """From a to b at constant angular speed (White, 2016, arXiv 1609.04468).

  Keeps |z| near where a Gaussian has its mass; a straight line cuts through the
  middle, where no z was ever drawn. (Anti-)parallel pairs fall back to `lerp`.

  Args:
    a: f32 [B, D], the point at t = 0.
    b: f32 [B, D], the point at t = 1.
    t: f32 [K].

  Returns:
    f32 [B, K, D].
  """
  norms = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
  cosine = jnp.sum(a * b, axis=-1) / norms
  angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))[:, None, None]
  curved = jnp.sin(angle) > 1e-4
  sine = jnp.where(curved, jnp.sin(angle), 1.0)
  t_ = t[None, :, None]
  arc = (
    jnp.sin((1.0 - t_) * angle) * a[:, None] + jnp.sin(t_ * angle) * b[:, None]
  ) / sine
  return jnp.where(curved, arc, lerp(a, b, t))


def two_player(
  gen: nn.Module,
  disc: nn.Module,
  *,
  loss: AdversarialLoss,
  gen_tx: optax.GradientTransformation,
  disc_tx: optax.GradientTransformation,
  latent_dim: int,
  ema_decay: float = 0.0,
) -> Method:
  """One discriminator update, then one generator update on the same latents.

  The generator is scored by the discriminator just updated. Real and fake batches
  pass through the discriminator one after the other, each with its own batch
  statistics. Per step the generator's untrained variables (batch norm's running
  averages, spectral norm's vectors) move once, the discriminator's twice.

  Args:
    gen: (z f32 [B, latent_dim], label or None, train) -> images f32 [B, H, W, C] in
      [-1, 1].
    disc: (images, label or None, train) -> scores f32 [B, ...], large for real.
    loss: What the two minimise.
    gen_tx: Optimiser of `gen`.
    disc_tx: Optimiser of `disc`.
    latent_dim: Length of z ~ N(0, I).
    ema_decay: Decay per step of the average of the generator's weights that is
      sampled from; 0 keeps none. Running averages measured under the trained
      weights do not fit averaged ones, so batch norm of the average has its own,
      stats["averaged_gen"], measured by one more forward pass per step.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1], and, for conditional
    networks, batch["label"]. `sample` takes `averaged(state)`. Tools: interpolate.
  """
  nets = {"gen": gen, "disc": disc}
  sampling_stats = "averaged_gen" if ema_decay else "gen"

  def init(key: Array, batch: Batch) -> TrainState:
    gen_key, disc_key = random.split(key)
    image, label = batch["image"], batch.get("label")
    z = jnp.zeros((len(image), latent_dim), image.dtype)
    variables = {
      "gen": gen.init(gen_key, z, label, train=True),
      "disc": disc.init(disc_key, image, label, train=True),
    }
    optimizers = {"gen": gen_tx, "disc": disc_tx}
    state = create_state(variables, optimizers, ema=("gen",) if ema_decay else ())
    copy = jax.tree.map(jnp.copy, state.stats["gen"])
    return state.replace(stats={**state.stats, sampling_stats: copy})

  def apply(name: str, params: PyTree, stats: PyTree, *inputs: Array) -> tuple:
    """Output of a network in training, and its `stats` afterwards."""
    variables = {"params": params, **stats}
    return nets[name].apply(variables, *inputs, train=True, mutable=list(stats))

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    image, label = batch["image"], batch.get("label")
    z = per_example(random.normal(key, (len(image), latent_dim), image.dtype))

    # The fakes are generated once; `pull_back` takes d loss / d fake to gradients.
    fake, pull_back, gen_stats = jax.vjp(
      lambda params: apply("gen", params, state.stats["gen"], z, label),
      state.params["gen"],
      has_aux=True,
    )

    def disc_loss(params: PyTree) -> tuple[Array, tuple]:
      real_score, stats = apply("disc", params, state.stats["disc"], image, label)
      fake_score, stats = apply("disc", params, stats, fake, label)
      return loss.disc(real_score, fake_score), (real_score, fake_score, stats)

    (d_loss, (real_score, fake_score, disc_stats)), d_grads = jax.value_and_grad(
      disc_loss, has_aux=True
    )(state.params["disc"])
    state = apply_gradients(state, "disc", d_grads, disc_tx)

    def gen_loss(fake: Array) -> Array:
      score, _ = apply("disc", state.params["disc"], disc_stats, fake, label)
      return loss.gen(score)

    g_loss, fake_grads = jax.value_and_grad(gen_loss)(fake)
    (g_grads,) = pull_back(fake_grads)
    state = apply_gradients(state, "gen", g_grads, gen_tx)
    state = update_ema(state, ema_decay)

    stats = {**state.stats, "gen": gen_stats, "disc": disc_stats}
    if ema_decay:
      old = state.stats["averaged_gen"]
      _, stats["averaged_gen"] = apply("gen", state.ema["gen"], old, z, label)
    metrics = {
      "disc_loss": d_loss,
      "gen_loss": g_loss,
      "disc_accuracy_real": jnp.mean(real_score > loss.boundary),
      "disc_accuracy_fake": jnp.mean(fake_score < loss.boundary),
      "disc_grad_norm": optax.tree.norm(d_grads),
      "gen_grad_norm": optax.tree.norm(g_grads),
    }
    return state.replace(stats=stats), metrics

  def generate(state: TrainState, z: Array, label: Array | None) -> Array:
    variables = {"params": state.params["gen"], **state.stats[sampling_stats]}
    return gen.apply(variables, z, label, train=False)

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    z = per_example(random.normal(key, (len(batch["image"]), latent_dim)))
    return {"samples": generate(state, z, batch.get("label"))}

  def interpolate(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """Between pairs of latents, on an arc and on a line: f32 [B, K, H, W, C], K = 8.

    Both ends included; a label, if any, is the same along the way.
    """
    start_key, end_key = random.split(key)
    shape = (len(batch["image"]), latent_dim)
    start = per_example(random.normal(start_key, shape))
    end = per_example(random.normal(end_key, shape))
    t = jnp.linspace(0.0, 1.0, NUM_INTERPOLATION_POINTS)
    label = batch.get("label")
    label = None if label is None else jnp.repeat(label, len(t), axis=0)

    def images(path: Array) -> Array:
      x = generate(state, path.reshape(-1, latent_dim), label)
      return x.reshape(*path.shape[:2], *x.shape[1:])

    return {
      "spherical": images(slerp(start, end, t)),
      "linear": images(lerp(start, end, t)),
    }

  return Method(init, train_step, sample=sample, tools={"interpolate": interpolate})
