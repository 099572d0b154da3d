"""PSNR, SSIM and colours: closed forms, other libraries, published figures, errors."""

import io
from pathlib import Path
import zipfile

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from jaxgen.metrics import psnr as P
from jaxgen.metrics import ssim as S
from jaxgen.metrics import video
from jaxgen.metrics.frechet import frechet_distance, moments
from jaxgen.ops import color
from jaxgen.ops.resize import resize_matlab_bicubic

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics_pairs.npz")
SET5 = (
  Path(__file__).resolve().parents[2] / "shared/data/super_resolution/Set5.zip"
)  # fmt: skip
OPTIONS = "data_range", "levels", "window", "sigma", "k1", "k2"
ssim = jax.jit(S.ssim, static_argnames=OPTIONS[:1] + OPTIONS[2:])
ms_ssim = jax.jit(S.ms_ssim, static_argnames=OPTIONS)
UNIT = {"data_range": (0.0, 1.0)}
BYTES = {"data_range": (0.0, 255.0)}


def pair(shape, seed=0):
  """As in golden/make_metrics_pairs.py: waves in [0, 1], and the same with noise."""
  rng = np.random.default_rng(seed)
  b, h, w, c = shape
  phase = 6 * rng.random((b, 1, 1, c))
  waves = np.sin(np.arange(h).reshape(1, -1, 1, 1) / 5 + phase) * np.cos(
    np.arange(w).reshape(1, 1, -1, 1) / 7
  )
  x = np.clip(0.5 + 0.4 * waves + 0.05 * rng.standard_normal(shape), 0, 1)
  return x, np.clip(0.9 * x + 0.15 * rng.standard_normal(shape), 0, 1)


def flat(value, shape=(1, 16, 16, 1)):
  return jnp.full(shape, value, jnp.float32)


def close(ours, theirs, rtol=1e-10, **kw):
  np.testing.assert_allclose(ours, theirs, rtol=rtol, **kw)


def test_black_white_and_grey_in_ycbcr():
  grey = jnp.array([[0.0], [255.0], [100.0]]) * jnp.ones((1, 3))
  expected = [[16, 128, 128], [235, 128, 128], [16 + 219 * 100 / 255, 128, 128]]
  close(color.rgb_to_ycbcr(grey), expected, rtol=1e-6)
  close(color.rgb_to_y(grey)[:, 0], [row[0] for row in expected], rtol=1e-6)
  red, blue = color.rgb_to_ycbcr(jnp.array([[255.0, 0, 0], [0, 0, 255.0]]))
  close(red[2], 240, rtol=1e-6)  # the most Cr and Cb there is
  close(blue[1], 240, rtol=1e-6)


@pytest.mark.smoke
def test_colours_equal_scikit_image_and_basicsr():
  with jax.enable_x64(True):
    rgb = 255 * jnp.asarray(np.random.default_rng(0).random((5, 3)))
    ycbcr = color.rgb_to_ycbcr(rgb)
    assert ycbcr.dtype == jnp.float64
    close(ycbcr, GOLDEN["color/skimage"], rtol=1e-13)
    close(ycbcr, GOLDEN["color/basicsr"], rtol=3e-7)  # it computes in float32
    close(color.rgb_to_y(rgb), ycbcr[:, :1], rtol=1e-13)
    close(color.ycbcr_to_rgb(ycbcr), rgb, rtol=1e-12)
    close(color.ycbcr_to_rgb(ycbcr) / 255, GOLDEN["color/skimage_inverse"], rtol=1e-12)


def test_unfit_colours_are_explained():
  with pytest.raises(ValueError, match=r"3 channels, got shape \(4, 1\)"):
    color.rgb_to_ycbcr(jnp.zeros((4, 1)))
  with pytest.raises(TypeError, match="floats in 0..255, got uint8"):
    color.rgb_to_y(jnp.zeros((4, 3), jnp.uint8))


