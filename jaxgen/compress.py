"""`jaxgen compress` and `jaxgen decompress`: images as a file, by a trained model.

An experiment that can do it has a function `codec(config, state)`, which gives a
`jaxgen.vae.bits_back.Codec` of binary images. Files hold `Compressed.to_bytes()`.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen import run
from jaxgen.method import averaged
from jaxgen.vae.bits_back import Codec, Compressed


class Size(NamedTuple):
  """What came of it.

  Attributes:
    num_images: How many images.
    num_bytes: Of the file.
    bits_per_value: The file's bits for each of the images' values.
  """

  num_images: int
  num_bytes: int
  bits_per_value: float


def codec_of(workdir: str | os.PathLike, step: int | None = None) -> Codec:
  """That of a run, with averaged parameters where it has them."""
  loaded = run.load(workdir, step)
  module = run.load_experiment(Path(workdir) / "experiment.py")
  if not hasattr(module, "codec"):
    raise ValueError(
      f"{workdir}: its experiment has no function codec(config, state); see "
      "experiments/vae/vae_mnist.py for one"
    )
  return module.codec(loaded.config, averaged(loaded.state))


def read_images(path: str | os.PathLike) -> np.ndarray:
  """The "image" of an .npz with two values, 0 and 1 or 0 and 255, as 0 and 1."""
  with np.load(path) as arrays:
    if "image" not in arrays:
      raise ValueError(f"{path}: expected an array 'image', found {sorted(arrays)}")
    images = arrays["image"]
  values = np.unique(images)
  if not (np.isin(values, (0, 1)).all() or np.isin(values, (0, 255)).all()):
    raise ValueError(
      f"{path}: {len(values)} values from {values[0]} to {values[-1]}; expected "
      "images of 0 and 1, or of 0 and 255"
    )
  return (images > 0).astype(np.uint8)


def compress(
  workdir: str | os.PathLike,
  data: str | os.PathLike,
  out: str | os.PathLike,
  step: int | None = None,
) -> Size:
  """Writes the images of an .npz (see `read_images`) as a file `out`."""
  images = read_images(data)
  packed = codec_of(workdir, step).compress(images).to_bytes()
  Path(out).write_bytes(packed)
  values = max(images.size, 1)
  return Size(len(images), len(packed), 8 * len(packed) / values)


def decompress(
  workdir: str | os.PathLike,
  data: str | os.PathLike,
  out: str | os.PathLike,
  step: int | None = None,
) -> int:
  """The inverse: an .npz with "image", uint8 [N, H, W, C] of 0 and 255; gives N."""
  packed = Compressed.from_bytes(Path(data).read_bytes())
  images = codec_of(workdir, step).decompress(packed)
  np.savez_compressed(out, image=255 * images)
  return len(images)
