"""Convolutions whose derivatives are quick on CPUs, too.

Strided and transposed: the gradient of a kernel that XLA derives from a transposed
convolution is a convolution of an image with zeros between its pixels by another such
image; on CPUs that runs 10 to 20 times slower than it should
(`tests/bench/convolutions.py`). The same sum is the gradient of the kernel of the
strided convolution that goes the other way. So each of the two here is the gradient of
the other, as often as one differentiates: of a strided one, a penalty on the gradient
of the image needs it (R1).

A kernel larger than the image (5 x 5 on the 4 x 4 map at the bottom of a GAN) takes the
slowest of XLA's ways on CPUs, 6 to 35 times slower. Such small images are padded first.

A kernel of 1 x 1 is a matrix, and its convolution a product, whose gradient on CPUs is
1.1 to 1.7 times faster than the convolution that XLA makes of it (the same command).
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

from flax import linen as nn
import jax
from jax import Array, lax
import jax.numpy as jnp

LAYOUT = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def strided_conv(x: Array, kernel: Array, strides: Pair, pads: Pads) -> Array:
  """`lax.conv_general_dilated`, for reverse-mode derivatives of any order.

  Args:
    x: [B, H, W, I].
    kernel: [K, L, I, O], of the dtype of x.
    strides: (s, t), pixels between two places of the kernel.
    pads: Zeros around the image, ((top, bottom), (left, right)).

  Returns:
    [B, (H + top + bottom - K) // s + 1, W' likewise, O].
  """
  return _convolve(x, kernel, strides, pads, (1, 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_transpose(x: Array, kernel: Array, strides: Pair, pads: Pads) -> Array:
  """`lax.conv_transpose`, for reverse-mode derivatives of any order.

  Args:
    x: [B, H, W, I].
    kernel: [K, L, I, O], of the dtype of x.
    strides: (s, t): pixels are that far apart, with zeros between them.
    pads: Zeros around that, ((top, bottom), (left, right)); see `same_pads`.

  Returns:
    [B, (H - 1) s + 2 + top + bottom - K, W' likewise, O].
  """
  return _convolve(x, kernel, (1, 1), pads, strides)


def _convolve(
  x: Array, kernel: Array, strides: Pair, pads: Pads, spread: Pair
) -> Array:
  """`lax.conv_general_dilated`; pixels of x are `spread` apart."""
  convolve = functools.partial(lax.conv_general_dilated, dimension_numbers=LAYOUT)
  if all(side >= size for side, size in zip(x.shape[1:3], kernel.shape, strict=False)):
    return convolve(x, kernel, strides, pads, spread)
  rows, columns = map(_grown, x.shape[1:3], kernel.shape, pads, spread)
  x = jnp.pad(x, ((0, 0), (0, rows[0]), (0, columns[0]), (0, 0)))
  x = lax.optimization_barrier(x)  # XLA would make one convolution of both again.
  y = convolve(x, kernel, strides, (rows[1], columns[1]), spread)
  return y[:, : rows[2] // strides[0] + 1, : columns[2] // strides[1] + 1]


def _grown(side: int, size: int, pads: Pair, spread: int) -> tuple[int, Pair, int]:
  """(pixels to add after a side, so that it is no less than `size`; zeros then left to
  add around it; how far the kernel moves over what was asked for).
  """
  more = max(size - side, 0)
  left = pads[0], max(pads[1] - more * spread, 0)
  return more, left, (side - 1) * spread + 1 + sum(pads) - size


def _turned(kernel: Array) -> Array:
  """The kernel of the way back."""
  return kernel[::-1, ::-1].swapaxes(2, 3)


def _kernel_bar(x: Array, kernel: Array, g: Array, strides: Pair, pads: Pads) -> Array:
  """The gradient of the kernel of `strided_conv`: g is that of its output."""
  of_kernel = lambda w: lax.conv_general_dilated(
    x, w, strides, pads, dimension_numbers=LAYOUT
  )
  return jax.linear_transpose(of_kernel, kernel)(g)[0]


def _strided_back(
  strides: Pair, pads: Pads, saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  x, kernel = saved
  back = []
  for i, (before, _) in enumerate(pads):
    first = kernel.shape[i] - 1 - before
    grown = (g.shape[i + 1] - 1) * strides[i] + 2 + first - kernel.shape[i]
    back.append((first, x.shape[i + 1] - grown))
  x_bar = conv_transpose(g, _turned(kernel), strides, tuple(back))
  return x_bar, _kernel_bar(x, kernel, g, strides, pads)


def _transpose_back(
  strides: Pair, pads: Pads, saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  x, kernel = saved
  turned = _turned(kernel)
  back = tuple(
    (kernel.shape[i] - 1 - before, kernel.shape[i] - 1 - after)
    for i, (before, after) in enumerate(pads)
  )
  x_bar = strided_conv(g, turned, strides, back)
  return x_bar, _turned(_kernel_bar(g, turned, x, strides, back))


strided_conv.defvjp(
  lambda x, k, *how: (strided_conv(x, k, *how), (x, k)), _strided_back
)
conv_transpose.defvjp(
  lambda x, k, *how: (conv_transpose(x, k, *how), (x, k)), _transpose_back
)


def pixel_conv(
  x: Array, kernel: Array, strides: Sequence[int], padding: Any, **options: Any
) -> Array:
  """`lax.conv_general_dilated` of LAYOUT, as a product where a kernel is one pixel.

  Also for `nn.Conv(conv_general_dilated=...)`, undilated.
  """
  one = kernel.shape[:2] == (1, 1) and kernel.shape[2] == x.shape[-1]
  padded = not isinstance(padding, str) and any(map(any, padding))
  if one and set(strides) == {1} and not padded:
    return jnp.dot(x, kernel[0, 0], precision=options.get("precision"))
  given = {"dimension_numbers": LAYOUT, **options}
  return lax.conv_general_dilated(x, kernel, strides, padding, **given)


Conv1x1 = functools.partial(
  nn.Conv, kernel_size=(1, 1), conv_general_dilated=pixel_conv
)


def conv_of_flax(
  x: Array, kernel: Array, strides: Pair, padding: str | Pads, **_: Any
) -> Array:
  """`strided_conv` for `nn.Conv(conv_general_dilated=...)`, undilated, of one group."""
  pads = padding
  if isinstance(padding, str):
    pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
  return strided_conv(x, kernel, tuple(strides), tuple(map(tuple, pads)))


def same_pads(size: int, stride: int) -> Pair:
  """The zeros with which a side of n pixels becomes one of n times `stride`."""
  total = size + stride - 2
  before = size - 1 if stride > size - 1 else -(-total // 2)
  return before, total - before


class ConvTranspose(nn.Module):
  """`nn.ConvTranspose` of images, with the same parameters and outputs.

  Attributes:
    features: Output channels.
    kernel_size: (K, L).
    strides: (s, t): the image grows s and t times.
    padding: Zeros around the image with zeros between its pixels, see
      `conv_transpose`; default those of "SAME".
    use_bias: Whether a number per channel is added.
    dtype: Of the computation; None: that of the input and the parameters.
    kernel_init: (key, shape, dtype) -> kernel.
  """

  features: int
  kernel_size: Pair
  strides: Pair = (1, 1)
  padding: Sequence[Pair] | None = None
  use_bias: bool = True
  dtype: Any = None
  kernel_init: Callable = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, H, W, I] -> [B, H', W', features]."""
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
    bias = None
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    pads = self.padding or map(same_pads, self.kernel_size, self.strides)
    y = conv_transpose(x, kernel, tuple(self.strides), tuple(map(tuple, pads)))
    return y if bias is None else y + bias[None, None, None]
