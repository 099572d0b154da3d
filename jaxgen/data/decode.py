"""One encoded image to one uint8 array."""

import io
import os
from typing import Any

import numpy as np

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class UnreadableImageError(ValueError):
  """Data that PIL cannot decode; `data.image_folder(on_error="skip")` leaves it out."""


def check_arguments(image_size: int | None, channels: int) -> None:
  """Raises ValueError for an image_size or a number of channels that cannot be."""
  if channels not in _MODES:
    raise ValueError(f"channels={channels!r}: expected 1 (grey), 3 (RGB) or 4 (RGBA)")
  if image_size is not None and (not isinstance(image_size, int) or image_size < 1):
    raise ValueError(f"image_size={image_size!r}: expected a positive integer or None")


def _open(data: bytes | str, name: str, channels: int, *, pixels: bool) -> Any:
  """The PIL image, whose channel count is checked."""
  from PIL import Image

  try:
    file = data if isinstance(data, str) else io.BytesIO(data)
    with Image.open(file, formats=("PNG", "JPEG", "WEBP")) as image:
      if pixels:
        image.load()
  except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, ...
    if isinstance(data, str) and not os.path.exists(data):
      raise
    raise UnreadableImageError(
      f"{name}: cannot be read as a PNG, JPEG or WebP image ({error})"
    ) from error
  mode = image.mode
  if mode == "P":
    mode = "RGBA" if "transparency" in image.info else "RGB"
  mode = "L" if mode == "1" else mode
  if mode != _MODES[channels]:
    found = {v: k for k, v in _MODES.items()}.get(mode, "unsupported")
    raise ValueError(
      f"{name}: has {found} channels (PIL mode {image.mode!r}): expected "
      f"channels={channels}; grey and colour are never converted into each other"
    )
  return image if image.mode == mode else image.convert(mode)


def read_size(path: str, channels: int) -> tuple[int, int]:
  """(height, width) from the header of an image file, whose channels are checked."""
  image = _open(path, path, channels, pixels=False)
  return image.height, image.width


def decode_image(
  data: bytes | str, name: str, *, channels: int, image_size: int | None
) -> np.ndarray:
  """Decodes, crops and resizes one image.

  Resizing first crops the central square of side min(H, W), its corner at
  ((H - side) // 2, (W - side) // 2), then uses PIL's antialiased
  Image.Resampling.BICUBIC. An image of image_size x image_size is left exactly as
  it is. Palette images count as RGB (RGBA with transparency), bilevel ones as grey.
  EXIF orientation is not applied.

  Args:
    data: A PNG, JPEG or WebP image, or the path of one.
    name: For messages.
    channels: 1 (grey), 3 (RGB) or 4 (RGBA).
    image_size: Side of the result in pixels; None keeps the size.

  Returns:
    uint8 [H, W, channels].

  Raises:
    UnreadableImageError: The data cannot be decoded.
    ValueError: The image has another number of channels or another bit depth.
  """
  from PIL import Image

  image = _open(data, name, channels, pixels=True)
  if image_size is not None and image.size != (image_size, image_size):
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
  return np.asarray(image).reshape(image.height, image.width, channels)
