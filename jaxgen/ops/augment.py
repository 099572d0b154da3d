"""Augmentations that a discriminator sees images through: differentiable, per example.

Karras, Aittala, Hellsten, Laine, Lehtinen & Aila (2020), "Training Generative
Adversarial Networks with Limited Data", arXiv 2006.06676, Appendix B: pixel blitting,
geometric and colour transformations ("bgc"). With p < 1 they do not leak: from the
distribution of augmented images that of the images follows (Section 2.2).

Deviations from the authors' code: blitting is done by moving pixels, so it is exact,
before other geometry is resampled; images continue as their mirror images without end,
there once and black beyond.
"""

import math

import jax
from jax import Array, lax, random
import jax.numpy as jnp
import numpy as np

from jaxgen.ops.upfirdn import separable2d

# The orthonormal wavelet filter sym6 over sqrt(2): upsampling by it and downsampling by
# its mirror image is the identity (Appendix B.2).
SYM6 = np.array(
  [
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057),
    *(-0.048311742585633, 0.4910559419267466, 0.787641141030194),
    *(0.3379294217276218, -0.07263752278646252, -0.021060292512300564),
    *(0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
  ]
) / math.sqrt(2)
MARGIN = 6  # pixels around an image that the filter, at twice the resolution, may touch


def bgc(x: Array, key: Array, p: float | Array) -> Array:
  """Each transformation with probability p, drawn for every example on its own.

  Args:
    x: float [B, H, W, C] in [-1, 1], square, with 1 or 3 channels.
    key: Of all draws.
    p: f32 [] in [0, 1]; 0 returns x bit for bit.

  Returns:
    As x; values may leave [-1, 1].

  Raises:
    ValueError: If x is not square or has other channels.
  """
  batch, height, width, channels = x.shape
  if height != width or channels not in (1, 3):
    raise ValueError(
      f"images of {height}x{width}x{channels}: expected squares of 1 or 3 channels"
    )
  blit_key, warp_key, color_key = random.split(key, 3)
  x = blit(x, *draw_blit(blit_key, batch, width, p))
  x = warp(x, draw_geometry(warp_key, batch, width, p))
  return recolor(x, *draw_color(color_key, batch, p))


def _maybe(key: Array, p: float | Array, value: Array, neutral: float) -> Array:
  """Each row of `value` with probability p, else what changes nothing."""
  on = random.bernoulli(key, p, (len(value),))
  return jnp.where(on.reshape(-1, *(1,) * (value.ndim - 1)), value, neutral)


def product(*matrices: Array) -> Array:
  """The matrix product of [B, N, N]s, in full precision on every device."""
  found = matrices[0]
  for matrix in matrices[1:]:
    found = jnp.matmul(found, matrix, precision=lax.Precision.HIGHEST)
  return found


def _mirrored(position: Array, length: int) -> Array:
  """A position on a line that goes on as its mirror image -> one in [0, length - 1]."""
  period = 2 * (length - 1)
  position = position % period
  return jnp.minimum(position, period - position)


def draw_blit(
  key: Array, batch: int, size: int, p: float | Array
) -> tuple[Array, Array, Array]:
  """What `blit` takes: uniform flips, quarter turns, shifts of at most size / 8."""
  keys = random.split(key, 6)
  flip = random.bernoulli(keys[0], 0.5, (batch,))
  turns = random.randint(keys[1], (batch,), 0, 4)
  shift = random.uniform(keys[2], (batch, 2), minval=-0.125, maxval=0.125)
  return (
    _maybe(keys[3], p, flip, False),
    _maybe(keys[4], p, turns, 0),
    _maybe(keys[5], p, jnp.round(shift * size).astype(jnp.int32), 0),
  )


def blit(x: Array, flip: Array, turns: Array, shift: Array) -> Array:
  """Moves pixels: mirrors, then turns, then shifts.

  Args:
    x: float [B, H, H, C].
    flip: bool [B]; left to right.
    turns: i32 [B], quarter turns counterclockwise, 0 ... 3.
    shift: i32 [B, 2], pixels down and to the right; mirror images move in.
  """
  select = lambda chosen, a, b: jnp.where(chosen[:, None, None, None], a, b)
  x = select(flip, x[:, :, ::-1], x)
  x = select(turns % 2 == 1, jnp.swapaxes(x, 1, 2)[:, ::-1], x)
  x = select(turns >= 2, x[:, ::-1, ::-1], x)
  size = x.shape[1]
  source = _mirrored(jnp.arange(size)[None, :, None] - shift[:, None], size)
  x = jnp.take_along_axis(x, source[:, :, 0, None, None], axis=1)
  return jnp.take_along_axis(x, source[:, None, :, 1, None], axis=2)


