"""PixelRNN: images pixel by pixel, by LSTMs over rows and diagonals.

van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel Recurrent Neural Networks" (2016),
https://arxiv.org/abs/1601.06759: the Row LSTM (Section 3.1), the Diagonal BiLSTM (3.2),
residual connections (3.3), masks (3.4), layers as in Table 1. (Numbers of sections,
equations and tables are from memory.)

Deviations from the paper:
  - The first 7x7 convolution of mask A is one over the rows above and one over the row
    itself, the same taps.
  - Pixels off the image count as states of zeros for the diagonal LSTM, so that its
    skewed map, whose corners are empty, gives what steps from pixel to pixel give.
  - Adam in place of RMSProp, in the experiments.
"""

from collections.abc import Callable

from flax import linen as nn
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.autoregressive.pixels import Pixels, autoregression
from jaxgen.method import Array, Method
from jaxgen.nn.causal_conv import (
  At,
  CausalConv,
  PixelHead,
  down,
  group_mask,
)
from jaxgen.nn.made import MaskedDense


def lstm(gates: Array, c: Array) -> tuple[Array, Array]:
  """Gates as given, [..., 4 h], and the cell's state, [..., h] -> h, c (Eq. 3)."""
  o, f, i, g = jnp.split(gates, 4, axis=-1)
  c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
  return nn.sigmoid(o) * nn.tanh(c), c


class RowLSTM(nn.Module):
  """Row by row; a state sees the three above it.

  Attributes:
    width: h, a multiple of `colours`; the input has 2 h channels.
    colours: Groups of channels.
  """

  width: int
  colours: int

  def setup(self) -> None:
    mask = group_mask(2 * self.width, self.width, self.colours, strict=False)
    mask = np.tile(mask, (1, 4))
    self.to_state = CausalConv(2 * self.width, 4 * self.width, (1, 2), mask=mask)
    shape = (3 * self.width, 4 * self.width)
    self.state = self.param("state", nn.initializers.lecun_normal(), shape)

  def _from_state(self, h: Array) -> Array:
    """Of a row, [B, W, h] -> [B, W, 4 h] for the next."""
    padded = jnp.pad(h, ((0, 0), (1, 1), (0, 0)))
    near = jnp.concatenate([padded[:, :-2], h, padded[:, 2:]], axis=-1)
    return near @ self.state

  def __call__(self, x: Array) -> Array:
    """f32 [B, H, W, 2 h] -> [B, H, W, h]."""
    gates = jnp.moveaxis(self.to_state(x), 1, 0)
    start = jnp.zeros((*gates.shape[1:3], self.width), x.dtype)

    def next_row(carry: tuple[Array, Array], gates: Array) -> tuple[tuple, Array]:
      h, c = lstm(gates + self._from_state(carry[0]), carry[1])
      return (h, c), h

    return jnp.moveaxis(lax.scan(next_row, (start, start), gates)[1], 0, 1)

  def row(self, i: Array, batch: int, width: int) -> None:
    """Begins row i."""
    empty = jnp.zeros((batch, width, self.width))
    h, c = (self.get_variable("cache", name, empty) for name in ("h", "c"))
    self.put_variable("cache", "told", (self._from_state(h), c))
    self.put_variable("cache", "h", h)
    self.put_variable("cache", "c", c)

  def pixel(self, x: Array, at: At) -> Array:
    """Pixel `at`, [B, 2 h] -> [B, h]."""
    told, before = self.get_variable("cache", "told")
    seen = self.to_state.pixel(x, at._replace(i=0))
    h, c = lstm(seen + told[:, at.j], before[:, at.j])
    for name, value in (("h", h), ("c", c)):
      row = self.get_variable("cache", name)
      self.put_variable("cache", name, row.at[:, at.j].set(value))
    return h


