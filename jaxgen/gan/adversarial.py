"""The step of every GAN of one discriminator and one generator, and its health."""

from collections.abc import Callable, Mapping

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.gan.latents import latent_inversion, latent_tools
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

NUM_NEIGHBOURS = 16  # rows that are compared with each other


def diversity(real: Array, fake: Array) -> Array:
  """How different fakes are from each other, measured by how different the data are.

  Mean Euclidean distance between rows 2i and 2i + 1 of `fake`, divided by that of
  `real`. It needs no labels: about 1 for a good generator, towards 0 as it collapses to
  one image. Of ten images that come again and again it sees little.

  Args:
    real: f32 [B, ...], in random order.
    fake: f32 [B, ...].

  Returns:
    f32 []. 1 where a batch (under pmap: of a device) has one row.
  """

  def spread(x: Array) -> Array:
    # Neighbours within pairs, so that rows split over devices stay where they are.
    pairs = x[: len(x) // 2 * 2].reshape(len(x) // 2, 2, -1)
    return jnp.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=-1).mean()

  return _compared(spread, real, fake)


def neighbour_diversity(real: Array, fake: Array) -> Array:
  """How far fakes are from the fake that is nearest to them, against the data's.

  Mean Euclidean distance of a row of `fake` to the nearest of the 15 that follow each
  other with it (or of half a batch, if that is fewer), divided by that of `real`: about
  1 for a good generator, less as soon as fakes are repeated. In batches of 64 digits
  (8x8) it is 0.23 where fakes are ten real images again and again (`diversity`: 0.90),
  of thirty 0.63 (0.96), of a hundred 0.87 (0.99).

  Args:
    real: f32 [B, ...], in random order.
    fake: f32 [B, ...].

  Returns:
    f32 []. 1 where a batch (under pmap: of a device) has one row.
  """

  def nearest(x: Array) -> Array:
    # Small groups, so that rows split over devices stay where they are.
    size = min(NUM_NEIGHBOURS, max(len(x) // 2, 2))
    x = x[: len(x) // size * size].reshape(len(x) // size, size, -1)
    products = jnp.einsum("gid,gjd->gij", x, x, precision="highest")
    squares = jnp.diagonal(products, axis1=1, axis2=2)
    squared = squares[:, :, None] + squares[:, None] - 2 * products
    others = jnp.where(jnp.eye(size, dtype=bool)[None], jnp.inf, squared)
    return jnp.sqrt(jnp.maximum(others.min(axis=2), 0.0)).mean()

  return _compared(nearest, real, fake)


def _compared(distance: Callable, real: Array, fake: Array) -> Array:
  """distance(fake) / distance(real), or 1 for a batch of one row, which has none."""
  if len(real) < 2:
    return jnp.ones((), real.dtype)
  return distance(fake) / jnp.maximum(distance(real), 1e-6)


def scores_of(output: Array | tuple[Array, Array]) -> Array:
  """A discriminator's scores, whether or not it also returns features."""
  return output[0] if isinstance(output, tuple) else output


def training_pass(
  net: nn.Module, params: PyTree, stats: PyTree, key: Array, *inputs: Array | None
) -> tuple:
  """(output of a network in training, its `stats` afterwards).

  What the network draws itself (dropout, noise) it draws from the stream "noise".
  """
  variables = {"params": params, **stats}
  rngs = {"noise": key}
  return net.apply(variables, *inputs, train=True, mutable=list(stats), rngs=rngs)


def stats_name(ema_decay: float) -> str:
  """Which untrained variables go with the generator's weights that are sampled."""
  return "averaged_gen" if ema_decay else "gen"


def init_players(
  nets: Mapping[str, nn.Module],
  optimizers: Mapping[str, optax.GradientTransformation],
  *,
  latent_dim: int,
  ema_decay: float,
) -> Callable[[Array, Batch], TrainState]:
  """`init` of "gen" and the one other network of `nets`, which reads images.

  With an average of the generator's weights there are untrained variables measured
  under it, too: those of the trained weights do not fit (see `average_gen`).
  """
  (judge_name,) = nets.keys() - {"gen"}

  def init(key: Array, batch: Batch) -> TrainState:
    gen_key, judge_key = random.split(key)
    image, label = batch["image"], batch.get("label")
    z = jnp.zeros((len(image), latent_dim), image.dtype)

    def variables(name: str, key: Array, *inputs: Array | None) -> PyTree:
      rngs = {"params": key, "noise": random.fold_in(key, 1)}
      return nets[name].init(rngs, *inputs, train=True)

    networks = {
      "gen": variables("gen", gen_key, z, label),
      judge_name: variables(judge_name, judge_key, image, label),
    }
    state = create_state(networks, optimizers, ema=("gen",) if ema_decay else ())
    copy = jax.tree.map(jnp.copy, state.stats["gen"])
    return state.replace(stats={**state.stats, stats_name(ema_decay): copy})

  return init


def average_gen(
  gen: nn.Module,
  state: TrainState,
  decay: float | Array,
  key: Array,
  *inputs: Array | None,
  move: Callable = update_ema,
) -> TrainState:
  """Moves the average of the generator's weights, and its own untrained variables.

  Running averages of batch norm that were measured under the trained weights do not fit
  averaged ones; those in stats["averaged_gen"] move by a forward pass of the average.

  Args:
    gen: As for `two_player`.
    state: After the generator's update.
    decay: Per call.
    key: Of what `gen` draws.
    *inputs: Of the forward pass.
    move: `update_ema` or `move_ema`.
  """
  state = move(state, decay)
  old = state.stats["averaged_gen"]
  _, stats = training_pass(gen, state.ema["gen"], old, key, *inputs)
  return state.replace(stats={**state.stats, "averaged_gen": stats})


def two_player(
  gen: nn.Module,
  disc: nn.Module,
  *,
  loss: AdversarialLoss,
  gen_tx: optax.GradientTransformation,
  disc_tx: optax.GradientTransformation,
  latent_dim: int,
  ema_decay: float = 0.0,
  draw_latent: Callable = random.normal,
  gen_loss: Callable | None = None,
  num_gen_updates: int = 1,
) -> Method:
  """One discriminator update, then one generator update on the same latents.

  The generator is scored by the discriminator just updated. Real and fake batches
  pass through the discriminator one after the other, each with its own batch
  statistics. Per step the generator's untrained variables (batch norm's running
  averages, spectral norm's vectors) move once per generator update, the
  discriminator's twice.

  Args:
    gen: (z f32 [B, latent_dim], label or None, train) -> images f32 [B, H, W, C] in
      [-1, 1].
    disc: (images, label or None, train) -> scores f32 [B, ...], large for real; or a
      tuple (scores, features) for a `gen_loss` that reads the features.
    loss: What the two minimise.
    gen_tx: Optimiser of `gen`.
    disc_tx: Optimiser of `disc`.
    latent_dim: Length of z.
    ema_decay: Decay per step of the average of the generator's weights that is
      sampled from, see `average_gen`; 0 keeps none.
    draw_latent: (key, shape, dtype) -> z; default N(0, I).
    gen_loss: (judge, real images, fake images) -> f32 [], where judge(images) is the
      output of `disc` after its update: what the generator minimises instead of
      `loss.gen(scores of fakes)`.
    num_gen_updates: Generator updates per step. Those after the first pass the same
      latents through the generator just updated.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1], and, for conditional
    networks, batch["label"]. `sample` takes `averaged(state)`; it and the tools
    interpolate and invert are those of `jaxgen.gan.latents`. Metrics: both losses and
    norms of gradients (of the last update), the shares of real and fake images that
    the discriminator judges right before its update, and `diversity` and
    `neighbour_diversity` of the fakes it judged.
  """
  gen_loss = gen_loss or (lambda judge, _, fake: loss.gen(scores_of(judge(fake))))

  init = init_players(
    {"gen": gen, "disc": disc},
    {"gen": gen_tx, "disc": disc_tx},
    latent_dim=latent_dim,
    ema_decay=ema_decay,
  )

  def disc_update(state: TrainState, batch: Batch, fake: Array, key: Array) -> tuple:
    """(state, metrics) after one update on a real and a fake batch."""
    image, label = batch["image"], batch.get("label")
    real_key, fake_key = random.split(key)

    def objective(params: PyTree) -> tuple[Array, tuple]:
      stats = state.stats["disc"]
      real_out, stats = training_pass(disc, params, stats, real_key, image, label)
      fake_out, stats = training_pass(disc, params, stats, fake_key, fake, label)
      real, fake_ = scores_of(real_out), scores_of(fake_out)
      return loss.disc(real, fake_), (real, fake_, stats)

    (value, (real_score, fake_score, stats)), grads = jax.value_and_grad(
      objective, has_aux=True
    )(state.params["disc"])
    state = apply_gradients(state, "disc", grads, disc_tx)
    return state.replace(stats={**state.stats, "disc": stats}), {
      "disc_loss": value,
      "disc_accuracy_real": jnp.mean(real_score > loss.boundary),
      "disc_accuracy_fake": jnp.mean(fake_score < loss.boundary),
      "disc_grad_norm": optax.tree.norm(grads),
      "diversity": diversity(image, fake),
      "neighbour_diversity": neighbour_diversity(image, fake),
    }

  def gen_update(
    state: TrainState, batch: Batch, generated: tuple, key: Array
  ) -> tuple:
    """The same for the generator; `generated` is what `forward` gives."""
    image, label = batch["image"], batch.get("label")
    fake, pull_back, stats = generated

    def judge(images: Array) -> Array | tuple[Array, Array]:
      variables = state.params["disc"], state.stats["disc"]
      return training_pass(disc, *variables, key, images, label)[0]

    value, fake_grads = jax.value_and_grad(lambda x: gen_loss(judge, image, x))(fake)
    (grads,) = pull_back(fake_grads)
    state = apply_gradients(state, "gen", grads, gen_tx)
    metrics = {"gen_loss": value, "gen_grad_norm": optax.tree.norm(grads)}
    return state.replace(stats={**state.stats, "gen": stats}), metrics

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    image, label = batch["image"], batch.get("label")
    noise_key, disc_key, gen_key = random.split(random.fold_in(key, 1), 3)
    z = per_example(draw_latent(key, (len(image), latent_dim), image.dtype))

    def forward(state: TrainState) -> tuple:
      """Fakes, the map from d loss / d fake to gradients, the stats afterwards."""
      stats = state.stats["gen"]
      run = lambda params: training_pass(gen, params, stats, noise_key, z, label)
      return jax.vjp(run, state.params["gen"], has_aux=True)

    generated = forward(state)  # once, for both players
    state, metrics = disc_update(state, batch, generated[0], disc_key)
    for i in range(num_gen_updates):
      generated = forward(state) if i else generated
      state, gen_metrics = gen_update(state, batch, generated, gen_key)
    if ema_decay:
      state = average_gen(gen, state, ema_decay, noise_key, z, label)
    return state, metrics | gen_metrics

  latents = dict(latent_dim=latent_dim, draw_latent=draw_latent)
  sample, interpolate = latent_tools(gen, stats_name(ema_decay), **latents)
  invert = latent_inversion(gen, stats_name(ema_decay), **latents)
  tools = {"interpolate": interpolate, "invert": invert}
  return Method(init, train_step, sample=sample, tools=tools)