def _matrices(*rows: tuple) -> Array:
  """Rows of numbers and of f32 [B]s -> f32 [B, len(rows), len(rows)]."""
  entries = jnp.broadcast_arrays(
    *(jnp.asarray(x, jnp.float32) for r in rows for x in r)
  )
  return jnp.stack(entries, axis=-1).reshape(-1, len(rows), len(rows))


def scaling(x: Array, y: Array) -> Array:
  """f32 [B], f32 [B] -> homogeneous matrices, f32 [B, 3, 3]."""
  return _matrices((x, 0, 0), (0, y, 0), (0, 0, 1))


def rotation(angle: Array) -> Array:
  """f32 [B] in radians, from the x towards the y axis -> f32 [B, 3, 3]."""
  cosine, sine = jnp.cos(angle), jnp.sin(angle)
  return _matrices((cosine, -sine, 0), (sine, cosine, 0), (0, 0, 1))


def translation(x: Array, y: Array) -> Array:
  """f32 [B], f32 [B] in pixels -> f32 [B, 3, 3]."""
  return _matrices((1, 0, x), (0, 1, y), (0, 0, 1))


def draw_geometry(key: Array, batch: int, size: int, p: float | Array) -> Array:
  """What `warp` takes: scale, rotate, stretch, rotate, shift, inverted.

  Scales are 2^N(0, 0.2^2), angles uniform, shifts N(0, (size / 8)^2). At least one of
  the rotations happens with probability p.
  """
  keys = random.split(key, 10)
  zoom, stretch = (
    _maybe(keys[i], p, jnp.exp2(0.2 * random.normal(keys[i + 1], (batch,))), 1.0)
    for i in (0, 2)
  )
  once = 1 - jnp.sqrt(1 - jnp.asarray(p, jnp.float32))
  before, after = (
    _maybe(keys[i], once, math.pi * random.uniform(keys[i + 1], (batch,), minval=-1), 0)
    for i in (4, 6)
  )
  shift = 0.125 * size * random.normal(keys[9], (batch, 2))
  shift = _maybe(keys[8], p, shift, 0.0)
  return product(
    scaling(1 / zoom, 1 / zoom),
    rotation(-before),
    scaling(1 / stretch, stretch),
    rotation(-after),
    translation(-shift[:, 0], -shift[:, 1]),
  )


def warp(x: Array, inverse: Array) -> Array:
  """Moves images by affine maps, resampled at twice their resolution.

  Filter and interpolation are those of Appendix B.2; what lies outside of an image is
  its mirror image. Where `inverse` is the identity, so is the result, bit for bit.

  Args:
    x: float [B, H, W, C].
    inverse: f32 [B, 3, 3], from positions (x, y, 1) in the result to positions in x, in
      pixels from the centre to the right and down.
  """
  fine = _upsample(x)
  x_in, y_in = _positions(inverse, x.shape[1:3])
  left, top = jnp.floor(x_in), jnp.floor(y_in)
  pixels = lambda rows, columns: jax.vmap(lambda image, i, j: image[i, j])(
    fine, rows.astype(jnp.int32), columns.astype(jnp.int32)
  )
  right, low = (
    (a - b)[..., None].astype(x.dtype) for a, b in ((x_in, left), (y_in, top))
  )
  upper = (1 - right) * pixels(top, left) + right * pixels(top, left + 1)
  lower = (1 - right) * pixels(top + 1, left) + right * pixels(top + 1, left + 1)
  moved = _downsample((1 - low) * upper + low * lower)
  still = jnp.all(inverse == jnp.eye(3, dtype=inverse.dtype)[None], axis=(1, 2))
  return jnp.where(still[:, None, None, None], x, moved)


def _upsample(x: Array) -> Array:
  """[B, H, W, C] -> [B, 2 (H + 2 MARGIN), 2 (W + 2 MARGIN), C], mirrored outside."""
  x = jnp.pad(x, ((0, 0), (MARGIN,) * 2, (MARGIN,) * 2, (0, 0)), mode="reflect")
  return separable2d(x, 2 * jnp.asarray(SYM6, x.dtype), up=2, pad=(6, 5))


