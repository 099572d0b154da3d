"""Convolutions over images in raster order: as a whole, row by row, pixel by pixel.

What was seen before lies in the collection "cache", which starts at zeros, the padding
of the whole convolution. So drawing an image needs each product once: `row` and `pixel`
give row i or pixel (i, j) of what `__call__` gives for the image, as products of
gathered windows with the kernel (XLA computes convolutions slowly inside of loops on a
CPU). Every row, and in it every pixel, must be given, in order.
"""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn
from jax import Array, lax
import jax.numpy as jnp
import numpy as np

from jaxgen.nn.made import MaskedDense
from jaxgen.nn.strided_conv import pixel_conv


class At(NamedTuple):
  """A pixel: row i, column j (int32 []) of images of `width` columns (int)."""

  i: Array | int
  j: Array | int
  width: int


class CausalConv(nn.Module):
  """Output (i, j) sees rows i - kh + 1, ..., i, all of them in kw columns.

  Attributes:
    inputs: Channels.
    features: Channels of the output.
    kernel: (kh, kw).
    centred: Columns j - kw // 2, ..., j + kw // 2; else j - kw + 1, ..., j.
    stride: Of rows and columns; output (i, j) stands at input (i, j) * stride.
    mask: bool [inputs, features] of what sees what in input (i, j); None: all.
    has_scale: Weight normalisation (Salimans & Kingma, 2016): each feature's kernel
      has a direction and a length.
  """

  inputs: int
  features: int
  kernel: tuple[int, int]
  centred: bool = False
  stride: int = 1
  mask: np.ndarray | None = None
  has_scale: bool = False

  def setup(self) -> None:
    shape = (*self.kernel, self.inputs, self.features)
    self.direction = self.param("kernel", nn.initializers.lecun_normal(), shape)
    self.bias = self.param("bias", nn.initializers.zeros, (self.features,))
    if self.has_scale:
      start = lambda _: _norm(self.direction)
      self.scale = self.param("scale", start)

  def _kernel(self) -> Array:
    kernel = self.direction
    if self.has_scale:
      kernel = kernel * (self.scale / _norm(kernel))[None, None, None]
    if self.mask is None:
      return kernel
    seen = np.ones(kernel.shape, bool)
    seen[-1, -1] = self.mask
    return jnp.where(seen, kernel, 0)

  def _sides(self) -> tuple[int, int]:
    """Columns of padding to the left and right."""
    width = self.kernel[1]
    left = width // 2 if self.centred else width - 1
    return left, width - 1 - left

  def __call__(self, x: Array) -> Array:
    """f32 [B, H, W, inputs] -> [B, H / stride, W / stride, features]."""
    pads = (self.kernel[0] - 1, 0), self._sides()
    y = pixel_conv(x, self._kernel(), (self.stride, self.stride), pads)
    return y + self.bias[None, None, None]

  def window(self, x: Array) -> Array:
    """One window, f32 [..., kh, kw, inputs] -> [..., features]."""
    kernel = self._kernel().reshape(-1, self.features)
    flat = x.reshape(*x.shape[:-3], -1)
    return flat @ kernel + self.bias.reshape((1,) * (flat.ndim - 1) + (-1,))

  def point(self, x: Array) -> Array:
    """A 1x1 kernel's product with any pixels, f32 [..., inputs] -> [..., features]."""
    return self.window(x[..., None, None, :])

  def row(self, x: Array) -> Array:
    """The next row, f32 [B, W, inputs] -> of the output, [B, W / stride, features].

    With a stride, what is returned for rows between is to be ignored.
    """
    height, width = self.kernel
    start = jnp.zeros((x.shape[0], height - 1, *x.shape[1:]), x.dtype)
    before = self.get_variable("cache", "rows", start)
    rows = jnp.concatenate([before, x[:, None]], axis=1)
    self.put_variable("cache", "rows", rows[:, 1:])
    padded = jnp.pad(rows, ((0, 0), (0, 0), self._sides(), (0, 0)))
    taps = [
      padded[:, :, b : b + x.shape[1] : self.stride] for b in range(width)
    ]  # [B, kh, W / stride, inputs] each
    return self.window(jnp.moveaxis(jnp.stack(taps, axis=3), 1, 2))

  def ending(self, row: Array, j: Array) -> Array:
    """Output j by a row known so far, f32 [B, W, inputs] -> [B, features]; kh = 1.

    For the first layer: a pixel changes there until all of its channels are drawn.
    """
    width = self.kernel[1]
    padded = jnp.pad(row, ((0, 0), (width - 1, 0), (0, 0)))
    near = lax.dynamic_slice_in_dim(padded, j, width, axis=1)
    return self.window(near[:, None])

  def pixel(self, x: Array, at: At) -> Array:
    """Pixel `at` of the input, f32 [B, inputs] -> that of the output, [B, features].

    With a stride, what is returned for pixels between is to be ignored.
    """
    height, width = self.kernel
    shape = (height, x.shape[0], at.width + width - 1, self.inputs)
    seen = self.get_variable("cache", "pixels", jnp.zeros(shape, x.dtype))
    # Row i lies at i mod kh. To the right of j is what is not read: an older row.
    place = (at.i % height, 0, at.j + width - 1, 0)
    seen = lax.dynamic_update_slice(seen, x[None, :, None], place)
    self.put_variable("cache", "pixels", seen)
    shape = (height, x.shape[0], width, self.inputs)
    near = lax.dynamic_slice(seen, (0, 0, at.j, 0), shape)
    if height > 1:
      near = near[(at.i + 1 + jnp.arange(height)) % height]
    return self.window(jnp.moveaxis(near, 0, 1))


