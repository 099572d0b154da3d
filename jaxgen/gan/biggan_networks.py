"""BigGAN's networks: residual blocks whose batch norms read the class and a part of z.

Brock, Donahue & Simonyan (2018), arXiv 1809.11096, Appendix B (Figure 15, Table 4), at
the sizes of the authors' BigGAN-PyTorch, to which outputs and gradients are equal
(tests/test_biggan.py). Kernels here are drawn as Flax draws them; `biggan` draws them
as the paper does.
"""

from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.progressive import upsample
from jaxgen.nn.resnet_gan import BatchNorm, DiscriminatorBlock
from jaxgen.nn.self_attention import SelfAttention
from jaxgen.nn.spectral import spectral_norm


class ConditionalBatchNorm(nn.Module):
  """Batch norm whose scale and shift are linear in a vector per image.

  Attributes:
    spectral: Whether the two linear maps are spectrally normalised.
    dtype: Of the result; statistics are float32.
  """

  spectral: bool = True
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, y: Array, train: bool) -> Array:
    """(1 + gain y) norm(x) + bias y: (x [B, H, W, C], y [B, D]) -> [B, H, W, C]."""
    kwargs = dict(epsilon=1e-5, use_scale=False, use_bias=False, dtype=self.dtype)
    x = nn.BatchNorm(not train, momentum=0.9, name="norm", **kwargs)(x)

    def linear(name: str) -> Array:
      layer = nn.Dense(x.shape[-1], use_bias=False, dtype=self.dtype, name=name)
      layer = spectral_norm(layer, train=train) if self.spectral else layer
      return layer(y)[:, None, None]

    return (1 + linear("gain")) * x + linear("bias")


class GeneratorBlock(nn.Module):
  """norm, relu, double, conv, norm, relu, conv, + double, 1x1 conv of the input.

  Attributes:
    channels: Output channels.
    spectral_norms: Whether the norms' linear maps are normalised, as convolutions are.
    dtype: Of the computation.
  """

  channels: int
  spectral_norms: bool = True
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, y: Array, train: bool) -> Array:
    """(x [B, H, W, C], y [B, D]) -> [B, 2H, 2W, channels]."""

    def conv(size: int, name: str, x: Array) -> Array:
      layer = nn.Conv(self.channels, (size, size), dtype=self.dtype, name=name)
      return spectral_norm(layer, train=train)(x)

    norm = lambda name: ConditionalBatchNorm(self.spectral_norms, self.dtype, name=name)
    h = nn.relu(norm("norm_1")(x, y, train))
    h = conv(3, "conv_1", upsample(h))
    h = nn.relu(norm("norm_2")(h, y, train))
    h = conv(3, "conv_2", h)
    return h + upsample(conv(1, "shortcut", x))  # pixel by pixel: cheaper undoubled


