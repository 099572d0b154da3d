"""TFDS image sets through ArrayRecord: random access, no TensorFlow, no network."""

import difflib
import functools
import glob
import importlib.util
import os
import re
from typing import Any

import numpy as np

from jaxgen.data import decode
from jaxgen.data.source import Batch, Examples, Source, zeros


def _prepared_folder(dataset: str, root: str) -> str | None:
  """Where the newest prepared version of `dataset` lies; None if it lies nowhere.

  It looks at files only: asking TFDS would start a download of what is missing.
  """
  base, _, version = dataset.partition(":")
  pattern = os.path.join(glob.escape(root), base, version or "*", "dataset_info.json")
  found = {}
  for folder in map(os.path.dirname, glob.glob(pattern)):
    if re.fullmatch(r"\d+\.\d+\.\d+", os.path.basename(folder)):  # not "incomplete..."
      found[tuple(map(int, os.path.basename(folder).split(".")))] = folder
  return found[max(found)] if found else None


def _missing(dataset: str, root: str, known: list[str]) -> Exception:
  """What to raise for a set that is not prepared and cannot be prepared here."""
  infos = glob.glob(
    os.path.join(glob.escape(root), "**/dataset_info.json"), recursive=True
  )
  here = sorted({os.path.relpath(os.path.join(i, "../.."), root) for i in infos})
  base = re.split("[:/]", dataset)[0]
  if base not in {*known, *(name.split("/")[0] for name in here)}:
    near = difflib.get_close_matches(base, known, n=3)
    return ValueError(f"TFDS has no dataset {dataset!r}; near matches: {near}")
  return FileNotFoundError(
    f"dataset {dataset!r} is not prepared in {root!r} (there: {here}). Point "
    "TFDS_DATA_DIR or data_dir to where it is, or install TensorFlow, with which it is "
    "downloaded and prepared on first use: pip install 'jaxgen[tf]'"
  )


