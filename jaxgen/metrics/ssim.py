"""Structural similarity of image pairs, at one scale and at several.

Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to
Structural Similarity" (2004); Wang, Simoncelli, Bovik, "Multi-scale Structural
Similarity for Image Quality Assessment" (2003); for diversity Odena, Olah, Shlens,
"Conditional Image Synthesis with Auxiliary Classifier GANs" (2017), arXiv 1610.09585.

Every channel is scored by itself and channels are averaged. Windows lie inside the
image ("valid"), as in the authors' MATLAB code and in super-resolution papers. The
luminance term depends on where black lies, so the range is a pair, not a width: an
image in [-1, 1] scores as the same image in [0, 255].

Others agree or differ as follows:
  pytorch-msssim  equal, `ssim` and `ms_ssim` (it rounds the window to float32, 1e-8).
  piq             equal with downsample=False; by default it shrinks images of 384
                  pixels and more first. Its multi-scale index repeats the border where
                  we and pytorch-msssim pad odd sizes with black, and equals ours for
                  even sizes. It normalises given weights, we the first `levels` < 5.
  scikit-image    equal with gaussian_weights=True, sigma=1.5,
                  use_sample_covariance=False and the range stated. By default it
                  uses a flat 7x7 window and the sample covariance.
  torchmetrics    averages over reflected borders too; its full image, 5 pixels cut
                  from each side, has our mean. Its multi-scale index differs: borders,
                  and channels averaged before the product.
  PGGAN, mmagic   multi-scale only: they shrink the window at coarse scales (so small
                  images pass), average channels before the product and halve images
                  with another phase. Their diversity figures (such as 0.1395 for
                  DCGAN on MNIST) cannot stand beside ours.
"""

from jax import Array, lax, random
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics.psnr import (
  Range,
  check_images,
  check_pair,
  check_range,
  super_resolution_pixels,
)

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang 2003, finest scale first


def ssim(
  x: Array,
  y: Array,
  *,
  data_range: Range = (-1.0, 1.0),
  window: int = 11,
  sigma: float = 1.5,
  k1: float = 0.01,
  k2: float = 0.03,
) -> Array:
  """Mean structural similarity of every pair (Wang 2004, Eq. 13 and 17).

  Args:
    x: float [B, H, W, C], in `data_range`.
    y: Like `x`.
    data_range: Lowest and highest value that an image can have.
    window: Side of the Gaussian window in pixels, odd, at most H and W.
    sigma: Standard deviation of the Gaussian window in pixels.
    k1: Stabilises the luminance term.
    k2: Stabilises the contrast term.

  Returns:
    [B] in [-1, 1], of the same dtype; 1 for equal images.

  Raises:
    ValueError: A shape, range or window does not fit.
    TypeError: A dtype is not floating point, or the range is not a pair.
  """
  x, y = _unit_pair(x, y, data_range, window, levels=1)
  luminance, contrast = _maps(x, y, window, sigma, k1, k2)
  return jnp.mean(luminance * contrast, axis=(1, 2, 3))


def ms_ssim(
  x: Array,
  y: Array,
  *,
  data_range: Range = (-1.0, 1.0),
  levels: int = 5,
  window: int = 11,
  sigma: float = 1.5,
  k1: float = 0.01,
  k2: float = 0.03,
) -> Array:
  """Multi-scale structural similarity of every pair (Wang 2003, Eq. 7).

  Mean contrast of every scale and mean SSIM of the coarsest, per channel; each clipped
  at 0, raised to its weight, and multiplied. A clipped term has no gradient (others
  give NaN there). From scale to scale pixels are averaged 2x2; an odd size gets one
  black line at the top or left.

  Five levels with a window of 11 need more than 160 pixels a side. Smaller images are
  scored with fewer levels, which the caller states: at most 4 for 128 pixels, 3 for 64,
  2 for 28 and 32 (`most_levels`). Figures of different `levels` must not be compared.

  Args:
    x: float [B, H, W, C], in `data_range`.
    y: Like `x`.
    data_range: Lowest and highest value that an image can have.
    levels: Scales, 1..5. Five have the weights of Wang as printed (their sum is
      1.0001); fewer have the first `levels` of them, divided by their sum.
    window: Side of the Gaussian window in pixels, odd.
    sigma: Standard deviation of the Gaussian window in pixels.
    k1: Stabilises the luminance term.
    k2: Stabilises the contrast term.

  Returns:
    [B] in [0, 1], of the same dtype; 1 for equal images.

  Raises:
    ValueError: A shape, range or window does not fit, or the images are too small for
      `levels`.
    TypeError: A dtype is not floating point, or the range is not a pair.
  """
  if not 1 <= levels <= len(WEIGHTS):
    raise ValueError(f"levels must be 1..{len(WEIGHTS)}, got {levels}")
  x, y = _unit_pair(x, y, data_range, window, levels)
  total = 1.0 if levels == len(WEIGHTS) else sum(WEIGHTS[:levels])
  score = jnp.ones((x.shape[0], x.shape[-1]), x.dtype)
  for level in range(levels):
    luminance, contrast = _maps(x, y, window, sigma, k1, k2)
    terms = contrast if level < levels - 1 else luminance * contrast
    score *= _power(jnp.mean(terms, axis=(1, 2)), WEIGHTS[level] / total)
    x, y = _halve(x), _halve(y)
  return jnp.mean(score, axis=-1)


