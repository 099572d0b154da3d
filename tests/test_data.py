"""Order, padding, shards, both paths, arrays, folders, decoding."""

import dataclasses
import itertools
import pickle
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import pytest

from jaxgen import data
from jaxgen.data import bench, decode
from jaxgen.data import source as source_lib


def numbered(count, batch_size, **options):
  """A Source whose example i is a 2x3x1 image, with label i."""
  images = np.arange(count * 6, dtype=np.uint8).reshape(count, 2, 3, 1)
  labels = np.arange(count)
  return data.arrays(
    {"image": images, "label": labels}, batch_size=batch_size, **options
  )


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def labels(batches):
  return np.concatenate([batch["label"] for batch in batches])


def assert_same(actual, expected):
  assert len(actual) == len(expected)
  for a, b in zip(actual, expected, strict=True):
    assert a.keys() == b.keys()
    for key in a:
      assert a[key].dtype == b[key].dtype
      np.testing.assert_array_equal(a[key], b[key])


def write_images(folder, count, shape=(6, 5, 3), suffix=".png", seed=0):
  """Random images "000.png", ...; returns their pixels."""
  folder.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
  for i, image in enumerate(pixels):
    Image.fromarray(image.squeeze()).save(folder / f"{i:03d}{suffix}")
  return pixels


def test_import_is_light():
  heavy = "{'jax', 'tensorflow', 'tensorflow_datasets', 'grain', 'PIL', 'sklearn'}"
  code = f"import sys, jaxgen.data; print(sorted({heavy} & set(sys.modules)))"
  run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert run.stdout.strip() == "[]", run.stderr


# --- Order -----------------------------------------------------------------------


def test_a_later_start_continues_the_same_batches():
  source = numbered(10, 4, flip=True)
  whole = take(source(0), 20)
  for first_step in (1, 2, 7):
    assert_same(take(source(first_step), 5), whole[first_step : first_step + 5])
  assert_same(take(numbered(10, 4, flip=True)(0), 20), whole)


def test_each_epoch_is_another_permutation_and_nothing_is_dropped():
  epochs = labels(take(numbered(10, 4)(0), 15)).reshape(6, 10)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(10), (6, 1)))
  assert len({tuple(epoch) for epoch in epochs}) == 6


def test_the_seed_changes_the_order_and_the_order_is_frozen():
  # A change of these numbers breaks the resuming of every run that exists.
  order = [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]
  np.testing.assert_array_equal(labels(take(numbered(10, 5)(0), 2)), order)
  assert labels(take(numbered(10, 5, seed=1)(0), 2)).tolist() != order


def test_batches_hold_the_rows_of_their_labels_and_are_copies():
  source = numbered(10, 4)
  images = np.arange(60, dtype=np.uint8).reshape(10, 2, 3, 1)
  for batch in [*take(source(0), 4), *source.epoch()]:
    np.testing.assert_array_equal(batch["image"], images[batch["label"]])
    batch["image"][:] = 0  # must not reach the source


def test_flips_mirror_half_of_the_rows_and_pairs_together():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (100, 4, 5, 3), np.uint8)
  pair = rng.random((100, 4, 5), np.float32)
  other = rng.random((100, 5), np.float32)
  entries = {"image": image, "pair": pair, "other": other, "label": np.arange(100)}
  plain = next(data.arrays(entries, batch_size=100)(0))
  flipped = next(data.arrays(entries, batch_size=100, flip=True)(0))
  np.testing.assert_array_equal(flipped["label"], plain["label"])
  np.testing.assert_array_equal(flipped["other"], plain["other"])
  mirrored = (flipped["image"] == plain["image"][:, :, ::-1]).all((1, 2, 3))
  np.testing.assert_array_equal(
    mirrored, (flipped["pair"] == plain["pair"][:, :, ::-1]).all((1, 2))
  )
  same = (flipped["image"] == plain["image"]).all((1, 2, 3))
  assert (mirrored ^ same).all()
  assert 30 <= mirrored.sum() <= 70


