"""The network of `hvae`: an encoder upwards, a decoder downwards.

Images go up through residual blocks and are halved on the way; latents are drawn on the
way down, given what is above them, from p or, where there is an image, from q. All
tensors are [B, R, R, width] at resolution R (Child 2020).
"""

from collections.abc import Callable, Sequence
import itertools
from typing import Any, NamedTuple

from flax import linen as nn
from jax import random
import jax.numpy as jnp

from jaxgen.losses import gaussian
from jaxgen.method import Array, per_example
from jaxgen.nn.progressive import upsample
from jaxgen.nn.strided_conv import Conv1x1
from jaxgen.vae.hvae_blocks import Block, DownBlock, Gaussian, Latent, uniform


class Level(NamedTuple):
  """All blocks at one resolution.

  Attributes:
    resolution: R, a multiple of that of the level above.
    num_up: Blocks of the encoder; the last one is averaged to the level above.
    num_down: Blocks of the decoder, each with a latent.
  """

  resolution: int
  num_up: int
  num_down: int


class Ladder(nn.Module):
  """VDVAE's network (Child 2020).

  Attributes:
    image_shape: (H, W, C) with H = W = R * patch of the first level.
    levels: From the image upwards; the last has resolution 1 in the paper.
    width: Channels of all streams.
    latent_dim: Channels of every z.
    num_outputs: Parameters of p(x | z) for each pixel.
    middle: Channels inside of blocks; default a quarter of the width.
    patch: Squares of so many pixels a side enter, and leave, as channels.
  """

  image_shape: tuple[int, int, int]
  levels: Sequence[tuple[int, int, int]]
  width: int
  latent_dim: int
  num_outputs: int
  middle: int | None = None
  patch: int = 1

  def setup(self) -> None:
    levels = [Level(*level) for level in self.levels]
    sizes = [level.resolution for level in levels]
    height, width, _ = self.image_shape
    if height != width or height != sizes[0] * self.patch:
      raise ValueError(
        f"image_shape={self.image_shape}: expected sides of {sizes[0]} * {self.patch}"
      )
    if any(a == b or a % b for a, b in itertools.pairwise(sizes)):
      raise ValueError(f"resolutions {sizes}: expected each to divide the one before")
    middle = self.middle or self.width // 4
    num_up, num_down = (sum(level[i] for level in levels) for i in (1, 2))
    self.enter = nn.Conv(self.width, (3, 3), kernel_init=uniform(1.0))
    self.up = [
      [Block(middle, self.width, size > 2, 1 / num_up) for _ in range(num)]
      for size, num, _ in levels
    ]
    self.down = [
      [
        DownBlock(self.width, self.latent_dim, middle, size > 2, 1 / num_down)
        for _ in range(num)
      ]
      for size, _, num in levels
    ]
    self.bias = [
      self.param(f"bias_{size}", nn.initializers.zeros, (size, size, self.width))
      for size in sizes
    ]
    self.gain = self.param("gain", nn.initializers.ones, (self.width,))
    self.shift = self.param("shift", nn.initializers.zeros, (self.width,))
    self.leave = Conv1x1(self.num_outputs * self.patch**2, kernel_init=uniform(1.0))

  def encode(self, x: Array) -> list[Array]:
    """x f32 [B, H, W, C] -> what each level of the decoder sees, [B, R, R, W]."""
    h, seen = self.enter(to_channels(x, self.patch)), []
    sizes = [size for size, _, _ in self.levels]
    for i, blocks in enumerate(self.up):
      for block in blocks[:-1]:
        h = h + block(h)
      if i < len(sizes) - 1:
        seen.append(h)
        h = pool(h + blocks[-1](h), sizes[i] // sizes[i + 1])
    return [*seen, h + self.up[-1][-1](h)]

  def descend(self, num: int, choose: Callable) -> tuple[Array, list[Latent]]:
    """From the top to the parameters of p(x | z).

    Args:
      num: B.
      choose: (index of the block, of its level, the block, h, prior) -> a `Latent`.

    Returns:
      f32 [B, H, W, num_outputs], and what was chosen, the top block's first.
    """
    h, chosen = None, []
    for i in reversed(range(len(self.levels))):
      bias = jnp.broadcast_to(self.bias[i], (num, *self.bias[i].shape))
      h = bias if h is None else bias + upsample(h, bias.shape[1] // h.shape[1])
      for block in self.down[i]:
        before = h
        prior, h = block.prior(before)
        chosen.append(choose(len(chosen), i, block, before, prior))
        h = block.merge(h, chosen[-1].z)
    outputs = self.leave(h * self.gain[None, None, None] + self.shift[None, None, None])
    return to_pixels(outputs, self.patch), chosen

  def infer(
    self, seen: Sequence[Array], key: Array | None
  ) -> tuple[Array, list[Latent]]:
    """Latents drawn from q(z | x), or its means if there is no key.

    Args:
      seen: From `encode`.
      key: Block i uses `fold_in(key, i)`.

    Returns:
      As `descend`.
    """

    def choose(index: int, level: int, block: Any, h: Array, prior: Gaussian) -> Latent:
      posterior = block.posterior(h, seen[level])
      z = posterior[0]
      if key is not None:
        z = gaussian.sample(*posterior, random.fold_in(key, index))
      return Latent(z, prior, posterior)

    return self.descend(len(seen[0]), choose)

  def generate(
    self,
    num: int,
    key: Array,
    given: Sequence[Array] = (),
    temperature: float | Array = 1.0,
  ) -> tuple[Array, list[Latent]]:
    """Latents from p(z).

    Args:
      num: B.
      key: Block i uses `fold_in(key, i)`.
      given: Latents of the first (topmost) blocks, [B, R, R, D] each.
      temperature: Of the others: a factor of the prior's standard deviations.

    Returns:
      As `descend`.
    """

    def choose(index: int, level: int, block: Any, h: Array, prior: Gaussian) -> Latent:
      if index < len(given):
        return Latent(given[index], prior, prior)
      mean, log_var = prior
      noise = per_example(random.normal(random.fold_in(key, index), mean.shape))
      z = mean + temperature * jnp.exp(0.5 * log_var) * noise
      return Latent(z, prior, prior)

    return self.descend(num, choose)

  def __call__(self, x: Array) -> Array:
    """Touches every parameter: decodes the means of q(z | x)."""
    return self.infer(self.encode(x), None)[0]


def pool(h: Array, factor: int) -> Array:
  """Means of squares: [B, R, R, W] -> [B, R / factor, R / factor, W]."""
  window = (factor, factor)
  return nn.avg_pool(h, window, strides=window)


def to_channels(x: Array, side: int) -> Array:
  """[B, H, W, C] -> [B, H / side, W / side, side^2 C]."""
  b, h, w, c = x.shape
  squares = x.reshape(b, h // side, side, w // side, side, c)
  return squares.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // side, w // side, -1)


def to_pixels(h: Array, side: int) -> Array:
  """The inverse of `to_channels`."""
  b, rows, columns, c = h.shape
  squares = h.reshape(b, rows, columns, side, side, c // side**2)
  return squares.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * side, columns * side, -1)
