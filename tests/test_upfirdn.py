"""Resampling filters against a direct convolution, and what they must conserve."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.ops.upfirdn import (
  downsample2d,
  filter2d,
  fir_taps,
  separable2d,
  upfirdn2d,
  upsample2d,
)

KERNEL = np.arange(1.0, 7.0).reshape(2, 3)  # neither square nor symmetric


def direct(x, kernel, up, down, pad):
  """The definition, pixel by pixel, in float64."""
  b, h, w, c = x.shape
  spread = np.zeros((b, h * up, w * up, c))
  spread[:, ::up, ::up] = x
  around = ((0, 0), *((max(p, 0), max(q, 0)) for p, q in pad), (0, 0))
  spread = np.pad(spread, around)
  for axis, (p, q) in enumerate(pad, 1):
    stop = spread.shape[axis] - max(-q, 0)
    spread = np.take(spread, np.arange(max(-p, 0), stop), axis)
  kh, kw = kernel.shape
  height, width = spread.shape[1] - kh + 1, spread.shape[2] - kw + 1
  out = np.zeros((b, height, width, c))
  for i in range(kh):
    for j in range(kw):
      rows = slice(kh - 1 - i, kh - 1 - i + height)
      columns = slice(kw - 1 - j, kw - 1 - j + width)
      out += kernel[i, j] * spread[:, rows, columns]
  return out[:, ::down, ::down]


def image(*shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
  ("up", "down", "pad"),
  [
    (1, 1, ((0, 0), (0, 0))),
    (2, 1, ((1, 0), (2, 3))),
    (1, 2, ((1, 2), (0, 1))),
    (3, 2, ((-1, 2), (2, -2))),
  ],
)
def test_it_is_the_definition(up, down, pad):
  x = image(2, 5, 7, 3)
  found = upfirdn2d(x, jnp.asarray(KERNEL), up, down, pad)
  expected = direct(x, KERNEL, up, down, pad)
  assert found.dtype == jnp.float32
  assert found.shape == expected.shape
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
  ("up", "down", "pad"), [(1, 1, (2, 1)), (2, 1, (1, -1)), (1, 2, (0, 3))]
)
def test_separable_kernels(up, down, pad):
  x, taps = image(2, 5, 7, 3), np.array([1.0, -3.0, 2.0])
  found = separable2d(x, jnp.asarray(taps), up, down, pad)
  expected = direct(x, np.outer(taps, taps), up, down, (pad, pad))
  assert found.shape == expected.shape
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_a_pixel_becomes_the_kernel():
  x = np.zeros((1, 5, 5, 1), np.float32)
  x[0, 2, 2, 0] = 1
  out = upfirdn2d(x, jnp.asarray(KERNEL))
  np.testing.assert_allclose(out[0, 1:3, :, 0], KERNEL, rtol=1e-6)


@pytest.mark.parametrize("taps", [(1.0, 3.0, 3.0, 1.0), (1.0, 2.0, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("size", [8, 9])
def test_a_constant_stays_inside_of_the_margin(taps, size):
  """DC gain 1; zeros around the image darken a margin of the kernel's size only."""
  kernel = fir_taps(taps)
  np.testing.assert_allclose(kernel, np.asarray(taps) / sum(taps), rtol=1e-6)
  x = jnp.ones((1, size, size, 2))
  chex.assert_shape(upsample2d(x, kernel), (1, 2 * size, 2 * size, 2))
  chex.assert_shape(downsample2d(x, kernel), (1, size // 2, size // 2, 2))
  chex.assert_shape(filter2d(x, kernel), x.shape)
  for fn in (upsample2d, downsample2d, filter2d):
    y = fn(x, kernel)
    np.testing.assert_allclose(y[:, 3:-3, 3:-3], 1.0, rtol=1e-5, err_msg=fn.__name__)
    assert (y > 0).all()


def test_resampling_leaves_the_centre_where_it_is():
  """A ramp stays one: pixel centres of the half-size image lie between two pixels."""
  ramp = jnp.broadcast_to(jnp.arange(16.0)[None, :, None, None], (1, 16, 16, 1))
  kernel = fir_taps()
  down = downsample2d(ramp, kernel)[0, 2:-2, 4, 0]
  np.testing.assert_allclose(down, 2 * np.arange(2, 6) + 0.5, rtol=1e-5)
  up = upsample2d(ramp, kernel)[0, 4:-4, 8, 0]
  np.testing.assert_allclose(up, (np.arange(4, 28) - 0.5) / 2, rtol=1e-5)
  np.testing.assert_allclose(
    filter2d(ramp, fir_taps((1.0, 2.0, 1.0)))[0, 2:-2, 8, 0],
    np.arange(2.0, 14.0),
    rtol=1e-5,
  )


@pytest.mark.parametrize("size", [6, 7])
def test_down_is_a_quarter_of_the_adjoint_of_up(size):
  """<up x, y> = 4 <x, down y>, since the kernel is symmetric."""
  kernel = fir_taps()
  x, y = image(2, size, size, 3), image(2, 2 * size, 2 * size, 3, seed=1)
  left = np.vdot(upsample2d(x, kernel), y)
  np.testing.assert_allclose(left, 4 * np.vdot(x, downsample2d(y, kernel)), rtol=1e-4)
  gradient = jax.jit(jax.grad(lambda x: jnp.vdot(upsample2d(x, kernel), y)))(x)
  np.testing.assert_allclose(gradient, 4 * downsample2d(y, kernel), rtol=1e-4)


def test_mistakes_are_named():
  x = jnp.zeros((1, 2, 2, 1))
  with pytest.raises(ValueError, match=r"taps=\(1.0, -1.0\): expected"):
    fir_taps((1.0, -1.0))
  with pytest.raises(ValueError, match="up=0, down=1: expected at least 1"):
    upfirdn2d(x, jnp.asarray(KERNEL), up=0)
  with pytest.raises(ValueError, match="2 pixels with up=1 .* less than the 4 taps"):
    separable2d(x, fir_taps())
