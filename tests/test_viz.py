"""Pictures: ranges, layouts, files."""

import numpy as np
from PIL import Image
import pytest

from jaxgen import viz


def test_values_that_are_none_are_said():
  x = np.array([np.nan, 1.0, np.nan], np.float32)
  with pytest.warns(UserWarning, match="2 of 3 values to draw are NaN"):
    assert viz.to_uint8(x).tolist() == [0, 255, 0]


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


def test_many_short_rows_stand_in_columns(monkeypatch):
  monkeypatch.setattr(viz, "MIN_SIDE", 1)
  pairs = plain(np.arange(1, 29).reshape(14, 2))  # 14 rows of 2: a ribbon 14 to 2
  image = viz.grid(pairs)[..., 0]
  assert image.shape == (7 * 5 - 1, 2 * 9 + 8)  # two columns, 8 pixels apart
  left, right = image[::5, [0, 5]], image[::5, [17, 22]]
  found = np.stack([left, right], axis=1).reshape(14, 2)
  np.testing.assert_array_equal(found, np.arange(1, 29).reshape(14, 2))
  assert not image[:, 9:17].any()
  assert viz.grid(pairs, columns=1).shape == (14 * 5 - 1, 9, 1)
  eight = plain(np.zeros((16, 8)))
  assert viz.grid(eight).shape == (16 * 5 - 1, 8 * 5 - 1, 1)


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


def plain(levels):
  """Images 4x4 of one grey each, [..., 4, 4, 1], of levels 0 ... 255."""
  x = np.asarray(levels, np.float32)[..., None, None, None] / 127.5 - 1
  return np.broadcast_to(x, (*x.shape[:-3], 4, 4, 1))


def test_sequences_are_rows_of_a_png_and_frames_of_a_gif(tmp_path, monkeypatch):
  monkeypatch.setattr(viz, "MIN_SIDE", 1)
  levels = np.array([[10, 60, 120], [30, 90, 150]])  # N = 2, K = 3
  outputs = {"linear": plain(levels)}
  viz.save(tmp_path / "x.png", outputs)
  picture = np.asarray(Image.open(tmp_path / "x.png"))
  assert picture.shape == (2 * 5 - 1, 3 * 5 - 1)
  np.testing.assert_array_equal(picture[::5, ::5], levels)
  viz.save(tmp_path / "x.gif", outputs)
  gif = Image.open(tmp_path / "x.gif")
  assert gif.n_frames == 3
  for k in range(3):
    gif.seek(k)
    frame = np.asarray(gif.convert("L"))
    assert frame.shape == (4, 2 * 5 - 1)
    np.testing.assert_array_equal(frame[0, ::5], levels[:, k])


def test_animations_can_be_followed(tmp_path):
  """Eight frames last two seconds and a look at the end; many go at 12 per second."""

  def durations(x):
    viz.save(tmp_path / "x.gif", {"x": x})
    gif, found = Image.open(tmp_path / "x.gif"), []
    for k in range(gif.n_frames):
      gif.seek(k)
      found.append(gif.info["duration"])
    return found

  assert durations(plain([np.arange(8) * 20])) == [250] * 7 + [1250]
  assert durations(plain([np.arange(50) * 5])) == [80] * 49 + [1080]
  assert durations(plain([10, 200, 100])) == [500] * 3


def test_the_path_itself_is_of_the_samples_or_of_the_first_image(tmp_path):
  image, score = np.zeros((4, 8, 8, 1)), np.zeros(4)
  out = tmp_path / "x.png"
  two = {"chain": image, "samples": image, "score": score}
  assert viz.paths(out, two) == {"samples": out, "chain": tmp_path / "x_chain.png"}
  other = {"error": score, "w": image, "z": image}
  assert viz.paths(out, other) == {"w": out, "z": tmp_path / "x_z.png"}
  assert viz.paths(tmp_path / "x.npz", {"error": score}) == {
    "error": tmp_path / "x.npz"
  }
  assert viz.paths(out, {"error": score}) == {}
  assert list(viz.save(out, two)) == ["samples", "chain"]
  assert {p.name for p in tmp_path.iterdir()} == {"x.png", "x_chain.png"}


def test_errors(tmp_path):
  with pytest.raises(ValueError, match="no output is an image"):
    viz.save(tmp_path / "x.png", {"score": np.zeros(4)})
  with pytest.raises(ValueError, match=r"x\.jpeg: expected a name in"):
    viz.save(tmp_path / "x.jpeg", {"samples": np.zeros((4, 8, 8, 1))})
  with pytest.raises(ValueError, match="1 or 3 channels"):
    viz.grid(np.zeros((4, 8, 8, 2)))
