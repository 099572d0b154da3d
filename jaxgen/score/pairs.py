"""Images against what they should be: PSNR and SSIM of pairs of 8-bit images."""

import functools

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics.psnr import super_resolution_psnr
from jaxgen.metrics.ssim import super_resolution_ssim


def pair_values(
  images: np.ndarray, references: np.ndarray, crop: int = 0
) -> dict[str, np.ndarray]:
  """PSNR in dB and SSIM of every pair; of colours also on Y, as papers on super-
  resolution have it (BT.601, rounded).

  Args:
    images: uint8 [N, H, W, C].
    references: Of the same shape.
    crop: Pixels left out at every side.

  Returns:
    "psnr" and "ssim", and where C is 3 "psnr_y" and "ssim_y", each f64 [N]; equal
    images have an infinite PSNR.

  Raises:
    ValueError: The shapes differ, or are too small for SSIM's window of 11.
  """
  if images.shape != references.shape:
    raise ValueError(f"pairs differ in shape: {images.shape}, {references.shape}")
  found = {}
  with jax.enable_x64(True):
    x, y = (jnp.asarray(v, jnp.float64) for v in (images, references))
    for suffix, luma in (("", False), ("_y", True))[: 1 + (x.shape[-1] == 3)]:
      found[f"psnr{suffix}"], found[f"ssim{suffix}"] = _scores(x, y, crop, luma)
  return {name: np.asarray(value) for name, value in found.items()}


@functools.partial(jax.jit, static_argnums=(2, 3))
def _scores(x: Array, y: Array, crop: int, luma: bool) -> tuple[Array, Array]:
  options = dict(crop=crop, luma=luma, data_range=(0.0, 255.0))
  return super_resolution_psnr(x, y, **options), super_resolution_ssim(x, y, **options)
