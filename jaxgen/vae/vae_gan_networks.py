"""The three networks of VAE/GAN (Larsen et al., 2015), arXiv 1512.09300.

Shaped as the authors' code has them, github.com/andersbll/autoencoding_beyond_pixels,
architectures.py: the defaults have the sizes of its `img64x64` (18,071,360 parameters
in the encoder, 4,693,155 in the decoder, 10,953,857 in the discriminator). Without
convolutions (`widths=()`) they are shaped as its `mnist`.
"""

import math

from flax import linen as nn
import jax.numpy as jnp

from jaxgen.method import Array
from jaxgen.nn.strided_conv import ConvTranspose


def norm(x: Array, train: bool, name: str) -> Array:
  """Batch norm, then ReLU."""
  layer = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-6, name=name)
  return nn.relu(layer(x))


def halve(width: int, name: str) -> nn.Conv:
  """A convolution that halves the side; its bias would be lost in `norm`."""
  return nn.Conv(width, (5, 5), (2, 2), use_bias=False, name=name)


def dense(width: int, name: str) -> nn.Dense:
  """A dense layer whose bias would be lost in `norm`."""
  return nn.Dense(width, use_bias=False, name=name)


class Encoder(nn.Module):
  """Images to the mean and log variance of q(z|x).

  Attributes:
    latent_dim: Length of z.
    widths: Channels of the convolutions, each of which halves the side.
    hidden_dims: Units of the dense layers after them.
  """

  latent_dim: int = 128
  widths: tuple[int, ...] = (64, 128, 256)
  hidden_dims: tuple[int, ...] = (1024,)

  @nn.compact
  def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
    """x f32 [B, H, W, C] in [-1, 1] -> f32 [B, latent_dim] each."""
    for i, width in enumerate(self.widths):
      x = norm(halve(width, f"conv_{i}")(x), train, f"conv_norm_{i}")
    x = x.reshape(len(x), -1)
    for i, width in enumerate(self.hidden_dims):
      x = norm(dense(width, f"hidden_{i}")(x), train, f"hidden_norm_{i}")
    mean = nn.Dense(self.latent_dim, name="mean")(x)
    return mean, nn.Dense(self.latent_dim, name="log_var")(x)


class Decoder(nn.Module):
  """Latents to images.

  Attributes:
    image_shape: (H, W, C), H and W multiples of 2 ** len(widths).
    widths: Channels of the first map and of the layers that double its side: the first
      entry counts for both.
    hidden_dims: Units of the dense layers before the map.
  """

  image_shape: tuple[int, int, int] = (64, 64, 3)
  widths: tuple[int, ...] = (256, 128, 32)
  hidden_dims: tuple[int, ...] = ()

  @nn.compact
  def __call__(self, z: Array, train: bool) -> Array:
    """z f32 [B, latent_dim] -> f32 [B, *image_shape] in [-1, 1]."""
    height, width, channels = self.image_shape
    factor = 2 ** len(self.widths)
    if height % factor or width % factor:
      raise ValueError(
        f"image_shape {self.image_shape}: expected sides that {factor} divides, for "
        f"{len(self.widths)} doublings"
      )
    x = z
    for i, dim in enumerate(self.hidden_dims):
      x = norm(dense(dim, f"hidden_{i}")(x), train, f"hidden_norm_{i}")
    if not self.widths:
      x = nn.Dense(math.prod(self.image_shape), name="last")(x)
      return jnp.tanh(x).reshape(-1, *self.image_shape)
    inner = (height // factor, width // factor, self.widths[0])
    x = norm(dense(math.prod(inner), "first")(x), train, "first_norm")
    x = x.reshape(-1, *inner)
    for i, dim in enumerate(self.widths):
      double = ConvTranspose(dim, (5, 5), (2, 2), use_bias=False, name=f"conv_{i}")
      x = norm(double(x), train, f"conv_norm_{i}")
    return jnp.tanh(nn.Conv(channels, (5, 5), name="last")(x))


class Discriminator(nn.Module):
  """Images to (scores, features).

  Attributes:
    widths: Channels of the convolutions, each of which halves the side.
    hidden_dims: Units of the dense layers after them.
    layer: Which of these, counted from 0, gives the features: its outputs before batch
      norm. At the default the last convolution, the `recon_depth=9` of the authors.
    first_width: Channels of a convolution before all others that halves nothing; with
      no convolutions there is none.
  """

  widths: tuple[int, ...] = (128, 256, 256)
  hidden_dims: tuple[int, ...] = (512,)
  layer: int = 2
  first_width: int = 32

  @nn.compact
  def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
    """x f32 [B, H, W, C] in [-1, 1] -> scores f32 [B], features f32 [B, D]."""
    num_convs, features = len(self.widths), None
    if not 0 <= self.layer < num_convs + len(self.hidden_dims):
      raise ValueError(
        f"layer={self.layer}: expected one of {num_convs} convolutions and "
        f"{len(self.hidden_dims)} dense layers, counted from 0"
      )
    if num_convs:
      x = nn.relu(nn.Conv(self.first_width, (5, 5), name="first")(x))
    for i, width in enumerate((*self.widths, *self.hidden_dims)):
      if i == num_convs:
        x = x.reshape(len(x), -1)
      x = (halve if i < num_convs else dense)(width, f"layer_{i}")(x)
      if i == self.layer:
        features = x.reshape(len(x), -1)
      x = norm(x, train, f"norm_{i}")
    return nn.Dense(1, name="last")(x.reshape(len(x), -1))[:, 0], features
