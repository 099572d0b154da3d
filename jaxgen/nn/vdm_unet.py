"""Networks of variational diffusion models: a U-Net of one resolution, noise schedules.

Kingma, Salimans, Poole & Ho, "Variational Diffusion Models" (2021), arXiv 2107.00630,
Appendix B and the authors' code, compared in float64 for equal weights. Schedules are
gamma(t), minus the logarithm of the signal-to-noise ratio, rising in t in [0, 1].

Deviations: the attention of the middle is that of `jaxgen.nn.unet`, with its initial
weights. The schedule with a network is mapped to its end points, as in the paper, which
the authors' code leaves out.
"""

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.embed import timestep_embedding
from jaxgen.nn.unet import ResBlock, SelfAttention

Dtype = jnp.dtype | type

_zeros = nn.initializers.zeros
_lecun = nn.initializers.lecun_normal()


class VdmUNet(nn.Module):
  """Maps a noisy image and its gamma to the noise in it.

  The defaults are the network for CIFAR-10: 30,578,179 parameters for 3 channels. No
  level is smaller than the image.

  Attributes:
    gamma_min: What the time embedding takes for 0.
    gamma_max: What it takes for 1.
    channels: Of every level; the embedding has 4 times as many.
    num_blocks: Residual blocks on the way down; one more on the way up.
    num_groups: Groups of every GroupNorm.
    dropout_rate: In the residual blocks.
    fourier: Exponents n of the features sin(2^n 2 pi x) and cos(2^n 2 pi x) of the
      input, for fine detail; the authors' CIFAR-10 has (6, 7).
    dtype: Of convolutions and products, and of activations between them. Parameters,
      normalisation, softmax and output are float32.
  """

  gamma_min: float = -13.3
  gamma_max: float = 5.0
  channels: int = 128
  num_blocks: int = 32
  num_groups: int = 32
  dropout_rate: float = 0.1
  fourier: tuple[int, ...] = (6, 7)
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, z: Array, gamma: Array, condition: Array | None = None, train: bool = False
  ) -> Array:
    """Predicts the noise in `z`; at first, that z is noise and nothing else.

    Args:
      z: f32 [B, H, W, C].
      gamma: f32 [B].
      condition: f32 [B], or None for zeros, which are what the authors use: a number
        that enters with the time.
      train: Whether dropout is on (it then needs the "dropout" key).

    Returns:
      f32 [B, H, W, C].
    """
    time = self._embed(gamma, condition)

    def residual(h: Array, name: str) -> Array:
      block = ResBlock(
        self.channels,
        self.num_groups,
        self.dropout_rate,
        self.dtype,
        kernel_init=_lecun,
        time_init=_zeros,
        time_bias=False,
        name=name,
      )
      return block(h, time, train)

    h = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="conv_in")(
      jnp.concatenate([z, *fourier_features(z, self.fourier)], axis=-1)
    )
    skips = [h]
    for i in range(self.num_blocks):
      h = residual(h, f"down_{i}")
      skips.append(h)
    h = residual(h, "middle_0")
    h = SelfAttention(self.num_groups, self.dtype, name="middle_attention")(h)
    h = residual(h, "middle_1")
    for i in range(self.num_blocks + 1):
      h = residual(jnp.concatenate([h, skips.pop()], axis=-1), f"up_{i}")

    wide = jnp.promote_types(self.dtype, jnp.float32)
    h = nn.swish(nn.GroupNorm(self.num_groups, dtype=wide, name="norm_out")(h))
    layer = nn.Conv(
      z.shape[-1], (3, 3), dtype=wide, kernel_init=_zeros, name="conv_out"
    )
    return layer(h) + z

  def _embed(self, gamma: Array, condition: Array | None) -> Array:
    """What every block is told, [B, 4 channels], before its swish."""
    t = (gamma - self.gamma_min) / (self.gamma_max - self.gamma_min)
    if condition is None:
      condition = jnp.zeros(len(t))
    h = timestep_embedding(1000 * t, self.channels)
    h = jnp.concatenate([h, condition[:, None].astype(h.dtype)], axis=1)
    h = nn.swish(nn.Dense(4 * self.channels, dtype=self.dtype, name="time1")(h))
    return nn.Dense(4 * self.channels, dtype=self.dtype, name="time2")(h)


def fourier_features(z: Array, exponents: tuple[int, ...]) -> list[Array]:
  """[sines, cosines] of 2^n 2 pi z, [..., C * len(exponents)] each; [] without n."""
  if not exponents:
    return []
  scales = 2 * jnp.pi * 2.0 ** jnp.asarray(exponents, z.dtype)
  angles = z[..., None] * scales.reshape((1,) * z.ndim + (-1,))
  angles = angles.reshape(*z.shape[:-1], -1)
  return [jnp.sin(angles), jnp.cos(angles)]


class LinearSchedule(nn.Module):
  """gamma(t) = start + |slope| t, both learned: 2 parameters.

  Attributes:
    gamma_min: start, at first.
    gamma_max: start + slope, at first.
  """

  gamma_min: float = -13.3
  gamma_max: float = 5.0

  @nn.compact
  def __call__(self, t: Array) -> Array:
    """f32 [...] in [0, 1] -> f32 [...]."""
    start, slope = end_points(self)
    return start + slope * t


class MonotoneSchedule(nn.Module):
  """gamma(t) between two learned end points, by a monotone network: 3,075 parameters.

  Attributes:
    gamma_min: gamma(0), at first.
    gamma_max: gamma(1), at first.
    width: Of the hidden layer.
  """

  gamma_min: float = -13.3
  gamma_max: float = 5.0
  width: int = 1024

  @nn.compact
  def __call__(self, t: Array) -> Array:
    """f32 [...] in [0, 1] -> f32 [...]."""
    normal = nn.initializers.normal()
    slope = jnp.abs(self.param("linear", nn.initializers.ones, ()))
    before, after = (
      jnp.abs(self.param(name, normal, (self.width,))) for name in ("inner", "outer")
    )
    bias = self.param("bias", normal, (self.width,))

    def rising(t: Array) -> Array:
      hidden = nn.sigmoid((2 * t[..., None] - 1) * _row(before, t) + _row(bias, t))
      return slope * t + (hidden * _row(after, t)).mean(axis=-1)

    lowest, highest = rising(jnp.zeros_like(t)), rising(jnp.ones_like(t))
    start, height = end_points(self)
    return start + height * (rising(t) - lowest) / (highest - lowest)


def end_points(schedule: nn.Module) -> tuple[Array, Array]:
  """gamma(0) and gamma(1) - gamma(0) >= 0: the parameters "start" and "slope"."""
  constant = nn.initializers.constant
  low, high = schedule.gamma_min, schedule.gamma_max
  start = schedule.param("start", constant(low), ())
  return start, jnp.abs(schedule.param("slope", constant(high - low), ()))


def _row(weights: Array, t: Array) -> Array:
  """[width] -> with axes of length 1 to meet t[..., None]."""
  return weights.reshape((1,) * t.ndim + (-1,))
