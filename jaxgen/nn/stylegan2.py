"""Networks of StyleGAN2: modulated convolutions and a residual discriminator.

Karras, Laine, Aittala, Hellsten, Lehtinen & Aila (2019), "Analyzing and Improving the
Image Quality of StyleGAN", arXiv 1912.04958, Sections 2.2 and 4; the discriminator
without residual branches and with labels is that of Karras et al. (2020), arXiv
2006.06676. A generator is `jaxgen.nn.style.StyleGenerator` of a `Mapping` and the
`Synthesis` here.

Deviations: no clamping of activations (of their half precision; bfloat16 needs none);
noise is drawn anew in every pass; images are clipped to [-1, 1] outside of training;
groups of the minibatch deviation are neighbouring rows.
"""

from typing import Any

from flax import linen as nn
from jax import Array, lax
import jax.numpy as jnp

from jaxgen.nn.equalized import EqualConv, EqualDense, minibatch_stddev
from jaxgen.nn.progressive import SQRT2, check_resolution, width_at
from jaxgen.nn.strided_conv import LAYOUT, conv_transpose, strided_conv
from jaxgen.nn.style import Mapping, NoiseInput
from jaxgen.ops.upfirdn import downsample2d, fir_taps, separable2d, upsample2d


def activate(x: Array) -> Array:
  """Leaky ReLU of slope 0.2 that keeps the variance of N(0, 1) near 1."""
  return SQRT2 * nn.leaky_relu(x, 0.2)


def widths(resolution: int, channel_base: int, channel_max: int) -> dict[int, int]:
  """Channels at every resolution from 4 on, see `width_at`.

  Raises:
    ValueError: If `resolution` is no power of two from 4 on.
  """
  check_resolution(resolution)
  sides = [2**i for i in range(2, resolution.bit_length())]
  return {side: width_at(side, channel_base, channel_max) for side in sides}


