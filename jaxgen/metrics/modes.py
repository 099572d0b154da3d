"""Modes and KL of stacked MNIST: how much of 1,000 digit triples a model draws.

Lin, Khetan, Fanti & Oh, "PacGAN: The Power of Two Samples in Generative Adversarial
Networks" (2017), arXiv 1712.04086, stacked MNIST, after Metz et al. (2016) and
Srivastava et al. (2017): 26,000 samples, each channel labelled by an MNIST classifier.
The authors' released code takes KL(generated || uniform), in nats: the default here.
"""

from jax import Array
import numpy as np

from jaxgen.metrics.classifier import Classifier


def modes_of_images(images: np.ndarray, classifier: Classifier) -> np.ndarray:
  """The mode of each image of stacked MNIST.

  Args:
    images: uint8 [N, 28, 28, 3]; the protocol's N is 26,000.
    classifier: Of MNIST's digits, 28x28x1; it labels each channel. The protocol's is
      right about 99.25 % of the time.

  Returns:
    int64 [N], from 0 to 999; see `stacked_labels`.

  Raises:
    ValueError: for images that have no 3 channels, or that the classifier does not
      take.
  """
  if images.ndim != 4 or images.shape[-1] != 3 or classifier.num_classes != 10:
    raise ValueError(
      "expected images [N, 28, 28, 3] and a classifier of 10 digits, got shape "
      f"{list(images.shape)} and {classifier.num_classes} classes"
    )
  channels = [images[..., i : i + 1] for i in range(3)]
  digits = [classifier.predict(c)["logits"].argmax(axis=-1) for c in channels]
  return stacked_labels(np.stack(digits, axis=-1))


def stacked_labels(labels: Array | np.ndarray) -> np.ndarray:
  """The mode 100 a + 10 b + c of each triple of digits.

  Args:
    labels: int [N, 3], digits from 0 to 9, by channel.

  Returns:
    int64 [N], from 0 to 999.

  Raises:
    ValueError: for another shape, or something that is no digit.
  """
  labels = _whole(labels)
  if labels.ndim != 2 or labels.shape[1] != 3:
    raise ValueError(f"labels must be of shape [N, 3], got {list(labels.shape)}")
  _check_range(labels, 10)
  return labels @ np.array([100, 10, 1])


def modes_and_kl(
  labels: Array | np.ndarray,
  num_modes: int,
  reference_histogram: Array | np.ndarray | None = None,
) -> dict[str, float]:
  """How many modes occur, and KL(generated || reference) in nats.

  Args:
    labels: int [N], from 0 to num_modes - 1: the modes of N samples.
    num_modes: 1,000 for stacked MNIST.
    reference_histogram: [num_modes] counts or frequencies of real data; None is
      uniform.

  Returns:
    modes: the number of modes with at least one sample.
    kl: nats; infinite if a sample's mode never occurs in the reference. Its
      expectation for a perfect model is about (num_modes - 1) / (2 N), not 0.

  Raises:
    ValueError: for other shapes, labels out of range, or a reference that is no
      histogram.
  """
  counts, reference = _histograms(labels, num_modes, reference_histogram)
  return {"modes": int((counts > 0).sum()), "kl": _kl(counts, reference)}


def leave_one_out(
  labels: Array | np.ndarray,
  num_modes: int,
  reference_histogram: Array | np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """`modes_and_kl` of all samples but one, for every one: what a jackknife needs.

  Args, errors: as `modes_and_kl`, with at least 2 samples.

  Returns:
    {"modes", "kl"}, each f64 [N].
  """
  counts, reference = _histograms(labels, num_modes, reference_histogram)
  if counts.sum() < 2:
    raise ValueError(f"of {counts.sum()} samples none can be left out")
  seen = np.flatnonzero(counts)
  kl = np.zeros(num_modes)
  for mode in seen:  # All samples of a mode count alike.
    fewer = counts.copy()
    fewer[mode] -= 1
    kl[mode] = _kl(fewer, reference)
  labels = _whole(labels)
  modes = len(seen) - (counts[labels] == 1)
  return {"modes": modes.astype(np.float64), "kl": kl[labels]}


def _histograms(
  labels: Array | np.ndarray, num_modes: int, reference: Array | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
  """Counts of the labels, and frequencies of the reference."""
  labels = _whole(labels)
  if labels.ndim != 1 or not labels.size:
    raise ValueError(f"labels must be [N] and not empty, got {list(labels.shape)}")
  _check_range(labels, num_modes)
  reference = np.asarray(
    np.ones(num_modes) if reference is None else reference, np.float64
  )
  if reference.shape != (num_modes,) or reference.min() < 0 or not reference.sum() > 0:
    raise ValueError(f"reference_histogram must be {num_modes} counts, at least 0 and "
                     f"not all 0, got shape {list(reference.shape)}")  # fmt: skip
  return np.bincount(labels, minlength=num_modes), reference / reference.sum()


def _kl(counts: np.ndarray, reference: np.ndarray) -> float:
  seen = counts > 0
  p, q = counts[seen] / counts.sum(), reference[seen]
  with np.errstate(divide="ignore"):
    return float(np.sum(p * (np.log(p) - np.log(q))))


def _whole(labels: Array | np.ndarray) -> np.ndarray:
  labels = np.asarray(labels)
  if not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(f"labels must be integers, got {labels.dtype}")
  return labels.astype(np.int64)


def _check_range(labels: np.ndarray, num_labels: int) -> None:
  wrong = labels[(labels < 0) | (labels >= num_labels)]
  if wrong.size:
    raise ValueError(f"labels must be from 0 to {num_labels - 1}, got {wrong[0]}")
