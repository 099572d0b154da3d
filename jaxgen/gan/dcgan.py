"""DCGAN: deep convolutional generative adversarial networks (Radford et al., 2015).

Radford, Metz & Chintala, "Unsupervised Representation Learning with Deep
Convolutional Generative Adversarial Networks", https://arxiv.org/abs/1511.06434. At
the defaults (64x64x3) the networks have the parameters of the common reference,
pytorch/examples: 3,576,704 in the generator, 2,765,568 in the discriminator.

Deviations from the paper, all of them shared with that reference:
  - Kernels 4x4, not 5x5; width 64 in both networks (paper: 128 in the generator).
  - z ~ N(0, I), not uniform; batch norm's scales start at N(1, 0.02).
Deviations from the reference:
  - Its convolutions between z or the score and the 4x4 map are written as what they
    are, Dense.
  - Running averages of batch norm hold the biased variance, as Flax computes it
    (PyTorch: unbiased). They are used for sampling only.
  - The discriminator's running averages do not see the generator's update.
"""

from typing import Any

from flax import linen as nn
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.gan.adversarial import two_player
from jaxgen.losses.adversarial import non_saturating
from jaxgen.method import Array, Method
from jaxgen.nn.strided_conv import ConvTranspose

normal_init = nn.initializers.normal(0.02)  # Section 4


def scale_init(key: Array, shape: tuple, dtype: Any = jnp.float32) -> Array:
  """N(1, 0.02)."""
  return 1.0 + 0.02 * random.normal(key, shape, dtype)


def batch_norm(train: bool, dtype: Any, name: str) -> nn.BatchNorm:
  """Batch norm as both networks use it."""
  return nn.BatchNorm(
    use_running_average=not train,
    momentum=0.9,
    epsilon=1e-5,
    scale_init=scale_init,
    dtype=dtype,
    name=name,
  )


class Generator(nn.Module):
  """Latents to images of side base_size * 2^num_doublings.

  Attributes:
    channels: Of the image.
    width: Channels before the last layer; doubled at every lower resolution.
    num_doublings: Layers that double the side: 4 for 64 pixels, 3 for 32.
    base_size: Side of the first layer's output: 4, or 7 for 28 pixels.
    dtype: Of the computation; parameters and the returned images are float32.
  """

  channels: int = 3
  width: int = 64
  num_doublings: int = 4
  base_size: int = 4
  dtype: Any = None

  @nn.compact
  def __call__(self, z: Array, label: Array | None = None, *, train: bool) -> Array:
    """z f32 [B, latent_dim] -> f32 [B, H, W, C] in [-1, 1]; the label is ignored."""
    features = self.width * 2 ** (self.num_doublings - 1)
    side = self.base_size
    x = nn.Dense(
      side * side * features,
      use_bias=False,
      kernel_init=normal_init,
      dtype=self.dtype,
      name="first",
    )(z)
    x = x.reshape(-1, side, side, features)
    for level in range(self.num_doublings):
      x = nn.relu(batch_norm(train, self.dtype, f"norm_{level}")(x))
      features //= 2
      last = level == self.num_doublings - 1
      x = ConvTranspose(
        self.channels if last else features,
        (4, 4),
        (2, 2),
        use_bias=False,
        kernel_init=normal_init,
        dtype=self.dtype,
        name=f"conv_{level}",
      )(x)
    return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class Discriminator(nn.Module):
  """Images of side base_size * 2^num_halvings to scores.

  Attributes:
    width: Channels of the first layer; doubled at every lower resolution.
    num_halvings: Layers that halve the side: 4 for 64 pixels, 3 for 32.
    base_size: Side of the last layer's input: 4, or 7 for 28 pixels.
    dtype: Of the computation; parameters and scores are float32.
  """

  width: int = 64
  num_halvings: int = 4
  base_size: int = 4
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
    """x f32 [B, H, W, C] in [-1, 1] -> scores f32 [B]; the label is ignored.

    Raises:
      ValueError: if H or W is not base_size * 2^num_halvings.
    """
    side = self.base_size * 2**self.num_halvings
    if x.shape[1:3] != (side, side):
      raise ValueError(
        f"images of {x.shape[1]}x{x.shape[2]} pixels; expected {side}x{side}: "
        f"base_size {self.base_size} * 2^{self.num_halvings}"
      )

    for level in range(self.num_halvings):
      x = nn.Conv(
        self.width * 2**level,
        (4, 4),
        (2, 2),
        use_bias=False,
        kernel_init=normal_init,
        dtype=self.dtype,
        name=f"conv_{level}",
      )(x)
      if level > 0:  # none on the image itself (Section 3)
        x = batch_norm(train, self.dtype, f"norm_{level}")(x)
      x = nn.leaky_relu(x, 0.2)
    x = nn.Dense(
      1, use_bias=False, kernel_init=normal_init, dtype=self.dtype, name="last"
    )(x.reshape(len(x), -1))
    return x[:, 0].astype(jnp.promote_types(x.dtype, jnp.float32))


def dcgan(
  gen: nn.Module,
  disc: nn.Module,
  *,
  gen_tx: optax.GradientTransformation,
  disc_tx: optax.GradientTransformation,
  latent_dim: int = 100,
) -> Method:
  """Two players under the non-saturating loss.

  Args:
    gen: As `Generator`.
    disc: As `Discriminator`, for images of the same side.
    gen_tx: The paper uses Adam(2e-4, b1=0.5).
    disc_tx: The same.
    latent_dim: Length of z.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; see `two_player`.
  """
  return two_player(
    gen,
    disc,
    loss=non_saturating,
    gen_tx=gen_tx,
    disc_tx=disc_tx,
    latent_dim=latent_dim,
  )
