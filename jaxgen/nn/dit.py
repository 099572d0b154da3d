"""DiT, the diffusion transformer with adaptive norms that start at zero (adaLN-Zero).

Peebles & Xie, "Scalable Diffusion Models with Transformers" (2022), arXiv 2212.09748,
Section 3.2 and the authors' code, compared in float64 for equal weights.

Deviation: weights of queries, keys and values are drawn as three matrices of D x D, not
as one of D x 3D.
"""

from flax import linen as nn
from jax import Array
import jax.numpy as jnp
import numpy as np

from jaxgen.nn.attention import attend
from jaxgen.nn.embed import cosines_first

Dtype = jnp.dtype | type

NUM_FREQUENCIES = 256  # numbers that a time step is embedded in, before the MLP
_xavier = nn.initializers.xavier_uniform()
_small = nn.initializers.normal(0.02)
_zeros = nn.initializers.zeros


class Block(nn.Module):
  """Attention and an MLP, each shifted, scaled and gated by the condition.

  At first every gate is zero, and the block the identity.

  Attributes:
    num_heads: Divides the width.
    mlp_ratio: Width of the MLP over that of the block.
    dtype: Of products; norms and softmax are at least float32.
  """

  num_heads: int
  mlp_ratio: int = 4
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, condition: Array) -> Array:
    """(x [B, N, D], condition [B, D], after its swish) -> [B, N, D]."""
    width = x.shape[-1]
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation(condition, 6, self.dtype)
    x = x + gate1 * self._attend(modulated(x, shift1, scale1, self.dtype))
    h = dense(self.mlp_ratio * width, self.dtype, "mlp1")(
      modulated(x, shift2, scale2, self.dtype)
    )
    h = dense(width, self.dtype, "mlp2")(nn.gelu(h, approximate=True))
    return x + gate2 * h

  def _attend(self, x: Array) -> Array:
    b, length, width = x.shape
    heads = lambda name: dense(width, self.dtype, name)(x).reshape(
      b, length, self.num_heads, -1
    )
    h = attend(heads("query"), heads("key"), heads("value"))
    return dense(width, self.dtype, "out")(h.reshape(x.shape))


