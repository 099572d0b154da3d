"""The blocks of `hvae_networks`, and what is known of a block's latent (Child 2020).

All tensors are [B, R, R, width] at resolution R.
"""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn
import jax.numpy as jnp

from jaxgen.losses import gaussian
from jaxgen.method import Array
from jaxgen.nn.strided_conv import Conv1x1, pixel_conv

Gaussian = tuple[Array, Array]  # mean, log variance


class Latent(NamedTuple):
  """What is known about one block's latent.

  Attributes:
    z: f32 [B, R, R, D].
    prior: Mean and log variance of p(z | above), each of that shape.
    posterior: Those of q(z | above, x); of the prior where there is no x.
  """

  z: Array
  prior: Gaussian
  posterior: Gaussian


def kl(latent: Latent) -> Array:
  """KL(posterior || prior) in nats, f32 [B]."""
  (mean1, log_var1), (mean2, log_var2) = latent.posterior, latent.prior
  terms = gaussian.kl(mean1, jnp.exp(log_var1), mean2, jnp.exp(log_var2))
  return terms.sum(axis=(1, 2, 3))


def log_ratio(latent: Latent) -> Array:
  """log p(z | above) - log q(z | above, x) in nats, f32 [B]."""
  density = lambda pair: gaussian.log_prob(*map(_flat, (latent.z, *pair)))
  return density(latent.prior) - density(latent.posterior)


def _flat(a: Array) -> Array:
  return a.reshape(len(a), -1)


class Block(nn.Module):
  """Four convolutions in a bottleneck, a GELU before each.

  Attributes:
    width: Channels in the middle.
    num_outputs: Channels of its output.
    is_wide: Whether the inner two are 3x3, else 1x1 (resolutions of 1 and 2).
    last_scale: Of the last kernel's variance; 0: it starts at zero.
  """

  width: int
  num_outputs: int
  is_wide: bool
  last_scale: float = 1.0

  @nn.compact
  def __call__(self, x: Array) -> Array:
    inner = (3, 3) if self.is_wide else (1, 1)
    conv = lambda num, kernel, scale: nn.Conv(
      num, kernel, kernel_init=uniform(scale), conv_general_dilated=pixel_conv
    )
    for size in ((1, 1), inner, inner):
      x = conv(self.width, size, 1.0)(nn.gelu(x, approximate=False))
    x = nn.gelu(x, approximate=False)
    return conv(self.num_outputs, (1, 1), self.last_scale)(x)


def uniform(scale: float) -> Callable:
  """PyTorch's default for kernels, U(-1/sqrt(fan in), 1/sqrt(fan in)), its variance
  times `scale`."""
  if not scale:
    return nn.initializers.zeros
  return nn.initializers.variance_scaling(scale / 3, "fan_in", "uniform")


class DownBlock(nn.Module):
  """A latent and how it enters (Child 2020).

  Attributes:
    width: Channels of its input and output.
    latent_dim: Channels of z.
    middle: Channels inside of its blocks.
    is_wide: See `Block`.
    last_scale: Of the variances of what is added to the stream: 1 / number of blocks.
  """

  width: int
  latent_dim: int
  middle: int
  is_wide: bool
  last_scale: float

  def setup(self) -> None:
    block = lambda num, scale=1.0: Block(self.middle, num, self.is_wide, scale)
    self.posterior_net = block(2 * self.latent_dim)
    self.prior_net = block(2 * self.latent_dim + self.width, 0.0)
    self.project = Conv1x1(self.width, kernel_init=uniform(self.last_scale))
    self.residual = block(self.width, self.last_scale)

  def posterior(self, h: Array, seen: Array) -> Gaussian:
    """q(z | above, x): h from above and what the encoder saw, each [B, R, R, W]."""
    mean, log_std = jnp.split(self.posterior_net(jnp.concatenate([h, seen], -1)), 2, -1)
    return mean, 2 * log_std

  def prior(self, h: Array) -> tuple[Gaussian, Array]:
    """p(z | above), and h with what does not depend on z."""
    ends = (self.latent_dim, 2 * self.latent_dim)
    mean, log_std, shift = jnp.split(self.prior_net(h), ends, axis=-1)
    return (mean, 2 * log_std), h + shift

  def merge(self, h: Array, z: Array) -> Array:
    h = h + self.project(z)
    return h + self.residual(h)
