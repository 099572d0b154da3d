"""Folders of image files."""

import os
from pathlib import Path
import warnings

import numpy as np

from jaxgen.data.decode import (
  EXTENSIONS,
  UnreadableImageError,
  check_image_args,
  decode_image,
  read_header,
)
from jaxgen.data.source import Batch, Examples, Source, parallel, zeros


class FolderExamples(Examples):
  """The PNG, JPEG and WebP files below a folder; see `image_folder`."""

  def __init__(
    self,
    path: str,
    image_size: int | None,
    channels: int,
    split: str,
    on_error: str,
  ) -> None:
    check_image_args(image_size, channels)
    if split not in ("train", "test", "all"):
      raise ValueError(f"split={split!r}: expected 'train', 'test' or 'all'")
    if on_error not in ("raise", "skip"):
      raise ValueError(f"on_error={on_error!r}: expected 'raise' or 'skip'")
    self.name = os.path.expanduser(os.fspath(path))
    self._image_size = image_size
    self._channels = channels
    self._split = split
    self._on_error = on_error
    self._files: list[str] | None = None  # relative, sorted
    self._labels: np.ndarray | None = None  # int32 [N], or None: no classes
    self._shape: tuple[int, int] | None = None
    self._opened = False

  def _list(self) -> None:
    """Finds the files and their labels, once."""
    if self._files is not None:
      return
    root = Path(self.name)
    if not root.is_dir():
      raise FileNotFoundError(f"no folder {self.name!r}")
    found = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
      subfolders[:] = [s for s in subfolders if s[0] != "." and s != "__MACOSX"]
      found += [
        Path(folder, name).relative_to(root)
        for name in names
        if name[0] != "." and name.lower().endswith(EXTENSIONS)
      ]
    found.sort(key=lambda file: file.as_posix())
    labels = None
    if found and all(len(file.parts) > 1 for file in found):
      classes = sorted({file.parts[0] for file in found})
      number = {name: i for i, name in enumerate(classes)}
      labels = np.array([number[file.parts[0]] for file in found], np.int32)
    test = np.arange(len(found)) % 10 == 0
    keep = {"test": test, "train": ~test, "all": test | ~test}[self._split]
    self._files = [str(file) for file, k in zip(found, keep, strict=True) if k]
    self._labels = None if labels is None else labels[keep]
    if not self._files:
      raise FileNotFoundError(
        f"{self.name}: no images for split {self._split!r} among {len(found)}: "
        f"expected files ending in {', '.join(EXTENSIONS)}"
      )

  def _path(self, index: int) -> str:
    return os.path.join(self.name, self._files[index])

  def _drop_unreadable(self) -> None:
    """Decodes every file once and forgets those that cannot be decoded."""

    def error(index: int) -> str | None:
      path = self._path(index)
      try:
        decode_image(path, path, channels=self._channels, image_size=None)
      except UnreadableImageError as e:
        return str(e)
      return None

    count = len(self._files)
    errors = parallel(error, range(count), count, f"checking {self.name}")
    keep = [i for i, e in enumerate(errors) if e is None]
    if len(keep) < count:
      first = next(e for e in errors if e)
      message = f"skipped {count - len(keep)} of {count} images, the first: {first}"
      if not keep:
        raise UnreadableImageError(f"{self.name}: {message}")
      warnings.warn(message, stacklevel=2)
    self._files = [self._files[i] for i in keep]
    if self._labels is not None:
      self._labels = self._labels[keep]

  def open(self) -> None:
    if self._opened:
      return
    self._list()
    if self._on_error == "skip":
      self._drop_unreadable()
    self._opened = True

  def verify(self) -> None:
    def check(index: int) -> None:
      self._check_size(index, read_header(self._path(index), self._channels))

    count = len(self)
    parallel(check, range(count), count, f"checking {self.name}")

  def _size(self) -> tuple[int, int]:
    """(height, width) of every example."""
    if self._image_size:
      return self._image_size, self._image_size
    if self._shape is None:
      self.open()
      self._shape = read_header(self._path(0), self._channels)
    return self._shape

  def _check_size(self, index: int, size: tuple[int, int]) -> None:
    if self._image_size is None and size != self._size():
      raise ValueError(
        f"{self._path(index)} is {size[0]}x{size[1]} (height x width) but "
        f"{self._path(0)} is {self._size()[0]}x{self._size()[1]}: pass "
        "image_size to crop and resize them to one size"
      )

  @property
  def spec(self) -> Batch:
    self._list()
    spec = {"image": zeros((*self._size(), self._channels), np.uint8)}
    return spec if self._labels is None else {**spec, "label": zeros((), np.int32)}

  def __len__(self) -> int:
    return len(self._files)

  def read(self, indices: np.ndarray) -> Batch:
    images = np.empty((len(indices), *self.spec["image"].shape), np.uint8)
    for row, index in enumerate(indices):
      path = self._path(index)
      image = decode_image(
        path, path, channels=self._channels, image_size=self._image_size
      )
      self._check_size(index, image.shape[:2])
      images[row] = image
    batch = {"image": images}
    return batch if self._labels is None else {**batch, "label": self._labels[indices]}


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

  If every file lies in a subfolder of `path`, the subfolders are the classes and
  "label" (int32 [B]) numbers them sorted by name; else there are no labels. Hidden
  files and folders are passed over.

  Args:
    path: The folder, searched recursively.
    batch_size: Rows of the global batch.
    image_size: Side in pixels: see `decode_image` for the rule of cropping and
      resizing. None: all images must have one size.
    channels: 1 (grey), 3 (RGB) or 4 (RGBA); images of another kind are an error.
    split: "test" is every tenth file (0, 10, 20, ...), "train" the others, "all" all.
    seed: Of order and flips.
    flip: Random horizontal flips.
    on_error: What to do with a file that cannot be decoded: "raise", or "skip" it
      with one warning that counts them (decodes every file once more, beforehand).
    in_memory: See `Source`.
    num_workers: See `Source`.

  Returns:
    Batches {"image": uint8 [B, H, W, C]} and perhaps "label"; errors come with
    `check()` or the first use. A large set has its headers checked then; what is
    wrong with its pixels only shows when they are read.
  """
  examples = FolderExamples(path, image_size, channels, split, on_error)
  return Source(examples, batch_size, seed, flip, in_memory, num_workers)
