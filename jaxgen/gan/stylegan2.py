"""StyleGAN2: demodulation, lazy regularisers, short paths (Karras et al., 2019).

Karras, Laine, Aittala, Hellsten, Lehtinen & Aila, "Analyzing and Improving the Image
Quality of StyleGAN", https://arxiv.org/abs/1912.04958, config F: weight demodulation,
lazy R1 and path length regularisation, no progressive growing. The networks are in
`jaxgen.nn.stylegan2` (30,370,060 and 29,012,513 parameters at 1024x1024). With `ada` it
is StyleGAN2-ADA (2020, https://arxiv.org/abs/2006.06676), see `jaxgen.gan.ada`.

Deviations from the paper and its code:
  - Each example of a batch has its own crossover of styles, in the code a batch.
  - The running mean of path lengths is a constant to the gradient. The average of w is
    not moved by the pass that measures them (in the code it is).
  - The discriminator is updated before the generator (in the code after it), and each
    one's regulariser after both.
  - The average of w that goes with the averaged generator is measured
    under the averaged mapping network.
See `jaxgen.nn.stylegan2` for those of the networks.
"""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.gan.ada import Ada, Augmented, adapt
from jaxgen.gan.adversarial import average_gen, init_players, stats_name, training_pass
from jaxgen.gan.critic_steps import alternating
from jaxgen.gan.latents import latent_tools
from jaxgen.gan.style_tools import latents_of_styles
from jaxgen.losses.adversarial import non_saturating
from jaxgen.losses.penalties import zero_centered
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  every,
  move_ema,
  per_example,
)
from jaxgen.nn.style import StyleGenerator

PATH_DECAY = 0.99  # of the running mean of path lengths (1912.04958, Appendix B)


class Lazy(NamedTuple):
  """A regulariser in an update of its own, on every `interval`-th step, times it."""

  weight: float
  interval: int


def lazy_adam(
  rate: float, interval: int, b1: float = 0.0, b2: float = 0.99
) -> optax.GradientTransformation:
  """Adam for interval + 1 updates in `interval` steps (1912.04958, Appendix B).

  With c = interval / (interval + 1) it is Adam(c rate, b1^c, b2^c): learning rate and
  memory per step are those of Adam(rate, b1, b2) that does one update per step.
  """
  c = interval / (interval + 1)
  return optax.adam(c * rate, b1**c, b2**c)


def path_lengths(
  synthesize: Callable[[Array], Array], ws: Array, direction: Array
) -> Array:
  """How far an image moves with its styles (1912.04958, Eq. 4): |J^T y| by example.

  Args:
    synthesize: ws -> images f32 [B, H, W, C], each of its own row.
    ws: f32 [B, num_ws, w_dim].
    direction: y, as the images: N(0, 1 / (H W)).

  Returns:
    f32 [B]: the norm over w_dim, root mean square over num_ws.
  """
  _, pull_back = jax.vjp(synthesize, ws)
  (gradient,) = pull_back(direction)
  return jnp.sqrt(jnp.sum(gradient**2, axis=2).mean(axis=1))


R1, PATH = Lazy(10.0, 16), Lazy(2.0, 4)


