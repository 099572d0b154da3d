"""Sets made of numpy arrays, and random batches."""

from collections.abc import Iterator, Mapping
import dataclasses
import os
from typing import Any
import zipfile

import numpy as np

from jaxgen.data.source import Batch, Examples, Source, shard_rows, zeros


def _npz_headers(path: str) -> Batch:
  """Zero-memory arrays with the shapes and dtypes of the entries of an .npz file."""
  headers = {}
  with zipfile.ZipFile(path) as archive:
    for entry in archive.namelist():
      with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = {
          (1, 0): np.lib.format.read_array_header_1_0,
          (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(file)
        if dtype.hasobject:
          raise ValueError(f"{path}: {entry} holds Python objects: expected numbers")
        headers[entry.removesuffix(".npy")] = zeros(shape, dtype)
  return headers


def _stored_dtype(key: str, array: np.ndarray, where: str) -> np.dtype:
  """The dtype in a batch of the entry `key`; ValueError where there is none."""
  kind = array.dtype.kind
  if key == "image":
    if array.dtype not in (np.uint8, np.float32):
      raise ValueError(
        f"{where}: 'image' is {array.dtype}: expected uint8, or float32 in [-1, 1]"
      )
    return array.dtype
  if array.dtype == np.uint8 and array.ndim > 1:
    return array.dtype
  if kind in "iu":
    return np.dtype(np.int32)
  if kind == "f":
    return np.dtype(np.float32)
  raise ValueError(f"{where}: {key!r} is {array.dtype}: expected integers or floats")


class ArrayExamples(Examples):
  """Rows of numpy arrays; see `arrays`."""

  def __init__(self, source: Mapping[str, np.ndarray] | str) -> None:
    self._source = source
    is_dict = isinstance(source, Mapping)
    self.name = "arrays" if is_dict else os.path.expanduser(os.fspath(source))
    self._headers: Batch | None = None
    self._rows: Batch | None = None
    if is_dict:
      self._source = {key: np.asarray(array) for key, array in source.items()}
      self._check_headers()

  def _check_headers(self) -> None:
    """Sets the shape and dtype of every entry, as it is in batches."""
    if self._headers is not None:
      return
    found = self._source
    if not isinstance(found, Mapping):
      if not os.path.isfile(self.name):
        raise FileNotFoundError(f"no file {self.name!r}")
      try:
        found = _npz_headers(self.name)
      except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{self.name}: is not an .npz file ({error})") from error
    if "image" not in found:
      raise ValueError(f"{self.name}: no 'image' among {sorted(found)}")
    if "mask" in found:
      raise ValueError(f"{self.name}: 'mask' is reserved for padding; rename it")
    headers = {}
    for key, array in found.items():
      dtype = _stored_dtype(key, array, self.name)
      shape = array.shape
      if key == "image":
        if len(shape) not in (3, 4):
          raise ValueError(
            f"{self.name}: 'image' has shape {shape}: expected [N, H, W, C] or "
            "[N, H, W]"
          )
        shape = (*shape, 1) if len(shape) == 3 else shape
      headers[key] = zeros(shape, dtype)
    lengths = {key: a.shape[0] if a.shape else None for key, a in headers.items()}
    if len(set(lengths.values())) > 1:
      raise ValueError(f"{self.name}: lengths differ: {lengths}")
    self._headers = headers

  @property
  def spec(self) -> Batch:
    self._check_headers()
    return {key: zeros(a.shape[1:], a.dtype) for key, a in self._headers.items()}

  def open(self) -> None:
    self._check_headers()
    if self._rows is None:
      if isinstance(self._source, Mapping):
        found = self._source
      else:
        with np.load(self.name) as archive:
          found = {key: archive[key] for key in self._headers}
      self._rows = {key: self._convert(key, found[key]) for key in self._headers}

  def _convert(self, key: str, array: np.ndarray) -> np.ndarray:
    """`array` with the announced shape and dtype; ValueError if values do not fit."""
    header = self._headers[key]
    if array.size:
      low, high = array.min(), array.max()
      if key == "image" and array.dtype == np.float32 and not -1 <= low <= high <= 1:
        raise ValueError(
          f"{self.name}: 'image' is float32 with values in [{low}, {high}]: expected "
          "[-1, 1] (or uint8)"
        )
      if header.dtype == np.int32 and not -(2**31) <= int(low) <= int(high) < 2**31:
        raise ValueError(
          f"{self.name}: {key!r} has values in [{low}, {high}]: expected int32"
        )
    converted = array.astype(header.dtype, order="C", copy=False)
    return converted.reshape(header.shape)

  def __len__(self) -> int:
    return len(self._headers["image"])

  def read(self, indices: np.ndarray) -> Batch:
    return {key: np.take(a, indices, axis=0) for key, a in self._rows.items()}

  def load(self) -> Batch:
    return self._rows


def arrays(
  source: Mapping[str, np.ndarray] | str,
  *,
  batch_size: int,
  seed: int = 0,
  flip: bool = False,
) -> Source:
  """Numpy arrays, or those of an .npz file, kept in memory.

  Args:
    source: {name: array [N, ...]}, or the path of an .npz file of such arrays.
      "image" is uint8, or float32 in [-1, 1], [N, H, W, C] or [N, H, W] (one channel
      is added). Of the other entries, floats become float32 and integers int32,
      except uint8 of more than one axis (further images), which stay uint8.
    batch_size: Rows of the global batch.
    seed: Of order and flips.
    flip: Random horizontal flips.

  Returns:
    Batches of the same names. The arrays of a dict are not copied where they have
    the right dtype.

  Raises:
    ValueError: A dtype, shape or length is wrong (of a file, and values out of range:
      on first use or by `check()`).
  """
  return Source(ArrayExamples(source), batch_size, seed, flip, in_memory=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Synthetic:
  """Random batches with the interface of a `Source`; see `synthetic`."""

  spec: Batch
  seed: int = 0
  shard_index: int = 0
  shard_count: int = 1

  @property
  def batch_size(self) -> int:
    """Rows of the global batch."""
    return next(iter(self.spec.values())).shape[0]

  def check(self, *, training: bool = True) -> None:
    """Does nothing: there is nothing to load."""

  def shard(self, index: int, count: int) -> "Synthetic":
    """As `Source.shard`."""
    shard_rows(self.batch_size, index, count)
    return dataclasses.replace(self, shard_index=index, shard_count=count)

  def __call__(self, first_step: int = 0) -> Iterator[Batch]:
    """This process's rows of batches first_step, first_step + 1, ..., endlessly."""
    return map(self._batch, range(first_step, 2**40))

  def epoch(self) -> Iterator[Batch]:
    """One full batch, with "mask"."""
    batch = self._batch(0)
    rows = len(next(iter(batch.values())))
    return iter([{**batch, "mask": np.ones(rows, np.float32)}])

  def _batch(self, step: int) -> Batch:
    rng = np.random.Generator(
      np.random.PCG64(np.random.SeedSequence((self.seed, step)))
    )
    low, high = shard_rows(self.batch_size, self.shard_index, self.shard_count)
    batch = {}
    for key, a in sorted(self.spec.items()):
      if a.dtype == np.uint8:
        values = rng.integers(0, 256, a.shape, np.uint8)
      elif a.dtype == np.float32:
        values = rng.random(a.shape, np.float32) * 2 - 1
      else:
        values = rng.integers(0, 2, a.shape, a.dtype)
      batch[key] = values[low:high]
    return batch


def synthetic(spec: Mapping[str, Any], seed: int = 0) -> Synthetic:
  """Endless random batches for dry runs and benchmarks.

  Args:
    spec: What a global batch looks like: {name: something with shape and dtype},
      such as `source.spec`.
    seed: Batch k is a function of (seed, k).

  Returns:
    Batches of that spec: uint8 uniform in 0..255, float32 uniform in [-1, 1), other
    integers 0 or 1 (safe as labels). Its `epoch()` is one batch.

  Raises:
    ValueError: An entry has another dtype, or no or another first axis.
  """
  zero = {key: zeros(tuple(a.shape), np.dtype(a.dtype)) for key, a in spec.items()}
  rows = {key: a.shape[:1] for key, a in zero.items()}
  if len(set(rows.values())) != 1 or () in rows.values():
    raise ValueError(f"first axes are {rows}: expected one batch size for all")
  for key, a in zero.items():
    if a.dtype.kind not in "iu" and a.dtype != np.float32:
      raise ValueError(f"{key!r} is {a.dtype}: expected float32 or integers")
  return Synthetic(zero, seed)