def modulated_conv(
  x: Array, kernel: Array, style: Array, *, demodulate: bool = True, up: bool = False
) -> Array:
  """A convolution whose input channels are scaled for every example (Section 2.2).

  The weights of example b are w[..., i, o] style[b, i], divided by their norm over all
  axes but o if they are demodulated (Eq. 1 and 3): inputs of variance 1 give outputs of
  variance 1. Written as it is cheap: channels are scaled before and after one
  convolution, which all examples share.

  Args:
    x: [B, H, W, I].
    kernel: f32 [K, K, I, O], K odd.
    style: f32 [B, I].
    demodulate: See above.
    up: Whether the image is doubled on the way, by zeros and the filter [1, 3, 3, 1]
      after the convolution.

  Returns:
    [B, H', W', O] in the dtype of x.
  """
  y = x * style[:, None, None].astype(x.dtype)
  weights = kernel.astype(x.dtype)
  if up:
    margin = kernel.shape[0] - 1  # everything that the convolution touches
    y = conv_transpose(y, weights, (2, 2), ((margin, margin), (margin, margin)))
    y = separable2d(y, 2 * fir_taps(), pad=(2 - margin // 2, 2 - margin // 2))
  else:
    y = lax.conv_general_dilated(y, weights, (1, 1), "SAME", dimension_numbers=LAYOUT)
  if demodulate:
    power = style**2 @ jnp.sum(kernel**2, axis=(0, 1))
    y = y * lax.rsqrt(power + 1e-8)[:, None, None].astype(y.dtype)
  return y


class ModulatedConv(nn.Module):
  """`modulated_conv` by an affine map of w; its gain counts if nothing is demodulated.

  Attributes:
    features: Output channels.
    size: Side of the kernel.
    demodulate: See `modulated_conv`.
    up: See `modulated_conv`.
  """

  features: int
  size: int = 3
  demodulate: bool = True
  up: bool = False

  @nn.compact
  def __call__(self, x: Array, w: Array) -> Array:
    """x [B, H, W, C], w f32 [B, w_dim] -> [B, H', W', features]."""
    style = EqualDense(x.shape[-1], bias_init=1.0, name="style")(w)
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
    if not self.demodulate:
      style = style * (self.size**2 * x.shape[-1]) ** -0.5
    return modulated_conv(x, kernel, style, demodulate=self.demodulate, up=self.up)


class AddBias(nn.Module):
  """Adds one number per channel, zero at the start."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, H, W, C] -> the same."""
    bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
    return x + bias.astype(x.dtype).reshape(1, 1, 1, -1)


class StyledConv(nn.Module):
  """Modulated convolution, noise, bias, leaky ReLU (Fig. 2 d)."""

  features: int
  up: bool = False

  @nn.compact
  def __call__(self, x: Array, w: Array) -> Array:
    """x [B, H, W, C], w f32 [B, w_dim] -> [B, H', W', features]."""
    x = ModulatedConv(self.features, up=self.up, name="conv")(x, w)
    x = NoiseInput(per_channel=False, name="noise")(x)
    return activate(AddBias(name="bias")(x))


class Synthesis(nn.Module):
  """Styles to images: every resolution adds to the image (Section 4.1, Fig. 7 b).

  Attributes:
    resolution: Side of the images, a power of two.
    channels: Of the images.
    channel_base: See `width_at`: 32768 is config F.
    channel_max: See `width_at`.
    dtype: Of the features; parameters and images are float32.
  """

  resolution: int = 256
  channels: int = 3
  channel_base: int = 32768
  channel_max: int = 512
  dtype: Any = None

  @property
  def num_ws(self) -> int:
    """Styles: one per convolution, one more for the last image."""
    return 2 * len(widths(self.resolution, 1, 1))

  @nn.compact
  def __call__(self, ws: Array, train: bool = False) -> Array:
    """ws f32 [B, num_ws, w_dim] -> images f32 [B, H, W, channels].

    In [-1, 1] outside of training, where they are clipped.
    """
    sides = widths(self.resolution, self.channel_base, self.channel_max)
    dtype = self.dtype or ws.dtype
    first = self.param("const", nn.initializers.normal(1.0), (4, 4, sides[4]))
    x = jnp.broadcast_to(first.astype(dtype), (len(ws), *first.shape))
    image, layer = 0.0, 0
    for side, features in sides.items():
      if side > 4:
        x = StyledConv(features, up=True, name=f"up_{side}")(x, ws[:, layer])
        image = upsample2d(image, fir_taps())
        layer += 1
      x = StyledConv(features, name=f"conv_{side}")(x, ws[:, layer])
      layer += 1
      to_image = ModulatedConv(self.channels, 1, demodulate=False, name=f"image_{side}")
      y = AddBias(name=f"bias_{side}")(to_image(x, ws[:, layer]))
      image = image + y.astype(jnp.promote_types(y.dtype, jnp.float32))
    return image if train else jnp.clip(image, -1.0, 1.0)


class DownConv(nn.Module):
  """Filter, convolution of stride 2 with an equalised learning rate, leaky ReLU."""

  features: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, H, W, C] -> [B, H / 2, W / 2, features]."""
    shape = (3, 3, x.shape[-1], self.features)
    kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
    kernel = (kernel * (9 * x.shape[-1]) ** -0.5).astype(x.dtype)
    x = separable2d(x, fir_taps(), pad=(2, 2))
    x = strided_conv(x, kernel, (2, 2), ((0, 0), (0, 0)))
    return activate(AddBias(name="bias")(x))


class DiscriminatorBlock(nn.Module):
  """Two convolutions that halve the side, with a residual branch (Fig. 7 c) or none."""

  features: int
  residual: bool = True
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, H, W, C] -> [B, H / 2, W / 2, features]."""
    y = activate(EqualConv(x.shape[-1], dtype=self.dtype, name="conv")(x))
    y = DownConv(self.features, name="down")(y)
    if not self.residual:
      return y
    skip = EqualConv(self.features, 1, use_bias=False, dtype=self.dtype, name="skip")
    return (y + skip(downsample2d(x, fir_taps()))) / SQRT2


class Discriminator(nn.Module):
  """Images to scores (Section 4.1); with classes, to a projection (2006.06676).

  Attributes:
    channel_base: See `width_at`.
    channel_max: See `width_at`.
    residual: False for the CIFAR-10 network of 2006.06676 ("orig").
    group_size: Of the minibatch deviation; it must divide the batch of a device.
    num_classes: 0 ignores the label. With classes a score is the inner product of
      features and a mapped label.
    num_label_layers: Of the network that maps the label.
    dtype: Of the features; parameters, the last layers and scores are float32.
  """

  channel_base: int = 32768
  channel_max: int = 512
  residual: bool = True
  group_size: int = 4
  num_classes: int = 0
  num_label_layers: int = 8
  dtype: Any = None

  @nn.compact
  def __call__(
    self, x: Array, label: Array | None = None, train: bool = False
  ) -> Array:
    """x f32 [B, H, W, C], H = W a power of two -> scores f32 [B].

    Raises:
      ValueError: If x has other sides.
    """
    batch, resolution = len(x), x.shape[1]
    if x.shape[2] != resolution:
      raise ValueError(f"images of {x.shape[1:3]} pixels: expected squares")
    sides = widths(resolution, self.channel_base, self.channel_max)
    first = EqualConv(sides[resolution], 1, dtype=self.dtype, name="image")
    y = activate(first(x))
    for side in sorted(sides, reverse=True)[:-1]:
      block = DiscriminatorBlock(
        sides[side // 2], self.residual, self.dtype, name=f"block_{side}"
      )
      y = block(y)
    y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    y = minibatch_stddev(y, self.group_size)
    y = activate(EqualConv(sides[4], name="conv")(y)).reshape(batch, -1)
    y = activate(EqualDense(sides[4], name="dense")(y))
    if not self.num_classes:
      return EqualDense(1, name="score")(y)[:, 0]
    layers, width = self.num_label_layers, sides[4]
    embed = Mapping(layers, width, width, self.num_classes, name="label")
    mapped = embed(jnp.zeros((batch, 0), y.dtype), label)
    score = EqualDense(sides[4], name="score")(y) * mapped
    return score.sum(axis=-1) * sides[4] ** -0.5
