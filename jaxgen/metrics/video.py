"""Videos: PSNR and SSIM of every frame of a pair, Frechet distance of sets of clips.

The Frechet video distance is of Unterthiner et al. (2018), arXiv 1812.01717.
"""

from collections.abc import Callable, Iterable

import jax
from jax import Array
import numpy as np

from jaxgen.metrics.frechet import frechet_distance, moments_of
from jaxgen.metrics.psnr import Range, check_pair, psnr
from jaxgen.metrics.ssim import ssim


def frechet_video_distance(
  clips: Iterable[np.ndarray],
  references: Iterable[np.ndarray],
  apply: Callable[[np.ndarray], Array],
) -> float:
  """Frechet distance of two sets of clips in the features of any network.

  Published figures use the logits of I3D trained on Kinetics-400, 224x224 pixels.
  Another network gives another, incomparable number, and so do other lengths, frame
  rates and numbers of clips. Sets are streamed: one batch is in memory at a time.

  Args:
    clips: Batches [b, T, H, W, C], at least two clips in all.
    references: Like `clips`: the real ones.
    apply: A batch -> features [b, D]; its resizing and its range are its own matter.

  Returns:
    A number from 0 on, computed in float64.

  Raises:
    ValueError: A batch is no [b, T, H, W, C], lengths or sizes differ, or the features
      are no [b, D].
  """
  shapes: set[tuple[int, ...]] = set()

  def features(batch: np.ndarray) -> np.ndarray:
    shapes.add(_frames(batch).shape[1:])
    if len(shapes) > 1:
      raise ValueError(f"clips of different shapes: {sorted(shapes)}")
    found = np.asarray(apply(batch), np.float64)
    if found.ndim != 2 or len(found) != len(batch):
      raise ValueError(f"expected features [{len(batch)}, D], got {found.shape}")
    return found

  sets = [moments_of(map(features, batches)) for batches in (clips, references)]
  with jax.enable_x64(True):
    return float(frechet_distance(*sets))


def video_psnr(x: Array, y: Array, *, data_range: Range = (-1.0, 1.0)) -> Array:
  """PSNR of every frame, in dB; average it over frames and clips afterwards.

  Args:
    x: float [B, T, H, W, C], in `data_range`.
    y: Like `x`.
    data_range: Lowest and highest value that a frame can have.

  Returns:
    [B, T] in dB, of the same dtype; infinite for equal frames.

  Raises:
    ValueError, TypeError: As `jaxgen.metrics.psnr.psnr`.
  """
  x, y = _frames(x), _frames(y)
  return psnr(*_flat(x, y), data_range=data_range).reshape(x.shape[:2])


def video_ssim(x: Array, y: Array, *, data_range: Range = (-1.0, 1.0)) -> Array:
  """SSIM (Gaussian window of 11, sigma 1.5) of every frame.

  Args:
    x: float [B, T, H, W, C], in `data_range`.
    y: Like `x`.
    data_range: Lowest and highest value that a frame can have.

  Returns:
    [B, T] in [-1, 1], of the same dtype.

  Raises:
    ValueError, TypeError: As `jaxgen.metrics.ssim.ssim`.
  """
  x, y = _frames(x), _frames(y)
  return ssim(*_flat(x, y), data_range=data_range).reshape(x.shape[:2])


def _frames(x: Array) -> Array:
  if x.ndim != 5:
    raise ValueError(f"expected [B, T, H, W, C], got shape {x.shape}")
  return x


def _flat(x: Array, y: Array) -> tuple[Array, Array]:
  check_pair(x, y)
  return tuple(video.reshape(-1, *video.shape[2:]) for video in (x, y))
