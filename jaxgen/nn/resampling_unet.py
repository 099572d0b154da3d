"""Parts of U-Nets whose residual blocks change the resolution and attend.

What DDPM++ and NCSN++ (Song et al., 2021, arXiv 2011.13456) and ADM (Dhariwal & Nichol,
2021, arXiv 2105.05233) have in common, in the form that EDM gave them (Karras et al.,
2022, arXiv 2206.00364, Table 7 and the authors' code): see `jaxgen.nn.song_unet` and
`jaxgen.nn.adm_unet`.
"""

from typing import Literal, NamedTuple

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.attention import attend
from jaxgen.ops.upfirdn import downsample2d, fir_taps, upsample2d

Dtype = jnp.dtype | type
Init = nn.initializers.Initializer
Taps = tuple[float, ...]

BOX: Taps = (1.0, 1.0)
BINOMIAL: Taps = (1.0, 3.0, 3.0, 1.0)
MAX_GROUPS = 32
MIN_GROUP_SIZE = 4

zeros = nn.initializers.zeros


class Style(NamedTuple):
  """What all blocks of a network share.

  Attributes:
    init: Of weights that are not zero at first.
    attention_init: Of the weights of queries, keys and values.
    epsilon: Of group norms.
    skip_scale: What sums of two branches are multiplied by.
    scale_and_shift: Whether the embedding scales and shifts after the second norm; else
      it is added before it.
    project_skips: Whether a shortcut that changes the resolution has weights even
      where the channels stay.
    head_dim: Channels of an attention head; None is a single head.
    taps: Filter of changes of resolution.
    dropout_rate: Before the second convolution.
    dtype: Of products and of activations between them; norms and softmax are at least
      float32.
  """

  init: Init
  attention_init: Init
  epsilon: float
  skip_scale: float = 1.0
  scale_and_shift: bool = False
  project_skips: bool = False
  head_dim: int | None = None
  taps: Taps = BOX
  dropout_rate: float = 0.0
  dtype: Dtype = jnp.float32


class Block(nn.Module):
  """norm, swish, resample, conv, embedding, norm, swish, conv, + shortcut, attention.

  Attributes:
    channels: Output channels.
    style: Of the network.
    resample: Doubles or halves height and width.
    attention: Whether self-attention follows.
  """

  channels: int
  style: Style
  resample: Literal["up", "down"] | None = None
  attention: bool = False

  @nn.compact
  def __call__(self, x: Array, embedding: Array, train: bool) -> Array:
    """(x [B, H, W, C], embedding [B, D]) -> [B, H', W', channels]."""
    style = self.style
    h = resampled(nn.swish(norm(x, style, "norm0")), self.resample, style.taps)
    h = conv(self.channels, style, "conv0")(h)
    width = self.channels * (2 if style.scale_and_shift else 1)
    shift = dense(width, style, "affine")(embedding)[:, None, None, :]
    if style.scale_and_shift:
      scale, shift = jnp.split(shift, 2, axis=-1)
      h = norm(h, style, "norm1") * (1 + scale) + shift
    else:
      h = norm(h + shift, style, "norm1")
    h = nn.Dropout(style.dropout_rate, deterministic=not train)(nn.swish(h))
    h = conv(self.channels, style, "conv1", init=zeros)(h)
    x = resampled(x, self.resample, style.taps)
    changed = x.shape[-1] != self.channels
    if changed or (self.resample and style.project_skips):
      x = dense(self.channels, style, "skip")(x)
    x = (x + h) * style.skip_scale
    return self._attend(x) if self.attention else x

  def _attend(self, x: Array) -> Array:
    style = self.style
    b, height, width, c = x.shape
    num_heads = c // (style.head_dim or c)
    h = norm(x, style, "norm2").reshape(b, height * width, c)
    h = dense(3 * c, style, "qkv", init=style.attention_init)(h)
    query, key, value = jnp.moveaxis(
      h.reshape(b, -1, 3, num_heads, c // num_heads), 2, 0
    )
    h = attend(query, key, value).reshape(x.shape)
    return (x + dense(c, style, "proj", init=zeros)(h)) * style.skip_scale


def resampled(x: Array, how: str | None, taps: Taps) -> Array:
  """Twice or half the height and width, or `x`."""
  if how is None:
    return x
  resample = {"up": upsample2d, "down": downsample2d}[how]
  return resample(x, fir_taps(taps))


def norm(x: Array, style: Style, name: str) -> Array:
  """A group norm of at most 32 groups of at least 4 channels, in style.dtype."""
  groups = min(MAX_GROUPS, x.shape[-1] // MIN_GROUP_SIZE)
  wide = jnp.promote_types(style.dtype, jnp.float32)
  layer = nn.GroupNorm(groups, epsilon=style.epsilon, dtype=wide, name=name)
  return layer(x).astype(style.dtype)


def dense(
  features: int, style: Style, name: str, init: Init | None = None, bias: bool = True
) -> nn.Dense:
  """A linear layer, or a 1x1 convolution."""
  init = init or style.init
  return nn.Dense(
    features, use_bias=bias, dtype=style.dtype, kernel_init=init, name=name
  )


def conv(
  features: int, style: Style, name: str, init: Init | None = None, padding: int = 1
) -> nn.Conv:
  """A 3x3 convolution."""
  options = dict(dtype=style.dtype, kernel_init=init or style.init, name=name)
  return nn.Conv(features, (3, 3), padding=padding, **options)


def embed_labels(label: Array | None, num_classes: int, size: int) -> Array:
  """One row per label, f32 [size, num_classes]; none, or one below 0, has zeros.

  Raises:
    ValueError: If `label` is not i32 [size].
  """
  if label is None:
    return jnp.zeros((size, num_classes))
  if label.shape != (size,) or not jnp.issubdtype(label.dtype, jnp.integer):
    raise ValueError(
      f"label must be int32 [{size}], got {label.dtype} {list(label.shape)}"
    )
  return jax.nn.one_hot(label, num_classes)


def augment_labels(augment: Array | None, augment_dim: int, size: int) -> Array:
  """Labels of augmentations, f32 [size, augment_dim]; none are zeros.

  Raises:
    ValueError: If `augment` has another shape.
  """
  if augment is None:
    return jnp.zeros((size, augment_dim))
  if augment.shape != (size, augment_dim):
    raise ValueError(
      f"augment must be [{size}, {augment_dim}], got {list(augment.shape)}"
    )
  return augment


def check_sizes(
  shape: tuple[int, ...], num_levels: int, attention_resolutions: tuple[int, ...]
) -> None:
  """Whether an image halves evenly, and attention has its levels.

  Raises:
    ValueError: If not.
  """
  height, width = shape[1:3]
  factor = 2 ** (num_levels - 1)
  if height % factor or width % factor:
    raise ValueError(
      f"{num_levels} levels need height and width divisible by {factor}, "
      f"got {height}x{width}"
    )
  heights = [height // 2**level for level in range(num_levels)]
  if set(attention_resolutions) - set(heights):
    raise ValueError(
      f"attention_resolutions must be among the heights of the levels, {heights}, "
      f"got {attention_resolutions}"
    )
