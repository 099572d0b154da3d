"""Sets of TFDS: the embedded digits, errors without network, MNIST where it is."""

import itertools
import json
import os
from pathlib import Path
import pickle
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from jaxgen import data
from jaxgen.data import tfds as tfds_source

SHARED = Path(__file__).resolve().parents[2] / "shared" / "tfds"

# Prepares digits with every connection forbidden, prints what it imported.
PREPARE = """
import socket, sys
def refuse(*args, **kwargs):
  raise AssertionError("a connection was attempted")
socket.getaddrinfo = socket.socket.connect = refuse
from jaxgen import data
options = {"batch_size": 8, "channels": 1, "data_dir": sys.argv[1]}
batch = next(data.tfds_images("digits", "train", **options)(0))
print(batch["image"].shape, sorted({"jax", "tensorflow"} & set(sys.modules)))
"""


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
  def refuse(*args, **kwargs):
    raise AssertionError("a connection was attempted")

  monkeypatch.setattr(socket, "getaddrinfo", refuse)
  monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """A TFDS folder where two processes have prepared digits at the same time."""
  folder = tmp_path_factory.mktemp("tfds")
  command = [sys.executable, "-c", PREPARE, str(folder)]
  pipe = subprocess.PIPE
  processes = [
    subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(2)
  ]
  for process in processes:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output == "(8, 8, 8, 1) []\n"
    assert errors == ""  # no warnings, no progress bars
  return folder


def digits(root, split="train", **options):
  options = {"batch_size": 100, "channels": 1, **options}
  return data.tfds_images("digits", split, data_dir=root, **options)


def test_digits_are_those_of_sklearn(root):
  from sklearn.datasets import load_digits

  values, labels = load_digits(return_X_y=True)
  expected = np.floor(values.reshape(-1, 8, 8, 1) * 255 / 16 + 0.5).astype(np.uint8)
  start = 0
  for split, count in (("train", 1500), ("test", 297)):
    source = digits(root, split)
    assert source.spec["image"].shape == (100, 8, 8, 1)
    batches = list(source.epoch())
    real = np.concatenate([b["row_mask"] for b in batches]) == 1
    assert real.sum() == count
    image = np.concatenate([b["image"] for b in batches])[real]
    label = np.concatenate([b["label"] for b in batches])[real]
    np.testing.assert_array_equal(image, expected[start : start + count])
    np.testing.assert_array_equal(label, labels[start : start + count])
    assert (image.dtype, label.dtype) == (np.uint8, np.int32)
    start += count
  assert image.max() == 255 and image.min() == 0


def test_grain_yields_what_memory_yields(root):
  options = {"image_size": 12, "flip": True, "seed": 5}
  memory, disk = (digits(root, in_memory=m, **options) for m in (True, False))
  disk = pickle.loads(pickle.dumps(disk))
  for first_step in (0, 13):
    both = zip(memory(first_step), disk(first_step), strict=False)
    for a, b in itertools.islice(both, 4):
      assert a["image"].shape == (100, 12, 12, 1)
      np.testing.assert_array_equal(a["image"], b["image"])
      np.testing.assert_array_equal(a["label"], b["label"])


def test_parts_of_splits_and_no_labels(root):
  source = digits(root, "train[:10%]", batch_size=10, label=None)
  assert source.spec.keys() == {"image"} == next(source(0)).keys()
  assert sum(batch["row_mask"].sum() for batch in source.epoch()) == 150


def test_tfds_data_dir_is_read_when_it_is_needed(root, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(root))
  assert next(digits(None, "test")(0))["image"].shape == (100, 8, 8, 1)


