"""PixelCNN: images pixel by pixel, by masked convolutions.

van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel Recurrent Neural Networks" (2016),
https://arxiv.org/abs/1601.06759: the order of pixels and colours, the masks, the
softmax over 256 levels. van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves &
Kavukcuoglu, "Conditional Image Generation with PixelCNN Decoders" (2016),
https://arxiv.org/abs/1606.05328: the network, of gated layers in a vertical and a
horizontal stack, which leave no blind spot (Figure 2), conditioned on labels (Eq. 4).

Numbers of sections, equations, figures and tables are from memory.

Deviations from the papers:
  - Vertical convolutions have ceil(n / 2) rows of n taps, cut out of the paper's n x n.
    So have horizontal ones, whose taps for the present pixel are masked by colours.
  - The last layers, after the horizontal stack, are the first paper's two 1x1
    convolutions after relus, in place of more of the second's.
  - A label's vector is added once in each stack of a layer, the same for all pixels.
  - Adam in place of RMSProp, in the experiments.
  - The first paper's network of 3x3 convolutions, with its blind spot, is left out.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.autoregressive.pixels import Pixels, autoregression
from jaxgen.method import Array, Method
from jaxgen.nn.causal_conv import (
  At,
  CausalConv,
  PixelHead,
  Use,
  by_pixel,
  by_row,
  down,
  group_mask,
  whole,
)
from jaxgen.nn.made import MaskedDense


def gated(x: Array) -> Array:
  """tanh(first half) * sigmoid(second half) of the channels (Eq. 2)."""
  a, b = jnp.split(x, 2, axis=-1)
  return nn.tanh(a) * nn.sigmoid(b)


class Layer(nn.Module):
  """One layer of both stacks (Figure 2).

  Attributes:
    width: Channels, p in the figure.
    size: n, odd.
    colours: Groups of channels in the horizontal stack.
    inputs: Channels of an image for the first layer, which sees no present pixel and
      has no residual connection; None for the others.
    num_classes: 0: no labels.
  """

  width: int
  size: int
  colours: int
  inputs: int | None = None
  num_classes: int = 0

  def setup(self) -> None:
    radius, first = self.size // 2, self.inputs is not None
    inputs, outputs = self.inputs or self.width, 2 * self.width
    # Above the present row; in later layers up to it, of what is about rows above it.
    shape = (radius if first else radius + 1, self.size)
    self.vertical = CausalConv(inputs, outputs, shape, centred=True)
    self.to_horizontal = nn.Dense(outputs)
    self.horizontal = CausalConv(
      inputs, outputs, (1, radius + 1), mask=self._mask(inputs, 2, strict=first)
    )
    self.out = MaskedDense(self._mask(self.width, 1, strict=False))
    if self.num_classes:
      self.vertical_label = nn.Embed(self.num_classes, outputs)
      self.horizontal_label = nn.Embed(self.num_classes, outputs)

  def _mask(self, inputs: int, copies: int, *, strict: bool) -> np.ndarray:
    mask = group_mask(inputs, self.width, self.colours, strict=strict)
    return np.tile(mask, (1, copies))

  def from_above(
    self, v: Array, label: Array | None, use: Use = whole
  ) -> tuple[Array, Array]:
    """v -> the next v, and what it tells the horizontal stack; [B, ..., W, ...]."""
    h = use(self.vertical, v)
    spread = lambda table: jnp.expand_dims(table(label), range(1, h.ndim - 1))
    if self.num_classes:
      h = h + spread(self.vertical_label)
    told = self.to_horizontal(h)
    if self.num_classes:
      told = told + spread(self.horizontal_label)
    return gated(h), told

  def from_left(self, h: Array, seen: Array, told: Array) -> Array:
    """h, and its convolution -> the next h."""
    g = gated(seen + told)
    out = self.out(g.reshape(-1, self.width)).reshape(g.shape)
    return out if self.inputs is not None else h + out


class Network(nn.Module):
  """Gated layers, then two of 1x1; as `jaxgen.autoregressive.pixels` wants it.

  Attributes:
    channels: C of an image. In order, they see one another.
    num_outputs: K for each of them: 1 log odds, or so many logits.
    width: Channels of each stack, a multiple of C.
    num_layers: Gated layers.
    first_size: n of the first of them; the paper's 7.
    size: n of the others.
    head_width: Channels between the last two layers, a multiple of C.
    num_classes: Of labels; 0 for none.
    unroll: Layers in one turn of the loop over those after the first, which are alike.
      All of them (num_layers) compute several times faster on a CPU, whose convolutions
      are slow inside of loops, and take longer to compile.
  """

  channels: int
  num_outputs: int
  width: int
  num_layers: int
  first_size: int = 7
  size: int = 3
  head_width: int = 32
  num_classes: int = 0
  unroll: int = 1

  def setup(self) -> None:
    if min(self.size, self.first_size) < 3 or self.size * self.first_size % 2 == 0:
      raise ValueError(
        f"size={self.size}, first_size={self.first_size}: expected odd ones from 3"
      )
    layer = lambda size, inputs: Layer(
      self.width, size, self.channels, inputs, self.num_classes
    )
    self.first, self.later = (
      layer(self.first_size, self.channels),
      layer(self.size, None),
    )
    self.head = PixelHead(self.channels, self.width, self.head_width, self.num_outputs)

  def __call__(self, x: Array, label: Array | None, train: bool = False) -> Array:
    """x f32 [B, H, W, C] -> [B, H, W, C], or [B, H, W, C, K] if K > 1."""

    def step(layer: Layer, streams: tuple[Array, Array], _: None) -> tuple:
      v, told = layer.from_above(streams[0], label)
      return (v, layer.from_left(streams[1], layer.horizontal(streams[1]), told)), None

    v, told = self.first.from_above(down(x), label)
    h = self.first.from_left(x, self.first.horizontal(x), told)
    (_, h), _ = self._each(step, (v, h))
    return self.head(h)

  def row(self, above: Array, label: Array | None, i: Array) -> None:
    """The vertical stack of row i, which sees rows above it."""
    step = lambda layer, v, _: layer.from_above(v, label, by_row)
    v, told = self.first.from_above(above, label, by_row)
    self.put_variable("cache", "told", (told, self._each(step, v)[1]))

  def pixel(self, row: Array, i: Array, j: Array) -> Array:
    """The horizontal stack of pixel (i, j) -> its outputs, [B, C] or [B, C, K]."""
    at = At(0, j, row.shape[1])  # Kernels of one row: which, is the same to them.
    first, later = self.get_variable("cache", "told")
    seen = self.first.horizontal.ending(row, j)
    h = self.first.from_left(row[:, j], seen, first[:, j])

    def step(layer: Layer, h: Array, told: Array) -> tuple[Array, None]:
      return layer.from_left(h, by_pixel(at)(layer.horizontal, h), told), None

    return self.head(self._each(step, h, later[:, :, j])[0])

  def _each(self, step: Callable, carry: Any, xs: Array | None = None) -> tuple:
    """`step(layer, carry, x)` of each later layer: one loop over stacked parameters."""
    loop = nn.scan(
      step,
      variable_axes={"params": 0, "cache": 0},
      split_rngs={"params": True},
      length=self.num_layers - 1,
      unroll=self.unroll,
    )
    return loop(self.later, carry, xs)


def pixel_cnn(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  pixels: Pixels,
  is_conditional: bool = False,
  ema_decay: float | None = None,
) -> Method:
  """A PixelCNN, in all as `jaxgen.autoregressive.pixels.autoregression` says.

  Args:
    net: `Network`, with the outputs that `pixels` reads.
    tx: Its optimiser.
    pixels: `pixels.binary()`, or `pixels.levels(C)` for the softmax over 256 levels.
    is_conditional: Whether the network has classes, batch["label"].
    ema_decay: Of averaged parameters; None keeps no average.
  """
  return autoregression(
    net, tx=tx, pixels=pixels, is_conditional=is_conditional, ema_decay=ema_decay
  )
