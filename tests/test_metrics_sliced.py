"""Sliced Wasserstein distance: closed forms, and parity with scipy."""

from pathlib import Path

from golden import make_sliced
from golden.make_metrics_sets import inputs
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.metrics import sliced_wasserstein as swd

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics_sets.npz")
INPUTS = inputs()
IMAGES = random.normal(random.key(0), (40, 32, 32, 3))


def test_projected_distance_equals_scipy():
  arguments = INPUTS["x"], INPUTS["y"], INPUTS["directions"]
  ours = swd.projected_distance(*(jnp.asarray(a) for a in arguments))
  np.testing.assert_allclose(ours, GOLDEN["slices"], rtol=1e-6)


def test_projected_distance_in_closed_form():
  points = random.normal(random.key(0), (50, 4))
  directions = jnp.concatenate([jnp.eye(4), -7 * jnp.eye(4)])
  shift = jnp.array([[1.0, -2.0, 3.0, 0.0]])
  of = lambda a, b: swd.projected_distance(a, b, directions)
  assert of(points, points[::-1]) == 0  # A set has no order.
  np.testing.assert_allclose(of(points, points + shift), 6 / 4, rtol=1e-6)
  # Two Gaussians on a line: W1 is the distance of their means, sqrt(2/pi) of scales.
  line = random.normal(random.key(1), (2, 20_000, 1))
  of = lambda a, b: swd.projected_distance(a, b, jnp.ones((1, 1)))
  np.testing.assert_allclose(of(line[0], line[1] + 0.7), 0.7, atol=0.03)
  wide = of(line[0], 3 * line[1])
  np.testing.assert_allclose(wide, 2 * np.sqrt(2 / np.pi), atol=0.05)


def test_pyramid_equals_scipy():
  with jax.enable_x64(True):
    for level in range(3):
      ours = swd._band(jnp.asarray(INPUTS["images"]), level, 3)
      assert ours.dtype == jnp.float64
      np.testing.assert_allclose(ours, GOLDEN[f"pyramid_{level}"], atol=1e-15)


def test_bands_hold_their_frequencies():
  """A constant is in the coarsest level only; a checkerboard in the finest."""
  flat = jnp.full((1, 32, 32, 1), 0.3)
  fine, middle, coarse = (swd._band(flat, level, 3) for level in range(3))
  np.testing.assert_allclose(fine, 0, atol=1e-6)
  np.testing.assert_allclose(middle, 0, atol=1e-6)
  np.testing.assert_allclose(coarse, 0.3, rtol=1e-6)
  board = (-1.0) ** jnp.add.outer(jnp.arange(32), jnp.arange(32))[None, :, :, None]
  fine, middle, coarse = (swd._band(board, level, 3) for level in range(3))
  np.testing.assert_allclose(fine, board, atol=1e-6)
  np.testing.assert_allclose(
    jnp.stack([jnp.ptp(middle), jnp.ptp(coarse)]), 0, atol=1e-6
  )


def test_descriptors_are_patches_of_their_image_normalised_per_channel(monkeypatch):
  scaled = IMAGES * jnp.array([1.0, 5.0, 0.1])[None, None, None] + 3.0
  points = swd.descriptors(scaled, 0, 1, 6, random.key(1))
  assert points.shape == (240, 147) and points.dtype == jnp.float32
  channels = points.reshape(240, 49, 3)
  np.testing.assert_allclose(channels.mean((0, 1)), 0, atol=1e-5)
  np.testing.assert_allclose(channels.std((0, 1)), 1, rtol=1e-5)
  # An image that tells every pixel's place: patches are 7x7, contiguous, everywhere.
  place = jnp.arange(12 * 9, dtype=jnp.float32).reshape(1, 12, 9, 1)
  patches = swd._patches(place, random.key(0), 0, 500)[0, ..., 0]
  steps = patches - patches[:, :1, :1]
  expected = 9 * jnp.arange(7)[:, None] + jnp.arange(7)[None]
  np.testing.assert_array_equal(steps, jnp.tile(expected[None], (500, 1, 1)))
  corners = np.unique(patches[:, 0, 0])
  assert set(corners) == {9 * r + c for r in range(6) for c in range(3)}
  # Batches change nothing.
  monkeypatch.setattr(swd, "IMAGES_AT_ONCE", 7)
  batched = swd.descriptors(scaled, 0, 1, 6, random.key(1))
  np.testing.assert_allclose(batched, points, atol=1e-5)


