"""Augmentations: exact where they move pixels, matrices where they mix colours."""

import functools

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.ops import augment
from jaxgen.ops.augment import SYM6, bgc, blit, recolor, warp

KEY = random.key(0)
NONE = (np.zeros(4, bool), np.zeros(4, np.int32), np.zeros((4, 2), np.int32))
pytestmark = pytest.mark.filterwarnings("error")


def images(batch=4, size=9, channels=3, seed=0):
  shape = (batch, size, size, channels)
  return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_probability_zero_is_the_identity_bit_for_bit(channels):
  x = images(channels=channels)
  np.testing.assert_array_equal(jax.jit(bgc)(x, KEY, 0.0), x)
  moved = np.asarray(jax.jit(bgc)(x, KEY, 1.0))
  assert moved.shape == x.shape
  assert moved.dtype == x.dtype
  assert (np.abs(moved - x).max(axis=(1, 2, 3)) > 0.1).all()  # Every example.


def test_blitting_is_exact():
  x = images()
  flip, turns, shift = NONE
  every = np.ones(4, bool)
  np.testing.assert_array_equal(blit(x, every, turns, shift), x[:, :, ::-1])
  quarters = np.arange(4, dtype=np.int32)
  turned = blit(x, flip, quarters, shift)
  for i in range(4):
    np.testing.assert_array_equal(turned[i], np.rot90(x[i], i))
  moves = np.array([[0, 0], [2, 0], [0, -3], [-1, 1]], np.int32)
  moved = np.asarray(blit(x, flip, turns, moves))
  for i, (down, right) in enumerate(moves):
    wide = np.pad(x[i], ((4, 4), (4, 4), (0, 0)), mode="reflect")
    wide = np.roll(wide, (down, right), (0, 1))
    np.testing.assert_array_equal(moved[i], wide[4:-4, 4:-4])


def test_the_filter_is_orthonormal():
  """sum_k h[k] h[k + 2n] = delta_n: what makes the detour over 2x exact."""
  taps = SYM6 * np.sqrt(2)
  for n in range(1, 6):
    assert abs(taps[2 * n :] @ taps[: -2 * n]) < 1e-12
  np.testing.assert_allclose([taps @ taps, SYM6.sum()], 1.0, rtol=1e-10)


