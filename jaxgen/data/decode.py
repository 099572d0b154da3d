"""One encoded image to one uint8 array."""

import io

import numpy as np

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}


class UnreadableImageError(ValueError):
  """Bytes that PIL cannot decode."""


def check_image_args(image_size: int | None, channels: int) -> None:
  """Raises ValueError unless channels is 1, 3 or 4 and image_size positive or None."""
  if channels not in _CHANNELS.values():
    raise ValueError(f"channels={channels!r}: expected 1 (grey), 3 (RGB) or 4 (RGBA)")
  if image_size is not None and (not isinstance(image_size, int) or image_size < 1):
    raise ValueError(f"image_size={image_size!r}: expected a positive integer or None")


def _open(source: bytes | str, name: str, pixels: bool):  # noqa: ANN202 (PIL is lazy)
  from PIL import Image

  try:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with Image.open(file, formats=_FORMATS) as image:
      if pixels:
        image.load()
      return image
  except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, ...
    raise UnreadableImageError(
      f"{name}: cannot be read as a PNG, JPEG or WebP image ({error})"
    ) from error


def _channels(mode: str, transparent: bool) -> int | None:
  if mode == "P":
    return 4 if transparent else 3
  return 1 if mode == "1" else _CHANNELS.get(mode)


def check_channels(image, name: str, channels: int) -> None:  # noqa: ANN001
  """Raises ValueError if the PIL `image` has not `channels` channels of 8 bits."""
  found = _channels(image.mode, "transparency" in image.info)
  if found != channels:
    raise ValueError(
      f"{name}: has {found or 'no 8-bit grey, RGB or RGBA'} channels (PIL mode "
      f"{image.mode!r}): expected channels={channels}; grey and colour are never "
      "converted into each other"
    )


def read_header(path: str, channels: int) -> tuple[int, int]:
  """(height, width) of an image file, whose channel count is checked."""
  image = _open(path, path, pixels=False)
  check_channels(image, path, channels)
  return image.height, image.width


def decode_image(
  source: bytes | str, name: str, *, channels: int, image_size: int | None
) -> np.ndarray:
  """Decodes, crops and resizes one image.

  Resizing first crops the central square of side min(H, W), its corner at
  ((H - side) // 2, (W - side) // 2), then uses PIL's antialiased
  Image.Resampling.BICUBIC. An image of image_size x image_size is left exactly as
  it is. Palette images count as RGB (RGBA with transparency), bilevel ones as grey.
  EXIF orientation is not applied.

  Args:
    source: Encoded bytes (PNG, JPEG or WebP), or the path of a file.
    name: For messages.
    channels: 1 (grey), 3 (RGB) or 4 (RGBA); another number is an error.
    image_size: Side of the result in pixels; None keeps the size.

  Returns:
    uint8 [H, W, channels].

  Raises:
    UnreadableImageError: The bytes cannot be decoded.
    ValueError: The image has another number of channels or another bit depth.
  """
  from PIL import Image

  image = _open(source, name, pixels=True)
  check_channels(image, name, channels)
  if image.mode in ("P", "1"):
    image = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
  if image_size is not None and image.size != (image_size, image_size):
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != image_size:
      image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
  return np.asarray(image).reshape(image.height, image.width, channels)