def test_distance_of_levels():
  few = {"key": random.key(2), "patches_per_image": 8, "num_directions": 32}
  y = random.normal(random.key(3), IMAGES.shape)
  near = swd.sliced_wasserstein(IMAGES, y, **few)
  assert near.shape == (2,) and near.dtype == jnp.float32  # 32 and 16 pixels.
  assert np.all(near > 0)
  np.testing.assert_array_equal(near, swd.sliced_wasserstein(IMAGES, y, **few))
  # Any range and offset of either set: patches are normalised. Shapes are not.
  again = swd.sliced_wasserstein(IMAGES, 127.5 * (y + 1), **few)
  np.testing.assert_allclose(again, near, rtol=2e-3)


def test_noise_against_constant_images_in_closed_form():
  """Projections are N(0, 1) and N(0, s^2), s the sum of a direction's 49 parts.

  Their distance is sqrt(2/pi) |1 - |s||, and s is close to N(0, 1).
  """
  noise = random.normal(random.key(0), (3000, 8, 8, 1))
  constant = noise[:, :1, :1] + jnp.zeros((3000, 8, 8, 1))
  few = {"patches_per_image": 2, "num_directions": 1000, "num_levels": 1}
  s = np.abs(np.random.default_rng(0).standard_normal(10**6))
  expected = 1000 * np.sqrt(2 / np.pi) * np.mean(np.abs(1 - s))
  ours = swd.sliced_wasserstein(noise, constant, key=random.key(4), **few)
  np.testing.assert_allclose(ours, [expected], rtol=0.05)
  assert swd.sliced_wasserstein(noise, -noise, key=random.key(4), **few) < 30


def test_sizes_and_errors():
  sizes = {28: 1, 32: 2, 63: 2, 64: 3}
  for size, levels in sizes.items():
    if size != 63:
      x = jnp.zeros((1, size, size, 1)) + jnp.arange(float(size))[None, None, :, None]
      few = {"patches_per_image": 2, "num_directions": 2, "key": random.key(0)}
      assert swd.sliced_wasserstein(x, x, **few).shape == (levels,)
  odd = jnp.zeros((1, 63, 63, 1))
  with pytest.raises(ValueError, match="2 levels need sides that are multiples of 2"):
    swd.sliced_wasserstein(odd, odd, key=random.key(0))
  with pytest.raises(ValueError, match=r"at least 28, got \(24, 24\)"):
    swd.sliced_wasserstein(
      odd[:, :24, :24], odd[:, :24, :24], key=random.key(0), num_levels=3
    )
  with pytest.raises(ValueError, match=r"got \[40, 32, 32, 3\] and \[1, 63, 63, 1\]"):
    swd.sliced_wasserstein(IMAGES, odd, key=random.key(0))


def test_equals_the_authors_code_on_the_same_patches_and_directions():
  """Pyramid, patches, normalisation, distance: golden/make_sliced.py ran theirs."""
  golden = np.load(Path(__file__).parent / "golden" / "sliced.npz")
  found = []
  for level in range(2):
    points = []
    for name, images in zip("xy", make_sliced.images(), strict=True):
      band = swd._band(jnp.asarray(images, jnp.float32), level, 2)
      corners = jnp.asarray(golden[f"corners_{name}_{level}"], jnp.int32)
      points.append(swd._normalise(jax.vmap(swd.cut)(band, corners)))
    directions = jnp.asarray(make_sliced.directions(level))
    found.append(1e3 * swd.projected_distance(*points, directions))
  np.testing.assert_allclose(found, golden["distances"], rtol=1e-5)
  np.testing.assert_allclose(np.mean(found), golden["average"], rtol=1e-5)
