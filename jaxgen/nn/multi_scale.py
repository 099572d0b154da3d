"""Flows of several scales: layers as in `jaxgen.nn.bijection`."""

from collections.abc import Sequence
import math

from flax import linen as nn
from jax import Array
import jax.numpy as jnp
import numpy as np

from jaxgen.nn.bijection import affine, backward, forward, inverse_affine


def check_sides(shape: tuple[int, int, int], num_squeezes: int) -> None:
  """Raises ValueError unless both sides of (H, W, C) can be halved so often."""
  if any(side % 2**num_squeezes for side in shape[:2]):
    raise ValueError(f"shape={shape}: expected sides divisible by 2^{num_squeezes}")


class Squeeze(nn.Module):
  """2x2 pixels as channels: [B, H, W, C] -> [B, H/2, W/2, 4C].

  Channel c of the pixel in row i and column j of a square becomes 4c + 2i + j.
  """

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    b, h, w, c = x.shape
    squares = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4)
    return squares.reshape(b, h // 2, w // 2, 4 * c), jnp.zeros(b, x.dtype)

  def inverse(self, z: Array) -> tuple[Array, Array]:
    b, h, w, c = z.shape
    squares = z.reshape(b, h, w, c // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return squares.reshape(b, 2 * h, 2 * w, c // 4), jnp.zeros(b, z.dtype)


class MultiScale(nn.Module):
  """Levels of layers; after each but the last, half of the channels is done.

  Dinh et al. (2016), arXiv 1605.08803, Section 3.6. The second half leaves as part of
  z, the first goes on.

  Attributes:
    levels: Layers of each level. Only `Squeeze` may change a shape.
    shape: (H, W, C) of one x.
    priors: One conditioner per level, or none. What leaves is normalised by the shift
      (mean) and log_scale (log standard deviation) that it sees in what goes on, at the
      last level in zeros: a prior N(mean, std^2) of those entries becomes N(0, 1).
  """

  levels: Sequence[Sequence[nn.Module]]
  shape: tuple[int, int, int]
  priors: Sequence[nn.Module] = ()

  def _shapes(self) -> list[tuple[int, int, int]]:
    """Of what leaves at each level."""
    (h, w, c), shapes = self.shape, []
    for i, layers in enumerate(self.levels):
      for _ in (layer for layer in layers if isinstance(layer, Squeeze)):
        h, w, c = h // 2, w // 2, 4 * c
      c = c // 2 if i < len(self.levels) - 1 else c
      shapes.append((h, w, c))
    return shapes

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    """x [B, H, W, C] -> z [B, H W C], log_det [B]."""
    total, done = jnp.zeros(len(x), x.dtype), []
    for i, layers in enumerate(self.levels):
      x, log_det = forward(layers, x, train)
      total += log_det
      last = i == len(self.levels) - 1
      x, z = (jnp.zeros_like(x), x) if last else jnp.split(x, 2, axis=-1)
      if self.priors:
        z, log_det = inverse_affine(z, *self.priors[i](x, train))
        total += log_det
      done.append(z.reshape(len(z), -1))
    return jnp.concatenate(done, axis=-1), total

  def inverse(self, z: Array) -> tuple[Array, Array]:
    """z [B, H W C] -> x [B, H, W, C], log_det [B]."""
    shapes = self._shapes()
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(z, ends[:-1], axis=-1)
    total, x = jnp.zeros(len(z), z.dtype), None
    for i in reversed(range(len(shapes))):
      part = parts[i].reshape(-1, *shapes[i])
      if self.priors:
        seen = jnp.zeros_like(part) if x is None else x
        part, log_det = affine(part, *self.priors[i](seen, False))
        total += log_det
      x = part if x is None else jnp.concatenate([x, part], axis=-1)
      x, log_det = backward(self.levels[i], x)
      total += log_det
    return x, total
