"""Networks of variational autoencoders: an encoder and a decoder in one module.

Every module here has `latent_dim`, `encode`, x -> (mean, log variance) of q(z|x), both
[B, D], and `decode`, z [B, D] -> the parameters of p(x|z), [B, *image_shape] with the
last axis `num_outputs` times as long: those of one value stand side by side.
"""

from collections.abc import Callable
import math
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from jaxgen.method import Array
from jaxgen.nn.strided_conv import ConvTranspose


def _wide(x: Array) -> Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class FullyConnected(nn.Module):
  """Encoder and decoder of the same tanh layers, in opposite order.

  Attributes:
    image_shape: Of x, without the batch: (H, W, C), or (D,) between two latents.
    hidden_dims: Widths from the image to the latent.
    latent_dim: Length of z.
    num_outputs: Parameters of p(x|z) for each value of x.
    kernel_init: Of all layers.
    dtype: Of the products; parameters and what is returned stay float32.
  """

  image_shape: tuple[int, ...]
  hidden_dims: tuple[int, ...] = (200, 200)
  latent_dim: int = 50
  num_outputs: int = 1
  kernel_init: Callable = nn.initializers.lecun_normal()
  dtype: Any = None

  def setup(self) -> None:
    dense = lambda dim: nn.Dense(dim, kernel_init=self.kernel_init, dtype=self.dtype)
    self.encoder = [dense(dim) for dim in self.hidden_dims]
    self.mean = dense(self.latent_dim)
    self.log_var = dense(self.latent_dim)
    self.decoder = [dense(dim) for dim in reversed(self.hidden_dims)]
    self.logits = dense(math.prod(self.image_shape) * self.num_outputs)

  def encode(self, x: Array) -> tuple[Array, Array]:
    """x f32 [B, *image_shape] -> mean and log variance of q(z|x), [B, D]."""
    h = x.reshape(len(x), -1)
    for layer in self.encoder:
      h = nn.tanh(layer(h))
    return _wide(self.mean(h)), _wide(self.log_var(h))

  def decode(self, z: Array) -> Array:
    """z f32 [B, D] -> parameters of p(x|z): f32 [B, ..., C * num_outputs]."""
    h = z
    for layer in self.decoder:
      h = nn.tanh(layer(h))
    *shape, channels = self.image_shape
    return _wide(self.logits(h)).reshape(-1, *shape, channels * self.num_outputs)

  def __call__(self, x: Array) -> Array:
    """Touches every parameter: decodes the mean of q(z|x)."""
    return self.decode(self.encode(x)[0])


class Convolutional(nn.Module):
  """Convolutions of 4x4 and stride 2, then one hidden dense layer; and mirrored.

  The shape of Burgess et al. (2018), arXiv 1804.03599, Appendix A.1: there 64x64
  pixels, four halvings, 32 channels throughout and two dense layers of 256.

  Attributes:
    image_shape: (H, W, C), H and W multiples of 2 ** num_halvings.
    latent_dim: Length of z.
    widths: Channels of each convolution, from the image inwards: one halving each.
    hidden_dim: Of the dense layer on either side of the latent.
    num_outputs: Parameters of p(x|z) for each value of x.
    dtype: Of the products; parameters and what is returned stay float32.
  """

  image_shape: tuple[int, int, int]
  latent_dim: int = 32
  widths: tuple[int, ...] = (32, 32, 64, 64)
  hidden_dim: int = 256
  num_outputs: int = 1
  dtype: Any = None

  def setup(self) -> None:
    height, width, channels = self.image_shape
    factor = 2 ** len(self.widths)
    if height % factor or width % factor:
      raise ValueError(
        f"image_shape {self.image_shape}: expected sides that {factor} divides, for "
        f"{len(self.widths)} halvings"
      )
    self.inner = (height // factor, width // factor, self.widths[-1])
    half = dict(kernel_size=(4, 4), strides=(2, 2), dtype=self.dtype)
    dense = lambda dim: nn.Dense(dim, dtype=self.dtype)
    self.encoder = [nn.Conv(dim, **half) for dim in self.widths]
    self.to_hidden = dense(self.hidden_dim)
    self.mean = dense(self.latent_dim)
    self.log_var = dense(self.latent_dim)
    self.from_latent = dense(self.hidden_dim)
    self.from_hidden = dense(math.prod(self.inner))
    outwards = (*self.widths[-2::-1], channels * self.num_outputs)
    self.decoder = [ConvTranspose(dim, **half) for dim in outwards]

  def encode(self, x: Array) -> tuple[Array, Array]:
    """x f32 [B, H, W, C] -> mean and log variance of q(z|x), [B, D]."""
    for layer in self.encoder:
      x = nn.relu(layer(x))
    h = nn.relu(self.to_hidden(x.reshape(len(x), -1)))
    return _wide(self.mean(h)), _wide(self.log_var(h))

  def decode(self, z: Array) -> Array:
    """z f32 [B, D] -> parameters of p(x|z): f32 [B, H, W, C * num_outputs]."""
    h = nn.relu(self.from_hidden(nn.relu(self.from_latent(z))))
    h = h.reshape(-1, *self.inner)
    for layer in self.decoder[:-1]:
      h = nn.relu(layer(h))
    return _wide(self.decoder[-1](h))

  def __call__(self, x: Array) -> Array:
    """Touches every parameter: decodes the mean of q(z|x)."""
    return self.decode(self.encode(x)[0])