def test_pixel_errors_by_hand():
  x = jnp.array([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
  y = jnp.array([[1.0, -1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.8]])
  close(P.mse(x, y), [0.5, 0.01], rtol=1e-6)
  close(P.mae(x, y), [0.5, 0.05], rtol=1e-6)
  # 10 log10(2^2 / 0.5), 10 log10(2^2 / 0.01)
  close(P.psnr(x, y), [9.0308999, 26.0205999], rtol=1e-6)
  close(P.psnr(x, y, **UNIT), [3.0103, 20.0], rtol=1e-6)
  assert np.all(P.psnr(x, x) == np.inf)


def test_psnr_equals_scikit_image():
  with jax.enable_x64(True):
    ours = P.psnr(*map(jnp.asarray, pair((2, 24, 31, 3))), **UNIT)
  close(ours, [GOLDEN[f"psnr/skimage/{i}"] for i in range(2)], rtol=1e-13)


@pytest.mark.parametrize("luma", [False, True])
@pytest.mark.parametrize("crop", [0, 3])
def test_super_resolution_protocol_equals_basicsr(luma, crop):
  name = f"{'luma' if luma else 'rgb'}/{crop}"
  options = {"crop": crop, "luma": luma, "round_luma": False}
  with jax.enable_x64(True):
    x, y = (2 * jnp.asarray(i) - 1 for i in pair((1, 30, 37, 3)))
    ours = P.super_resolution_psnr(x, y, **options)[0]
    # BasicSR computes luma in float32.
    close(ours, GOLDEN[f"sr_psnr/{name}"], rtol=1e-7 if luma else 1e-12)
    ours = S.super_resolution_ssim(x, y, **options)[0]
    close(ours, GOLDEN[f"sr_ssim/{name}"], rtol=1e-7 if luma else 1e-12)


def test_super_resolution_pixels():
  x = jnp.array([-1.2, -1.0, 99.6 / 127.5 - 1, 1.3]).reshape(1, 2, 2, 1)
  pixels = P.super_resolution_pixels(x, crop=0)
  np.testing.assert_array_equal(pixels.ravel(), [0, 0, 100, 255])  # one channel
  grey = jnp.broadcast_to(x, (1, 2, 2, 3))
  luma = 16 + 219 / 255 * np.array([0, 0, 100, 255])
  pixels = lambda **kw: P.super_resolution_pixels(grey, crop=0, **kw).ravel()
  close(pixels(round_luma=False), luma, rtol=1e-6)
  np.testing.assert_array_equal(pixels(), np.round(luma))
  np.testing.assert_array_equal(pixels(luma=False)[-6:], [100] * 3 + [255] * 3)
  border = jnp.zeros((1, 8, 9, 1)).at[:, 2:6, 2:7].set(1.0)
  inside = P.super_resolution_pixels(border, crop=2, **UNIT)
  np.testing.assert_array_equal(inside, np.full((1, 4, 5, 1), 255))


@pytest.mark.parametrize(
  ("scale", "db", "similarity"),
  [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)],
)
def test_bicubic_set5_has_the_published_scores(scale, db, similarity):
  """Of luma alone, degraded and restored; ours, to more digits, round to theirs."""
  if not SET5.exists():
    pytest.skip(f"needs Set5 at {SET5}")

  @jax.jit
  def scores(rgb):
    to_bytes = lambda x: jnp.round(jnp.clip(x, 0, 255))
    y = to_bytes(color.rgb_to_y(rgb))
    height, width = y.shape[1:3]
    low = resize_matlab_bicubic(y, (height // scale, width // scale))
    high = to_bytes(resize_matlab_bicubic(low, (height, width)))
    metrics = P.super_resolution_psnr, S.super_resolution_ssim
    return [f(high, y, crop=scale, **BYTES)[0] for f in metrics]

  found = []
  with zipfile.ZipFile(SET5) as archive:
    for name in archive.namelist():
      with Image.open(io.BytesIO(archive.read(name))) as image:
        rgb = np.asarray(image.convert("RGB"), np.float32)
      height, width = (side // scale * scale for side in rgb.shape[:2])
      found.append(jax.device_get(scores(rgb[None, :height, :width])))
  assert len(found) == 5
  ours = np.mean(found, axis=0)
  close(ours[0], db, rtol=0, atol=0.005)
  close(ours[1], similarity, rtol=0, atol=7e-5)


@pytest.mark.smoke
def test_ssim_equals_other_libraries():
  with jax.enable_x64(True):
    x, y = map(jnp.asarray, pair((2, 24, 31, 3)))
    ours = ssim(x, y, **UNIT)
    assert ours.dtype == jnp.float64
    close(ours, GOLDEN["ssim/pytorch_msssim"])
    close(ours, GOLDEN["ssim/piq"])
    close(ours, GOLDEN["ssim/torchmetrics"])
    close(ours, [GOLDEN[f"ssim/skimage/{i}"] for i in range(2)])
    options = {"window": 7, "sigma": 1.0, "k1": 0.02, "k2": 0.05}
    close(ssim(x, y, **options, **UNIT), GOLDEN["ssim/piq_other_options"])
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(S.ssim(x, y, **UNIT))))(x)
    theirs = GOLDEN["ssim/gradient"]
    close(gradient.ravel()[::7], theirs, rtol=0, atol=1e-10 * abs(theirs).max())


def test_ms_ssim_equals_other_libraries():
  with jax.enable_x64(True):
    score = lambda shape, **kw: ms_ssim(*map(jnp.asarray, pair(shape)), **UNIT, **kw)
    ours = score((2, 176, 192, 3))
    close(ours, GOLDEN["ms_ssim/pytorch_msssim"])
    close(ours, GOLDEN["ms_ssim/piq"])
    close(score((2, 28, 28, 1), levels=2), GOLDEN["ms_ssim/piq/2"])
    close(score((2, 64, 64, 1), levels=3), GOLDEN["ms_ssim/piq/3"])
    x, y = map(jnp.asarray, pair((1, 163, 170, 1)))  # odd sizes get a black line
    total = lambda x: jnp.sum(ms_ssim(x, y, **UNIT))
    value, gradient = jax.jit(jax.value_and_grad(total))(x)
    close(value, GOLDEN["ms_ssim/odd"][0])
    theirs = GOLDEN["ms_ssim/odd_gradient"]
    close(gradient.ravel()[::7][:500], theirs, rtol=0, atol=1e-10 * abs(theirs).max())


def test_negative_contrast_counts_as_zero_and_has_a_finite_gradient():
  with jax.enable_x64(True):
    x, y = map(jnp.asarray, pair((1, 176, 176, 2)))
    y = y.at[..., 0].set(1 - y[..., 0])
    total = lambda x: jnp.sum(ms_ssim(x, y, **UNIT))
    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(total))(x))
  close(value, GOLDEN["ms_ssim/negative"][0])
  assert np.all(gradient[..., 0] == 0)
  assert np.all(np.isfinite(gradient))
  assert np.any(gradient[..., 1] != 0)


