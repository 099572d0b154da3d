"""What references' and our networks of diffusion are shown, without storing it."""

import zlib

import numpy as np

BATCH, SIZE, CHANNELS, CLASSES, AUGMENT_DIM = 2, 8, 3, 3, 9
LABEL = np.array([2, 0])
KEPT = 6  # numbers of every gradient


def weight(name, shape):
  """A parameter, f64, of our name and shape."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  value = rng.standard_normal(shape)
  if name.endswith("kernel"):
    return value / np.sqrt(np.prod(shape[:-1]))
  return 0.3 * value + name.endswith("scale")


def inputs(steps=False):
  """x [B, H, W, C], noise level or step, labels of augmentations, direction of y."""
  rng = np.random.default_rng(0)
  x = rng.standard_normal((BATCH, SIZE, SIZE, CHANNELS))
  t = np.array([3, 977]) if steps else np.array([-0.7, 0.9])
  augment = rng.standard_normal((BATCH, AUGMENT_DIM))
  return x, t, augment, rng.standard_normal((BATCH, SIZE, SIZE, 2 * CHANNELS))


def some(array):
  """Six numbers of an array, always the same ones, [6]."""
  flat = np.asarray(array).ravel()
  return flat[np.linspace(0, flat.size - 1, KEPT).astype(int)]


def arrays(y, grads):
  """What is stored: the output, and some of every gradient, sorted by name."""
  names = sorted(grads)
  return {"y": y, "names": names, "grads": np.stack([some(grads[n]) for n in names])}
