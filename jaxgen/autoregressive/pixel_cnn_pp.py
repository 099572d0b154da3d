"""PixelCNN++: images pixel by pixel, as mixtures of logistics.

Salimans, Karpathy, Chen & Kingma, "PixelCNN++: Improving the PixelCNN with Discretized
Logistic Mixture Likelihood and Other Modifications" (2017),
https://arxiv.org/abs/1701.05517: whole pixels in place of colours one by one (Section
2.2), three resolutions (2.3) with short cuts between them (2.4), dropout (2.5). The
likelihood is in `jaxgen.losses.logistic`. (Numbers of sections are from memory; the
network is that of the authors' code, github.com/openai/pixel-cnn.)

Deviations from the paper:
  - Parameters start with kernels of variance 1 / inputs whose lengths are as drawn; the
    authors' code measures lengths on a first batch.
  - The average's decay rises with the steps, see `update_ema`.
  - Drawn values are rounded to one of the 256 levels (the authors' code draws from the
    line, which the network then sees).
  - No labels.
"""

from collections.abc import Callable

from flax import linen as nn
import jax.numpy as jnp
import optax

from jaxgen.autoregressive.pixels import Pixels, autoregression
from jaxgen.losses import logistic
from jaxgen.method import Array, Method
from jaxgen.nn.causal_conv import (
  At,
  CausalConv,
  CausalUpsample,
  Use,
  by_pixel,
  by_row,
  down,
  right,
  whole,
)


def concat_elu(x: Array) -> Array:
  """elu of x and of -x: twice the channels."""
  return nn.elu(jnp.concatenate([x, -x], axis=-1))


class Block(nn.Module):
  """A gated residual block of one stream.

  Attributes:
    width: Channels.
    centred: The stream of rows above, kernels of 2 x 3; else that of the left, 2 x 2.
    skips: Further inputs, behind one another: 0, 1 or 2 times `width` channels.
    dropout: Share of the hidden channels' values that training drops.
  """

  width: int
  centred: bool
  skips: int
  dropout: float

  def setup(self) -> None:
    kernel = (2, 3 if self.centred else 2)
    conv = lambda features: CausalConv(
      2 * self.width, features, kernel, self.centred, has_scale=True
    )
    self.first, self.second = conv(self.width), conv(2 * self.width)
    if self.skips:
      inputs = 2 * self.skips * self.width
      self.skip = CausalConv(inputs, self.width, (1, 1), has_scale=True)
    self.drop = nn.Dropout(self.dropout)

  def __call__(
    self, x: Array, skip: Array | None, use: Use = whole, train: bool = False
  ) -> Array:
    """[..., width], and [..., skips * width] or None, to [..., width]."""
    h = use(self.first, concat_elu(x))
    if self.skips:
      h = h + self.skip.point(concat_elu(skip))
    h = self.drop(concat_elu(h), deterministic=not train)
    a, b = jnp.split(use(self.second, h), 2, axis=-1)
    return x + a * nn.sigmoid(b)