def test_equal_images_score_one_and_others_less():
  x = jnp.asarray(pair((2, 64, 48, 3))[0], jnp.float32)
  for score in (ssim(x, x, **UNIT), ms_ssim(x, x, levels=3, **UNIT)):
    assert score.shape == (2,)
    assert score.dtype == jnp.float32
    close(score, 1.0, rtol=1e-6)
  assert np.all(ssim(x, 0.9 * x, **UNIT) < 0.99)


def test_gradients_of_equal_and_of_flat_images_are_zero():
  total = lambda x, y: jnp.sum(S.ms_ssim(x, y, levels=2))
  gradient = jax.jit(jax.grad(total))
  x = jnp.asarray(pair((1, 24, 24, 1))[0], jnp.float32)
  for images in (x, flat(0.2, x.shape)):
    close(gradient(images, images), 0.0, rtol=0, atol=1e-7)


def test_ssim_of_flat_images():
  a, b, c1 = 0.3, 0.8, 0.01**2
  luminance = (2 * a * b + c1) / (a * a + b * b + c1)
  close(ssim(flat(a), flat(b), **UNIT), luminance, rtol=1e-5)
  # The same two greys in other ranges: black must be where the range says.
  close(ssim(flat(2 * a - 1), flat(2 * b - 1)), luminance, rtol=1e-5)
  close(ssim(flat(255 * a), flat(255 * b), **BYTES), luminance, rtol=1e-5)
  # All five scales of flat images have contrast 1; the luminance has the last weight.
  large = [flat(value, (1, 176, 176, 1)) for value in (a, b)]
  close(ms_ssim(*large, **UNIT), luminance**0.1333, rtol=1e-5)
  small = [image[:, :22, :22] for image in large]
  expected = luminance ** (0.2856 / (0.0448 + 0.2856))
  close(ms_ssim(*small, levels=2, **UNIT), expected, rtol=1e-5)


def test_float32_is_close_to_float64():
  x, y = pair((2, 64, 64, 1))
  y = x + 1e-3 * (y - x)  # a good reconstruction: small differences of moments
  single = ssim(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), **UNIT)
  with jax.enable_x64(True):
    double = np.asarray(ssim(jnp.asarray(x), jnp.asarray(y), **UNIT))
  assert np.all(double < 1 - 1e-6)
  close(single, double, rtol=0, atol=5e-8)


@pytest.mark.parametrize(
  ("side", "levels", "most", "text"),
  [
    (
      160,
      5,
      4,
      "160x160 .*window=11 and levels=5.*at least 161x161.*levels=4 is the m",
    ),
    (28, 3, 2, "28x28 .*at least 41x41 pixels; levels=2 is the most"),
    (8, 2, 0, "8x8 .*at least 21x21 pixels$"),
  ],
)
def test_small_images_are_explained(side, levels, most, text):
  assert S.most_levels((1, side, side + 1, 1)) == most
  with pytest.raises(ValueError, match=text):
    S.ms_ssim(flat(0.0, (1, side, side, 1)), flat(0.0, (1, side, side, 1)),
              levels=levels)  # fmt: skip