class Generator(nn.Module):
  """Latents and classes to images of side base_size * 2^(len(widths) - 1).

  Attributes:
    num_classes: Of the labels.
    widths: Channels of the first map and after every block.
    channels: Of the image.
    base_size: Side of the first map.
    shared_dim: Length of the class embedding that all norms share (Section 3.1), each
      through linear maps of its own; 0: every norm has a scale and shift per class.
    hierarchical: Whether z is cut into equal chunks, the first for the first map, one
      more for the norms of every block (Section 3.1, "skip-z"); else all of it is for
      the first map.
    attention_side: Side of the map that `SelfAttention` follows; 0 for none.
    dtype: Of the computation; parameters and the returned images are float32.
  """

  num_classes: int
  widths: tuple[int, ...]
  channels: int = 3
  base_size: int = 4
  shared_dim: int = 0
  hierarchical: bool = False
  attention_side: int = 0
  dtype: Any = None

  @nn.compact
  def __call__(self, z: Array, label: Array, *, train: bool) -> Array:
    """(z f32 [B, latent_dim], label) -> f32 [B, H, W, C] in [-1, 1].

    Args:
      z: Of a length that is a multiple of len(widths) if hierarchical.
      label: i32 [B], or f32 [B, num_classes] of weights between classes.
      train: Whether statistics are those of the batch, and spectral norm moves.

    Raises:
      ValueError: If z does not divide, or no map has attention_side.
    """
    side, kwargs = self.base_size, dict(dtype=self.dtype)
    check_attention(
      self.attention_side, [side * 2**k for k in range(1, len(self.widths))]
    )
    y = label if label.ndim == 2 else jax.nn.one_hot(label, self.num_classes)
    if self.shared_dim:  # not normalised, as the authors found better
      y = nn.Dense(self.shared_dim, use_bias=False, name="shared", **kwargs)(y)
    z, *chunks = self.chunks(z)

    layer = nn.Dense(side * side * self.widths[0], name="first", **kwargs)
    x = spectral_norm(layer, train=train)(z).reshape(-1, side, side, self.widths[0])
    for level, width in enumerate(self.widths[1:]):
      y_ = jnp.concatenate([y, chunks[level]], axis=-1) if chunks else y
      name = f"block_{level}"
      x = GeneratorBlock(width, self.shared_dim > 0, name=name, **kwargs)(x, y_, train)
      if x.shape[1] == self.attention_side:
        x = SelfAttention(name="attention", **kwargs)(x, train)
    x = nn.relu(BatchNorm(name="norm", **kwargs)(x, None, train))
    layer = nn.Conv(self.channels, (3, 3), name="last", **kwargs)
    x = spectral_norm(layer, train=train)(x)
    return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))

  def chunks(self, z: Array) -> list[Array]:
    """The parts of z: of the first map and, if hierarchical, of every block."""
    if not self.hierarchical:
      return [z]
    if z.shape[-1] % len(self.widths):
      raise ValueError(
        f"latents of {z.shape[-1]} numbers; expected a multiple of {len(self.widths)}, "
        "one chunk for the first map and one for every block"
      )
    return jnp.split(z, len(self.widths), axis=-1)


class Discriminator(nn.Module):
  """Images and classes to scores: residual blocks, a sum over pixels, a projection.

  Attributes:
    num_classes: Of the labels.
    widths: Channels after every block.
    num_halvings: How many of the blocks halve the side; the first ones.
    attention_side: Side of the map that `SelfAttention` follows; 0 for none.
    dtype: Of the computation; parameters and scores are float32.
  """

  num_classes: int
  widths: tuple[int, ...]
  num_halvings: int
  attention_side: int = 0
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, label: Array, *, train: bool) -> Array:
    """(x f32 [B, H, W, C] in [-1, 1], label i32 [B]) -> scores f32 [B].

    Raises:
      ValueError: If the sides do not halve so often, or no map has attention_side.
    """
    kwargs = dict(dtype=self.dtype)
    if x.shape[1] % 2**self.num_halvings or x.shape[2] % 2**self.num_halvings:
      raise ValueError(
        f"images of {x.shape[1]}x{x.shape[2]} pixels; expected multiples of "
        f"{2**self.num_halvings}: they are halved {self.num_halvings} times"
      )
    sides = [x.shape[1] // 2**k for k in range(1, self.num_halvings + 1)]
    check_attention(self.attention_side, sides)
    for level, width in enumerate(self.widths):
      down = level < self.num_halvings
      x = DiscriminatorBlock(
        width,
        first=level == 0,
        down=down,
        spectral=True,
        name=f"block_{level}",
        **kwargs,
      )(x, train)
      if down and x.shape[1] == self.attention_side:
        x = SelfAttention(name="attention", **kwargs)(x, train)
    x = jnp.sum(nn.relu(x), axis=(1, 2))
    score = spectral_norm(nn.Dense(1, name="last", **kwargs), train=train)(x)[:, 0]
    embed = nn.Embed(self.num_classes, x.shape[-1], name="label", **kwargs)
    score += jnp.sum(spectral_norm(embed, train=train)(label) * x, axis=-1)
    return score.astype(jnp.promote_types(score.dtype, jnp.float32))


def check_attention(side: int, sides: list[int]) -> None:
  """Raises unless attention at maps of `side` is none (0) or one of `sides`."""
  if side and side not in sides:
    raise ValueError(f"attention_side={side}: expected 0 or a map's side, of {sides}")