class CausalUpsample(nn.Module):
  """A transposed convolution of stride 2; rows 2 i and 2 i + 1 see row i of its input.

  Attributes: as of `CausalConv`. With `centred` (3 columns) column 2 j sees input j,
  and 2 j + 1 sees j and j + 1; else (2 columns) both see j.
  """

  inputs: int
  features: int
  centred: bool = False
  has_scale: bool = False

  def setup(self) -> None:
    shape = (2, 3 if self.centred else 2, self.inputs, self.features)
    self.direction = self.param("kernel", nn.initializers.lecun_normal(), shape)
    self.bias = self.param("bias", nn.initializers.zeros, (self.features,))
    if self.has_scale:
      start = lambda _: _norm(self.direction)
      self.scale = self.param("scale", start)

  def _kernel(self) -> Array:
    kernel = self.direction
    if self.has_scale:
      kernel = kernel * (self.scale / _norm(kernel))[None, None, None]
    return kernel

  def __call__(self, x: Array) -> Array:
    """f32 [B, H, W, inputs] -> [B, 2 H, 2 W, features]."""
    even, odd = (self._row(x, row) for row in self._kernel())
    y = jnp.stack([even, odd], axis=2)
    return y.reshape(len(x), 2 * x.shape[1], *y.shape[3:])

  def _row(self, x: Array, kernel: Array) -> Array:
    """[..., W, inputs] -> [..., 2 W, features], by one row of the kernel."""
    if self.centred:
      after = jnp.concatenate([x[..., 1:, :], jnp.zeros_like(x[..., :1, :])], axis=-2)
      taps = x @ kernel[1], x @ kernel[2] + after @ kernel[0]
    else:
      taps = x @ kernel[0], x @ kernel[1]
    y = jnp.stack(taps, axis=-2)
    y = y.reshape(*x.shape[:-2], -1, self.features)
    return y + self.bias.reshape((1,) * (y.ndim - 1) + (-1,))

  def row(self, x: Array, i: Array) -> Array:
    """Row i // 2 of the input, [B, W, inputs] -> row i of the output, [B, 2 W, ...]."""
    return self._row(x, self._kernel()[i % 2])

  def pixel(self, x: Array, at: At) -> Array:
    """Pixel `at` of the output of pixel (i, j) // 2 of the input; not if centred."""
    return x @ self._kernel()[at.i % 2, at.j % 2] + self.bias[None]


class PixelHead(nn.Module):
  """Two 1x1 convolutions after relus (arXiv 1601.06759, Table 1); outputs start at 0.

  Attributes:
    channels: C of an image: groups of all channels, each of which sees those before it
      and itself.
    inputs: Channels of the input.
    width: Channels in between.
    num_outputs: K for each of the C.
  """

  channels: int
  inputs: int
  width: int
  num_outputs: int

  def setup(self) -> None:
    mask = lambda a, b: group_mask(a, b, self.channels, strict=False)
    num_outputs = self.channels * self.num_outputs
    self.hidden = MaskedDense(mask(self.inputs, self.width))
    self.logits = MaskedDense(mask(self.width, num_outputs), is_zero=True)

  def __call__(self, h: Array) -> Array:
    """[..., inputs] -> [..., C], or [..., C, K] if K > 1."""
    flat = nn.relu(h).reshape(-1, self.inputs)
    out = self.logits(nn.relu(self.hidden(flat)))
    each = () if self.num_outputs == 1 else (self.num_outputs,)
    return out.reshape(*h.shape[:-1], self.channels, *each)


Use = Callable[[CausalConv, Array], Array]  # one of these three


def whole(conv: CausalConv, x: Array) -> Array:
  """All of an image at once."""
  return conv(x)


def by_row(conv: CausalConv, x: Array) -> Array:
  """The next row of each."""
  return conv.row(x)


def by_pixel(at: At) -> Use:
  """The next pixel, which is `at`."""
  return lambda conv, x: conv.pixel(x, at)


def down(x: Array) -> Array:
  """[B, H, W, C]: every row one lower, zeros on top."""
  return jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def right(x: Array) -> Array:
  """[B, H, W, C]: every column one further right, zeros on the left."""
  return jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]


def group_mask(inputs: int, outputs: int, groups: int, *, strict: bool) -> np.ndarray:
  """bool [inputs, outputs]: which channels may see which, of as many equal groups.

  van den Oord et al., "Pixel Recurrent Neural Networks" (2016), arXiv 1601.06759,
  Section 3.4: mask A (strict) lets a group see those before it, mask B itself as well.

  Raises:
    ValueError: `groups` does not divide a number of channels.
  """
  if inputs % groups or outputs % groups:
    raise ValueError(
      f"{inputs} and {outputs} channels: expected multiples of {groups}, the colours"
    )
  group = lambda count: np.arange(count) * groups // count
  before, after = group(inputs)[:, None], group(outputs)[None]
  return before < after if strict else before <= after


def _norm(kernel: Array) -> Array:
  """Length of each feature's kernel, [features]."""
  return jnp.sqrt((kernel**2).sum(axis=(0, 1, 2)))