def stylegan2(
  gen: StyleGenerator,
  disc: nn.Module,
  *,
  gen_tx: optax.GradientTransformation,
  disc_tx: optax.GradientTransformation,
  batch_size: int,
  latent_dim: int = 512,
  r1: Lazy = R1,
  path: Lazy | None = PATH,
  ema_images: float = 10_000,
  ema_ramp_up: float | None = None,
  ada: Ada | None = None,
) -> Method:
  """The non-saturating loss, with lazy regularisers of both networks.

  A step updates the discriminator and the generator, each on its own latents, as
  `alternating` does, and then either once more if its regulariser's turn has come.

  Args:
    gen: Around a `jaxgen.nn.stylegan2.Synthesis`.
    disc: As `jaxgen.nn.stylegan2.Discriminator`.
    gen_tx: `lazy_adam(2e-3, path.interval)`.
    disc_tx: `lazy_adam(2e-3, r1.interval)`.
    batch_size: The global one; the next but one and `ada` count images.
    latent_dim: Length of z.
    r1: Of |d score / d image|^2 / 2 at real images; the weight is gamma.
    path: Of (path length - its running mean)^2, on half of a batch; None for none.
    ema_images: Half-life of the average of the generator's weights, in images.
    ema_ramp_up: Times the number of images seen bounds the half-life, if not None.
    ada: None for no augmentation.

  Returns:
    A method with networks "gen" and "disc" over batch["image"], f32 [B, H, H, C] in
    [-1, 1], and, for conditional networks, batch["label"]. `sample` takes
    `averaged(state)`; tools are `latents_of_styles`. Metrics beside `alternating`'s: r1
    and path_length, their means over images, 0 out of turn; augment_p.
  """
  if ada:
    disc = Augmented(disc, ada.augment)
  # Its own average would not ramp up, and would miss the regulariser's update.
  main = alternating(
    gen,
    disc,
    loss=non_saturating,
    gen_tx=gen_tx,
    critic_tx=disc_tx,
    latent_dim=latent_dim,
    num_critic_steps=1,
    critic_name="disc",
  )
  init_networks = init_players(
    {"gen": gen, "disc": disc},
    {"gen": gen_tx, "disc": disc_tx},
    latent_dim=latent_dim,
    ema_decay=0.5,
  )

  def init(key: Array, batch: Batch) -> TrainState:
    state = init_networks(key, batch)
    mean = {"path": {"mean": jnp.zeros(())}} if path else {}
    return state.replace(stats={**state.stats, **mean})

  def penalize_slope(state: TrainState, batch: Batch, key: Array) -> tuple:
    """(state, r1) after an update of the discriminator."""
    stats, label = state.stats["disc"], batch.get("label")

    def objective(params: PyTree) -> Array:
      score = lambda x: training_pass(disc, params, stats, key, x, label)[0]
      return zero_centered(score, batch["image"]).mean()

    value, grads = jax.value_and_grad(objective)(state.params["disc"])
    scaled = optax.tree.scale(r1.weight / 2 * r1.interval, grads)
    return apply_gradients(state, "disc", scaled, disc_tx), value

  def penalize_paths(state: TrainState, batch: Batch, key: Array) -> tuple:
    """(state, mean path length) after an update of the generator."""
    z_key, y_key, styles_key, noise_key = random.split(key, 4)
    image, label = batch["image"], batch.get("label")
    z = per_example(random.normal(z_key, (len(image), latent_dim), image.dtype))
    z, label = every_other(z), None if label is None else every_other(label)
    y = per_example(random.normal(y_key, image.shape, image.dtype))
    y = every_other(y) / (image.shape[1] * image.shape[2]) ** 0.5
    stats, mean = state.stats["gen"], state.stats["path"]["mean"]

    def objective(params: PyTree) -> tuple[Array, tuple]:
      def apply(method: str, key: Array, *inputs: Array | None) -> Array:
        variables, rngs = {"params": params, **stats}, {"noise": key}
        settings = dict(train=True, mutable=list(stats), rngs=rngs, method=method)
        return gen.apply(variables, *inputs, **settings)[0]

      ws = apply("styles", styles_key, z, label)
      render = lambda ws: apply("synthesize", noise_key, ws)
      lengths = path_lengths(render, ws, y)
      level = jax.lax.stop_gradient(mean + (1 - PATH_DECAY) * (lengths.mean() - mean))
      return jnp.mean((lengths - level) ** 2), (lengths.mean(), level)

    grads, (value, level) = jax.grad(objective, has_aux=True)(state.params["gen"])
    scaled = optax.tree.scale(path.weight * path.interval, grads)
    state = apply_gradients(state, "gen", scaled, gen_tx)
    return state.replace(stats={**state.stats, "path": {"mean": level}}), value

  def average(state: TrainState, batch: Batch, key: Array) -> TrainState:
    half_life = jnp.float32(ema_images / batch_size)  # in steps
    if ema_ramp_up is not None:
      half_life = jnp.minimum(half_life, ema_ramp_up * state.step)
    decay = 0.5 ** (1 / jnp.maximum(half_life, 1e-8))
    z_key, noise_key = random.split(key)
    shape = (len(batch["image"]), latent_dim)
    z = per_example(random.normal(z_key, shape, batch["image"].dtype))
    label = batch.get("label")
    return average_gen(gen, state, decay, noise_key, z, label, move=move_ema)

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    main_key, r1_key, path_key, average_key = random.split(key, 4)
    none = jnp.zeros((), batch["image"].dtype)
    state, metrics = main.train_step(state, batch, main_key)
    state, metrics["r1"] = every(
      r1.interval,
      state.step,
      lambda carry: penalize_slope(carry[0], batch, r1_key),
      (state, none),
    )
    if path:
      state, metrics["path_length"] = every(
        path.interval,
        state.step,
        lambda carry: penalize_paths(carry[0], batch, path_key),
        (state, none),
      )
    state = average(state, batch, average_key)
    if ada:
      old, sign = state.stats["disc"], 2 * metrics["disc_accuracy_real"] - 1
      new = adapt(old["ada"], sign, state.step, batch_size, ada)
      metrics["augment_p"] = new["p"]
      state = state.replace(stats={**state.stats, "disc": {**old, "ada": new}})
    return state, metrics

  stats = stats_name(0.5)
  sample, _ = latent_tools(gen, stats, latent_dim=latent_dim)
  tools = latents_of_styles(gen, stats, latent_dim=latent_dim)
  return Method(init, train_step, sample=sample, tools=tools)


def every_other(x: Array) -> Array:
  """Rows 0, 2, 4 ... of an even number: half of a batch, and half of every device's."""
  return x if len(x) < 2 else x[: len(x) // 2 * 2].reshape(-1, 2, *x.shape[1:])[:, 0]
