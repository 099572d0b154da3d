"""`digits`: a TFDS builder over scikit-learn's handwritten digits, no download.

Data: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (1998),
UCI Machine Learning Repository, CC BY 4.0; the 1,797 images that scikit-learn ships.
"""

from collections.abc import Iterator
import contextlib
import io
import os

import numpy as np
import tensorflow_datasets as tfds

SIZE = 8  # pixels, height and width
_TRAIN = 1500


class Digits(tfds.core.GeneratorBasedBuilder):
  """1,797 grey 8x8 images of the digits 0..9.

  The values v = 0..16 become (255 v + 8) // 16: 255 v / 16 rounded to the nearest
  integer, halves up. Train is the first 1,500 examples in scikit-learn's order, test
  the last 297; the order is kept. Images are stored as PNG.
  """

  VERSION = tfds.core.Version("1.0.0")

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "image": tfds.features.Image(shape=(SIZE, SIZE, 1)),
      "label": tfds.features.ClassLabel(num_classes=10),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
      license="CC BY 4.0",
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
    del dl_manager
    return {
      "train": self._generate_examples(0, _TRAIN),
      "test": self._generate_examples(_TRAIN, None),
    }

  def _generate_examples(self, start: int, stop: int | None) -> Iterator:
    from PIL import Image
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = (255 * values.astype(np.int32) + 8) // 16
    images = images.astype(np.uint8).reshape(-1, SIZE, SIZE)
    for i in range(len(images))[start:stop]:
      # PNG bytes pass through TFDS as they are: encoding would need TensorFlow.
      file = io.BytesIO()
      Image.fromarray(images[i]).save(file, "PNG")
      yield i, {"image": file.getvalue(), "label": int(labels[i])}


def prepare(data_dir: str) -> None:
  """Writes the set into `data_dir`, unless it is there; one process at a time.

  Raises:
    OSError: `data_dir` cannot be written.
  """
  import fcntl

  try:
    os.makedirs(data_dir, exist_ok=True)
    lock = os.open(os.path.join(data_dir, ".digits.lock"), os.O_CREAT | os.O_RDWR)
  except OSError as error:
    raise type(error)(
      f"cannot prepare 'digits' in {data_dir!r} ({error}): set TFDS_DATA_DIR or "
      "data_dir to a folder that can be written"
    ) from error
  quiet = io.StringIO()  # TFDS announces its progress: too much for so little
  try:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
      Digits(data_dir=data_dir).download_and_prepare(file_format="array_record")
  finally:
    os.close(lock)  # which releases it