@pytest.mark.parametrize(
  ("name", "options", "error", "message"),
  [
    ("digitz", {}, ValueError, r"no dataset 'digitz'; near matches: \['digits'"),
    ("cifar10", {}, FileNotFoundError, r"'cifar10' is not prepared .*jaxgen\[tf\]"),
    ("digits:9.0.0", {}, FileNotFoundError, r"there: \['digits'\]"),
    ("digits", {"split": "val"}, ValueError, r"no split 'val'.*\['test', 'train'\]"),
    ("digits", {"channels": 3}, ValueError, "expected images of channels=3"),
    ("digits", {"label": "digit"}, ValueError, "expected 'digit' to be an integer"),
    ("digits", {"channels": 2}, ValueError, "channels=2: expected 1"),
    ("digits", {"batch_size": 1501}, ValueError, "train has 1500 examples"),
  ],
)
def test_errors_come_at_once_and_without_network(
  root, monkeypatch, name, options, error, message
):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no TensorFlow
  options = {"split": "train", "batch_size": 10, "channels": 1, **options}
  with pytest.raises(error, match=message) as caught:
    data.tfds_images(name, **options, data_dir=root).check()
  if error is FileNotFoundError:
    assert repr(str(root)) in str(caught.value)


def test_the_newest_complete_version_is_read(tmp_path):
  for version in ("9.0.0", "10.0.0", "incomplete.ABC_11.0.0"):
    (tmp_path / "toy" / version).mkdir(parents=True)
    (tmp_path / "toy" / version / "dataset_info.json").write_text("{}")
  newest = tfds_source._prepared_folder("toy", str(tmp_path))
  assert newest == str(tmp_path / "toy" / "10.0.0")
  pinned = tfds_source._prepared_folder("toy:9.0.0", str(tmp_path))
  assert pinned == str(tmp_path / "toy" / "9.0.0")
  assert tfds_source._prepared_folder("toy:8.0.0", str(tmp_path)) is None


def test_another_file_format_is_an_error(root, tmp_path):
  shutil.copytree(root / "digits", tmp_path / "digits")
  folder = tmp_path / "digits" / "1.0.0"
  for file in folder.glob("*.array_record-*"):
    file.rename(str(file).replace(".array_record-", ".tfrecord-"))
  info = json.loads((folder / "dataset_info.json").read_text())
  info["fileFormat"] = "tfrecord"
  (folder / "dataset_info.json").write_text(json.dumps(info))
  with pytest.raises(
    ValueError, match=r"prepared as \['tfrecord'\]: expected array_re"
  ):
    digits(tmp_path).check()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(
    OSError, match=r"cannot prepare 'digits' in .*file.*TFDS_DATA_DIR"
  ):
    digits(tmp_path / "file").check()


def test_with_tensorflow_tfds_prepares_array_records(tmp_path, monkeypatch):
  from jaxgen.data.digits import Digits

  class JaxgenToy(Digits):  # a "public" set whose preparing needs no TensorFlow
    pass

  monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "tensorflow")
  source = data.tfds_images(
    "jaxgen_toy", "test", batch_size=7, channels=1, data_dir=tmp_path
  )
  assert next(source(0))["image"].shape == (7, 8, 8, 1)
  assert list(tmp_path.glob("jaxgen_toy/1.0.0/*.array_record-*"))


def test_mnist():
  roots = [SHARED, Path(os.environ.get("TFDS_DATA_DIR", SHARED))]
  root = next((r for r in roots if (r / "mnist").is_dir()), None)
  if root is None:
    pytest.skip(f"no prepared mnist in any of {[str(r) for r in roots]}")
  options = {"batch_size": 1000, "channels": 1, "data_dir": root}
  source = data.tfds_images("mnist", "test", image_size=28, **options)
  batches = list(source.epoch())
  image = np.concatenate([batch["image"] for batch in batches])
  label = np.concatenate([batch["label"] for batch in batches])
  assert image.shape == (10000, 28, 28, 1)
  counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # LeCun's test set
  np.testing.assert_array_equal(np.bincount(label), counts)
  assert abs(image.mean() / 255 - 0.1325) < 1e-4
  wide = data.tfds_images(
    "mnist", "test[:5%]", image_size=32, in_memory=False, **options
  )
  batch = next(wide.epoch())
  assert batch["image"].shape == (1000, 32, 32, 1) and batch["row_mask"].sum() == 500
  assert abs(batch["image"][:500].mean() - image[:500].mean()) < 1
