"""Captions as tokens: characters."""

from collections.abc import Sequence

import numpy as np


def spell(captions: Sequence[str]) -> tuple[np.ndarray, str]:
  """Captions letter by letter, filled up with spaces.

  Returns:
    (int32 [N, L] of indices, the alphabet that they point into, in rising order).

  Raises:
    ValueError: There are no captions, or only empty ones.
  """
  length = max(map(len, captions), default=0)
  if not length:
    raise ValueError(f"captions {list(captions)}: expected at least one letter")
  padded = [caption.ljust(length) for caption in captions]
  alphabet = "".join(sorted(set("".join(padded))))
  return np.array([[alphabet.index(c) for c in p] for p in padded], np.int32), alphabet


def spell_as(caption: str, alphabet: str, length: int) -> np.ndarray:
  """A caption of one's own as `spell` would have it: int32 [length].

  Raises:
    ValueError: It is too long, or has other letters than the alphabet.
  """
  if len(caption) > length or set(caption) - set(alphabet):
    raise ValueError(
      f"caption {caption!r}: expected at most {length} letters of {alphabet!r}"
    )
  return np.array([alphabet.index(c) for c in caption.ljust(length)], np.int32)