def test_resampling_loses_nothing_where_the_map_is_a_shift_by_whole_pixels():
  """Through the filters (an almost-identity is not passed by), to rounding."""
  x = images()
  for down, right in ((0, 0), (2, 0), (0, -3), (-1, 1)):
    shift = np.broadcast_to(np.float32([right, down]), (4, 2)) + np.float32(1e-6)
    inverse = augment.translation(-shift[:, 0], -shift[:, 1])
    moved = np.asarray(jax.jit(warp)(x, inverse))
    expected = blit(x, NONE[0], NONE[1], np.int32([[down, right]] * 4))
    inner = (slice(None), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(moved[inner], np.asarray(expected)[inner], atol=2e-5)
    if not down and not right:
      np.testing.assert_allclose(moved, x, atol=2e-5)  # Also at the border.


def test_a_smooth_image_is_moved_as_a_function_is():
  """x(u, v) = cos(a u + b v + c) under rotation, scale and shift, in closed form."""
  size = 24
  y, x = np.mgrid[:size, :size] - (size - 1) / 2
  wave = lambda x, y: np.cos(0.25 * x - 0.15 * y + 0.3)[None, :, :, None]
  angle, scale, shift = 0.4, 1.25, (1.3, -0.6)
  one = lambda value: np.float32([value])
  inverse = augment.product(
    augment.rotation(one(angle)),
    augment.scaling(one(scale), one(1 / scale)),
    augment.translation(one(shift[0]), one(shift[1])),
  )
  x_in, y_in = (x + shift[0]) * scale, (y + shift[1]) / scale
  cosine, sine = np.cos(angle), np.sin(angle)
  expected = wave(cosine * x_in - sine * y_in, sine * x_in + cosine * y_in)
  moved = np.asarray(warp(wave(x, y).astype(np.float32), inverse))
  inner = (slice(None), slice(7, -7), slice(7, -7))
  # sym6 is not quite symmetric, which costs 0.03 pixels once an image turns.
  np.testing.assert_allclose(moved[inner], expected[inner], atol=0.01)
  assert np.abs(moved - wave(x, y))[inner].max() > 0.3


def test_zooming_out_shows_mirror_images():
  """A constant stays constant, however little of it is inside."""
  x = np.full((2, 9, 9, 1), 0.7, np.float32)
  tiny = augment.scaling(np.float32([5.0, 30.0]), np.float32([5.0, 30.0]))
  np.testing.assert_allclose(warp(x, tiny), x, rtol=1e-4)


def test_colour_transforms_are_their_matrices():
  x = images()
  red, green, blue = np.eye(3)
  third = np.float32([2 * np.pi / 3] * 4)
  cycled = recolor(x, np.zeros(4, np.float32), augment.rotate_hue(third))
  np.testing.assert_allclose(cycled, x[..., [2, 0, 1]], atol=1e-6)
  turn = np.asarray(augment.rotate_hue(third))[0]
  np.testing.assert_allclose(turn @ red, green, atol=1e-6)
  np.testing.assert_allclose(turn @ green, blue, atol=1e-6)
  mean = x.mean(axis=-1, keepdims=True)
  grey = recolor(x, np.zeros(4, np.float32), augment.saturate(jnp.zeros(4)))
  np.testing.assert_allclose(grey, np.broadcast_to(mean, x.shape), atol=1e-6)
  twice = recolor(x, np.zeros(4, np.float32), augment.saturate(2 * jnp.ones(4)))
  np.testing.assert_allclose(twice, mean + 2 * (x - mean), atol=1e-6)
  flipped = recolor(x, np.zeros(4, np.float32), augment.flip_luma(NONE[0] | True))
  np.testing.assert_allclose(flipped, x - 2 * mean, atol=1e-6)
  matrix = np.random.default_rng(1).standard_normal((4, 3, 3)).astype(np.float32)
  shift = np.float32([0.1, -0.2, 0.3, 0.0])
  expected = np.einsum("bij,bhwj->bhwi", matrix, x + shift[:, None, None, None])
  np.testing.assert_allclose(recolor(x, shift, matrix), expected, atol=1e-5)


def test_grey_images_are_treated_as_grey_colours():
  x = images(channels=1)
  brightness, matrix = augment.draw_color(KEY, 4, 1.0)
  colours = recolor(np.repeat(x, 3, axis=-1), brightness, matrix)
  grey = recolor(x, brightness, matrix)
  np.testing.assert_allclose(grey[..., 0], np.asarray(colours).mean(-1), atol=1e-6)


def test_each_example_draws_its_own_with_probability_p():
  """Frequencies of 4,000 draws at p = 0.3 and the moments of the distributions."""
  n, p = 4000, 0.3
  flip, turns, shift = augment.draw_blit(KEY, n, 32, p)
  near = functools.partial(np.testing.assert_allclose, atol=0.03)
  near(np.mean(flip), p / 2)
  near(np.bincount(turns, minlength=4) / n, [1 - 0.75 * p, *[p / 4] * 3])
  assert np.abs(shift).max() == 4  # 32 / 8
  near(np.mean(np.any(np.asarray(shift) != 0, axis=1)), p * (1 - (1 / 8) ** 2))
  brightness, matrix = augment.draw_color(KEY, n, p)
  near(np.mean(np.asarray(brightness) != 0), p)
  near(np.std(np.asarray(brightness)[np.asarray(brightness) != 0]), 0.2)
  identity = np.all(np.asarray(matrix) == np.eye(3), axis=(1, 2))
  near(identity.mean(), (1 - p) ** 3 * (1 - p / 2))
  inverse = np.asarray(augment.draw_geometry(KEY, n, 32, p))
  near(np.all(inverse == np.eye(3), axis=(1, 2)).mean(), (1 - p) ** 4)
  # Isotropic scale is all that changes areas: 2^N(0, 0.2^2) for each side.
  log_area = np.log2(np.linalg.det(inverse))
  near(np.std(log_area), 0.4 * p**0.5)


def test_gradients_reach_the_image_and_are_right():
  """<J v, y> = <v, J^T y>, and by finite differences: all is linear in the image."""
  x, v, y = (images(2, 9, 3, seed) for seed in (0, 1, 2))
  f = jax.jit(lambda x: bgc(x, KEY, 0.9))
  value, pull_back = jax.vjp(f, x)
  tangent = np.asarray(f(x + 0.5 * v)) - np.asarray(f(x - 0.5 * v))
  (gradient,) = pull_back(jnp.asarray(y))
  np.testing.assert_allclose(np.vdot(gradient, v), np.vdot(tangent, y), rtol=1e-4)
  assert np.abs(value - x).max() > 0.1
  assert (np.abs(gradient) > 0).mean() > 0.5


def test_mistakes_are_named():
  with pytest.raises(ValueError, match="8x9x3: expected squares of 1 or 3"):
    bgc(jnp.zeros((1, 8, 9, 3)), KEY, 0.5)