class DiagonalLSTM(nn.Module):
  """From the top left: a state sees that to its left and that above it.

  Attributes: as of `RowLSTM`.
  """

  width: int
  colours: int

  def setup(self) -> None:
    mask = group_mask(2 * self.width, self.width, self.colours, strict=False)
    self.to_state = MaskedDense(np.tile(mask, (1, 4)))
    shape = (2 * self.width, 4 * self.width)
    self.state = self.param("state", nn.initializers.lecun_normal(), shape)

  def gates(self, x: Array) -> Array:
    """What inputs say: [..., 2 h] -> [..., 4 h]."""
    flat = self.to_state(x.reshape(-1, x.shape[-1]))
    return flat.reshape(*x.shape[:-1], -1)

  def step(self, gates: Array, left: Array, c: Array, above: Array) -> tuple:
    """One state, of any batch axes: h to its left with its c, and h above -> h, c."""
    return lstm(gates + jnp.concatenate([above, left], axis=-1) @ self.state, c)

  def __call__(self, x: Array) -> Array:
    """f32 [B, H, W, 2 h] -> [B, H, W, h], along diagonals of the skewed map."""
    num, height, width, _ = x.shape
    row = np.arange(height)
    column = np.arange(width + height - 1)[:, None] - row[None]  # [diagonals, H]
    on_image = (column >= 0) & (column < width)
    skewed = self.gates(x)[:, row[None], column.clip(0, width - 1)]
    start = jnp.zeros((num, height, self.width), x.dtype)

    def next_diagonal(carry: tuple[Array, Array], known: tuple) -> tuple[tuple, Array]:
      (h, c), (gates, valid) = carry, known
      above = jnp.pad(h, ((0, 0), (1, 0), (0, 0)))[:, :-1]
      h, c = (
        jnp.where(valid[None, :, None], s, 0.0) for s in self.step(gates, h, c, above)
      )
      return (h, c), h

    known = jnp.moveaxis(skewed, 1, 0), jnp.asarray(on_image)
    _, h = lax.scan(next_diagonal, (start, start), known)
    place = row[:, None] + np.arange(width)[None]  # Diagonal of (i, j).
    return jnp.moveaxis(h[place, :, row[:, None]], 2, 0)

  def one_row(self, x: Array, above: Array) -> Array:
    """A row from left to right: its inputs [B, W, 2 h], h above -> h, [B, W, h]."""
    start = jnp.zeros_like(above[:, 0])

    def next_pixel(carry: tuple[Array, Array], known: tuple) -> tuple[tuple, Array]:
      h, c = self.step(known[0], *carry, known[1])
      return (h, c), h

    known = jnp.moveaxis(self.gates(x), 1, 0), jnp.moveaxis(above, 1, 0)
    return jnp.moveaxis(lax.scan(next_pixel, (start, start), known)[1], 0, 1)


class DiagonalBiLSTM(nn.Module):
  """One from the top left and one from the top right, a row behind (Section 3.2).

  Attributes: as of `RowLSTM`.
  """

  width: int
  colours: int

  def setup(self) -> None:
    self.left = DiagonalLSTM(self.width, self.colours)
    self.right = DiagonalLSTM(self.width, self.colours)

  def __call__(self, x: Array) -> Array:
    """f32 [B, H, W, 2 h] -> [B, H, W, h]."""
    return self.left(x) + down(self.right(x[:, :, ::-1])[:, :, ::-1])

  def row(self, i: Array, batch: int, width: int) -> None:
    """Begins row i: the one from the right over the row before it."""
    empty = jnp.zeros((batch, width, self.width))
    inputs = jnp.zeros((batch, width, 2 * self.width))
    x = self.get_variable("cache", "x", inputs)
    before = self.get_variable("cache", "right", empty)
    right = self.right.one_row(x[:, ::-1], before[:, ::-1])[:, ::-1]
    right = jnp.where(i > 0, right, 0.0)
    h = self.get_variable("cache", "h", empty)
    self.put_variable("cache", "x", x)
    self.put_variable("cache", "right", right)
    self.put_variable("cache", "above", h)
    self.put_variable("cache", "h", h)
    self.put_variable("cache", "c", self.get_variable("cache", "c", empty))

  def pixel(self, x: Array, at: At) -> Array:
    """Pixel `at`, [B, 2 h] -> [B, h]."""
    rows = {n: self.get_variable("cache", n) for n in ("x", "h", "c", "right", "above")}
    before = lambda row: jnp.where(at.j > 0, row[:, jnp.maximum(at.j - 1, 0)], 0.0)
    left, cell, above = before(rows["h"]), before(rows["c"]), rows["above"][:, at.j]
    h, c = self.left.step(self.left.gates(x), left, cell, above)
    for name, value in (("x", x), ("h", h), ("c", c)):
      self.put_variable("cache", name, rows[name].at[:, at.j].set(value))
    return h + rows["right"][:, at.j]


