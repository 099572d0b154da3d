"""Makes sliced.npz: the distance by the authors' code, whole, on images made here.

  python tests/golden/make_sliced.py FOLDER  # their repository's metrics/

Karras et al.'s repository (progressive_growing_of_gans) may be read and run, for
non-commercial use; nothing of it is here but the numbers it gives. Their patches and
directions are drawn by NumPy's global generator; the places are taken from it again,
in the order of its draws. Keys, levels from 0, the finest:
  distances     f64 [2], x 1,000, then
  average       f64 []
  corners_SET_LEVEL    uint8 [N, P, 2], upper left of each patch: row, column
"""

from pathlib import Path
import sys

import numpy as np

NUM, SIZE, PATCHES, REPEATS, DIRECTIONS, PATCH = 6, 32, 128, 4, 128, 7
SEED = 3


def images() -> tuple[np.ndarray, np.ndarray]:
  """Two sets, uint8 [6, 32, 32, 3]: smooth random images, the second with noise."""
  rng = np.random.default_rng(0)
  coarse = rng.normal(size=(2, NUM, 8, 8, 3)).repeat(4, 2).repeat(4, 3)
  fine = rng.normal(size=coarse.shape) * np.array([0.2, 0.6]).reshape(2, 1, 1, 1, 1)
  first, second = np.clip(128 + 40 * (coarse + fine), 0, 255).astype(np.uint8)
  return first, second


def directions(level: int) -> np.ndarray:
  """The directions of a level: those that follow both sets' patches. f32 [512, 147].

  Their components are by channel, column, row; ours by row, column, channel.
  """
  state = np.random.RandomState(SEED)
  for _ in range(2):
    for size in (SIZE, SIZE // 2):
      _corners(state, size)
  drawn = [
    [state.randn(3 * PATCH**2, DIRECTIONS).astype(np.float32) for _ in range(REPEATS)]
    for _ in range(2)
  ]
  rows = np.concatenate(drawn[level], axis=1).T
  return rows.reshape(-1, 3, PATCH, PATCH).transpose(0, 3, 2, 1).reshape(len(rows), -1)


def _corners(state: np.random.RandomState, size: int) -> np.ndarray:
  shape = (PATCHES * NUM, 1, 1, 1)
  columns, rows = (state.randint(3, size - 3, size=shape) - 3 for _ in range(2))
  return np.stack([rows, columns], -1).reshape(NUM, PATCHES, 2).astype(np.uint8)


def main() -> None:
  sys.path.insert(0, sys.argv[1])
  import sliced_wasserstein

  theirs = sliced_wasserstein.API(NUM, [3, SIZE, SIZE], np.uint8, NUM)
  sets = [x.transpose(0, 3, 1, 2) for x in images()]
  np.random.seed(SEED)  # noqa: NPY002 (theirs draws from it)
  theirs.begin("reals")
  theirs.feed("reals", sets[0])
  # "reals" would be compared with themselves, which draws: keep what `end` keeps.
  finish = sliced_wasserstein.finalize_descriptors
  theirs.desc_real = [finish(d) for d in theirs.descriptors]
  theirs.begin("fakes")
  theirs.feed("fakes", sets[1])
  *distances, average = theirs.end("fakes")
  state = np.random.RandomState(SEED)
  found = {
    f"corners_{name}_{level}": _corners(state, size)
    for name in "xy"
    for level, size in enumerate((SIZE, SIZE // 2))
  }
  path = Path(__file__).with_name("sliced.npz")
  np.savez_compressed(path, distances=distances, average=average, **found)
  print(path.name, path.stat().st_size, "bytes", distances, average)


if __name__ == "__main__":
  main()