def test_an_example_is_flipped_anew_in_every_epoch():
  flips = []
  for batch in take(numbered(10, 10, flip=True)(0), 20):
    straight = batch["label"] * 6 % 256 == batch["image"][:, 0, 0, 0]
    flips.append(straight[np.argsort(batch["label"])])
  flips = np.array(flips)
  assert (flips.mean(0) > 0).all() and (flips.mean(0) < 1).all()


def test_epoch_is_in_order_unflipped_and_masked():
  source = numbered(10, 4, flip=True)
  batches = list(source.epoch())
  mask = np.concatenate([batch["row_mask"] for batch in batches])
  assert mask.dtype == np.float32
  assert [len(batch["row_mask"]) for batch in batches] == [4, 4, 4]
  np.testing.assert_array_equal(mask, [1] * 10 + [0] * 2)
  np.testing.assert_array_equal(labels(batches), [*range(10), 0, 0])
  values = np.concatenate([b["image"].mean((1, 2, 3)) for b in batches])
  assert (values * mask).sum() / mask.sum() == np.arange(60).mean()
  np.testing.assert_array_equal(batches[0]["image"].ravel(), np.arange(24))


def test_epoch_pads_a_set_smaller_than_a_batch():
  source = numbered(3, 8)
  source.check(training=False)
  (batch,) = source.epoch()
  np.testing.assert_array_equal(batch["row_mask"], [1, 1, 1, 0, 0, 0, 0, 0])
  with pytest.raises(
    ValueError, match="has 3 examples: expected at least batch_size=8"
  ):
    source(0)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_shards_concatenate_to_the_whole(count):
  source = numbered(10, 4, flip=True)
  shards = [source.shard(i, count) for i in range(count)]
  for run in (lambda s: take(s(3), 6), lambda s: list(s.epoch())):
    parts = [run(shard) for shard in shards]
    joined = [
      {key: np.concatenate([part[key] for part in step]) for key in step[0]}
      for step in zip(*parts, strict=True)
    ]
    assert_same(joined, run(source))
  assert shards[0].spec["image"].shape == (4, 2, 3, 1)


def test_bad_arguments():
  source = numbered(10, 4)
  with pytest.raises(ValueError, match="batch_size=4 cannot be divided among 3"):
    source.shard(0, 3)
  with pytest.raises(ValueError, match=r"shard 2 of 2: expected an index in 0\.\.1"):
    source.shard(2, 2)
  with pytest.raises(ValueError, match="batch_size=0: expected an integer >= 1"):
    numbered(10, 0)
  with pytest.raises(ValueError, match="seed=-1: expected an integer >= 0"):
    numbered(10, 4, seed=-1)
  with pytest.raises(ValueError, match="first_step=-1"):
    source(-1)


# --- Both paths ------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 1])
def test_grain_yields_what_memory_yields(tmp_path, num_workers):
  write_images(tmp_path / "cat", 7)
  write_images(tmp_path / "dog", 6, seed=1)
  memory = data.image_folder(tmp_path, batch_size=4, image_size=4, seed=3, flip=True)
  disk = dataclasses.replace(
    memory, in_memory=False, num_workers=num_workers, _cache={}
  ).shard(1, 2)
  memory = memory.shard(1, 2)
  batches = disk(5)
  assert_same(take(batches, 9), take(memory(5), 9))
  batches.close()
  if num_workers == 0:
    assert_same(list(disk.epoch()), list(memory.epoch()))


def test_the_memory_limit_decides(tmp_path, monkeypatch):
  write_images(tmp_path, 4)
  make = lambda: data.image_folder(tmp_path, batch_size=2, image_size=None)
  size = 4 * 6 * 5 * 3
  for limit, in_memory in ((size, True), (size - 1, False)):
    monkeypatch.setattr(source_lib, "MEMORY_LIMIT", limit)
    source = make()
    source.check()
    assert ("rows" in source._cache) == in_memory


def test_sources_pickle(tmp_path):
  write_images(tmp_path, 4)
  folder = data.image_folder(tmp_path, batch_size=2, image_size=4)
  for source in (numbered(10, 4), folder, data.synthetic(folder.spec)):
    before = take(source(1), 3)  # loaded
    assert_same(take(pickle.loads(pickle.dumps(source))(1), 3), before)


# --- Arrays ----------------------------------------------------------------------