class Network(nn.Module):
  """Residual layers of LSTMs; as `jaxgen.autoregressive.pixels` wants it.

  Attributes:
    channels: C of an image. In order, they see one another.
    num_outputs: K for each of them: 1 log odds, or so many logits.
    layer: (width, colours) -> `RowLSTM` or `DiagonalBiLSTM`.
    width: h of them, a multiple of C; 2 h is what they are added to.
    num_layers: Of them.
    first_size: n of the first convolution, odd.
    head_width: Channels between the last two layers, a multiple of C.
  """

  channels: int
  num_outputs: int
  layer: Callable[[int, int], nn.Module]
  width: int
  num_layers: int
  first_size: int = 7
  head_width: int = 32

  def setup(self) -> None:
    radius, wide = self.first_size // 2, 2 * self.width
    if self.first_size < 3 or self.first_size % 2 == 0:
      raise ValueError(f"first_size={self.first_size}: expected an odd one from 3")
    mask = group_mask(self.channels, wide, self.channels, strict=True)
    self.above = CausalConv(self.channels, wide, (radius, 2 * radius + 1), centred=True)
    self.beside = CausalConv(self.channels, wide, (1, radius + 1), mask=mask)
    self.layers = [
      self.layer(self.width, self.channels) for _ in range(self.num_layers)
    ]
    mask = group_mask(self.width, wide, self.channels, strict=False)
    self.ups = [MaskedDense(mask) for _ in range(self.num_layers)]
    self.head = PixelHead(self.channels, wide, self.head_width, self.num_outputs)

  def __call__(self, x: Array, label: None, train: bool = False) -> Array:
    """x f32 [B, H, W, C] -> [B, H, W, C], or [B, H, W, C, K] if K > 1."""
    h = self.above(down(x)) + self.beside(x)
    for layer, up in zip(self.layers, self.ups, strict=True):
      h = h + up(layer(h).reshape(-1, self.width)).reshape(h.shape)
    return self.head(h)

  def row(self, above: Array, label: None, i: Array) -> None:
    """All that row i sees of the rows above it."""
    self.put_variable("cache", "told", self.above.row(above))
    for layer in self.layers:
      layer.row(i, *above.shape[:2])

  def pixel(self, row: Array, i: Array, j: Array) -> Array:
    """The states of pixel (i, j) -> its outputs, [B, C] or [B, C, K]."""
    h = self.get_variable("cache", "told")[:, j] + self.beside.ending(row, j)
    for layer, up in zip(self.layers, self.ups, strict=True):
      h = h + up(layer.pixel(h, At(i, j, row.shape[1])))
    return self.head(h)


def pixel_rnn(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  pixels: Pixels,
  ema_decay: float | None = None,
) -> Method:
  """A PixelRNN, in all as `jaxgen.autoregressive.pixels.autoregression` says.

  Args:
    net: `Network`, with the outputs that `pixels` reads.
    tx: Its optimiser.
    pixels: `pixels.binary()`, or `pixels.levels(C)` for the softmax over 256 levels.
    ema_decay: Of averaged parameters; None keeps no average.
  """
  return autoregression(net, tx=tx, pixels=pixels, ema_decay=ema_decay)
