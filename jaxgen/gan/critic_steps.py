"""The step of every GAN that trains its critic more often than its generator."""

from collections.abc import Callable

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.gan.adversarial import (
  average_gen,
  diversity,
  init_players,
  neighbour_diversity,
  stats_name,
  training_pass,
)
from jaxgen.gan.latents import latent_inversion, latent_tools
from jaxgen.losses.adversarial import AdversarialLoss, wasserstein
from jaxgen.losses.penalties import between
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  every,
  per_example,
)


def alternating(
  gen: nn.Module,
  critic: nn.Module,
  *,
  loss: AdversarialLoss,
  gen_tx: optax.GradientTransformation,
  critic_tx: optax.GradientTransformation,
  latent_dim: int,
  num_critic_steps: int,
  critic_name: str = "critic",
  ema_decay: float = 0.0,
  penalty: Callable | None = None,
  project: Callable[[PyTree], PyTree] | None = None,
) -> Method:
  """One critic update per step; on every k-th step then one generator update.

  Each update draws its own latents. So a step is an update of the critic, and
  n generator updates take n * num_critic_steps steps and batches. Untrained variables:
  the generator's move whenever it generates; the critic's with the real and the fake
  batch of its own update.

  Args:
    gen: (z f32 [B, latent_dim], label or None, train) -> images f32 [B, H, W, C] in
      [-1, 1].
    critic: (images, label or None, train) -> scores f32 [N], large for real; N is B, or
      a divisor of it if each is of several images (`pacgan.Packed`).
    loss: What the two minimise.
    gen_tx: Optimiser of `gen`; it counts generator updates.
    critic_tx: Optimiser of `critic`; it counts steps.
    latent_dim: Length of z ~ N(0, I).
    num_critic_steps: k.
    critic_name: Its name in the state and the metrics.
    ema_decay: Decay per generator update of the average of the generator's weights that
      is sampled from, see `average_gen`; 0 keeps none.
    penalty: (score, real, mixed) -> f32 [N] whose mean is added to the critic's loss;
      score maps images [B, H, W, C] to scores [N], with the batch's labels, and mixed
      are points drawn uniformly `between` real and fake images, one t per score.
    project: Parameters of the critic -> the nearest that are allowed; after an update.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1], and, for conditional
    networks, batch["label"]. `sample` and the tools interpolate and invert are those of
    `jaxgen.gan.latents`. Metrics: the losses (the critic's with its penalty; the
    generator's on the critic's fakes, before both updates), norms of gradients (the
    generator's is 0 out of turn), `score_gap`, the mean score of real images less that
    of fakes (which estimates the Wasserstein distance if the critic is 1-Lipschitz),
    `diversity` and `neighbour_diversity`. With another loss than `wasserstein`, whose
    scores have no zero, also the shares of real and fake images judged right.
  """
  init = init_players(
    {"gen": gen, critic_name: critic},
    {"gen": gen_tx, critic_name: critic_tx},
    latent_dim=latent_dim,
    ema_decay=ema_decay,
  )

  def critic_update(
    state: TrainState, image: Array, fake: Array, label: Array | None, key: Array
  ) -> tuple[TrainState, Metrics]:
    penalty_key, real_key, fake_key, noise_key = random.split(key, 4)

    def objective(params: PyTree) -> tuple[Array, tuple]:
      stats = state.stats[critic_name]
      real_score, stats = training_pass(critic, params, stats, real_key, image, label)
      fake_score, stats = training_pass(critic, params, stats, fake_key, fake, label)
      value, extra = loss.disc(real_score, fake_score), {}
      if penalty:
        score = lambda x: training_pass(critic, params, stats, noise_key, x, label)[0]
        t = random.uniform(penalty_key, (len(fake_score),), image.dtype)
        mixed = between(image, fake, per_example(t))
        extra["penalty"] = penalty(score, image, mixed).mean()
        value += extra["penalty"]
      return value, (real_score, fake_score, stats, extra)

    (value, (real_score, fake_score, stats, metrics)), grads = jax.value_and_grad(
      objective, has_aux=True
    )(state.params[critic_name])
    state = apply_gradients(state, critic_name, grads, critic_tx)
    if project:
      allowed = project(state.params[critic_name])
      state = state.replace(params={**state.params, critic_name: allowed})
    metrics |= {
      f"{critic_name}_loss": value,
      "gen_loss": loss.gen(fake_score),
      "score_gap": real_score.mean() - fake_score.mean(),
      f"{critic_name}_grad_norm": optax.tree.norm(grads),
      "diversity": diversity(image, fake),
      "neighbour_diversity": neighbour_diversity(image, fake),
    }
    if loss is not wasserstein:
      metrics[f"{critic_name}_accuracy_real"] = jnp.mean(real_score > loss.boundary)
      metrics[f"{critic_name}_accuracy_fake"] = jnp.mean(fake_score < loss.boundary)
    return state.replace(stats={**state.stats, critic_name: stats}), metrics

  def gen_update(state: TrainState, z: Array, label: Array | None, key: Array) -> tuple:
    """(state, norm of the gradient)."""
    noise_key, judge_key = random.split(key)

    def objective(params: PyTree) -> tuple[Array, PyTree]:
      fake, stats = training_pass(gen, params, state.stats["gen"], noise_key, z, label)
      judge = state.params[critic_name], state.stats[critic_name]
      score, _ = training_pass(critic, *judge, judge_key, fake, label)
      return loss.gen(score), stats

    grads, stats = jax.grad(objective, has_aux=True)(state.params["gen"])
    state = apply_gradients(state, "gen", grads, gen_tx)
    state = state.replace(stats={**state.stats, "gen": stats})
    if ema_decay:
      state = average_gen(gen, state, ema_decay, noise_key, z, label)
    return state, optax.tree.norm(grads)

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    critic_key, gen_key, penalty_key, noise_key = random.split(key, 4)
    image, label = batch["image"], batch.get("label")
    shape = (len(image), latent_dim)
    critic_z = per_example(random.normal(critic_key, shape, image.dtype))
    gen_z = per_example(random.normal(gen_key, shape, image.dtype))

    fake, gen_stats = training_pass(
      gen, state.params["gen"], state.stats["gen"], noise_key, critic_z, label
    )
    state = state.replace(stats={**state.stats, "gen": gen_stats})
    state, metrics = critic_update(state, image, fake, label, penalty_key)
    state, metrics["gen_grad_norm"] = every(
      num_critic_steps,
      state.step,
      lambda carry: gen_update(carry[0], gen_z, label, random.fold_in(noise_key, 1)),
      (state, jnp.zeros((), image.dtype)),
    )
    return state, metrics

  stats = stats_name(ema_decay)
  sample, interpolate = latent_tools(gen, stats, latent_dim=latent_dim)
  invert = latent_inversion(gen, stats, latent_dim=latent_dim)
  tools = {"interpolate": interpolate, "invert": invert}
  return Method(init, train_step, sample=sample, tools=tools)
