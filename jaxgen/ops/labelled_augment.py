"""Geometric augmentations and what was done, for networks that are told.

Karras, Aittala, Aila & Laine (2022), "Elucidating the Design Space of Diffusion-Based
Generative Models", arXiv 2206.00364, Appendix F.2: a network that knows the
augmentation of what it sees need not put it into what it draws. Images are moved as in
`jaxgen.ops.augment`.

Deviation from the authors' code: images go on as their mirror images without end, there
once and black beyond.
"""

import math

from jax import Array, random
import jax.numpy as jnp

from jaxgen.ops import augment

NUM_LABELS = 9
STD = 0.2  # of binary logarithms of scales
SHIFT = 0.125  # standard deviation of shifts, of the size of the image


def labelled_augment(
  x: Array, key: Array, p: float | Array = 0.12
) -> tuple[Array, Array]:
  """Mirrors, scales, rotates, stretches, shifts; all but the first with probability p.

  Args:
    x: float [B, H, H, C].
    key: Of all draws.
    p: f32 [] in [0, 1]. Half of the images are mirrored, whatever it is.

  Returns:
    Images as x, and f32 [B, 9]: mirrored left to right, upside down (0 or 1); z of the
    scale 2^(0.2 z); cosine - 1 and sine of the rotation; z times cosine and sine of the
    direction of a stretch by 2^(0.2 z); the shift to the right and down, over an eighth
    of the size. Zeros are the image as it was.

  Raises:
    ValueError: If x is not square.
  """
  batch, height, width, _ = x.shape
  if height != width:
    raise ValueError(f"images of {height}x{width}: expected squares")
  keys = random.split(key, 13)
  normal = lambda i: random.normal(keys[i], (batch,))
  angle = lambda i: math.pi * random.uniform(keys[i], (batch,), minval=-1)
  coin = lambda i, p: random.bernoulli(keys[i], p, (batch,))
  maybe = lambda i, value: jnp.where(coin(i, p), value, 0.0)

  mirrored = coin(0, 0.5)
  turned = coin(1, 0.5) & coin(2, p)
  zoom = maybe(3, normal(4))
  rotation = maybe(5, angle(6))
  stretch = maybe(7, normal(8))
  direction = jnp.where(coin(9, 0.5), angle(10), 0.0)
  shifted = coin(11, p)[:, None]
  shift = jnp.where(shifted, random.normal(keys[12], (batch, 2)), 0.0)

  images = moved(x, mirrored, turned, zoom, rotation, stretch, direction, shift)
  labels = (
    *(mirrored, turned, zoom, jnp.cos(rotation) - 1, jnp.sin(rotation)),
    *(stretch * jnp.cos(direction), stretch * jnp.sin(direction)),
    *(shift[:, 0], shift[:, 1]),
  )
  return images, jnp.stack([label.astype(jnp.float32) for label in labels], axis=1)


def moved(
  x: Array,
  mirrored: Array,
  turned: Array,
  zoom: Array,
  rotation: Array,
  stretch: Array,
  direction: Array,
  shift: Array,
) -> Array:
  """The images, with the augmentations of these numbers; see `labelled_augment`.

  Args:
    x: float [B, H, H, C].
    mirrored: bool [B], left to right.
    turned: bool [B], upside down.
    zoom: f32 [B].
    rotation: f32 [B] in radians, clockwise.
    stretch: f32 [B].
    direction: f32 [B] in radians, clockwise from the right.
    shift: f32 [B, 2], to the right and down.
  """
  pick = lambda chosen, a, b: jnp.where(chosen[:, None, None, None], a, b)
  x = pick(mirrored, x[:, :, ::-1], x)
  x = pick(turned, x[:, ::-1], x)
  scale, longer = jnp.exp2(STD * zoom), jnp.exp2(STD * stretch)
  pixels = SHIFT * x.shape[2] * shift
  # From positions in the result to those in x: the inverses, the last one first.
  inverse = augment.product(
    augment.scaling(1 / scale, 1 / scale),
    augment.rotation(-rotation),
    augment.rotation(direction),
    augment.scaling(1 / longer, longer),
    augment.rotation(-direction),
    augment.translation(-pixels[:, 0], -pixels[:, 1]),
  )
  # Products of rotations equal the identity but for rounding, which `warp` minds.
  still = (zoom == 0) & (rotation == 0) & (stretch == 0) & (shift == 0).all(axis=1)
  identity = jnp.eye(3, dtype=inverse.dtype)[None]
  return augment.warp(x, jnp.where(still[:, None, None], identity, inverse))
