"""Folders of image files."""

from collections.abc import Sequence
import functools
import os
from pathlib import Path
import re
import warnings

import numpy as np

from jaxgen.data import decode
from jaxgen.data.array import arrays
from jaxgen.data.source import Batch, Examples, Source, in_chunks, zeros


class FolderExamples(Examples):
  """The image files below a folder; see `image_folder`."""

  def __init__(
    self, path: str, image_size: int | None, channels: int, split: str, on_error: str
  ) -> None:
    decode.check_arguments(image_size, channels)
    if split not in ("train", "test", "all"):
      raise ValueError(f"split={split!r}: expected 'train', 'test' or 'all'")
    if on_error not in ("raise", "skip"):
      raise ValueError(f"on_error={on_error!r}: expected 'raise' or 'skip'")
    self.name = os.path.expanduser(os.fspath(path))
    self._image_size = image_size
    self._channels = channels
    self._split = split
    self._skip = on_error == "skip"

  @functools.cached_property
  def _files(self) -> tuple[list[str], np.ndarray | None]:
    """Sorted paths and int32 labels (None: no classes) of the readable files."""
    if not os.path.isdir(self.name):
      raise FileNotFoundError(
        f"no folder {self.name!r}; the config of an experiment names it, as by "
        "--config.path=FOLDER"
      )
    found = []
    for folder, subfolders, names in os.walk(self.name, followlinks=True):
      subfolders[:] = [s for s in subfolders if s[0] != "." and s != "__MACOSX"]
      found += [
        Path(folder, name).relative_to(self.name)
        for name in names
        if name[0] != "." and name.lower().endswith(decode.EXTENSIONS)
      ]
    found.sort(key=lambda file: file.as_posix())
    test = np.arange(len(found)) % 10 == 0
    keep = np.flatnonzero(
      {"test": test, "train": ~test, "all": True | test}[self._split]
    )
    if not len(keep):
      raise FileNotFoundError(
        f"{self.name}: {len(found)} images, none for split={self._split!r}: expected "
        f"files ending in {', '.join(decode.EXTENSIONS)}"
      )
    paths = [os.path.join(self.name, found[i]) for i in keep]
    labels = None
    if all(len(file.parts) > 1 for file in found):
      classes = sorted({file.parts[0] for file in found})
      labels = np.array([classes.index(found[i].parts[0]) for i in keep], np.int32)
    return self._readable(paths, labels) if self._skip else (paths, labels)

  def _readable(
    self, paths: list[str], labels: np.ndarray | None
  ) -> tuple[list[str], np.ndarray | None]:
    """Decodes every file once and leaves out those that cannot be decoded."""
    errors: dict[int, Exception] = {}

    def decode_chunk(chunk: range) -> None:
      for i in chunk:
        try:
          self._decode(paths[i], image_size=None)
        except decode.UnreadableImageError as error:
          errors[i] = error

    in_chunks(decode_chunk, len(paths), f"checking {self.name}")
    if not errors:
      return paths, labels
    message = f"{len(errors)} of {len(paths)} images: {errors[min(errors)]}"
    keep = [i for i in range(len(paths)) if i not in errors]
    if not keep:
      raise decode.UnreadableImageError(f"{self.name}: cannot read {message}")
    warnings.warn(f"{self.name}: skipped {message}", stacklevel=2)
    return [paths[i] for i in keep], None if labels is None else labels[keep]

  def _decode(self, path: str, image_size: int | None) -> np.ndarray:
    return decode.decode_image(
      path, path, channels=self._channels, image_size=image_size
    )

  @functools.cached_property
  def _size(self) -> tuple[int, int]:
    """(height, width) of every example."""
    if self._image_size is not None:
      return self._image_size, self._image_size
    return decode.read_size(self._files[0][0], self._channels)

  def _check_size(self, path: str, size: tuple[int, ...]) -> None:
    if size != self._size:
      raise ValueError(
        f"{path} has height and width {size} but {self._files[0][0]} has "
        f"{self._size}: pass image_size to crop and resize them to one size"
      )

  @property
  def spec(self) -> Batch:
    spec = {"image": zeros((*self._size, self._channels), np.uint8)}
    labels = self._files[1] if self.name else None
    return spec if labels is None else {**spec, "label": zeros((), np.int32)}

  def open(self) -> None:
    _ = self._files

  def __len__(self) -> int:
    return len(self._files[0])

  def verify(self) -> None:
    def check(chunk: range) -> None:
      for path in self._files[0][chunk.start : chunk.stop]:
        size = decode.read_size(path, self._channels)
        if self._image_size is None:
          self._check_size(path, size)

    in_chunks(check, len(self), f"checking {self.name}")

  def read(self, indices: np.ndarray) -> Batch:
    paths, labels = self._files
    images = np.empty((len(indices), *self._size, self._channels), np.uint8)
    for row, index in enumerate(indices):
      image = self._decode(paths[index], self._image_size)
      self._check_size(paths[index], image.shape[:2])
      images[row] = image
    return {"image": images} | ({} if labels is None else {"label": labels[indices]})


