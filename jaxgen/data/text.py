"""Windows of characters of a text file."""

from collections.abc import Sequence
import functools
import gzip
import os
from typing import Any

import numpy as np

from jaxgen.data.source import Batch, Examples, Source, zeros

# The 65 characters of tiny Shakespeare (Karpathy, char-rnn, 2015), sorted.
SHAKESPEARE = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

SPLITS = ("train", "test", "all")


class Alphabet:
  """Characters and the tokens that stand for them: the index of each.

  Attributes:
    characters: Distinct, in order.
  """

  def __init__(self, characters: str) -> None:
    if not characters or len(set(characters)) != len(characters):
      raise ValueError(f"alphabet {characters!r}: expected distinct characters")
    self.characters = characters
    self._table = np.array([ord(c) for c in characters], np.uint32)
    self._order = np.argsort(self._table)

  def __len__(self) -> int:
    return len(self.characters)

  def encode(self, text: str) -> np.ndarray:
    """int32 [len(text)].

    Raises:
      ValueError: Naming a character that is not in the alphabet, and where it stands.
    """
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    ordered = self._table[self._order]
    found = np.minimum(np.searchsorted(ordered, points), len(ordered) - 1)
    strange = np.flatnonzero(ordered[found] != points)
    if len(strange):
      others = sorted({text[i] for i in strange})
      raise ValueError(
        f"{text[strange[0]]!r} at character {strange[0]} and {len(strange) - 1} others "
        f"({len(others)} distinct: {''.join(others)[:40]!r}) are not among the "
        f"{len(self)} of the alphabet {self.characters!r}"
      )
    return self._order[found].astype(np.int32)

  def decode(self, tokens: Any) -> list[str]:
    """int [N, T] -> N texts.

    Raises:
      ValueError: A token is not in 0..len - 1.
    """
    tokens = np.asarray(tokens)
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < len(self):
      raise ValueError(
        f"tokens in {tokens.min()}..{tokens.max()}: expected 0..{len(self) - 1}"
      )
    return ["".join(self.characters[i] for i in row) for row in tokens]


def read_text(path: str | os.PathLike) -> str:
  """A file in UTF-8, or such a file in .gz.

  Raises:
    FileNotFoundError: There is no such file.
    ValueError: It is not UTF-8, or no gzip file.
  """
  name = os.path.expanduser(os.fspath(path))
  try:
    with (gzip.open if name.endswith(".gz") else open)(name, "rb") as file:
      return file.read().decode("utf-8")
  except FileNotFoundError:
    raise FileNotFoundError(f"no text file {name!r}") from None
  except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
    raise ValueError(f"{name}: no text in UTF-8 ({error})") from error


def characters_of(path: str | os.PathLike) -> str:
  """The distinct characters of a file, sorted; see `read_text`."""
  return "".join(sorted(set(read_text(path))))


class TextExamples(Examples):
  """Windows of the characters of a file; see `text`."""

  gathers = True

  def __init__(
    self, path: str | os.PathLike, alphabet: Alphabet, length: int, split: str
  ) -> None:
    if split not in SPLITS:
      raise ValueError(f"split={split!r}: expected one of {SPLITS}")
    if length < 2:
      raise ValueError(f"length={length}: expected >= 2")
    self.name = os.path.expanduser(os.fspath(path))
    self.spec = {"tokens": zeros((length,), np.int32)}
    self.decode = alphabet.decode
    self._alphabet = alphabet
    self._length = length
    self._split = split
    self._stride = length - 1 if split == "test" else 1

  @functools.cached_property
  def _tokens(self) -> np.ndarray:
    try:
      tokens = self._alphabet.encode(read_text(self.name))
    except ValueError as error:
      if self.name in str(error):
        raise
      raise ValueError(f"{self.name}: {error}") from error
    boundary = int(0.9 * len(tokens))
    parts = {"train": tokens[:boundary], "test": tokens[boundary:], "all": tokens}
    tokens = parts[self._split]
    if len(tokens) < self._length:
      raise ValueError(
        f"{self.name}: {len(tokens)} characters for split={self._split!r}: expected at "
        f"least length={self._length}"
      )
    return tokens

  def open(self) -> None:
    _ = self._tokens

  def __len__(self) -> int:
    return (len(self._tokens) - self._length) // self._stride + 1

  def read(self, indices: np.ndarray) -> Batch:
    offsets = np.arange(self._length)
    return {"tokens": self._tokens[indices[:, None] * self._stride + offsets]}


def text(
  path: str | os.PathLike,
  split: str,
  *,
  alphabet: str | Sequence[str],
  length: int,
  batch_size: int,
  seed: int = 0,
) -> Source:
  """Windows of a text file, a token for every character.

  Args:
    path: A file in UTF-8, or such a file in .gz; read on first use.
    split: "train": the first 90 % of the characters, a window from every position, in
      random order. "test": the others, from beginning to end; each window begins with
      the last token of the one before, so that a model that is given the first token
      of a window predicts every character once (but at most length - 2 at the end).
      "all": windows from every position of the whole file.
    alphabet: The characters that may occur, in the order of their tokens, such as
      `characters_of(path)`. The vocabulary of a run must not depend on a file that may
      change: an experiment keeps it in its config.
    length: Tokens of a window.
    batch_size: Rows of the global batch.
    seed: Of the order.

  Returns:
    Batches of "tokens", int32 [B, length] in 0..len(alphabet) - 1. The source has
    `decode`, which turns them into text.

  Raises:
    FileNotFoundError: There is no such file (on first use).
    ValueError: It has other characters, or too few of them (on first use).
  """
  examples = TextExamples(path, Alphabet("".join(alphabet)), length, split)
  return Source(examples, batch_size, seed)
