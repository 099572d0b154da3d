"""`python -m jaxgen.data.bench [NAME CHANNELS]`: images per second on this machine.

In memory: 60,000 random images of 28x28x1, per second of CPU time (it uses one core).
Through Grain: a temporary folder of 2,048 PNG files of 28x28x1, per second of
wall-clock time. With a name, such as `mnist 1`, the train split of that TFDS set
instead, at its own size, and how long it takes to load.
"""

import argparse
from collections.abc import Callable
import dataclasses
import os
import tempfile
import time

import numpy as np

from jaxgen import data


def images_per_second(
  source: data.Source, seconds: float, clock: Callable[[], float]
) -> float:
  """Images that one `source(0)` yields per second of `clock`."""
  batches = source(0)
  next(batches)  # starts threads and workers
  start, count = clock(), 0
  while (elapsed := clock() - start) < seconds:
    next(batches)
    count += source.batch_size
  return count / elapsed


def _random_folder(folder: str) -> None:
  from PIL import Image

  rng = np.random.default_rng(0)
  for i in range(2048):
    pixels = rng.integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(os.path.join(folder, f"{i}.png"))


def main() -> None:
  """Prints one line per measurement."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("name", nargs="?", help="a prepared TFDS set")
  parser.add_argument("channels", nargs="?", type=int, default=1)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    if args.name:
      options = {"batch_size": 128, "channels": args.channels}
      memory = data.tfds_images(args.name, "train", in_memory=True, **options)
      disk = data.tfds_images(args.name, "train", in_memory=False, **options)
      start = time.perf_counter()
      memory.check()
      count = len(memory.examples)
      print(f"loading {count} images: {time.perf_counter() - start:.1f} s")
    else:
      images = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28), np.uint8)
      memory = data.arrays({"image": images}, batch_size=128)
      _random_folder(folder)
      disk = data.image_folder(
        folder, batch_size=128, image_size=None, channels=1, in_memory=False
      )
    for batch_size in (128, 256, 512):
      for flip in (False, True):
        source = dataclasses.replace(memory, batch_size=batch_size, flip=flip)
        rate = images_per_second(source, 1.0, time.process_time)
        print(f"in memory, batch {batch_size}, flip={flip}: {rate:,.0f} images/s")
    for workers in (0, 2):
      source = dataclasses.replace(disk, num_workers=workers)
      rate = images_per_second(source, 3.0, time.perf_counter)
      print(f"Grain, batch 128, {workers} worker processes: {rate:,.0f} images/s")


if __name__ == "__main__":
  main()
