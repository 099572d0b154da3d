"""Pictures: ranges, layouts, files."""

import numpy as np
from PIL import Image
import pytest

from jaxgen import viz


def test_to_uint8_rounds_and_clips():
  x = np.float32([-2, -1, -0.5, 0.0, 1.0, 9.0])
  assert viz.to_uint8(x).tolist() == [0, 0, 64, 128, 255, 255]
  levels = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(viz.to_uint8(levels / np.float32(127.5) - 1), levels)


def test_grid_places_every_image(monkeypatch):
  monkeypatch.setattr(viz, "MIN_SIDE", 1)
  images = np.stack([np.full((2, 3, 1), v / 127.5 - 1) for v in (10, 20, 30, 40, 50)])
  image = viz.grid(images, columns=3)
  assert image.shape == (2 * 2 + 1, 3 * 3 + 2, 1)
  assert image[0, [0, 4, 8], 0].tolist() == [10, 20, 30]
  assert image[3, [0, 4, 8], 0].tolist() == [40, 50, 0]
  assert not image[2].any()
  assert not image[:, 3].any()


def test_grid_of_sequences_has_one_row_per_example(monkeypatch):
  monkeypatch.setattr(viz, "MIN_SIDE", 1)
  assert viz.grid(np.zeros((2, 5, 4, 4, 3)), pad=0).shape == (8, 20, 3)


def test_small_grids_are_enlarged():
  assert viz.grid(np.zeros((64, 8, 8, 1))).shape == (71 * 7, 71 * 7, 1)


def test_save(tmp_path):
  outputs = {
    "samples": np.zeros((4, 8, 8, 3)),
    "chain": np.zeros((2, 6, 8, 8, 1)),
    "score": np.arange(4.0),
  }
  grids = viz.save(tmp_path / "a" / "x.png", outputs)
  assert sorted(grids) == ["chain", "samples"]
  assert Image.open(tmp_path / "a" / "x.png").mode == "RGB"
  assert Image.open(tmp_path / "a" / "x_chain.png").mode == "L"
  noise = np.random.default_rng(0).uniform(-1, 1, (2, 6, 8, 8, 1))
  viz.save(tmp_path / "y.gif", {"chain": noise})
  assert Image.open(tmp_path / "y.gif").n_frames == 6
  viz.save(tmp_path / "z.npz", outputs)
  assert np.load(tmp_path / "z.npz")["score"].tolist() == [0, 1, 2, 3]


def test_errors(tmp_path):
  with pytest.raises(ValueError, match="no output is an image"):
    viz.save(tmp_path / "x.png", {"score": np.zeros(4)})
  with pytest.raises(ValueError, match=r"x\.jpeg: expected a name in"):
    viz.save(tmp_path / "x.jpeg", {"samples": np.zeros((4, 8, 8, 1))})
  with pytest.raises(ValueError, match="1 or 3 channels"):
    viz.grid(np.zeros((4, 8, 8, 2)))