@pytest.mark.parametrize(
  ("call", "error", "text"),
  [
    (lambda x: P.mse(x, x[:, :8]), ValueError, r"\(1, 16, 16, 1\) and \(1, 8, 16, 1\)"),
    (lambda x: P.mae(x[0, 0, 0], x[0, 0, 0]), ValueError, r"two axes, got \(1,\)"),
    (lambda x: P.psnr(x, x.astype(int)), TypeError, "expected floats, got int32"),
    (lambda x: P.psnr(x, x, data_range=2.0), TypeError, r"\(lowest, highest\).* 2.0"),
    (lambda x: S.ssim(x, x, data_range=(1, 1)), ValueError, r"grow.*\(1, 1\)"),
    (lambda x: S.ssim(x, x, window=10), ValueError, "odd and positive, got 10"),
    (lambda x: S.ssim(x[0], x[0]), ValueError, r"\[B, H, W, C\], got .*\(16, 16, 1\)"),
    (lambda x: S.ms_ssim(x, x, levels=6), ValueError, r"1\.\.5, got 6"),
    (lambda x: P.super_resolution_pixels(x, crop=8), ValueError, "crop=8 .*16x16"),
    (lambda x: P.super_resolution_pixels(x, crop=-1), ValueError, "crop=-1"),
    (
      lambda x: P.super_resolution_psnr(x.repeat(2, 3), x.repeat(2, 3), crop=0),
      ValueError,
      "1 or 3 channels, got 2",
    ),
    (
      lambda x: S.ms_ssim_diversity(x, random.key(0), 5),
      ValueError,
      "2 images and 1 pair, got 1 images, num_pairs=5",
    ),
    (lambda x: video.video_psnr(x, x), ValueError, r"T, H, W, C\], got .*16, 16, 1\)"),
  ],
)  # fmt: skip
def test_unfit_arguments_are_explained(call, error, text):
  with pytest.raises(error, match=text):
    call(flat(0.0))


def test_diversity_is_low_for_diverse_images():
  noise = random.uniform(random.key(0), (6, 24, 24, 1))
  diversity = jax.jit(
    lambda images, key: S.ms_ssim_diversity(images, key, 18, levels=2, **UNIT)
  )
  key = random.key(1)
  close(diversity(jnp.repeat(noise[:1], 6, 0), key), 1.0, rtol=1e-6)
  assert diversity(noise, key) < 0.1
  assert diversity(noise, key) == diversity(noise, key)
  assert diversity(noise, key) != diversity(noise, random.key(2))


def test_diversity_draws_every_pair_of_different_images():
  greys = np.array([0.05, 0.2, 0.5, 1.0], np.float32)
  images = jnp.broadcast_to(greys.reshape(4, 1, 1, 1), (4, 11, 11, 1))
  of_one_pair = lambda key: S.ms_ssim_diversity(images, key, 1, levels=1, **UNIT)
  scores = jax.jit(jax.vmap(of_one_pair))(random.split(random.key(0), 200))
  pairs = [(greys[i], greys[j]) for i in range(4) for j in range(i)]
  expected = [(2 * a * b + 1e-4) / (a * a + b * b + 1e-4) for a, b in pairs]
  close(np.unique(np.round(scores, 4)), np.sort(expected), rtol=0, atol=1e-4)


def test_video_scores_every_frame():
  x, y = (jnp.asarray(i, jnp.float32) for i in pair((6, 16, 20, 3)))
  x, y = (i.reshape(2, 3, 16, 20, 3) for i in (x, y))
  for of_video, of_images in (
    (video.video_psnr, P.psnr), (video.video_ssim, S.ssim),
  ):  # fmt: skip
    scores = of_video(x, y, **UNIT)
    assert scores.shape == (2, 3)
    for t in range(3):
      close(scores[:, t], of_images(x[:, t], y[:, t], **UNIT), rtol=1e-5)


def test_video_distance_streams_and_is_that_of_the_features():
  rng = np.random.default_rng(0)
  x, y = rng.random((9, 4, 6, 6, 1)), rng.random((12, 4, 6, 6, 1)) ** 2
  apply = lambda clips: clips.mean((2, 3))[..., 0]  # [b, T]
  with jax.enable_x64(True):
    whole = frechet_distance(moments(apply(x)), moments(apply(y)))
  for size in (2, 5, 12):
    split = lambda v, size=size: (v[i : i + size] for i in range(0, len(v), size))
    found = video.frechet_video_distance(split(x), split(y), apply)
    np.testing.assert_allclose(found, whole, rtol=1e-10)
  # Equal covariances: the squared length of the shift, 0.5 in each of four features.
  found = video.frechet_video_distance([x], [x + 0.5], apply)
  np.testing.assert_allclose(found, 1.0, rtol=1e-9)
  for args, text in (
    (([x], [y[:, :3]], apply), "different shapes"),
    (([x], [y], lambda v: v.mean()), r"features \[9, D\], got \(\)"),
    (([], [y], apply), "no batches"),
    (([x[0]], [y], apply), r"expected \[B, T, H, W, C\]"),
    (([x[:1]], [y], apply), "at least 2 rows"),
  ):
    with pytest.raises(ValueError, match=text):
      video.frechet_video_distance(*args)
