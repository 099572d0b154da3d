"""Sound as files and pictures, and recordings as data."""

import wave

import numpy as np
from PIL import Image
import pytest

from jaxgen import data, sound, viz


def tones(*hertz, rate=8000, seconds=0.25):
  t = np.arange(round(rate * seconds)) / rate
  return np.stack([0.5 * np.sin(2 * np.pi * f * t) for f in hertz]).astype(np.float32)


def test_sounds_lie_behind_one_another_in_a_wav(tmp_path):
  waves = tones(440, 880)
  outputs = {"samples": waves, "sample_rate": np.full(2, 8000)}
  path = tmp_path / "x.wav"
  assert viz.paths(path, outputs) == {"samples": path}
  assert viz.save(path, outputs) == {}
  with wave.open(str(path)) as file:
    assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (
      8000,
      1,
      2,
    )
    read = np.frombuffer(file.readframes(file.getnframes()), "<i2") / (2**15 - 1)
  assert len(read) == 2000 + 2000 + 2000
  np.testing.assert_allclose(read[:2000], waves[0], atol=1e-4)
  np.testing.assert_array_equal(read[2000:4000], 0)
  np.testing.assert_allclose(read[4000:], waves[1], atol=1e-4)


def test_a_tone_is_a_line_at_its_frequency(tmp_path):
  shown = sound.pictures(tones(1000, 3000), 8000)
  assert shown.shape == (2, 112, 160, 1)
  assert np.abs(shown).max() == 1.0
  for picture, hertz in zip(shown, (1000, 3000), strict=True):
    loudest = np.argmax(picture[33:97, 20:-20, 0], axis=0)
    # 64 bands of 62.5 Hz, the lowest, about 62.5 Hz, in the last row.
    np.testing.assert_allclose(64 - loudest, hertz / 62.5, atol=1)
  half = shown[0, :32, :, 0] > 0  # An amplitude of 0.5: half of the height.
  assert 14 <= half.any(axis=1).sum() <= 19
  ticks = np.flatnonzero(shown[0, 98, :, 0] > 0)
  np.testing.assert_array_equal(ticks, [0, 64, 128])  # Every 0.1 s of 0.25 s.
  assert (shown[0, 100:, :, 0] > 0).any(axis=1).sum() >= 6  # Letters.
  slow = sound.pictures(tones(1000), 4000)
  assert (slow[0, 100:] != shown[0, 100:]).any()  # They say another rate.

  path = tmp_path / "x.png"
  outputs = {"samples": tones(440), "sample_rate": np.array([8000])}
  assert viz.save(path, outputs)["samples"].shape[-1] == 1
  assert Image.open(path).size[1] % 112 == 0


def test_what_is_no_sound_has_no_wav(tmp_path):
  image = {"samples": np.zeros((2, 8, 8, 1), np.float32)}
  with pytest.raises(ValueError, match="no output is sound"):
    viz.save(tmp_path / "x.wav", image)
  with pytest.raises(ValueError, match=r"\.png, \.gif, \.wav, \.txt or \.npz"):
    viz.save(tmp_path / "x.mp3", image)


def archive(tmp_path, **changes):
  lengths = [3, 6, 2, 5]
  rows = {
    "audio": np.arange(1, 17, dtype=np.int16) * 1000,
    "offsets": np.cumsum([0, *lengths]),
    "digits": np.array([7, 8, 9, 1], np.uint8),
    "speakers": np.array([0, 1, 2, 3], np.uint8),
    "index": np.array([4, 5, 0, 49], np.uint8),
  }
  rows = {k: v for k, v in {**rows, **changes}.items() if v is not None}
  path = tmp_path / "digits.npz"
  np.savez(path, **rows)
  return path


def test_recordings_are_cut_and_padded_and_split(tmp_path):
  options = dict(batch_size=2, length=4)
  test = data.spoken_digits(archive(tmp_path), "test", **options)
  assert {k: v.shape for k, v in test.spec.items()} == {
    "audio": (2, 4),
    "mask": (2, 4),
    "label": (2,),
    "speaker": (2,),
  }
  (batch,) = test.epoch()
  expected = np.array([[1, 2, 3, 0], [10, 11, 0, 0]]) * 1000 / 2**15
  np.testing.assert_allclose(batch["audio"], expected, rtol=1e-6)
  np.testing.assert_array_equal(batch["mask"], expected > 0)
  np.testing.assert_array_equal(batch["label"], [7, 9])
  np.testing.assert_array_equal(batch["speaker"], [0, 2])
  train = data.spoken_digits(archive(tmp_path), "train", **options)
  (batch,) = train.epoch()
  np.testing.assert_array_equal(batch["label"], [8, 1])
  assert batch["mask"].all()


def test_files_that_do_not_fit_are_refused(tmp_path):
  make = lambda path, **kwargs: data.spoken_digits(
    path, **{"split": "test", "batch_size": 1, "length": 4, **kwargs}
  )
  with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.npz.*Free Spoken"):
    make(tmp_path / "nowhere.npz").check()
  with pytest.raises(ValueError, match=r"\['index'\] are missing"):
    make(archive(tmp_path, index=None)).check()
  with pytest.raises(ValueError, match="audio is float64: expected int16"):
    make(archive(tmp_path, audio=np.zeros(16))).check()
  (tmp_path / "no.npz").write_text("no")
  with pytest.raises(ValueError, match=r"not an \.npz"):
    make(tmp_path / "no.npz").check()
  with pytest.raises(ValueError, match="split='dev'"):
    make(tmp_path / "x.npz", split="dev")
  with pytest.raises(ValueError, match="length=0"):
    make(tmp_path / "x.npz", length=0)