class Level(nn.Module):
  """Both streams at one resolution, and between its blocks the next one inside it.

  Attributes:
    width: Channels.
    num_blocks: On the way in; out again, one for each of these and for the input, but
      for the innermost level, whose last block is where the way out starts.
    num_inner: Levels inside of this one.
    dropout: As for `Block`.
  """

  width: int
  num_blocks: int
  num_inner: int
  dropout: float

  def setup(self) -> None:
    num_out = self.num_blocks + (self.num_inner > 0)
    blocks = lambda count, centred, skips: [
      Block(self.width, centred, skips, self.dropout) for _ in range(count)
    ]
    self.u_in = blocks(self.num_blocks, True, 0)
    self.ul_in = blocks(self.num_blocks, False, 1)
    self.u_out, self.ul_out = blocks(num_out, True, 1), blocks(num_out, False, 2)
    if self.num_inner:
      shape = (self.width, self.width)
      self.u_down = CausalConv(*shape, (2, 3), True, stride=2, has_scale=True)
      self.ul_down = CausalConv(*shape, (2, 2), stride=2, has_scale=True)
      self.inner = Level(self.width, self.num_blocks, self.num_inner - 1, self.dropout)
      self.u_up = CausalUpsample(*shape, True, has_scale=True)
      self.ul_up = CausalUpsample(*shape, has_scale=True)

  def __call__(self, u: Array, ul: Array, train: bool) -> tuple[Array, Array]:
    """Both streams, [B, H, W, width] each."""
    us, uls = [u], [ul]
    for above, left in zip(self.u_in, self.ul_in, strict=True):
      us.append(above(us[-1], None, train=train))
      uls.append(left(uls[-1], us[-1], train=train))
    if self.num_inner:
      u, ul = self.inner(self.u_down(us[-1]), self.ul_down(uls[-1]), train)
      u, ul = self.u_up(u), self.ul_up(ul)
    else:
      u, ul = us.pop(), uls.pop()
    for above, left in zip(self.u_out, self.ul_out, strict=True):
      u = above(u, us.pop(), train=train)
      ul = left(ul, jnp.concatenate([u, uls.pop()], axis=-1), train=train)
    return u, ul

  def row(self, u: Array, i: Array) -> Array:
    """Row i of the stream from above, [B, W, width]; kept for the pixels of the row."""
    us = [u]
    for block in self.u_in:
      us.append(block(us[-1], None, by_row))
    told = us[1:]
    if self.num_inner:
      small = by_row(self.u_down, us[-1])
      u = self.u_up.row(self._inner_row(small, i), i)
    else:
      u = us.pop()
    for block in self.u_out:
      u = block(u, us.pop(), by_row)
      told.append(u)
    self.put_variable("cache", "told", told)
    return u

  def _inner_row(self, u: Array, i: Array) -> Array:
    """Row i // 2 of the level inside, which an even i computes."""
    known = self.get_variable("cache", "inner_u", jnp.zeros_like(u))
    run = lambda self, u: self.inner.row(u, i // 2)
    found = self._when("inner_u", i % 2 == 0, run, u, known)
    self.put_variable("cache", "inner_u", found)
    return found

  def pixel(self, ul: Array, at: At) -> Array:
    """Pixel `at` of the stream from the left, [B, width]."""
    told = [u[:, at.j] for u in self.get_variable("cache", "told")]
    uls, use = [ul], by_pixel(at)
    for block, u in zip(self.ul_in, told, strict=False):
      uls.append(block(uls[-1], u, use))
    if self.num_inner:
      small = use(self.ul_down, uls[-1])
      ul = self.ul_up.pixel(self._inner_pixel(small, at), at)
    else:
      ul = uls.pop()
    for block, u in zip(self.ul_out, told[self.num_blocks :], strict=True):
      ul = block(ul, jnp.concatenate([u, uls.pop()], axis=-1), use)
    return ul

  def _inner_pixel(self, ul: Array, at: At) -> Array:
    """Pixel (i, j) // 2 of the level inside, which even i and j compute."""
    shape = (len(ul), at.width // 2, self.width)
    row = self.get_variable("cache", "inner_ul", jnp.zeros(shape, ul.dtype))
    inside = At(at.i // 2, at.j // 2, at.width // 2)
    run = lambda self, ul: self.inner.pixel(ul, inside)
    turn = (at.i % 2 == 0) & (at.j % 2 == 0)
    found = self._when("inner_ul", turn, run, ul, row[:, inside.j])
    self.put_variable("cache", "inner_ul", row.at[:, inside.j].set(found))
    return found

  def _when(
    self, name: str, turn: Array, run: Callable, x: Array, known: Array
  ) -> Array:
    """run(self, x) if it is its turn, else `known`, which is kept under that name."""
    if not self.has_variable("cache", name):
      return run(self, x)  # Nothing is known yet: this only makes the cache.
    return nn.cond(turn, lambda m, x, _: run(m, x), lambda m, _, known: known,
                   self, x, known)  # fmt: skip


class Network(nn.Module):
  """As `jaxgen.autoregressive.pixels` wants it; H and W multiples of 2^(levels - 1).

  Attributes:
    channels: C of an image.
    width: Channels of each stream.
    num_blocks: Of each level, on the way in.
    num_mixtures: Logistics of a pixel.
    num_levels: Resolutions.
    dropout: As for `Block`.
  """

  channels: int
  width: int = 160
  num_blocks: int = 5
  num_mixtures: int = 10
  num_levels: int = 3
  dropout: float = 0.5

  def setup(self) -> None:
    conv = lambda kernel, centred: CausalConv(
      self.channels + 1, self.width, kernel, centred, has_scale=True
    )
    self.u_first, self.above_first = conv((2, 3), True), conv((1, 3), True)
    self.left_first = conv((2, 1), False)
    levels = self.num_levels - 1
    self.level = Level(self.width, self.num_blocks, levels, self.dropout)
    outputs = logistic.num_outputs(self.channels, self.num_mixtures)
    self.out = CausalConv(self.width, outputs, (1, 1), has_scale=True)

  def __call__(self, x: Array, label: Array | None, train: bool = False) -> Array:
    """x f32 [B, H, W, C] -> [B, H, W, P], as `logistic.mixture` reads them."""
    factor = 2 ** (self.num_levels - 1)
    if x.shape[1] % factor or x.shape[2] % factor:
      raise ValueError(f"images {x.shape}: expected sides that {factor} divides")
    x = _with_ones(x)
    u = down(self.u_first(x))
    ul = down(self.above_first(x)) + right(self.left_first(x))
    _, ul = self.level(u, ul, train)
    return self.out.point(nn.elu(ul))

  def row(self, above: Array, label: Array | None, i: Array) -> None:
    """The stream from above, of row i."""
    x = jnp.where(i > 0, _with_ones(above), 0.0)
    first = lambda conv: jnp.where(i > 0, conv.row(x), 0.0)
    self.level.row(first(self.u_first), i)
    self.put_variable("cache", "above", (x, first(self.above_first)))

  def pixel(self, row: Array, i: Array, j: Array) -> Array:
    """The stream from the left, of pixel (i, j) -> its outputs, [B, P]."""
    above, told = self.get_variable("cache", "above")
    column = jnp.maximum(j - 1, 0)
    before = jnp.stack([above[:, column], _with_ones(row)[:, column]], axis=1)
    ul = jnp.where(j > 0, self.left_first.window(before[:, :, None]), 0.0)
    ul = self.level.pixel(told[:, j] + ul, At(i, j, row.shape[1]))
    return self.out.point(nn.elu(ul))


def _with_ones(x: Array) -> Array:
  """A channel of ones behind the others, by which padding is known from an image."""
  return jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)


def logistic_mixture(channels: int, num_mixtures: int = 10) -> Pixels:
  """256 levels; outputs [..., P] as `logistic.mixture` reads them, a pixel at once."""

  def log_prob(x: Array, outputs: Array) -> Array:
    return logistic.log_pixel(x, logistic.mixture(outputs, channels, num_mixtures))

  def draw(outputs: Array, pixel: Array, n: int, key: Array) -> Array:
    return logistic.draw_pixel(logistic.mixture(outputs, channels, num_mixtures), key)

  return Pixels(1, lambda image, key: image, log_prob, draw)


def pixel_cnn_pp(
  net: Network,
  *,
  tx: optax.GradientTransformation,
  ema_decay: float | None = 0.9995,
) -> Method:
  """A PixelCNN++, in all as `jaxgen.autoregressive.pixels.autoregression` says.

  Args:
    net: `Network`.
    tx: Its optimiser.
    ema_decay: Of averaged parameters; None keeps no average.
  """
  pixels = logistic_mixture(net.channels, net.num_mixtures)
  return autoregression(net, tx=tx, pixels=pixels, ema_decay=ema_decay)
