"""Glow: Generative Flow with Invertible 1x1 Convolutions.

Diederik P. Kingma, Prafulla Dhariwal, 2018. https://arxiv.org/abs/1807.03039. Steps of
actnorm, invertible 1x1 convolution (plain, or by its LU decomposition) and affine or
additive coupling, in several levels (Table 1, Figure 2); sampling at a temperature, and
manipulation of attributes (Section 6). Unconditional.

Deviations from the paper; * marks what rosinality/glow-pytorch does too, whose numbers
of parameters these networks have:
  - The scale of a coupling is sigmoid(raw + 2), as in the authors' code; so also the
    shift comes before it. (Table 1: e^raw, then the shift.)
  - Convolutions of a conditioner have biases, no actnorm*. (Authors' code: actnorm.)
  - Zero convolutions see a border of ones*. (Authors' code: a channel that marks it.)
  - L and U are kept as full matrices of which one triangle has an effect*.
  - What leaves at a level has a Gaussian prior whose mean and scale are a zero
    convolution of what stays, at the last level of zeros, as in the authors' code. It
    is part of the bijection, so that every entry of z is N(0, 1).
  - Actnorm keeps the first batch's statistics beside its parameters (`ActNorm`); that
    batch is one of training. (Authors' code: a larger one, before training.)
  - Means of attributes are those of one batch. (Section 6: of the whole data set.)
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxgen.flow.likelihood import density, space
from jaxgen.method import Array, Batch, Method, TrainState
from jaxgen.nn.bijection import ActNorm, Invertible1x1
from jaxgen.nn.coupling import SplitCoupling
from jaxgen.nn.multi_scale import MultiScale, Squeeze, check_sides
from jaxgen.nn.strided_conv import Conv1x1, pixel_conv

NUM_STRENGTHS = 7  # of "attribute"


class ZeroConv(nn.Module):
  """A 3x3 convolution that starts at 0, times e^(3 scale), and sees a border of ones.

  Attributes:
    num_channels: Of its output.
  """

  num_channels: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """f32 [B, H, W, C] -> f32 [B, H, W, num_channels]."""
    zeros = nn.initializers.zeros
    conv = nn.Conv(self.num_channels, (3, 3), kernel_init=zeros)
    h = conv(x)
    # The border's part is the same for all images; an image with it would be a copy.
    kernel = conv.variables["params"]["kernel"].sum(axis=2, keepdims=True)
    inside = jnp.ones((1, *x.shape[1:3], 1), kernel.dtype)
    border = 1 - jnp.pad(inside, ((0, 0), (1, 1), (1, 1), (0, 0)))
    h += pixel_conv(border, kernel, (1, 1), "VALID")
    scale = self.param("scale", zeros, (self.num_channels,))
    return h * jnp.exp(3 * scale)[None, None, None]


class Conditioner(nn.Module):
  """Three convolutions (Section 3.3) for `SplitCoupling`.

  Attributes:
    num_channels: Of what is to be transformed.
    width: Channels of the hidden layers.
    is_affine: Whether there is a scale.
  """

  num_channels: int
  width: int
  is_affine: bool

  @nn.compact
  def __call__(self, x: Array, train: bool) -> tuple[Array, Array | None]:
    init = nn.initializers.normal(0.05)
    h = nn.relu(nn.Conv(self.width, (3, 3), kernel_init=init)(x))
    h = nn.relu(Conv1x1(self.width, kernel_init=init)(h))
    raw = ZeroConv(self.num_channels * (2 if self.is_affine else 1))(h)
    if not self.is_affine:
      return raw, None
    log_scale, shift = jnp.split(raw, 2, axis=-1)
    log_scale = jax.nn.log_sigmoid(log_scale + 2)
    return shift * jnp.exp(log_scale), log_scale  # Shifted first, then scaled.


class Prior(nn.Module):
  """Mean and log standard deviation of the channels that leave.

  Attributes:
    num_channels: Their number.
  """

  num_channels: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
    mean, log_std = jnp.split(ZeroConv(2 * self.num_channels)(x), 2, axis=-1)
    return mean, log_std


def network(
  shape: tuple[int, int, int],
  *,
  num_scales: int = 3,
  num_steps: int = 32,
  width: int = 512,
  affine: bool = True,
  lu: bool = True,
) -> MultiScale:
  """Glow's bijection: L levels of K steps.

  Args:
    shape: (H, W, C) of an image; H and W divisible by 2^num_scales.
    num_scales: L.
    num_steps: K.
    width: Of conditioners.
    affine: Else additive coupling.
    lu: See `Invertible1x1`.
  """
  check_sides(shape, num_scales)
  c = shape[-1]
  levels, priors = [], []
  for i in range(num_scales):
    c *= 4
    layers = [Squeeze()]
    for _ in range(num_steps):
      coupling = SplitCoupling(Conditioner(c // 2, width, affine))
      layers += [ActNorm(c), Invertible1x1(c, lu), coupling]
    levels.append(layers)
    c = c // 2 if i < num_scales - 1 else c
    priors.append(Prior(c))
  return MultiScale(levels, shape, priors)


def glow(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  num_levels: int = 256,
  temperature: float = 0.7,
  **options: Any,
) -> Method:
  """`likelihood.density` of images, with the tool "attribute".

  Args:
    net: As from `network`.
    tx: Its optimiser.
    num_levels: See `likelihood.density`; the paper's 5 bits are 32.
    temperature: Of samples; the paper's are drawn at 0.7 (Section 6).
    **options: Of `likelihood.density`.

  Returns:
    See `likelihood.density`. Further tool: attribute, which needs batch["label"].
  """
  method = density(
    net, tx=tx, num_levels=num_levels, temperature=temperature, **options
  )
  decode = space(net, num_levels=num_levels).decode

  def attribute(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """Images moved along the difference of two labels' means of z (Section 6).

    The labels are the lowest and the highest in batch["label"]; strengths are -1 to 1
    in equal steps, 0 in the middle: f32 [B, 7, H, W, C].
    """
    z, label = method.tools["encode"](state, batch, key)["z"], batch["label"]

    def mean_of(value: Array) -> Array:
      member = (label == value)[:, None]
      return jnp.where(member, z, 0).sum(0) / member.sum()

    direction = mean_of(label.max()) - mean_of(label.min())
    strengths = jnp.linspace(-1.0, 1.0, NUM_STRENGTHS)[None, :, None]
    moved = z[:, None] + strengths * direction[None, None]
    variables = {"params": state.params["net"], **state.stats["net"]}
    images = decode(variables, moved.reshape(-1, z.shape[-1]))
    return {"attribute": images.reshape(*moved.shape[:2], *images.shape[1:])}

  return method._replace(tools={**method.tools, "attribute": attribute})
