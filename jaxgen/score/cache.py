"""Features of image sets, and classifiers, computed once and kept by content."""

from collections.abc import Callable, Iterator
import hashlib
import os
from pathlib import Path
from typing import Any

import jax
from jax import Array
import numpy as np
from PIL import Image

from jaxgen import parallel
from jaxgen.evaluate import progress
from jaxgen.metrics import classifier, classifier_training
from jaxgen.metrics.features import FeatureNetwork, clean_size
from jaxgen.score.images import Images, put_in_place

CLASSIFIER_STEPS = 2000
BATCH = 100  # images in a network at once: SqueezeNet's layers then take 1 GB
MOST = 60_000  # images that a classifier is trained on


def cache_dir() -> Path:
  """Where features and classifiers are kept between evaluations."""
  cache = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
  return Path(cache) / "jaxgen"


def features(
  images: Images,
  network: FeatureNetwork,
  backend: parallel.Backend | None = None,
) -> dict[str, np.ndarray]:
  """{"features": f32 [N, D], "logits" if it has any}, memory maps from the cache."""
  name = f"{images.digest()}-{network.fingerprint}-{network.resize}".replace("/", "_")
  folder = cache_dir() / "features" / name
  if not folder.exists():
    _write_features(images, network, backend or parallel.jit_backend(), folder)
  return {p.stem: np.load(p, mmap_mode="r") for p in sorted(folder.glob("*.npy"))}


def _write_features(
  images: Images,
  network: FeatureNetwork,
  backend: parallel.Backend,
  folder: Path,
) -> None:
  images = _each_resized(images, network) if images.mixed else images
  temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
  temporary.mkdir(parents=True, exist_ok=True)
  files, done = {}, 0
  size = -(-BATCH // backend.num_devices) * backend.num_devices
  with progress(images.count, f"{network.name} of {images.name}") as bar:
    for chunk in images.chunks(size):
      padded = chunk[np.arange(size) % len(chunk)]
      outputs = _apply(network.apply, backend.put_batch({"image": padded})["image"])
      _check(outputs, size, network.name)
      for key, value in jax.device_get(outputs).items():
        if key not in files:
          shape = (images.count, *value.shape[1:])
          files[key] = np.lib.format.open_memmap(
            temporary / f"{key}.npy", "w+", dtype=np.float32, shape=shape
          )
        files[key][done : done + len(chunk)] = value[: len(chunk)]
      done += len(chunk)
      bar.update(len(chunk))
  for file in files.values():
    file.flush()
  put_in_place(temporary, folder)


def _each_resized(images: Images, network: FeatureNetwork) -> Images:
  """Files of several sizes at the network's, where it would resize each as PIL does."""
  if (size := clean_size(network)) is None:
    raise ValueError(
      f"{images.name}: its images have several sizes, and {network.name} "
      f"({network.resize}) resizes none by itself; bring them to one, or take "
      "--features=inception-clean-fid or squeezenet"
    )

  def batches() -> Iterator[dict[str, np.ndarray]]:
    for batch in images.batches():
      for image in np.asarray(batch["image"], np.float32):
        colours = np.broadcast_to(image, (*image.shape[:2], 3))
        resized = [
          Image.fromarray(np.ascontiguousarray(colours[..., i])).resize(
            (size, size), Image.Resampling.BICUBIC
          )
          for i in range(3)
        ]
        yield {"image": np.stack(resized, axis=-1).clip(0, 255)[None]}

  return Images(images.name, images.count, batches)


@jax.jit
def _apply(apply: Callable, images: Array) -> dict[str, Array]:
  """Compiled once for all sets of one shape."""
  return apply(images.astype(np.float32))


def _check(outputs: Any, size: int, name: str) -> None:
  shapes = jax.tree.map(lambda x: list(x.shape), outputs)
  if not isinstance(outputs, dict) or "features" not in outputs:
    raise ValueError(f'{name} must give {{"features": [B, D]}}, got {shapes}')
  if any(v.ndim != 2 or len(v) != size for v in outputs.values()):
    raise ValueError(f"{name} must give [{size}, D] of {size} images, got {shapes}")


def trained(train: Images, test: Images | None) -> classifier.Classifier:
  """A small classifier of the training images, trained once and kept.

  Once per content of both sets with their labels, settings of the training, and program
  of its update (its `training_recipe`); wherever the cache is empty, again.
  """
  labels = train.labels()
  if labels is None:
    raise ValueError(
      f"{train.name} has no labels to train a classifier on; a classifier that an "
      "evaluation has kept is taken by --weights=FILE"
    )
  shape = train.shape
  options = dict(
    num_classes=int(labels.max()) + 1,
    num_steps=CLASSIFIER_STEPS,
    max_shift=shape[0] // 14,  # 2 pixels of 28.
  )
  content = [train.digest(labels=True), test and test.digest(labels=True), MOST]
  recipe = f"{content} {classifier_training.training_recipe(shape, **options)}"
  name = f"{content[0]}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.npz"
  path = cache_dir() / "classifiers" / name
  if not path.exists():
    rows, held = train.some(MOST), test and test.some(MOST)
    print(f"training a classifier on {train.name}, kept as {path} ...", flush=True)
    made = classifier_training.train_classifier(
      rows["image"],
      rows["label"],
      **options,
      test=held and (held["image"], held["label"]),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{os.getpid()}.{name}")
    made.save(temporary)
    temporary.rename(path)
  return classifier.load(path)


def _judge(judge: classifier.Classifier, images: Array) -> dict[str, Array]:
  return judge.apply(images / 127.5 - 1.0)


def classifier_network(
  train: Images | None, test: Images | None, file: str | None = None
) -> FeatureNetwork:
  """The classifier of `trained`, or of a file, as a feature network.

  Its fingerprint says how many of the test images it gets right.
  """
  if file is None and train is None:
    raise ValueError(
      "--features=classifier needs training images with labels, or --weights=FILE"
    )
  found = classifier.load(file) if file else trained(train, test)
  right = "unknown" if found.test_accuracy is None else f"{found.test_accuracy:.4f}"
  apply = jax.tree_util.Partial(_judge, found)
  fingerprint = f"classifier-{found.fingerprint[:16]}-accuracy-{right}"
  return FeatureNetwork("classifier", fingerprint, "none", apply)