def test_arrays_from_npz_equal_arrays(tmp_path):
  entries = {
    "image": np.random.default_rng(0).integers(0, 256, (6, 3, 3), np.uint8),
    "label": np.arange(6, dtype=np.uint8),
    "map": np.zeros((6, 3, 3), np.uint8),
    "weight": np.linspace(0, 1, 6),
  }
  np.savez(tmp_path / "set.npz", **entries)
  source = data.arrays(str(tmp_path / "set.npz"), batch_size=2)
  assert {k: (a.shape, str(a.dtype)) for k, a in source.spec.items()} == {
    "image": ((2, 3, 3, 1), "uint8"),
    "label": ((2,), "int32"),
    "map": ((2, 3, 3), "uint8"),
    "weight": ((2,), "float32"),
  }
  batches = take(source(0), 3)
  assert_same(batches, take(data.arrays(entries, batch_size=2)(0), 3))
  assert batches[0].keys() == source.spec.keys()
  assert all(batches[0][k].dtype == a.dtype for k, a in source.spec.items())


IMAGE = np.zeros((4, 2, 2, 1), np.uint8)


@pytest.mark.parametrize(
  ("entries", "message"),
  [
    ({"label": np.zeros(4, int)}, r"nothing to model among \['label'\]"),
    ({"image": IMAGE.astype(np.float64)}, "float64 .*: expected uint8, or float32"),
    ({"image": IMAGE + np.float32(2)}, r"in \[2.0, 2.0\]: expected float32 in \[-1, 1"),
    ({"image": IMAGE * np.float32(np.nan)}, r"in \[nan, nan\]: expected float32"),
    ({"image": IMAGE[:, 0, 0]}, r"uint8 \[4, 1\]: expected \[N, H, W, C\]"),
    ({"image": IMAGE, "label": np.zeros(3, int)}, "'image': 4, 'label': 3"),
    ({"image": IMAGE, "label": np.zeros(4)}, "'label' is float64 .*expected integers$"),
    ({"image": IMAGE, "label": np.full(4, 2**31)}, "do not fit into int32"),
    (
      {"image": IMAGE, "name": np.array(list("abcd"))},
      "'name' is <U1 .*: expected int",
    ),
    ({"image": IMAGE, "row_mask": np.zeros(4)}, "'row_mask' is reserved"),
  ],
)
def test_array_errors_come_at_once(entries, message):
  with pytest.raises(ValueError, match=message):
    data.arrays(entries, batch_size=2)