def image_folder(
  path: str,
  *,
  batch_size: int,
  image_size: int | None,
  channels: int = 3,
  split: str = "all",
  seed: int = 0,
  flip: bool = False,
  on_error: str = "raise",
  in_memory: bool | None = None,
  num_workers: int = 0,
) -> Source:
  """The .png, .jpg, .jpeg and .webp files below a folder, in order of their paths.

  If every file lies in a subfolder of `path`, the first-level subfolders are the
  classes and "label" numbers them sorted by name; else there are no labels. Hidden
  files and folders are passed over.

  Args:
    path: The folder, searched recursively. "" is one that is not named yet: there are
      shapes, without labels, but an error instead of images.
    batch_size: Rows of the global batch.
    image_size: Side in pixels; `decode.decode_image` has the rule of cropping and
      resizing. None: all images must have one size.
    channels: 1 (grey), 3 (RGB) or 4 (RGBA); images of another kind are an error.
    split: "test" is every tenth file (0, 10, 20, ...), "train" the others, "all" all.
    seed: Of order and flips.
    flip: Random horizontal flips; see `Source`.
    on_error: What to do with a file that cannot be decoded: "raise", or "skip" it
      with a warning that counts them (every file is decoded once more, beforehand).
    in_memory: See `Source`.
    num_workers: See `Source`.

  Returns:
    Batches {"image": uint8 [B, H, W, C]}, with classes also "label": int32 [B].
    Errors come with `check()` or the first use. Of a set too large for memory only
    the headers are checked then, unless on_error="skip".
  """
  examples = FolderExamples(path, image_size, channels, split, on_error)
  return Source(examples, batch_size, seed, flip, in_memory, num_workers)


def read_images(path: str | os.PathLike, shape: tuple) -> np.ndarray:
  """One image file, all those below a folder in order, or the "image" of an .npz.

  Args:
    path: Which.
    shape: (height, width, channels) of the result. If it is square, images of other
      sizes are cropped and resized to it as `image_folder` does. Of height and width
      None, they are as they are.

  Returns:
    uint8, or the float32 in [-1, 1] of an .npz, [N, *shape].

  Raises:
    FileNotFoundError: There is nothing of the kind.
    ValueError: An image cannot be read, or has another shape; it is named.
  """
  name, (height, width, channels) = os.path.expanduser(os.fspath(path)), shape
  if name.endswith(".npz"):
    found = _rows(name)["image"]
  elif os.path.isdir(name):
    size = height if height == width else None
    found = FolderExamples(name, size, channels, "all", "raise").load()["image"]
  elif os.path.isfile(name):
    size = height if height == width else None
    one = decode.decode_image(name, name, channels=channels, image_size=size)
    found = one[None]
  else:
    raise FileNotFoundError(f"no image, folder or .npz {name!r}")
  expected = (height or found.shape[1], width or found.shape[2], channels)
  if found.shape[1:] != expected:
    raise ValueError(f"{name}: images are {found.shape[1:]}: expected {expected}")
  return found


def _rows(name: str) -> Batch:
  return dict(arrays(name, batch_size=1).examples.load())


def given_images(
  spec: Batch,
  path: str | None,
  mask: str | None,
  num: int | None,
  low: str | None = None,
) -> tuple[dict[str, np.ndarray], int]:
  """What a tool is given in files: (entries of a batch, the number of its rows).

  Args:
    spec: Of the batches that the method was trained with.
    path: Images for "image", see `read_images`, or an .npz of any entries ("image",
      "latents", "label", ...); repeated, or cut, to `num` rows.
    mask: An image for "mask", f32 [num, H, W, 1]: 1 where it is white.
    num: Rows; default one for every image, or 64 without any.
    low: Images for "low", of their own size; repeated, or cut, too.

  Raises:
    ValueError: The method takes no images, or these do not fit.
  """
  if not (path or mask or low):
    return {}, num or 64
  if "image" not in spec:
    raise ValueError(f"--input and --mask: batches have no image, only {sorted(spec)}")
  shape, given = spec["image"].shape[1:], {}
  if path:
    name = os.path.expanduser(os.fspath(path))
    given = _rows(name) if name.endswith(".npz") else {"image": None}
    if "image" in given:
      given["image"] = read_images(name, shape)
  if low:
    given["low"] = read_images(low, (None, None, shape[-1]))
  num = num or max(map(len, given.values()), default=64)
  given = {name: x[np.arange(num) % len(x)] for name, x in given.items()}
  if mask:
    found = read_images(mask, (*shape[:2], 1))[:1]
    white = found > (127 if found.dtype == np.uint8 else 0)
    given["mask"] = white.astype(np.float32).repeat(num, axis=0)
  return given, num


def given_entries(spec: Batch, entries: Sequence[str], num: int) -> Batch:
  """Conditions in words, such as "speaker=3": one integer for all `num` examples.

  Not the label, which `sample` has an argument for.

  Raises:
    ValueError: One is not KEY=INTEGER, or no entry of `spec` with an integer for every
      example.
  """
  integers = (k for k, v in spec.items() if v.ndim == 1 and v.dtype.kind in "iu")
  known = sorted(set(integers) - {"label"})
  given = {}
  for entry in entries:
    key, _, value = entry.partition("=")
    if key not in known or not re.fullmatch(r"-?\d+", value):
      raise ValueError(f"--given={entry}: expected KEY=INTEGER with KEY of {known}")
    given[key] = np.full(num, int(value), spec[key].dtype)
  return given
