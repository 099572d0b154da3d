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
