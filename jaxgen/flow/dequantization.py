"""Variational dequantisation: noise that is learned, q(u | image).

Ho, Chen, Srinivas, Duan, Abbeel, "Flow++: Improving Flow-Based Generative Models with
Variational Dequantization and Architecture Design" (2019), arXiv 1902.00275. With
log p(y) - log q(u | image) the bound on log P(image) is exact where q(u | image) is
proportional to p inside of the image's cube; uniform noise makes a flow spend its
capacity on flat cubes with edges.

Deviations from the paper:
  - Affine couplings given the image, over checkerboards (paper: mixtures of logistics,
    convolutions with attention).
  - The first noise is logistic (paper: Gaussian), so that q begins as uniform.
"""

from flax import linen as nn
import jax.numpy as jnp

from jaxgen.method import Array
from jaxgen.nn.bijection import affine
from jaxgen.nn.coupling import checkerboard


class NoiseFlow(nn.Module):
  """A dequantizer, see `jaxgen.flow.likelihood`.

  Attributes:
    width: Channels of its convolutions.
    num_steps: Couplings, after one affine map of each entry.
  """

  width: int = 32
  num_steps: int = 4

  @nn.compact
  def __call__(self, image: Array, noise: Array) -> tuple[Array, Array]:
    """image in [-1, 1] and logistic noise, f32 [B, H, W, C] -> v, its log_det [B]."""
    context = nn.gelu(nn.Conv(self.width, (3, 3))(image))
    context = nn.gelu(nn.Conv(self.width, (3, 3))(context))
    _, height, width, channels = image.shape
    v, total = noise, jnp.zeros(len(noise), noise.dtype)
    for i in range(self.num_steps + 1):
      # The first map conditions on the image alone.
      mask = checkerboard(height, width, i % 2 == 1) & (i > 0)
      h = jnp.concatenate([jnp.where(mask, v, 0), context], axis=-1)
      h = nn.gelu(nn.Conv(self.width, (3, 3))(h))
      raw = nn.Conv(2 * channels, (3, 3), kernel_init=nn.initializers.zeros)(h)
      shift, log_scale = jnp.split(jnp.where(mask, 0, raw), 2, axis=-1)
      v, log_det = affine(v, shift, 2 * jnp.tanh(log_scale / 2))
      total += log_det
    return v, total