def smallest_side(levels: int, window: int = 11) -> int:
  """Pixels of a side of the smallest images that have so many levels."""
  return (window - 1) * 2 ** (levels - 1) + 1


def most_levels(shape: tuple[int, ...], window: int = 11) -> int:
  """Levels of `ms_ssim` that images [..., H, W, C] allow: 0 (below the window) to 5."""
  side, every = min(shape[-3:-1]), range(1, len(WEIGHTS) + 1)
  return sum(side >= smallest_side(levels, window) for levels in every)


def ms_ssim_diversity(
  images: Array,
  key: Array,
  num_pairs: int,
  *,
  data_range: Range = (-1.0, 1.0),
  levels: int = 5,
) -> Array:
  """Mean MS-SSIM of random pairs of different images: low means diverse (Odena 2017).

  Odena compares 100 pairs within each class: call it once per class, and compare with
  the same number for real images. Arguments and errors are those of `ms_ssim_pairs`.

  Returns:
    [] in [0, 1], of the same dtype.
  """
  options = {"data_range": data_range, "levels": levels}
  return jnp.mean(ms_ssim_pairs(images, key, num_pairs, **options))


def ms_ssim_pairs(
  images: Array,
  key: Array,
  num_pairs: int,
  *,
  data_range: Range = (-1.0, 1.0),
  levels: int = 5,
) -> Array:
  """MS-SSIM of random pairs of different images.

  Args:
    images: float [N, H, W, C], in `data_range`; N at least 2.
    key: Draws the pairs, with replacement.
    num_pairs: Pairs to average, at least 1.
    data_range: Lowest and highest value that an image can have.
    levels: See `ms_ssim`.

  Returns:
    [num_pairs] in [0, 1], of the same dtype.

  Raises:
    ValueError: Fewer than two images or one pair; or as `ms_ssim`.
    TypeError: As `ms_ssim`.
  """
  check_images(images)
  num = images.shape[0]
  if num < 2 or num_pairs < 1:
    raise ValueError(
      f"expected at least 2 images and 1 pair, got {num} images, num_pairs={num_pairs}"
    )
  images = jnp.asarray(images)
  first_key, offset_key = random.split(key)
  first = random.randint(first_key, (num_pairs,), 0, num)
  second = (first + random.randint(offset_key, (num_pairs,), 1, num)) % num

  def score(pair: tuple[Array, Array]) -> Array:
    x, y = (images[i][None] for i in pair)
    return ms_ssim(x, y, data_range=data_range, levels=levels)[0]

  # In parts, because a window's moments take ten times the memory of the images.
  return lax.map(score, (first, second), batch_size=min(num_pairs, 16))


def super_resolution_ssim(
  x: Array,
  y: Array,
  *,
  crop: int,
  luma: bool = True,
  round_luma: bool = True,
  data_range: Range = (-1.0, 1.0),
) -> Array:
  """SSIM (window 11, sigma 1.5) of the pixels that super-resolution papers compare.

  Args:
    x: float [B, H, W, C], in `data_range`.
    y: Like `x`.
    crop, luma, round_luma, data_range: See
      `jaxgen.metrics.psnr.super_resolution_pixels`.

  Returns:
    [B] in [-1, 1], of the same dtype. Rounding leaves no gradient.

  Raises:
    ValueError, TypeError: As `ssim` and `super_resolution_pixels`.
  """
  check_pair(x, y)
  pixels = lambda images: super_resolution_pixels(
    images, crop=crop, luma=luma, round_luma=round_luma, data_range=data_range
  )
  return ssim(pixels(x), pixels(y), data_range=(0.0, 255.0))


