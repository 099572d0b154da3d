"""StyleGAN: a style for every layer of the generator (Karras, Laine & Aila, 2018).

Karras, Laine & Aila, "A Style-Based Generator Architecture for Generative Adversarial
Networks", https://arxiv.org/abs/1812.04948, configuration F of Table 1: mapping
network, learned constant input, adaptive instance norm, noise inputs, mixing
regularisation, blur after upsampling and before downsampling, the non-saturating loss
with R1, truncation in W. At 1024x1024 (the defaults, without labels) the generator has
the paper's 26.2 M parameters.

Deviations from the paper:
  - No progressive growing: all layers train from the start (as in StyleGAN2).
  - One learning rate for all of training, the caller's.
Deviations from the authors' code:
  - The average's decay rises with the steps, see `update_ema`.
  - Each example of a batch has its own crossover of styles; there a batch has one.
  - The label's embedding is normalised apart from z (as in StyleGAN2-ADA).
  - Truncation, if asked for, is of all layers; there of the first 8.
  - The discriminator averages 2x2 pixels after the leaky ReLU, there before it.
"""

import math
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import optax

from jaxgen.gan.adversarial import stats_name
from jaxgen.gan.critic_steps import alternating
from jaxgen.gan.style_tools import latents_of_styles
from jaxgen.losses.adversarial import non_saturating
from jaxgen.losses.penalties import zero_centered
from jaxgen.method import Array, Method
from jaxgen.nn.equalized import EqualConv, EqualDense
from jaxgen.nn.progressive import SQRT2, blur, check_resolution, upsample, width_at
from jaxgen.nn.style import Mapping, NoiseInput, StyleGenerator


def adaptive_instance_norm(
  x: Array, scale: Array, shift: Array, epsilon: float = 1e-8
) -> Array:
  """Every channel of every image at mean `shift` and deviation |scale| (Eq. 1).

  Args:
    x: [B, H, W, C].
    scale: [B, C].
    shift: [B, C].
    epsilon: Added to the variance.
  """
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  centred = wide - wide.mean(axis=(1, 2), keepdims=True)
  variance = (centred**2).mean(axis=(1, 2), keepdims=True)
  normal = (centred * (variance + epsilon) ** -0.5).astype(x.dtype)
  scale, shift = (y[:, None, None].astype(x.dtype) for y in (scale, shift))
  return normal * scale + shift


class Style(nn.Module):
  """What ends every layer: noise, bias, leaky ReLU, the style (Figure 1b)."""

  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, w: Array) -> Array:
    """[B, H, W, C], f32 [B, w_dim] -> [B, H, W, C]."""
    width = x.shape[-1]
    bias = self.param("bias", nn.initializers.zeros, (width,))
    x = NoiseInput(name="noise")(x) + bias.astype(x.dtype).reshape(1, 1, 1, -1)
    style = EqualDense(2 * width, dtype=self.dtype, name="style")(w)
    scale, shift = jnp.split(style, 2, axis=-1)
    return adaptive_instance_norm(nn.leaky_relu(x, 0.2), 1 + scale, shift)


class Synthesis(nn.Module):
  """Styles to images.

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

  @property
  def num_ws(self) -> int:
    """Two layers for every resolution."""
    return 2 * int(math.log2(self.resolution)) - 2

  @nn.compact
  def __call__(self, ws: Array, train: bool = False) -> Array:
    """ws f32 [B, num_ws, w_dim] -> f32 [B, resolution, resolution, channels]."""
    check_resolution(self.resolution)
    side, width = 4, width_at(4, self.channel_base, self.channel_max)
    x = self.param("const", nn.initializers.ones, (1, 4, 4, width))
    x = jnp.broadcast_to(x.astype(self.dtype or x.dtype), (len(ws), 4, 4, width))
    x = Style(self.dtype, name="style_0")(x, ws[:, 0])
    for i in range(1, self.num_ws):
      grows = i % 2 == 0
      side = 2 * side if grows else side
      x = EqualConv(
        width_at(side, self.channel_base, self.channel_max),
        gain=SQRT2,
        use_bias=False,
        dtype=self.dtype,
        name=f"conv_{i}",
      )(upsample(x) if grows else x)
      x = Style(self.dtype, name=f"style_{i}")(blur(x) if grows else x, ws[:, i])
    x = EqualConv(self.channels, 1, dtype=self.dtype, name="to_rgb")(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def generator(
  synthesis: nn.Module,
  *,
  w_dim: int = 512,
  num_layers: int = 8,
  num_classes: int = 0,
  mixing_probability: float = 0.9,
  truncation_psi: float = 1.0,
) -> StyleGenerator:
  """The paper's generator around a synthesis network.

  Args:
    synthesis: As `Synthesis`.
    w_dim: Width of the mapping network and length of w.
    num_layers: Of the mapping network.
    num_classes: 0 ignores the label.
    mixing_probability: See `StyleGenerator`.
    truncation_psi: See `StyleGenerator`.
  """
  return StyleGenerator(
    Mapping(num_layers, w_dim, w_dim, num_classes),
    synthesis,
    w_dim=w_dim,
    average_decay=0.995,
    mixing_probability=mixing_probability,
    truncation_psi=truncation_psi,
  )


def stylegan(
  gen: nn.Module,
  disc: nn.Module,
  *,
  gen_tx: optax.GradientTransformation,
  disc_tx: optax.GradientTransformation,
  latent_dim: int = 512,
  r1_gamma: float = 10.0,
  ema_decay: float = 0.999,
) -> Method:
  """The non-saturating loss under R1, a discriminator and a generator update per step.

  Args:
    gen: As `generator` makes it; see `StyleGenerator`.
    disc: As `jaxgen.nn.progressive.Discriminator` with `blurs`.
    gen_tx: The paper uses Adam(1e-3 to 3e-3, b1=0, b2=0.99).
    disc_tx: The same.
    latent_dim: Length of z.
    r1_gamma: The penalty is half of it times |d score / d image|^2 at real images.
    ema_decay: Per step; the paper's has a half-life of 10,000 images, so is
      0.5 ** (batch size / 10,000). 0 keeps no average.

  Returns:
    A method with networks "gen" and "disc"; see `alternating`, and for its tools
    `latents_of_styles`.
  """
  method = alternating(
    gen,
    disc,
    loss=non_saturating,
    gen_tx=gen_tx,
    critic_tx=disc_tx,
    latent_dim=latent_dim,
    num_critic_steps=1,
    critic_name="disc",
    ema_decay=ema_decay,
    penalty=lambda score, real, mixed: 0.5 * r1_gamma * zero_centered(score, real),
  )
  tools = latents_of_styles(gen, stats_name(ema_decay), latent_dim=latent_dim)
  return method._replace(tools=tools)
