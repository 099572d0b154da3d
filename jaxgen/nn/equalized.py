"""Layers of Karras et al.'s generators: equalised learning rate, pixel norm, stddev.

Karras, Aila, Laine & Lehtinen (2017), arXiv 1710.10196, Sections 3 and 4; learning rate
multipliers as in Karras, Laine & Aila (2018), arXiv 1812.04948, Appendix C.
"""

from typing import Any

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.strided_conv import pixel_conv


def _scaled(
  module: nn.Module, shape: tuple[int, ...], gain: float, lr_multiplier: float
) -> Array:
  """The kernel in use: its parameter is drawn with the same variance in every layer.

  kernel = parameter * lr_multiplier * gain / sqrt(fan in), parameter ~ N(0, 1) /
  lr_multiplier; so Adam, whose steps are of one size, moves all layers alike.
  """
  init = nn.initializers.normal(1.0 / lr_multiplier)
  fan_in = 1
  for length in shape[:-1]:
    fan_in *= length
  return module.param("kernel", init, shape) * (lr_multiplier * gain * fan_in**-0.5)


class EqualDense(nn.Module):
  """A dense layer with an equalised learning rate.

  Attributes:
    features: Of the output.
    gain: Standard deviation of the output for inputs of variance 1.
    lr_multiplier: Learning rate of this layer divided by the optimiser's.
    use_bias: Whether a bias is added.
    bias_init: The bias in use at the start (its parameter is bias_init /
      lr_multiplier).
    dtype: Of the computation; parameters are float32.
  """

  features: int
  gain: float = 1.0
  lr_multiplier: float = 1.0
  use_bias: bool = True
  bias_init: float = 0.0
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] -> [..., features]."""
    shape = (x.shape[-1], self.features)
    kernel = _scaled(self, shape, self.gain, self.lr_multiplier)
    dtype = self.dtype or jnp.result_type(x, kernel)
    y = x.astype(dtype) @ kernel.astype(dtype)
    if not self.use_bias:
      return y
    init = nn.initializers.constant(self.bias_init / self.lr_multiplier)
    bias = self.param("bias", init, (self.features,)) * self.lr_multiplier
    return y + bias.astype(dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class EqualConv(nn.Module):
  """A convolution of stride 1 with an equalised learning rate.

  Attributes:
    features: Output channels.
    size: Side of the kernel.
    gain: Standard deviation of the output for inputs of variance 1.
    use_bias: Whether a bias, zero at the start, is added.
    padding: As `nn.Conv`'s.
    dtype: Of the computation; parameters are float32.
  """

  features: int
  size: int = 3
  gain: float = 1.0
  use_bias: bool = True
  padding: str = "SAME"
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, H, W, C] -> [B, H', W', features]."""
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = _scaled(self, shape, self.gain, 1.0)
    dtype = self.dtype or jnp.result_type(x, kernel)
    y = pixel_conv(x.astype(dtype), kernel.astype(dtype), (1, 1), self.padding)
    if not self.use_bias:
      return y
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return y + bias.astype(dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def pixel_norm(x: Array, epsilon: float = 1e-8) -> Array:
  """x / root mean square over the last axis (Section 4.2): [..., C] -> [..., C]."""
  return x * (jnp.mean(x**2, axis=-1, keepdims=True) + epsilon) ** -0.5


def minibatch_stddev(x: Array, group_size: int = 4, num_channels: int = 1) -> Array:
  """Appends how much the images of a group differ, as constant maps (Section 3).

  Standard deviations over the images of a group, of every feature at every pixel, are
  averaged over pixels and over C / num_channels features.

  A group is `group_size` rows next to each other, so that rows split over devices stay
  where they are (the authors' code takes every (B / group_size)-th row; rows are in
  random order).

  Args:
    x: [B, H, W, C].
    group_size: Rows of a group; a smaller batch is one group. Must divide B.
    num_channels: Maps to append; must divide C.

  Returns:
    [B, H, W, C + num_channels].

  Raises:
    ValueError: If a number does not divide what it must.
  """
  b, height, width, c = x.shape
  group = min(group_size, b)
  if b % group or c % num_channels:
    raise ValueError(
      f"group_size {group} must divide the batch size {b}, and num_channels "
      f"{num_channels} the {c} channels"
    )
  y = x.reshape(b // group, group, height, width, num_channels, c // num_channels)
  deviation = jnp.sqrt(jnp.var(y, axis=1) + 1e-8)
  level = deviation.mean(axis=(1, 2, 4))[:, None, None, None]
  shape = (b // group, group, height, width, num_channels)
  maps = jnp.broadcast_to(level, shape).reshape(b, height, width, num_channels)
  return jnp.concatenate([x, maps], axis=-1)
