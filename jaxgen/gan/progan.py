"""Progressive growing: a GAN that doubles its resolution (Karras et al., 2017).

Karras, Aila, Laine & Lehtinen, "Progressive Growing of GANs for Improved Quality,
Stability, and Variation", https://arxiv.org/abs/1710.10196. Equalised learning rate,
pixel norm, minibatch standard deviation, WGAN-GP with a drift term, an average of the
generator's weights. A resolution is a phase of training: a method of its own, which
first fades its new layers in and then trains on; `grow` carries the state over.

At 1024x1024 (the defaults) the networks have the 23.1 M parameters each of the paper's
Table 2.

Deviations from the paper:
  - No classifier in the discriminator (AC-GAN), so labels are ignored.
  - Batch size and learning rates of a resolution are the caller's: those of its phase.
  - A phase fades first, then stabilises (the paper's order, cut at another place).
Deviations from the authors' code:
  - The average's decay rises with the steps, see `update_ema`.
  - Layers that stay keep Adam's moments; there all moments start again. Its step count
    starts again here, too: new layers need the correction of the first steps, in which
    old ones move the less for it (by up to (1 - b2)^0.5).
  - The average moves once per generator update (there: per discriminator update).
  - The discriminator averages 2x2 pixels after the leaky ReLU, the order of Table 2; by
    default the code's convolution does both, before it.
The minibatch deviation mixes examples, so the gradient penalty of one contains a little
of its group, as in the authors' code.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxgen.gan.critic_steps import alternating
from jaxgen.losses.adversarial import wasserstein
from jaxgen.losses.penalties import Score, gradient_penalty
from jaxgen.method import Array, Batch, Method, Metrics, PyTree, TrainState
from jaxgen.nn.equalized import EqualConv, EqualDense, pixel_norm
from jaxgen.nn.progressive import (
  SQRT2,
  FadeAlpha,
  blend,
  check_resolution,
  downsample,
  upsample,
  width_at,
)


class Generator(nn.Module):
  """Latents to images, by layers named after their resolution.

  Attributes:
    resolution: Side of the images, a power of two.
    channels: Of the images.
    channel_base: See `width_at`.
    channel_max: See `width_at`.
    dtype: Of the computation; parameters and the returned images are float32.
  """

  resolution: int = 1024
  channels: int = 3
  channel_base: int = 16384
  channel_max: int = 512
  dtype: Any = None

  def layer(self, x: Array, side: int, name: str) -> Array:
    """A convolution at `side`, its leaky ReLU and pixel norm."""
    width = width_at(side, self.channel_base, self.channel_max)
    x = EqualConv(width, gain=SQRT2, dtype=self.dtype, name=name)(x)
    return pixel_norm(nn.leaky_relu(x, 0.2))

  def to_rgb(self, x: Array, side: int) -> Array:
    return EqualConv(self.channels, 1, dtype=self.dtype, name=f"to_rgb_{side}")(x)

  @nn.compact
  def __call__(self, z: Array, label: Array | None = None, *, train: bool) -> Array:
    """z f32 [B, latent_dim] -> f32 [B, H, W, C]; the label is ignored.

    Images are clipped to [-1, 1], but not in training.
    """
    check_resolution(self.resolution)
    side, width = 4, width_at(4, self.channel_base, self.channel_max)
    first = EqualDense(  # A convolution of the 1x1 map z, with its fan in
      16 * width, gain=SQRT2 / 4, use_bias=False, dtype=self.dtype, name="dense_4"
    )
    x = first(pixel_norm(z)).reshape(-1, 4, 4, width)
    bias = self.param("bias_4", nn.initializers.zeros, (width,))
    x = nn.leaky_relu(x + bias.astype(x.dtype).reshape(1, 1, 1, -1), 0.2)
    x = self.layer(pixel_norm(x), 4, "conv_4")
    while side < self.resolution:
      previous, side = x, 2 * side
      x = self.layer(upsample(x), side, f"conv_{side}_0")
      x = self.layer(x, side, f"conv_{side}_1")
    image = self.to_rgb(x, side)
    if side > 4:
      old = upsample(self.to_rgb(previous, side // 2))
      image = blend(old, image, FadeAlpha(name="fade")())
    image = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    return image if train else jnp.clip(image, -1.0, 1.0)


def real_images(image: Array, resolution: int, alpha: Array | None = None) -> Array:
  """Real images as the networks of a resolution see them.

  Means of blocks of pixels; while a resolution is faded in, blended with themselves at
  half of it (the paper's Figure 2).

  Args:
    image: f32 [B, H, H, C].
    resolution: Of the result; divides H.
    alpha: f32 []; None for no blend.

  Returns:
    f32 [B, resolution, resolution, C].
  """
  image = downsample(image, max(image.shape[1] // resolution, 1))
  if alpha is None:
    return image
  return blend(upsample(downsample(image)), image, alpha)


def grow(old: TrainState, new: TrainState) -> TrainState:
  """The first state of a resolution, from the last of the one below.

  What both have (weights, moments, averages) is carried; new layers start fresh, and
  the optimisers' counts at 0. For `carry` of a `jaxgen.run.Phase`.

  Raises:
    ValueError: If something of one name has two shapes.
  """
  kept = dict(jax.tree_util.tree_leaves_with_path(old))

  def carried(path: tuple, fresh: Array) -> Array:
    last = kept.get(path)
    if last is None or not jnp.issubdtype(fresh.dtype, jnp.floating):
      return fresh
    if last.shape != fresh.shape:
      raise ValueError(
        f"{jax.tree_util.keystr(path)} has shape {last.shape} at one resolution and "
        f"{fresh.shape} at the next; expected networks that differ in layers only"
      )
    return last

  return jax.tree_util.tree_map_with_path(carried, new)


def progan(
  gen: nn.Module,
  critic: nn.Module,
  *,
  gen_tx: optax.GradientTransformation,
  critic_tx: optax.GradientTransformation,
  latent_dim: int = 512,
  first_step: int = 0,
  num_fade_steps: int = 0,
  penalty_weight: float = 10.0,
  drift_weight: float = 1e-3,
  ema_decay: float = 0.999,
) -> Method:
  """WGAN-GP at one resolution, that of the networks, on images of any multiple of it.

  Args:
    gen: As `Generator`.
    critic: As `jaxgen.nn.progressive.Discriminator` with `fades` above 4x4, of the
      same resolution.
    gen_tx: The paper uses Adam(1e-3, b1=0, b2=0.99).
    critic_tx: The same.
    latent_dim: Length of z.
    first_step: `state.step` at which this resolution begins.
    num_fade_steps: Steps in which alpha goes from 0 to 1 in a line; 0 if the resolution
      is not faded in.
    penalty_weight: lambda of the gradient penalty.
    drift_weight: Of the mean square of the critic's scores of real images.
    ema_decay: Per step; 0 keeps no average.

  Returns:
    A method over batch["image"], f32 [B, H, H, C] in [-1, 1]. What it samples has that
    size, too: every pixel is repeated. See `alternating`; the metric alpha is added.

  Raises:
    ValueError: If there is nothing to fade from.
  """
  resolution = gen.resolution
  if num_fade_steps and resolution == 4:
    raise ValueError(f"num_fade_steps={num_fade_steps}: expected 0 at 4x4, the first")

  def penalty(score: Score, real: Array, mixed: Array) -> Array:
    slope = gradient_penalty(score, mixed)
    return penalty_weight * slope + drift_weight * score(real) ** 2

  inner = alternating(
    gen,
    critic,
    loss=wasserstein,
    gen_tx=gen_tx,
    critic_tx=critic_tx,
    latent_dim=latent_dim,
    num_critic_steps=1,
    ema_decay=ema_decay,
    penalty=penalty,
  )

  def faded(state: TrainState) -> tuple[TrainState, Array]:
    """(state whose networks know alpha, alpha)."""
    progress = (state.step - first_step) / max(num_fade_steps, 1)
    alpha = jnp.clip(progress, 0.0, 1.0) if num_fade_steps else jnp.ones(())
    set_alpha = lambda collections: {
      name: jax.tree.map(lambda _: alpha, values) if name == "fade" else values
      for name, values in collections.items()
    }
    stats = {name: set_alpha(values) for name, values in state.stats.items()}
    return state.replace(stats=stats), alpha

  def init(key: Array, batch: Batch) -> TrainState:
    return inner.init(key, {**batch, "image": real_images(batch["image"], resolution)})

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    state, alpha = faded(state)
    image = real_images(batch["image"], resolution, alpha if num_fade_steps else None)
    state, metrics = inner.train_step(state, {**batch, "image": image}, key)
    return state, metrics | {"alpha": alpha}

  def full_size(tool: Callable) -> Callable:
    """A function that draws at `resolution` -> one that draws at the data's."""

    def draw(state: TrainState, batch: Batch, key: Array) -> PyTree:
      factor = batch["image"].shape[1] // resolution
      seen = {**batch, "image": real_images(batch["image"], resolution)}
      images = tool(faded(state)[0], seen, key)
      # Beside images a tool may give numbers, one per image.
      return jax.tree.map(lambda x: upsample(x, factor) if x.ndim > 3 else x, images)

    return draw

  tools = {name: full_size(tool) for name, tool in inner.tools.items()}
  return Method(init, train_step, sample=full_size(inner.sample), tools=tools)