def _unit_pair(
  x: Array, y: Array, data_range: Range, window: int, levels: int
) -> tuple[Array, Array]:
  """The images in units of their range, from 0 to 1; raises if anything is unfit."""
  check_images(x)
  check_pair(x, y)
  low, high = check_range(data_range)
  if window < 1 or window % 2 == 0:
    raise ValueError(f"window must be odd and positive, got {window}")
  height, width = x.shape[1:3]
  smallest = smallest_side(levels, window)
  if min(height, width) < smallest:
    most = most_levels(x.shape, window)
    advice = f"; levels={most} is the most they allow" if most else ""
    raise ValueError(
      f"{height}x{width} images are too small for window={window} and levels={levels}: "
      f"expected at least {smallest}x{smallest} pixels{advice}"
    )
  return (x - low) / (high - low), (y - low) / (high - low)


def _means(x: Array, window: int, sigma: float) -> Array:
  """Gaussian means over the windows inside the image.

  Matrix products, because sums of slices take four times as long to compile with
  their gradients, and convolutions are slow in loops and in float64 on a CPU.
  """
  for axes, size in (("bhwc,vh->bvwc", x.shape[1]), ("bhwc,vw->bhvc", x.shape[2])):
    x = jnp.einsum(axes, x, _band(window, sigma, size, x.dtype), precision="highest")
  return x


def _band(window: int, sigma: float, size: int, dtype: jnp.dtype) -> np.ndarray:
  """[size - window + 1, size]: row i holds the Gaussian window of sum 1 from i on."""
  squares = (np.arange(window) - window // 2) ** 2
  taps = np.exp(-squares / (2 * sigma**2))
  rows = np.arange(size - window + 1)[:, None]
  band = np.zeros((len(rows), size))
  band[rows, rows + np.arange(window)] = taps / taps.sum()
  return band.astype(dtype)


def _maps(
  x: Array, y: Array, window: int, sigma: float, k1: float, k2: float
) -> tuple[Array, Array]:
  """Luminance and contrast-structure of every window, [B, H', W', C] each.

  Args:
    x: [B, H, W, C], from 0 to 1.
    y: Like `x`.
    window, sigma, k1, k2: See `ssim`.
  """
  # Written with differences, so that float32 rounds nothing away where the images are
  # nearly equal or nearly flat. Centring changes no variance, hence no gradient.
  centre_x, centre_y = (
    lax.stop_gradient(jnp.mean(z, axis=(1, 2), keepdims=True)) for z in (x, y)
  )
  x, y = x - centre_x, y - centre_y
  fields = jnp.concatenate([x, y, x * x + y * y, (x - y) ** 2])
  mean_x, mean_y, squares, difference = jnp.split(_means(fields, window, sigma), 4)
  variances = squares - mean_x**2 - mean_y**2  # of x plus of y
  variance = difference - (mean_x - mean_y) ** 2  # of x - y
  mean_x, mean_y = mean_x + centre_x, mean_y + centre_y
  luminance = 1 - (mean_x - mean_y) ** 2 / (mean_x**2 + mean_y**2 + k1**2)
  return luminance, 1 - variance / (variances + k2**2)


def _power(x: Array, weight: float) -> Array:
  """max(x, 0)^weight with gradient 0 where x <= 0."""
  positive = x > 0
  return jnp.where(positive, jnp.where(positive, x, 1.0) ** weight, 0.0)


def _halve(x: Array) -> Array:
  """Means of 2x2 pixels; an odd size gets a line of zeros at the top or left."""
  b, height, width, c = x.shape
  x = jnp.pad(x, ((0, 0), (height % 2, 0), (width % 2, 0), (0, 0)))
  height, width = x.shape[1] // 2, x.shape[2] // 2
  return jnp.mean(x.reshape(b, height, 2, width, 2, c), axis=(2, 4))
