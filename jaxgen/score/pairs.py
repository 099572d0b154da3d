"""Images against what they should be: scores of pairs of 8-bit images, file by file."""

from collections.abc import Callable
import functools
import warnings

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics.lpips import BACKBONE_FILES, LPIPS, load_lpips, lpips
from jaxgen.metrics.psnr import psnr, super_resolution_pixels
from jaxgen.metrics.ssim import WEIGHTS, ms_ssim, smallest_side, ssim
from jaxgen.score.images import Images
from jaxgen.score.task import Ruler, Scores, Task, mean

VALUES = 2**22  # of a batch's pixels: windows take ten times their memory
SCALES = len(WEIGHTS)
SMALLEST = smallest_side(SCALES)  # Pixels of a side that has all five scales.


def pair_values(
  images: np.ndarray, references: np.ndarray, crop: int = 0
) -> dict[str, np.ndarray]:
  """PSNR in dB, SSIM and MS-SSIM of every pair; of colours also on Y, as papers on
  super-resolution have it (BT.601, rounded).

  Args:
    images: uint8 [N, H, W, C].
    references: Of the same shape.
    crop: Pixels left out at every side.

  Returns:
    "psnr" and "ssim"; "pairs_ms_ssim" (five scales, Wang's weights) if at least 161
    pixels are left of every side; where C is 3 also "psnr_y" and so on. Each f64 [N];
    equal images have an infinite PSNR.

  Raises:
    ValueError: The shapes differ, or are too small for SSIM's window of 11.
  """
  if images.shape != references.shape:
    raise ValueError(f"pairs differ in shape: {images.shape}, {references.shape}")
  found = {}
  with jax.enable_x64(True):
    x, y = (jnp.asarray(v, jnp.float64) for v in (images, references))
    for suffix, luma in (("", False), ("_y", True))[: 1 + (x.shape[-1] == 3)]:
      for name, value in _scores(x, y, crop, luma).items():
        found[name + suffix] = np.asarray(value)
  return found


def large(shape: tuple[int, ...], crop: int) -> bool:
  """Whether images [N, H, W, C] without their border have five scales."""
  return min(shape[1:3]) - 2 * crop >= SMALLEST


@functools.partial(jax.jit, static_argnums=(2, 3))
def _scores(x: Array, y: Array, crop: int, luma: bool) -> dict[str, Array]:
  options = dict(crop=crop, luma=luma, data_range=(0.0, 255.0))
  a, b = (super_resolution_pixels(v, **options) for v in (x, y))
  span = {"data_range": (0.0, 255.0)}
  found = {"psnr": psnr(a, b, **span), "ssim": ssim(a, b, **span)}
  if large(x.shape, crop):
    found["pairs_ms_ssim"] = ms_ssim(a, b, **span)
  return found


def pairs_scores(task: Task) -> Scores:
  """PSNR, SSIM, MS-SSIM: each image and the reference of its place in the order.

  MS-SSIM of all pairs or of none; Y as soon as one pair has colours.
  """
  crop, small, channels = task.ruler.crop, set(), set()

  def values(images: np.ndarray, references: np.ndarray) -> dict[str, np.ndarray]:
    found = pair_values(images, references, crop)
    channels.add(images.shape[-1])
    if not large(images.shape, crop):
      small.add("x".join(str(side - 2 * crop) for side in images.shape[1:3]))
    luma = {f"{name}_y": found[name] for name in list(found) if name[-2:] != "_y"}
    return {**luma, **found}  # Grey images are their own Y.

  found = _over_pairs(task, values)
  if small:
    warnings.warn(
      f"pairs: no MS-SSIM of {', '.join(sorted(small))} pixels (without the border): "
      f"its five scales need {SMALLEST} a side, and fewer are another metric",
      stacklevel=1,
    )
  left = lambda name: (
    (name.startswith("pairs_ms_ssim") and small)
    or (name.endswith("_y") and channels == {1})
  )
  return {name: score for name, score in sorted(found.items()) if not left(name)}


def lpips_scores(task: Task, backbone: str) -> Scores:
  """LPIPS with one backbone, of images in [-1, 1]; grey ones have three equal channels.

  They lose the border that the other scores of pairs lose.
  """
  network, crop = lpips_network(task.ruler, backbone), task.ruler.crop
  name = f"lpips_{backbone}"

  def values(images: np.ndarray, references: np.ndarray) -> dict[str, np.ndarray]:
    a, b = (_unit(v, crop) for v in (images, references))
    return {name: np.asarray(_lpips(network.taps, network.heads, a, b), np.float64)}

  return _over_pairs(task, values)


def lpips_network(ruler: Ruler, backbone: str) -> LPIPS:
  """The network of the files that the user names; nothing stands in for them."""
  if not (ruler.backbone and ruler.heads):
    raise ValueError(
      f"lpips_{backbone} needs --backbone=FILE (torchvision's "
      f"{BACKBONE_FILES[backbone]}) and --heads=FILE (the linear heads v0.1 of "
      f"{backbone!r}), got {ruler.backbone} and {ruler.heads}; no other network is "
      "used under that name"
    )
  return load_lpips(backbone, ruler.backbone, ruler.heads)


def lpips_settings(ruler: Ruler, _: Images | None, backbone: str) -> str:
  """The files' hashes, and the border."""
  return f"{lpips_network(ruler, backbone).fingerprint}, crop {ruler.crop}"


@jax.jit
def _lpips(taps: Callable, heads: tuple[Array, ...], x: Array, y: Array) -> Array:
  return lpips(x, y, LPIPS("", taps, heads))


def _unit(images: np.ndarray, crop: int) -> np.ndarray:
  """uint8 [N, H, W, 1 or 3] to f32 [N, H - 2 crop, W - 2 crop, 3] in [-1, 1]."""
  height, width, channels = images.shape[1:]
  if channels not in (1, 3) or not 0 <= crop < min(height, width) / 2:
    raise ValueError(
      f"expected 1 or 3 channels and a border below half a side, got {images.shape} "
      f"and --crop={crop}"
    )
  inner = images[:, crop : height - crop, crop : width - crop]
  coloured = np.broadcast_to(inner, (*inner.shape[:-1], 3))
  return coloured / np.float32(127.5) - np.float32(1)


def _over_pairs(task: Task, values: Callable) -> Scores:
  """Means over all pairs of what `values` makes of a few at once."""
  if task.loaded:
    raise ValueError("pairs needs --samples=FOLDER: what a run draws has no partners")
  if task.samples.count != task.reference.count:
    counts = f"{task.samples.count} and {task.reference.count}"
    raise ValueError(f"pairs needs as many images as references, got {counts}")
  found: dict[str, list[np.ndarray]] = {}
  batches = zip(task.samples.batches(), task.reference.batches(), strict=True)
  for images, references in ((a["image"], b["image"]) for a, b in batches):
    rows = max(1, VALUES // images[0].size)
    for start in range(0, len(images), rows):
      part = values(images[start : start + rows], references[start : start + rows])
      for name, value in part.items():
        found.setdefault(name, []).append(value)
  return {k: mean(np.concatenate(v), "the pairs") for k, v in found.items()}
