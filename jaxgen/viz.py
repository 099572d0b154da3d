"""Pictures of outputs. The only place where [-1, 1] becomes 8-bit pixels."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

MIN_SIDE = 512  # Grids of tiny images are enlarged to about this many pixels.


def to_uint8(x: np.ndarray) -> np.ndarray:
  """f32 in [-1, 1], clipped -> uint8, rounded to nearest."""
  return np.rint((np.clip(x, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def grid(images: np.ndarray, columns: int | None = None, pad: int = 1) -> np.ndarray:
  """Tiles images row by row, with black lines of `pad` pixels between them.

  Args:
    images: f32 [N, H, W, C] in [-1, 1], C = 1 or 3; or [N, K, H, W, C], which
      becomes one row per example.
    columns: Default about the square root of N.
    pad: Pixels between images.

  Returns:
    uint8 [rows * (H + pad) - pad, columns * (W + pad) - pad, C], enlarged by a
    whole number if it is small.
  """
  if images.ndim == 5:
    columns = images.shape[1]
    images = images.reshape(-1, *images.shape[2:])
  if images.ndim != 4 or images.shape[-1] not in (1, 3):
    raise ValueError(f"images {images.shape} are not [N, H, W, C] with 1 or 3 channels")
  num, height, width, channels = images.shape
  columns = columns or int(np.ceil(np.sqrt(num)))
  rows = -(-num // columns)
  canvas = np.zeros((rows, height + pad, columns, width + pad, channels), np.uint8)
  cells = np.zeros((rows * columns, height, width, channels), np.uint8)
  cells[:num] = to_uint8(images)
  cells = cells.reshape(rows, columns, height, width, channels)
  canvas[:, :height, :, :width] = cells.transpose(0, 2, 1, 3, 4)
  image = canvas.reshape(rows * (height + pad), columns * (width + pad), channels)
  image = image[: image.shape[0] - pad, : image.shape[1] - pad]
  scale = max(1, MIN_SIDE // max(image.shape[:2]))
  return image.repeat(scale, axis=0).repeat(scale, axis=1)


def is_image(x: np.ndarray) -> bool:
  """Whether `grid` can show `x`."""
  return x.ndim in (4, 5) and x.shape[-1] in (1, 3)


def save(path: str | Path, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Writes what a method's `sample` or tool returned.

  Args:
    path: The suffix chooses: .png a grid, .gif an animation (over K of
      [N, K, H, W, C], else over N), .npz every array as it is. With several
      images the others get their name before the suffix.
    outputs: By name; those that are no images go to .npz only.

  Returns:
    The grids written, uint8 [H, W, C] by name; for a GIF the last frame.
  """
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  outputs = {name: np.asarray(x) for name, x in outputs.items()}
  if path.suffix == ".npz":
    np.savez(path, **outputs)
    return {}
  if path.suffix not in (".png", ".gif"):
    raise ValueError(f"cannot write {path}: expected a name in .png, .gif or .npz")
  images = {name: x for name, x in outputs.items() if is_image(x)}
  if not images:
    shapes = {name: x.shape for name, x in outputs.items()}
    raise ValueError(f"no output is an image, {shapes}; write to a name in .npz")
  grids = {}
  for i, (name, x) in enumerate(images.items()):
    target = path if i == 0 else path.with_name(f"{path.stem}_{name}{path.suffix}")
    if path.suffix == ".png":
      frames = [grid(x)]
    elif x.ndim == 5:
      frames = [grid(x[:, k]) for k in range(x.shape[1])]
    else:
      frames = [grid(frame[None]) for frame in x]
    pictures = [Image.fromarray(f[..., 0] if f.shape[-1] == 1 else f) for f in frames]
    more = {"append_images": pictures[1:], "duration": 80, "loop": 0}
    pictures[0].save(target, **(more | {"save_all": True} if len(pictures) > 1 else {}))
    grids[name] = frames[-1]
  return grids