class DiT(nn.Module):
  """Maps a noisy image, its time step and its label to numbers for every value of x.

  Sizes of the paper (Table 1) as (depth, width, heads): S (12, 384, 6), B (12, 768,
  12), L (24, 1024, 16), XL (28, 1152, 16). The defaults are DiT-S/2: 32,865,056
  parameters for 4 channels. The output is zero until the first update.

  Attributes:
    num_classes: Labels are 0 ... num_classes - 1; at least 1.
    patch_size: Side of a patch in pixels.
    depth: Blocks.
    width: D, divisible by 4 and by `num_heads`.
    num_heads: Of attention.
    mlp_ratio: Width of an MLP over that of the blocks.
    num_outputs: Numbers per value of x: 2 with a learned variance.
    scan: Whether blocks are one loop: compiling then takes the time of one block, and
      the parameters of all blocks are stacked.
    remat: Whether activations inside of blocks are computed again going backwards.
    dtype: Of products, and of activations between blocks. Parameters, norms, softmax
      and output are float32.
  """

  num_classes: int = 1000
  patch_size: int = 2
  depth: int = 12
  width: int = 384
  num_heads: int = 6
  mlp_ratio: int = 4
  num_outputs: int = 2
  scan: bool = False
  remat: bool = False
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Array, t: Array, label: Array | None = None, train: bool = False
  ) -> Array:
    """Predicts, for every value of x, the noise (and the variance).

    Args:
      x: f32 [B, H, W, C]; `patch_size` divides H and W.
      t: i32 or f32 [B]; time step of 0 ... 999.
      label: i32 [B], or None; those below 0 are no label (of classifier-free guidance).
      train: Ignored: there is no dropout.

    Returns:
      f32 [B, H, W, C num_outputs].

    Raises:
      ValueError: If `patch_size` does not divide the image, or heads the width.
    """
    self._check(x.shape)
    b, height, width, channels = x.shape
    p = self.patch_size
    grid = (height // p, width // p)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    condition = self._embed(t, label)

    h = jnp.moveaxis(x.reshape(b, grid[0], p, grid[1], p, channels), 3, 2)
    h = dense(self.width, self.dtype, "patches")(h.reshape(b, grid[0] * grid[1], -1))
    h = h + jnp.asarray(positions(self.width, grid), h.dtype)[None]
    h = self._blocks(h, condition)
    shift, scale = modulation(condition, 2, self.dtype)
    h = modulated(h, shift, scale, wide)
    h = dense(p * p * channels * self.num_outputs, wide, "out", init=_zeros)(h)
    h = jnp.moveaxis(h.reshape(b, *grid, p, p, -1), 3, 2)
    return h.reshape(b, height, width, -1)

  def _embed(self, t: Array, label: Array | None) -> Array:
    """What every block is told, [B, D]: time step and label."""
    h = cosines_first(t, NUM_FREQUENCIES)
    h = nn.swish(dense(self.width, self.dtype, "time1", init=_small)(h))
    h = dense(self.width, self.dtype, "time2", init=_small)(h)
    if label is None:
      label = jnp.full(len(t), -1)
    row = jnp.where(label < 0, self.num_classes, label)
    table = nn.Embed(
      self.num_classes + 1,
      self.width,
      embedding_init=_small,
      dtype=self.dtype,
      name="label",
    )
    return nn.swish(h + table(row))

  def _blocks(self, h: Array, condition: Array) -> Array:
    block = nn.remat(Block, prevent_cse=not self.scan) if self.remat else Block
    sizes = (self.num_heads, self.mlp_ratio, self.dtype)
    if not self.scan:
      for i in range(self.depth):
        h = block(*sizes, name=f"block{i}")(h, condition)
      return h
    loop = nn.scan(
      lambda block, h, condition: (block(h, condition), None),
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=nn.broadcast,
      length=self.depth,
    )
    return loop(block(*sizes, name="blocks"), h, condition)[0]

  def _check(self, shape: tuple[int, ...]) -> None:
    height, width = shape[1:3]
    if height % self.patch_size or width % self.patch_size:
      raise ValueError(
        f"patch_size={self.patch_size} must divide the image, got {height}x{width}"
      )
    if self.width % 4 or self.width % self.num_heads:
      raise ValueError(
        f"width must be divisible by 4 and by num_heads={self.num_heads}, "
        f"got {self.width}"
      )


def positions(width: int, grid: tuple[int, int]) -> np.ndarray:
  """Sines and cosines of columns and then of rows, f64 [rows * columns, width].

  A quarter of the numbers each, with frequencies 10000^(-i / (width / 4)).
  """
  frequencies = 10000.0 ** (-np.arange(width // 4) / (width // 4))
  rows, columns = np.meshgrid(*map(np.arange, grid), indexing="ij")
  angles = [at.reshape(-1, 1) * frequencies for at in (columns, rows)]
  return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1)


def modulation(condition: Array, count: int, dtype: Dtype) -> list[Array]:
  """`count` vectors of the width of `condition`, [B, 1, D] each: zero at first."""
  layer = dense(count * condition.shape[-1], dtype, "modulation", init=_zeros)
  return jnp.split(layer(condition)[:, None], count, axis=-1)


def modulated(x: Array, shift: Array, scale: Array, dtype: Dtype) -> Array:
  """A layer norm without parameters of its own, scaled and shifted, in `dtype`."""
  wide = jnp.promote_types(x.dtype, jnp.float32)
  layer = nn.LayerNorm(1e-6, use_bias=False, use_scale=False, dtype=wide)
  return (layer(x) * (1 + scale) + shift).astype(dtype)


def dense(
  features: int, dtype: Dtype, name: str, init: nn.initializers.Initializer = _xavier
) -> nn.Dense:
  """A linear layer."""
  return nn.Dense(features, dtype=dtype, kernel_init=init, name=name)
