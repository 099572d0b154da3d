"""Sets made of numpy arrays: given ones, and random ones."""

from collections.abc import Mapping
import functools
import os
from typing import Any

import numpy as np

from jaxgen.data.source import Batch, Examples, Source, zeros


class ArrayExamples(Examples):
  """Rows of numpy arrays; see `arrays`."""

  def __init__(self, source: Mapping[str, np.ndarray] | str) -> None:
    self._source = source
    self.name = "arrays"
    if isinstance(source, Mapping):
      self.open()
    else:
      self.name = os.path.expanduser(os.fspath(source))

  @functools.cached_property
  def _rows(self) -> Batch:
    found = self._source
    if not isinstance(found, Mapping):
      try:
        with np.load(self.name, allow_pickle=False) as archive:
          found = dict(archive)
      except FileNotFoundError:
        raise FileNotFoundError(f"no file {self.name!r}") from None
      except Exception as error:  # no zip, no array, Python objects, cut off, ...
        raise ValueError(f"{self.name}: not an .npz of arrays ({error})") from error
    if not set(found) - {"label"}:
      raise ValueError(f"{self.name}: nothing to model among {sorted(found)}")
    if "row_mask" in found:
      raise ValueError(f"{self.name}: 'row_mask' is reserved for padding; rename it")
    rows = {key: self._convert(key, np.asarray(a)) for key, a in found.items()}
    lengths = {key: a.shape[0] if a.ndim else None for key, a in rows.items()}
    if len(set(lengths.values())) > 1:
      raise ValueError(f"{self.name}: lengths differ: {lengths}")
    return rows

  def _convert(self, key: str, array: np.ndarray) -> np.ndarray:
    """`array` as it is in batches."""
    fail = f"{self.name}: {key!r} is {array.dtype} {list(array.shape)}"
    if key == "image":
      if array.dtype not in (np.uint8, np.float32):
        raise ValueError(f"{fail}: expected uint8, or float32 in [-1, 1]")
      if array.ndim not in (3, 4):
        raise ValueError(f"{fail}: expected [N, H, W, C] or [N, H, W]")
      if array.dtype == np.float32 and not np.all(abs(array) <= 1):
        raise ValueError(
          f"{fail} with values in [{array.min()}, {array.max()}]: expected float32 in "
          "[-1, 1], or uint8"
        )
      return np.ascontiguousarray(array[..., None] if array.ndim == 3 else array)
    if array.dtype == np.uint8 and array.ndim > 1:
      return np.ascontiguousarray(array)
    if array.dtype.kind == "f" and key != "label":
      return array.astype(np.float32, order="C", copy=False)
    if array.dtype.kind not in "iu":
      kinds = "integers" if key == "label" else "integers or floats"
      raise ValueError(f"{fail}: expected {kinds}")
    converted = array.astype(np.int32, order="C", copy=False)
    if not np.array_equal(converted, array):
      raise ValueError(f"{fail} with values that do not fit into int32")
    return converted

  @property
  def spec(self) -> Batch:
    return {key: zeros(a.shape[1:], a.dtype) for key, a in self._rows.items()}

  def open(self) -> None:
    _ = self._rows

  def __len__(self) -> int:
    return len(next(iter(self._rows.values())))

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
  """Numpy arrays, or those of an .npz file (read on first use), kept in memory.

  Args:
    source: {name: array [N, ...]}, or the path of an .npz file of such arrays.
      "image" is uint8, or float32 in [-1, 1], [N, H, W, C] or [N, H, W] (one channel
      is added). Of other entries ("tokens", "audio", "label", ...), floats become
      float32 and integers int32, except uint8 of more than one axis (further images),
      which stay uint8. Arrays that need no conversion are not copied.
    batch_size: Rows of the global batch.
    seed: Of order and flips.
    flip: Random horizontal flips; see `Source`.

  Returns:
    Batches of the same names.

  Raises:
    ValueError: A dtype, shape, range or length is wrong (of a file: on first use).
  """
  return Source(ArrayExamples(source), batch_size, seed, flip, in_memory=True)


class _RandomExamples(Examples):
  """Two batches of random rows; see `synthetic`."""

  def __init__(self, spec: Batch, batch_size: int, seed: int) -> None:
    self.name = "synthetic"
    self.spec = spec
    self._count = 2 * batch_size
    self._seed = seed

  def open(self) -> None:
    pass

  def __len__(self) -> int:
    return self._count

  def read(self, indices: np.ndarray) -> Batch:
    return {key: np.take(a, indices, axis=0) for key, a in self.load().items()}

  def load(self) -> Batch:
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(self._seed)))
    rows = {}
    for key, a in sorted(self.spec.items()):
      shape = (len(self), *a.shape)
      if a.dtype == np.float32:
        rows[key] = rng.random(shape, np.float32) * 2 - 1
      else:
        rows[key] = rng.integers(0, 256 if a.dtype == np.uint8 else 2, shape, a.dtype)
    return rows


def synthetic(spec: Mapping[str, Any], seed: int = 0) -> Source:
  """Endless random batches for dry runs and benchmarks.

  Two batches of random rows are drawn and kept; batch k shuffles them as any other
  Source does, so it is a function of (seed, k) and costs only a gather.

  Args:
    spec: What a global batch looks like: {name: something with shape and dtype},
      such as `source.spec`.
    seed: Of values and order.

  Returns:
    Batches of that spec: uint8 uniform in 0..255, float32 uniform in [-1, 1), other
    integers 0 or 1 (safe as labels).

  Raises:
    ValueError: An entry has another dtype, or not the same first axis as the others.
  """
  sizes = {key: a.shape[0] if a.shape else None for key, a in spec.items()}
  if len(set(sizes.values())) != 1 or None in sizes.values():
    raise ValueError(f"first axes are {sizes}: expected one batch size for all")
  for key, a in spec.items():
    if np.dtype(a.dtype).kind not in "iu" and a.dtype != np.float32:
      raise ValueError(f"{key!r} is {a.dtype}: expected float32 or integers")
  batch_size = next(iter(sizes.values()))
  one = {key: zeros(tuple(a.shape[1:]), np.dtype(a.dtype)) for key, a in spec.items()}
  return Source(
    _RandomExamples(one, batch_size, seed), batch_size, seed, in_memory=True
  )