def test_npz_errors_name_the_file(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.npz"):
    data.arrays(tmp_path / "nothing.npz", batch_size=2).check()
  (tmp_path / "text.npz").write_text("text")
  with pytest.raises(ValueError, match=r"text\.npz: not an \.npz of arrays"):
    data.arrays(tmp_path / "text.npz", batch_size=2).check()


def test_synthetic():
  spec = {
    "image": np.zeros((64, 8, 8, 3), np.uint8),
    "noise": np.zeros((64, 50), np.float32),
    "label": np.zeros(64, np.int32),
  }
  source = data.synthetic(spec)
  batches = take(source(0), 5)
  assert_same(take(data.synthetic(spec)(3), 2), batches[3:])
  assert (batches[0]["noise"] != batches[1]["noise"]).any()
  assert (batches[0]["noise"] != next(data.synthetic(spec, seed=1)(0))["noise"]).any()
  for key, a in spec.items():
    assert source.spec[key].shape == batches[0][key].shape == a.shape
    assert source.spec[key].dtype == batches[0][key].dtype == a.dtype
  image = np.concatenate([b["image"] for b in batches[:2]])
  assert image.min() == 0 and image.max() == 255
  assert abs(image.mean() - 127.5) < 3 * 74 / np.sqrt(image.size)
  assert -1 <= batches[0]["noise"].min() < -0.9 < 0.9 < batches[0]["noise"].max() <= 1
  assert set(batches[0]["label"]) == {0, 1}
  assert sum(b["row_mask"].sum() for b in source.epoch()) == 128
  with pytest.raises(ValueError, match="'a': 2, 'b': 3"):
    data.synthetic({"a": np.zeros(2, np.int32), "b": np.zeros(3, np.int32)})
  with pytest.raises(ValueError, match="'a' is float64"):
    data.synthetic({"a": np.zeros(2)})


def test_memory_is_fast():
  """Of MNIST's size, ten times below what README says: machines are noisy."""
  images = np.zeros((10_000, 28, 28, 1), np.uint8)
  source = data.arrays({"image": images}, batch_size=128)
  assert bench.images_per_second(source, 0.1, time.process_time) > 100_000


# --- Folders ---------------------------------------------------------------------


def test_folder_is_sorted_recursive_and_labelled(tmp_path):
  dog = write_images(tmp_path / "dog", 2)
  cat = write_images(tmp_path / "cat" / "deeper", 3, seed=1, suffix=".PNG")
  write_images(tmp_path / "dog" / ".hidden", 1)
  (tmp_path / "dog" / "notes.txt").write_text("no image")
  source = data.image_folder(tmp_path, batch_size=5, image_size=None)
  assert source.spec["image"].shape == (5, 6, 5, 3)
  assert source.spec["label"].dtype == np.int32
  (batch,) = source.epoch()
  np.testing.assert_array_equal(batch["image"], np.concatenate([cat, dog]))
  np.testing.assert_array_equal(batch["label"], [0, 0, 0, 1, 1])
  write_images(tmp_path, 1)  # outside of every class: no labels
  source = data.image_folder(tmp_path, batch_size=5, image_size=None)
  assert source.spec.keys() == {"image"} == next(source(0)).keys()


def test_folder_splits_are_disjoint_and_complete(tmp_path):
  pixels = write_images(tmp_path, 21)
  options = {"batch_size": 1, "image_size": None}
  images = {
    split: np.concatenate(
      [b["image"] for b in data.image_folder(tmp_path, split=split, **options).epoch()]
    )
    for split in ("train", "test", "all")
  }
  np.testing.assert_array_equal(images["all"], pixels)
  np.testing.assert_array_equal(images["test"], pixels[[0, 10, 20]])
  np.testing.assert_array_equal(images["train"], np.delete(pixels, [0, 10, 20], 0))
  with pytest.raises(ValueError, match="split='val': expected 'train'"):
    data.image_folder(tmp_path, split="val", **options)


@pytest.mark.parametrize("in_memory", [True, False])
def test_folder_errors_name_the_file(tmp_path, in_memory):
  def check(**options):
    options = {"batch_size": 2, "image_size": None, **options}
    data.image_folder(tmp_path / "set", in_memory=in_memory, **options).check()

  with pytest.raises(FileNotFoundError, match=r"no folder .*set"):
    check()
  unnamed = data.image_folder("", batch_size=2, image_size=8)
  assert {k: x.shape for k, x in unnamed.spec.items()} == {"image": (2, 8, 8, 3)}
  with pytest.raises(FileNotFoundError, match=r"no folder ''; .*--config.path=FOLDER"):
    unnamed.check()
  write_images(tmp_path / "set", 0)
  with pytest.raises(
    FileNotFoundError, match=r"0 images.*expected files ending in \.png"
  ):
    check()
  write_images(tmp_path / "set", 4)
  check()
  with pytest.raises(
    ValueError, match=r"000\.png: has 3 channels .*expected channels=1"
  ):
    check(channels=1)
  write_images(tmp_path / "set" / "z", 1, shape=(7, 4, 3))
  with pytest.raises(
    ValueError, match=r"z.000\.png has .*\(7, 4\) but .*000\.png has \(6, 5\): pass ima"
  ):
    check()
  check(image_size=4)
  (tmp_path / "set" / "bad.jpg").write_bytes(b"no image")
  with pytest.raises(decode.UnreadableImageError, match=r"bad\.jpg: cannot be read"):
    check(image_size=4)
  with pytest.raises(ValueError, match="on_error='ignore'"):
    check(on_error="ignore")


@pytest.mark.parametrize("in_memory", [True, False])
def test_folder_skips_and_counts_unreadable_files(tmp_path, in_memory):
  first = write_images(tmp_path / "a", 3)
  second = write_images(tmp_path / "b", 2, seed=1)
  whole = (tmp_path / "a" / "001.png").read_bytes()
  (tmp_path / "a" / "001.png").write_bytes(whole[: len(whole) // 2])  # cut off
  (tmp_path / "b" / "bad.png").write_bytes(b"no image")
  source = data.image_folder(
    tmp_path, batch_size=4, image_size=None, on_error="skip", in_memory=in_memory
  )
  with pytest.warns(UserWarning, match=r"skipped 2 of 6 images: .*001\.png: cannot be"):
    source.check()
  (batch,) = source.epoch()
  np.testing.assert_array_equal(batch["image"], [*first[[0, 2]], *second])
  np.testing.assert_array_equal(batch["label"], [0, 0, 1, 1])
  np.testing.assert_array_equal(batch["row_mask"], np.ones(4))


# --- Decoding --------------------------------------------------------------------


def decoded(tmp_path, image, suffix=".png", channels=3, image_size=None, **options):
  path = str(tmp_path / f"image{suffix}")
  image.save(path, **options)
  return decode.decode_image(path, path, channels=channels, image_size=image_size)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_decoding_is_exact_where_sizes_agree(tmp_path, channels):
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (8, 8, channels), np.uint8)
  image = Image.fromarray(pixels.squeeze())
  for image_size in (None, 8):
    result = decoded(tmp_path, image, channels=channels, image_size=image_size)
    np.testing.assert_array_equal(result, pixels)
  if channels > 1:
    result = decoded(tmp_path, image, ".webp", channels, lossless=True, exact=True)
    np.testing.assert_array_equal(result, pixels)


def test_resizing_crops_the_centre_and_is_antialiased(tmp_path):
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (8, 13, 3), np.uint8)
  image = Image.fromarray(pixels)
  np.testing.assert_array_equal(decoded(tmp_path, image, image_size=8), pixels[:, 2:10])
  np.testing.assert_array_equal(
    decoded(tmp_path, image.transpose(Image.Transpose.TRANSPOSE), image_size=8),
    pixels[:, 2:10].transpose(1, 0, 2),
  )
  # A checkerboard at the pixel grid is grey when antialiased, black or white if not.
  board = np.indices((64, 64)).sum(0) % 2 * 255
  board = Image.fromarray(board.astype(np.uint8))
  small = decoded(tmp_path, board, channels=1, image_size=16)
  assert small.shape == (16, 16, 1)
  assert abs(small[2:-2, 2:-2].astype(int) - 128).max() <= 1


def test_jpeg_is_close(tmp_path):
  x, y = np.meshgrid(np.linspace(0, 255, 32), np.linspace(0, 255, 32))
  pixels = np.stack([x, y, 255 - x], -1).astype(np.uint8)
  result = decoded(tmp_path, Image.fromarray(pixels), ".jpg", quality=95)
  assert abs(result.astype(int) - pixels).mean() < 3


def test_palettes_are_rgb_bilevel_is_grey_and_the_rest_an_error(tmp_path):
  grey = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
  rgb = np.array([[[9, 8, 7], [1, 2, 3]], [[1, 2, 3], [0, 0, 255]]], np.uint8)
  palette = Image.fromarray(rgb).quantize(3)
  np.testing.assert_array_equal(decoded(tmp_path, palette), rgb)
  np.testing.assert_array_equal(
    decoded(tmp_path, grey.convert("1"), channels=1)[..., 0], np.asarray(grey)
  )
  for image, mode in ((grey, "'L'"), (grey.convert("LA"), "'LA'")):
    with pytest.raises(ValueError, match=rf"channels \(PIL mode {mode}\): expected"):
      decoded(tmp_path, image)
  deep = Image.fromarray(np.array([[0, 65535]], np.uint16))
  with pytest.raises(ValueError, match="has unsupported channels"):
    decoded(tmp_path, deep, channels=1)


def test_argument_errors(tmp_path):
  with pytest.raises(ValueError, match="channels=2: expected 1"):
    data.image_folder(tmp_path, batch_size=1, image_size=8, channels=2)
  with pytest.raises(ValueError, match="image_size=0: expected a positive"):
    data.image_folder(tmp_path, batch_size=1, image_size=0)
