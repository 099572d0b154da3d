"""Source: batches as a pure function of (seed, step), from memory or from disk."""

import abc
from collections.abc import Callable, Iterator
import concurrent.futures
import dataclasses
import functools
import os
import sys
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray]

MEMORY_LIMIT = 2 * 2**30  # bytes, decoded: sets up to here are kept in memory
_THREADS = min(8, os.cpu_count() or 1)  # more only fight for the interpreter lock
_CHUNK = 256
_ENDLESS = 2**40  # more steps than any run has


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
  """A read-only array of zeros that occupies one element of memory."""
  return np.broadcast_to(np.zeros((), dtype), shape)


def in_chunks(function: Callable[[range], Any], count: int, title: str) -> list:
  """[function(chunk) for chunk of range(count)] in threads; a bar if it takes long."""
  from tqdm import tqdm

  delay, interval = (0.5, 0.1) if sys.stderr.isatty() else (2, 10)
  bar = tqdm(total=count, desc=title, delay=delay, mininterval=interval)
  chunks = [range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK)]
  results = []
  with bar, concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    for chunk, result in zip(chunks, pool.map(function, chunks), strict=True):
      results.append(result)
      bar.update(len(chunk))
  return results


class Examples(abc.ABC):
  """A finite, ordered set of examples with random access: what a Source reads.

  Attributes:
    name: For messages.
    spec: One example: zero-memory arrays by name.
    gathers: Whether `read` does no more than a gather from memory: then nothing is
      loaded, and nothing made ahead.
    decode: int [N, T] -> N texts, of sets whose "tokens" stand for text; else None.
  """

  name: str
  spec: Batch
  gathers: bool = False
  decode: Callable[[np.ndarray], list[str]] | None = None

  @abc.abstractmethod
  def open(self) -> None:
    """Finds the data, or raises; a second call does nothing."""

  @abc.abstractmethod
  def __len__(self) -> int:
    """Number of examples; valid after `open`."""

  @abc.abstractmethod
  def read(self, indices: np.ndarray) -> Batch:
    """The examples at `indices` (int [n]), in new arrays [n, ...]; thread-safe."""

  def verify(self) -> None:  # noqa: B027 (not every set has something to verify)
    """Raises what can be found without decoding, for sets that are not loaded."""

  def load(self) -> Batch:
    """All examples, decoded once: arrays [N, ...]."""
    count = len(self)
    rows = {k: np.empty((count, *a.shape), a.dtype) for k, a in self.spec.items()}

    def fill(chunk: range) -> None:
      for key, values in self.read(np.asarray(chunk)).items():
        rows[key][chunk.start : chunk.stop] = values

    in_chunks(fill, count, f"reading {self.name}")
    return rows


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> tuple[np.ndarray, np.ndarray]:
  """The permutation of one epoch (int [count]) and its flips (bool [count])."""
  rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch))))
  return rng.permutation(count), rng.integers(0, 2, count, dtype=bool)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """Batches of a set of examples, each batch a pure function of (seed, step).

  Global position p (row p % B of batch p // B) holds example `permutation[p % N]`
  of epoch p // N; the permutation of epoch e is a function of (seed, e). Batches
  straddle epochs: nothing is dropped. One numpy version gives one order on every
  machine, in memory or not, with any number of processes, threads and workers.

  Attributes:
    examples: What to read.
    batch_size: Rows of the global batch, B.
    seed: Non-negative; of order and flips.
    flip: Mirror the width of "image", and of every entry of the same height and
      width, with probability 1/2: a function of (seed, p). Training only.
    in_memory: True: decode once and gather by index. False: read and decode in
      the background with Grain. None: True if the decoded set takes at most
      MEMORY_LIMIT (2 GiB).
    num_workers: Grain's worker processes when not in memory; 0: threads only.
    shard_index: Which equal part of every global batch to yield; see `shard`.
    shard_count: Number of such parts.
  """

  examples: Examples
  batch_size: int
  seed: int = 0
  flip: bool = False
  in_memory: bool | None = None
  num_workers: int = 0
  shard_index: int = 0
  shard_count: int = 1
  _cache: dict = dataclasses.field(default_factory=dict, repr=False)

  def __post_init__(self) -> None:
    for name, least in (("batch_size", 1), ("seed", 0), ("num_workers", 0)):
      value = getattr(self, name)
      if not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}={value!r}: expected an integer >= {least}")
    index, count = self.shard_index, self.shard_count
    if not 0 <= index < count:
      raise ValueError(f"shard {index} of {count}: expected an index in 0..{count - 1}")
    if self.batch_size % count:
      raise ValueError(
        f"batch_size={self.batch_size} cannot be divided among {count} processes: "
        f"expected a multiple of {count}"
      )

  def __getstate__(self) -> dict:
    kept = {} if "rows" in self._cache else self._cache
    return {**self.__dict__, "_cache": kept}  # loaded data are loaded again

  @property
  def spec(self) -> Batch:
    """Zero-memory arrays with the shapes and dtypes of a *global* training batch.

    Known from the arguments where they say it all, else from headers of files.
    """
    spec = self.examples.spec
    return {k: zeros((self.batch_size, *a.shape), a.dtype) for k, a in spec.items()}

  @property
  def decode(self) -> Callable[[np.ndarray], list[str]] | None:
    """What turns tokens into text, if they stand for text; see `Examples`."""
    return self.examples.decode

  def shard(self, index: int, count: int) -> "Source":
    """The source of rows [index * B / count, (index + 1) * B / count) of each batch.

    It replaces an earlier shard; what is loaded is shared.

    Raises:
      ValueError: If batch_size is no multiple of count.
    """
    return dataclasses.replace(self, shard_index=index, shard_count=count)

  def check(self, *, training: bool = True) -> None:
    """Loads the data (in memory) or opens it (large), raising what is wrong.

    Args:
      training: Also refuse fewer examples than a batch, which `epoch` would pad.

    Raises:
      ValueError: The data disagree with the arguments; files are named.
      FileNotFoundError: The data are not there.
    """
    if "count" not in self._cache:
      self.examples.open()
      count = len(self.examples)
      in_memory = self.in_memory
      if in_memory is None:
        example_bytes = sum(a.nbytes for a in self.examples.spec.values())
        in_memory = count * example_bytes <= MEMORY_LIMIT
      if in_memory and not self.examples.gathers:
        self._cache["rows"] = self.examples.load()
      else:
        self.examples.verify()
      self._cache["count"] = count
    if training and self._cache["count"] < self.batch_size:
      raise ValueError(
        f"{self.examples.name} has {self._cache['count']} examples: expected at "
        f"least batch_size={self.batch_size}"
      )

  def __call__(self, first_step: int = 0) -> Iterator[Batch]:
    """This process's rows of batches first_step, first_step + 1, ..., endlessly."""
    if first_step < 0:
      raise ValueError(f"first_step={first_step}: expected >= 0")
    self.check()
    return self._run(self._training_batch, first_step, _ENDLESS)

  def epoch(self) -> Iterator[Batch]:
    """One pass in order, unflipped; every process yields ceil(N / B) batches.

    Each batch has "row_mask", float32 [rows]: 1 real, 0 padding (copies of example 0
    that fill up the last batch).
    """
    self.check(training=False)
    num_batches = -(-self._cache["count"] // self.batch_size)
    return self._run(self._epoch_batch, 0, num_batches)

  def _run(self, make_batch: Callable, start: int, stop: int) -> Iterator[Batch]:
    if "rows" in self._cache or self.examples.gathers:
      return map(make_batch, range(start, stop))
    return self._prefetch(make_batch, start, stop)

  def _prefetch(self, make_batch: Callable, start: int, stop: int) -> Iterator[Batch]:
    """Batches made by Grain's threads or workers ahead of their use."""
    import grain

    # Each thread makes a whole batch, so the buffer counts batches.
    threads = max(1, _THREADS // max(1, self.num_workers))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    dataset = grain.MapDataset.range(start, stop).map(make_batch)
    dataset = dataset.to_iter_dataset(options)
    if self.num_workers:
      from absl import flags

      if not flags.FLAGS.is_parsed():  # Grain reads flags when it starts workers
        flags.FLAGS.mark_as_parsed()
      workers = grain.MultiprocessingOptions(self.num_workers, per_worker_buffer_size=2)
      dataset = dataset.mp_prefetch(workers)
    iterator = iter(dataset)
    try:
      for batch in iterator:
        # Workers hand over shared memory, which goes away with the iterator.
        yield {k: np.array(v) for k, v in batch.items()} if self.num_workers else batch
    finally:
      iterator.close()

  def _read(self, indices: np.ndarray) -> Batch:
    if "rows" not in self._cache:
      return self.examples.read(indices)
    rows = self._cache["rows"]
    return {key: np.take(values, indices, axis=0) for key, values in rows.items()}

  def _positions(self, step: int) -> tuple[int, int]:
    """This process's range of global positions in batch `step`."""
    rows = self.batch_size // self.shard_count
    first = step * self.batch_size + self.shard_index * rows
    return first, first + rows

  def _training_batch(self, step: int) -> Batch:
    position, stop = self._positions(step)
    count = self._cache["count"]
    parts = []
    while position < stop:
      epoch, first = divmod(position, count)
      last = min(first + stop - position, count)
      parts.append([a[first:last] for a in _order(self.seed, epoch, count)])
      position += last - first
    indices, flips = (np.concatenate(part) for part in zip(*parts, strict=True))
    batch = self._read(indices)
    if self.flip:
      flipped = np.flatnonzero(flips)
      size = batch["image"].shape[1:3]
      for values in batch.values():
        if values.shape[1:3] == size:
          values[flipped] = values[flipped, :, ::-1]
    return batch

  def _epoch_batch(self, step: int) -> Batch:
    indices = np.arange(*self._positions(step))
    real = indices < self._cache["count"]
    batch = self._read(np.where(real, indices, 0))
    return {**batch, "row_mask": real.astype(np.float32)}