class TfdsExamples(Examples):
  """One split of a TFDS set; see `tfds_images`."""

  def __init__(
    self,
    dataset: str,
    split: str,
    image_size: int | None,
    channels: int,
    data_dir: str | None,
    label: str | None,
  ) -> None:
    decode.check_arguments(image_size, channels)
    self.name = f"{dataset}/{split}"
    self._dataset = dataset
    self._split = split
    self._image_size = image_size
    self._channels = channels
    # TFDS itself reads the variable only once, when it is imported.
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    self._root = os.path.expanduser(os.fspath(root))
    self._label = label
    self._records: Any = None

  def __getstate__(self) -> dict:
    return {**self.__dict__, "_records": None}  # opened again where it is read

  def _builder(self) -> Any:
    """The TFDS builder of the set; prepares what can be prepared here."""
    import tensorflow_datasets as tfds

    folder = _prepared_folder(self._dataset, self._root)
    if folder is None:
      if self._dataset == "digits":
        from jaxgen.data import digits

        digits.prepare(self._root)
      else:
        known = [*tfds.list_builders(with_community_datasets=False), "digits"]
        has_tensorflow = importlib.util.find_spec("tensorflow") is not None
        if not has_tensorflow or re.split("[:/]", self._dataset)[0] not in known:
          raise _missing(self._dataset, self._root, known)
        builder = tfds.builder(self._dataset, data_dir=self._root)
        builder.download_and_prepare(file_format="array_record")
      folder = _prepared_folder(self._dataset, self._root)
    return tfds.builder_from_directory(folder)

  @functools.cached_property
  def _size(self) -> tuple[int, int]:
    """(height, width) of every example."""
    if self._image_size is not None:
      return self._image_size, self._image_size
    if self._dataset == "digits":
      return 8, 8
    shape = self._builder().info.features["image"].shape
    if None in shape[:2]:
      raise ValueError(
        f"images of {self._dataset!r} have shape {shape}: pass image_size to crop and "
        "resize them to one size"
      )
    return shape[:2]

  @property
  def spec(self) -> Batch:
    spec = {"image": zeros((*self._size, self._channels), np.uint8)}
    return spec if self._label is None else {**spec, "label": zeros((), np.int32)}

  def open(self) -> None:
    if self._records is not None:
      return
    import tensorflow_datasets as tfds

    builder = self._builder()
    info = builder.info
    try:
      info.splits[self._split]
    except (KeyError, ValueError) as error:
      raise ValueError(
        f"{self._dataset!r} has no split {self._split!r}: expected one of "
        f"{sorted(info.splits)}, or a part such as 'train[:90%]'"
      ) from error
    self._check_features(dict(info.features))
    formats = sorted(f.value for f in info.available_file_formats())
    if "array_record" not in formats:
      raise ValueError(
        f"{builder.data_dir} is prepared as {formats}: expected array_record, which "
        "has random access. Delete it or choose another data_dir, and prepare it with "
        "builder.download_and_prepare(file_format='array_record')"
      )
    self._records = builder.as_data_source(
      self._split,
      deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
      file_format="array_record",
    )

  def _check_features(self, features: dict[str, Any]) -> None:
    import tensorflow_datasets as tfds

    image, label = features.get("image"), features.get(self._label)
    fail = f"{self._dataset!r} has the features {features}: expected "
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
      raise ValueError(f"{fail}'image' to be an image of uint8")
    if image.shape[-1] not in (None, self._channels):
      raise ValueError(f"{fail}images of channels={self._channels}")
    if self._label is not None and (
      label is None or label.shape != () or np.dtype(label.np_dtype).kind not in "iu"
    ):
      raise ValueError(f"{fail}{self._label!r} to be an integer, or label=None")

  def __len__(self) -> int:
    return len(self._records)

  def read(self, indices: np.ndarray) -> Batch:
    from tensorflow_datasets.proto import tf_example_pb2

    self.open()
    shape = (*self._size, self._channels)
    images = np.empty((len(indices), *shape), np.uint8)
    labels = np.empty(len(indices), np.int32)
    # Parsing a record of MNIST takes 4 us here and 65 us in TFDS.
    for row, record in enumerate(self._records.__getitems__(indices.tolist())):
      feature = tf_example_pb2.Example.FromString(record).features.feature
      image = decode.decode_image(
        feature["image"].bytes_list.value[0],
        f"{self.name}, example {indices[row]}",
        channels=self._channels,
        image_size=self._image_size,
      )
      if image.shape != shape:
        raise ValueError(
          f"{self.name}, example {indices[row]}: has shape {image.shape}, expected "
          f"{shape}: pass image_size to crop and resize"
        )
      images[row] = image
      if self._label is not None:
        labels[row] = feature[self._label].int64_list.value[0]
    return {"image": images} | ({} if self._label is None else {"label": labels})


def tfds_images(
  name: str,
  split: str,
  *,
  batch_size: int,
  image_size: int | None = None,
  channels: int,
  seed: int = 0,
  flip: bool = False,
  in_memory: bool | None = None,
  num_workers: int = 0,
  data_dir: str | None = None,
  label: str | None = "label",
) -> Source:
  """A TFDS set of images, prepared as ArrayRecord.

  "digits" (8x8x1, splits train and test) is prepared on first use, without network.
  Another set that is not prepared is downloaded and prepared by TFDS if TensorFlow
  is installed, and else an error, without touching the network.

  Args:
    name: TFDS name: "mnist", "mnist:3.0.1", "emnist/letters" (a set with
      configurations needs one).
    split: "train", "test", "train[:90%]", ...
    batch_size: Rows of the global batch.
    image_size: Side in pixels; `decode.decode_image` has the rule of cropping and
      resizing. None: the size of the set, if it has one.
    channels: 1 (grey), 3 (RGB) or 4 (RGBA); images of another kind are an error.
    seed: Of order and flips.
    flip: Random horizontal flips; see `Source`.
    in_memory: See `Source`.
    num_workers: See `Source`.
    data_dir: A local folder; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    label: The integer feature that becomes "label"; None for no labels.

  Returns:
    Batches {"image": uint8 [B, H, W, C], "label": int32 [B]}. Errors come with
    `check()` or the first use: unknown name (ValueError), set not prepared
    (FileNotFoundError), split, channels, sizes or file format (ValueError).
  """
  examples = TfdsExamples(name, split, image_size, channels, data_dir, label)
  return Source(examples, batch_size, seed, flip, in_memory, num_workers)
