"""Windows of characters of a text file."""

import abc
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


class Windows(Examples):
  """Windows of a sequence of tokens; see `text` and `token_file`."""

  gathers = True

  def __init__(self, path: str | os.PathLike, length: int, stride: int) -> None:
    if length < 2:
      raise ValueError(f"length={length}: expected >= 2")
    self.name = os.path.expanduser(os.fspath(path))
    self.spec = {"tokens": zeros((length,), np.int32)}
    self._length = length
    self._stride = stride

  @abc.abstractmethod
  def _read_tokens(self) -> np.ndarray:
    """All tokens of the file, integers [N]."""

  @functools.cached_property
  def _tokens(self) -> np.ndarray:
    tokens = self._read_tokens()
    if len(tokens) < self._length:
      raise ValueError(
        f"{self.name}: {len(tokens)} tokens: expected at least length={self._length}"
      )
    return tokens

  def open(self) -> None:
    _ = self._tokens

  def __len__(self) -> int:
    return (len(self._tokens) - self._length) // self._stride + 1

  def read(self, indices: np.ndarray) -> Batch:
    positions = indices[:, None] * self._stride + np.arange(self._length)
    return {"tokens": self._tokens[positions].astype(np.int32, copy=False)}


class TextExamples(Windows):
  """Windows of the characters of a file; see `text`."""

  def __init__(
    self, path: str | os.PathLike, alphabet: Alphabet, length: int, split: str
  ) -> None:
    if split not in SPLITS:
      raise ValueError(f"split={split!r}: expected one of {SPLITS}")
    super().__init__(path, length, length - 1 if split == "test" else 1)
    self.decode = alphabet.decode
    self._alphabet = alphabet
    self._split = split

  def _read_tokens(self) -> np.ndarray:
    content = read_text(self.name)
    try:
      tokens = self._alphabet.encode(content)
    except ValueError as error:
      raise ValueError(f"{self.name}: {error}") from error
    boundary = int(0.9 * len(tokens))
    parts = {"train": tokens[:boundary], "test": tokens[boundary:], "all": tokens}
    return parts[self._split]


class TokenFileExamples(Windows):
  """Windows of a file of 16-bit tokens; see `token_file`."""

  def __getstate__(self) -> dict:
    return {k: v for k, v in self.__dict__.items() if k != "_tokens"}  # mapped again

  def _read_tokens(self) -> np.ndarray:
    if not os.path.isfile(self.name):
      raise FileNotFoundError(f"no file of tokens {self.name!r}")
    if os.path.getsize(self.name) % 2 or not os.path.getsize(self.name):
      raise ValueError(
        f"{self.name}: {os.path.getsize(self.name)} bytes are no 16-bit tokens"
      )
    return np.memmap(self.name, np.uint16, "r")


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


def token_file(
  path: str | os.PathLike,
  *,
  length: int,
  batch_size: int,
  seed: int = 0,
) -> Source:
  """Windows of a file of tokens, 16 bits each, little-endian, and nothing else.

  So nanoGPT's `prepare.py` writes train.bin and val.bin. The file is read where it is
  needed, never as a whole. Windows tile it as those of the test set of `text` do, since
  the order of a window from every position of a large file would not fit in memory.

  Args:
    path: The file; opened on first use.
    length: Tokens of a window.
    batch_size: Rows of the global batch.
    seed: Of the order.

  Returns:
    Batches of "tokens", int32 [B, length] in 0..65535.

  Raises:
    FileNotFoundError: There is no such file (on first use).
    ValueError: It has an odd number of bytes, or too few of them (on first use).
  """
  return Source(TokenFileExamples(path, length, length - 1), batch_size, seed)
