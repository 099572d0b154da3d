"""Recordings of different lengths, from one file."""

import functools
import os

import numpy as np

from jaxgen.data.source import Batch, Examples, Source, zeros

KEYS = ("audio", "offsets", "digits", "speakers", "index")
NUM_TEST = 5  # Recordings of each digit and speaker; the authors' test set.


class _SpokenDigits(Examples):
  """The recordings of one split; see `spoken_digits`."""

  def __init__(self, path: str, split: str, length: int) -> None:
    self.name = os.path.expanduser(os.fspath(path))
    self._split = split
    self.spec = {
      "audio": zeros((length,), np.float32),
      "mask": zeros((length,), np.float32),
      "label": zeros((), np.int32),
      "speaker": zeros((), np.int32),
    }

  @functools.cached_property
  def _rows(self) -> Batch:
    try:
      with np.load(self.name, allow_pickle=False) as archive:
        found = {key: archive[key] for key in KEYS if key in archive}
    except FileNotFoundError:
      raise FileNotFoundError(
        f"no file {self.name!r}: expected the Free Spoken Digit Dataset as an .npz of "
        f"{', '.join(KEYS)}"
      ) from None
    except Exception as error:  # no zip, Python objects, cut off, ...
      raise ValueError(f"{self.name}: not an .npz of arrays ({error})") from error
    if missing := [key for key in KEYS if key not in found]:
      raise ValueError(f"{self.name}: {missing} are missing among {sorted(found)}")
    if found["audio"].dtype != np.int16:
      raise ValueError(f"{self.name}: audio is {found['audio'].dtype}: expected int16")
    is_test = found["index"] < NUM_TEST
    chosen = np.flatnonzero(is_test if self._split == "test" else ~is_test)
    length = len(self.spec["audio"])
    audio, mask = np.zeros((2, len(chosen), length), np.float32)
    for row, k in enumerate(chosen):
      start, stop = found["offsets"][k : k + 2]
      piece = found["audio"][start : min(stop, start + length)]
      audio[row, : len(piece)] = piece / np.float32(2**15)
      mask[row, : len(piece)] = 1.0
    label = found["digits"][chosen].astype(np.int32)
    speaker = found["speakers"][chosen].astype(np.int32)
    return {"audio": audio, "mask": mask, "label": label, "speaker": speaker}

  def open(self) -> None:
    _ = self._rows

  def __len__(self) -> int:
    return len(self._rows["audio"])

  def read(self, indices: np.ndarray) -> Batch:
    return {key: np.take(a, indices, axis=0) for key, a in self._rows.items()}

  def load(self) -> Batch:
    return self._rows


def spoken_digits(
  path: str, split: str, *, batch_size: int, length: int, seed: int = 0
) -> Source:
  """The Free Spoken Digit Dataset (Jackson et al.): 6 speakers, 8 kHz, 16 bit.

  Args:
    path: An .npz of audio (int16, all recordings behind one another), offsets (int
      [N + 1] into it), digits, speakers, index (of the recordings of one digit by one
      speaker). Read on first use.
    split: "train", or "test": those of index 0 to 4, as the data's authors have it.
    batch_size: Rows of the global batch.
    length: Samples of every row: of longer recordings their beginning, shorter ones
      with zeros behind them.
    seed: Of the order.

  Returns:
    Batches of audio, f32 [B, length] in [-1, 1); mask, f32 [B, length], 1 where there
    is a recording; label, the digit, int32 [B]; speaker, int32 [B] in 0, ..., 5.

  Raises:
    ValueError: No such split, or (on first use) the file is not as described.
    FileNotFoundError: No such file (on first use).
  """
  if split not in ("train", "test"):
    raise ValueError(f"split={split!r}: expected 'train' or 'test'")
  if length < 1:
    raise ValueError(f"length={length}: expected at least 1 sample")
  examples = _SpokenDigits(path, split, length)
  return Source(examples, batch_size, seed, in_memory=True)
