"""Pictures and texts of outputs. The only place where [-1, 1] becomes 8-bit pixels."""

from collections.abc import Callable, Mapping
from pathlib import Path
import warnings

import numpy as np
from PIL import Image

from jaxgen import sound

MIN_SIDE = 512  # Grids of tiny images are enlarged to about this many pixels.
GAP = 8  # Between columns of rows, in units of `pad`.
# Of animations, in milliseconds: a sequence is shown for about this long, then its end
# for so much longer; images that have nothing to do with each other for so long each.
SEQUENCE, END, IMAGE = 2_000, 1_000, 500
RULE = "-" * 80  # Between texts.

Decode = Callable[[np.ndarray], list[str]]


def to_uint8(x: np.ndarray) -> np.ndarray:
  """f32 in [-1, 1], clipped, to uint8, rounded. NaN becomes 0, with a warning."""
  if missing := int(np.isnan(x).sum()):
    warnings.warn(f"{missing} of {x.size} values to draw are NaN", stacklevel=2)
    x = np.nan_to_num(x, nan=-1.0)
  return np.rint((np.clip(x, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def grid(images: np.ndarray, columns: int | None = None, pad: int = 1) -> np.ndarray:
  """Tiles images row by row, with black lines of `pad` pixels between them.

  Args:
    images: f32 [N, H, W, C] in [-1, 1], C = 1 or 3; or [N, K, H, W, C], whose examples
      are rows of K. Many short rows, which would make a ribbon, stand in several
      columns with gaps between them.
    columns: Default about the square root of N; of rows of K, such that the picture is
      about twice as high as wide.
    pad: Pixels between images.

  Returns:
    uint8 [rows * (H + pad) - pad, columns * (W + pad) - pad, C], enlarged by a
    whole number if it is small.
  """
  if images.ndim not in (4, 5) or images.shape[-1] not in (1, 3):
    raise ValueError(f"images {images.shape} are not [N, H, W, C] with 1 or 3 channels")
  cells = to_uint8(images)
  if cells.ndim == 5:
    num, length, height, width, _ = cells.shape
    columns = columns or round(np.sqrt(num * height / (2 * length * width)))
    cells = np.stack([_tile(row, length, pad, pad) for row in cells])
    image = _tile(cells, max(1, columns), pad, GAP * pad)
  else:
    image = _tile(cells, columns or int(np.ceil(np.sqrt(len(cells)))), pad, pad)
  scale = max(1, MIN_SIDE // max(image.shape[:2]))
  return image.repeat(scale, axis=0).repeat(scale, axis=1)


def _tile(cells: np.ndarray, columns: int, pad: int, pad_right: int) -> np.ndarray:
  """uint8 [N, H, W, C] -> one image, with black between cells, none at the edges."""
  num, height, width, channels = cells.shape
  rows = -(-num // columns)
  cells = np.pad(cells, ((0, rows * columns - num), (0, pad), (0, pad_right), (0, 0)))
  height, width = height + pad, width + pad_right
  cells = cells.reshape(rows, columns, height, width, channels)
  image = cells.transpose(0, 2, 1, 3, 4)
  image = image.reshape(rows * height, columns * width, channels)
  return image[: rows * height - pad, : columns * width - pad_right]


def is_image(x: np.ndarray) -> bool:
  """Whether `grid` can show `x`."""
  return x.ndim in (4, 5) and x.shape[-1] in (1, 3)


def is_text(x: np.ndarray) -> bool:
  """Whether `x` can be tokens."""
  return x.ndim in (2, 3) and np.issubdtype(x.dtype, np.integer)


def is_sound(name: str, outputs: Mapping[str, np.ndarray]) -> bool:
  """Whether an output is sound: f32 [N, T] beside a "sample_rate"."""
  x = outputs[name]
  return "sample_rate" in outputs and x.ndim == 2 and x.dtype.kind == "f"


def _fits(suffix: str, name: str, outputs: Mapping[str, np.ndarray]) -> bool:
  """Whether an output can be written in a file of that suffix."""
  if suffix == ".txt":
    return is_text(outputs[name])
  heard = is_sound(name, outputs)
  return heard or (suffix != ".wav" and is_image(outputs[name]))


def suffix(outputs: Mapping[str, np.ndarray], decode: Decode | None) -> str:
  """What `save` can write of some outputs: .txt, else .png, else .npz."""
  if decode and any(map(is_text, outputs.values())):
    return ".txt"
  return ".png" if any(_fits(".png", n, outputs) for n in outputs) else ".npz"


def check_name(path: str | Path) -> Path:
  """The path; raises unless `save` can write a file of that suffix."""
  if Path(path).suffix not in (".png", ".gif", ".wav", ".txt", ".npz"):
    raise ValueError(
      f"cannot write {path}: expected a name in .png, .gif, .wav, .txt or .npz"
    )
  return Path(path)


def paths(path: str | Path, outputs: Mapping[str, np.ndarray]) -> dict[str, Path]:
  """Where `save` writes which outputs.

  Args:
    path: As for `save`.
    outputs: By name.

  Returns:
    Files by name. The image (or text) "samples", or else the first, has the path
    itself; others have their name before the suffix. In an .npz are all of them.
  """
  path = Path(path)
  if path.suffix == ".npz":
    return dict.fromkeys(outputs, path)
  fits = lambda name: _fits(path.suffix, name, outputs)
  images = sorted(filter(fits, outputs), key="samples".__ne__)
  named = {name: path.with_name(f"{path.stem}_{name}{path.suffix}") for name in images}
  return {**named, images[0]: path} if images else {}


def save(
  path: str | Path, outputs: Mapping[str, np.ndarray], decode: Decode | None = None
) -> dict[str, np.ndarray]:
  """Writes what a method's `sample` or tool returned.

  Args:
    path: The suffix chooses: .png a grid, .gif an animation (over K of
      [N, K, H, W, C], else over N), .wav sound, .txt what tokens say ([N, T] or
      [N, K, T]), .npz every array as it is. Of several images or texts each has a
      file, see `paths`.
    outputs: By name; those that are neither images nor tokens go to .npz only. Of
      sound, f32 [N, T] in [-1, 1] beside a "sample_rate", images show wave forms and
      spectrograms.
    decode: int [N, T] -> N texts, for .txt.

  Returns:
    The grids written, uint8 [H, W, C] by name; for a GIF the last frame.
  """
  path = check_name(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  outputs = {name: np.asarray(x) for name, x in outputs.items()}
  if path.suffix == ".npz":
    np.savez(path, **outputs)
    return {}
  targets = paths(path, outputs)
  kind = {".txt": "text", ".wav": "sound"}.get(path.suffix, "an image")
  if not targets or (kind == "text" and decode is None):
    shapes = {name: f"{x.dtype.name}{list(x.shape)}" for name, x in outputs.items()}
    names = " or ".join(dict.fromkeys([suffix(outputs, decode), ".npz"]))
    raise ValueError(f"no output is {kind}, {shapes}; write to a name in {names}")
  if kind == "text":
    for name, target in targets.items():
      x = outputs[name]
      write_texts(target, decode(x.reshape(-1, x.shape[-1])))
    return {}
  if kind == "sound":
    for name, target in targets.items():
      sound.write_wav(target, outputs[name], outputs["sample_rate"].flat[0])
    return {}
  for name in (n for n in targets if is_sound(n, outputs)):
    rate = int(outputs["sample_rate"].flat[0])
    outputs[name] = sound.pictures(outputs[name], rate)
  grids = {}
  for name, target in targets.items():
    frames = [grid(outputs[name])] if path.suffix == ".png" else _frames(outputs[name])
    pictures = [Image.fromarray(f[..., 0] if f.shape[-1] == 1 else f) for f in frames]
    more = {"append_images": pictures[1:], "duration": _durations(outputs[name])}
    more |= {"loop": 0, "save_all": True}
    pictures[0].save(target, **(more if len(pictures) > 1 else {}))
    grids[name] = frames[-1]
  return grids


def write_texts(path: Path, texts: list[str]) -> None:
  """Texts in UTF-8, with rules between them."""
  path.write_text(f"\n{RULE}\n".join(texts) + "\n", encoding="utf-8", newline="")


def _frames(x: np.ndarray) -> list[np.ndarray]:
  """Of an animation: grids over N, or image by image."""
  if x.ndim == 5:
    return [grid(x[:, k]) for k in range(x.shape[1])]
  return [grid(image[None]) for image in x]


def _durations(x: np.ndarray) -> list[int]:
  """Milliseconds of each frame."""
  if x.ndim == 4:
    return [IMAGE] * len(x)
  num = x.shape[1]
  durations = [max(80, SEQUENCE // num)] * num
  durations[-1] += END
  return durations