def _downsample(x: Array) -> Array:
  """The adjoint, but for a factor, where the whole filter fits; see `_positions`."""
  return separable2d(x, jnp.asarray(SYM6[::-1].copy(), x.dtype), down=2)


def _positions(inverse: Array, size: tuple[int, int]) -> tuple[Array, Array]:
  """Where in the upsampled image the pixels come from that `_downsample` needs.

  Returns:
    x and y, f32 [B, 2 H + 10, 2 W + 10] each.
  """
  centre = [(length - 1) / 2 for length in size]
  # Pixel j of the upsampled image lies at j / 2: sym6 has its weight at its sixth tap.
  y, x = (
    jnp.arange(-5, 2 * length + 5) / 2 - middle
    for length, middle in zip(size, centre, strict=True)
  )
  x, y = x[None, None, :], y[None, :, None]
  positions = []
  for row, length, middle in ((0, size[1], centre[1]), (1, size[0], centre[0])):
    a, b, c = (inverse[:, row, i, None, None] for i in range(3))
    from_centre = a * x + b * y + c
    near = jnp.abs(from_centre) <= middle + MARGIN / 2
    position = from_centre + middle
    position = jnp.where(near, position, _mirrored(position, length))
    positions.append(2 * (position + MARGIN))
  return positions[0], positions[1]


def draw_color(key: Array, batch: int, p: float | Array) -> tuple[Array, Array]:
  """What `recolor` takes: brightness N(0, 0.2^2) and a matrix.

  The matrix is the product of contrast 2^N(0, 0.5^2), a luma flip in every second case,
  a uniform angle of hues and saturation 2^N(0, 1).
  """
  keys = random.split(key, 10)
  normal = lambda i: random.normal(keys[i], (batch,))
  brightness = _maybe(keys[0], p, 0.2 * normal(1), 0.0)
  contrast = _maybe(keys[2], p, jnp.exp2(0.5 * normal(3)), 1.0)
  flip = _maybe(keys[4], p, random.bernoulli(keys[5], 0.5, (batch,)), False)
  angle = math.pi * random.uniform(keys[7], (batch,), minval=-1)
  angle = _maybe(keys[6], p, angle, 0.0)
  saturation = _maybe(keys[8], p, jnp.exp2(normal(9)), 1.0)
  matrix = product(saturate(saturation), rotate_hue(angle), flip_luma(flip))
  return brightness, matrix * contrast[:, None, None]


def _along_and_across(along: Array, across: Array) -> Array:
  """Grey times one factor, what differs from it times another: f32 [B, 3, 3]."""
  grey = jnp.full((1, 3, 3), 1 / 3)
  along, across = (s.astype(jnp.float32)[:, None, None] for s in (along, across))
  return across * jnp.eye(3)[None] + (along - across) * grey


def saturate(factor: Array) -> Array:
  """f32 [B] -> f32 [B, 3, 3]; 0 leaves grey."""
  return _along_and_across(jnp.ones_like(factor), factor)


def flip_luma(flip: Array) -> Array:
  """bool [B] -> f32 [B, 3, 3]; black and white change places, hues stay."""
  return _along_and_across(jnp.where(flip, -1.0, 1.0), jnp.ones(flip.shape))


def rotate_hue(angle: Array) -> Array:
  """f32 [B] in radians, around grey: red to green is 2 pi / 3 -> f32 [B, 3, 3]."""
  turn = 3**-0.5 * jnp.asarray([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], jnp.float32)[None]
  cosine, sine = jnp.cos(angle), jnp.sin(angle)
  return _along_and_across(jnp.ones_like(angle), cosine) + sine[:, None, None] * turn


def recolor(x: Array, brightness: Array, matrix: Array) -> Array:
  """matrix (color + brightness), pixel by pixel.

  Args:
    x: float [B, H, W, C], C = 1 or 3; grey images pass as colours and are averaged.
    brightness: f32 [B], added to all channels.
    matrix: f32 [B, 3, 3]. With the identity and brightness 0 the result is x, bit for
      bit.
  """
  wide = (x + brightness[:, None, None, None].astype(x.dtype))[..., None, :]
  weights = matrix[:, None, None].astype(x.dtype)
  out = (weights * wide).sum(axis=-1)  # a grey value is broadcast to three
  if x.shape[-1] == 1:
    out = out.mean(axis=-1, keepdims=True)
  still = jnp.all(matrix == jnp.eye(3, dtype=matrix.dtype)[None], axis=(1, 2))
  still &= brightness == 0
  return jnp.where(still[:, None, None, None], x, out)
