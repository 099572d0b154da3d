"""BB-ANS: Practical Lossless Compression with Latent Variables using Bits Back Coding.

James Townsend, Tom Bird, David Barber, 2019. https://arxiv.org/abs/1901.04866. Binary
images are coded by a trained VAE at the rate of its bound: an image's latent is decoded
from what was written before, with q(z|x), then the image is written with p(x|z) and the
latent with p(z), on a stack (asymmetric numeral systems, `jaxgen.ops.ans`). Latents
are pieces of the line that are equally likely under the prior.

Deviations from the paper:
  - Bernoulli decoders only. (Paper: also beta-binomial ones, for grey values.)
  - Several images are coded side by side, each row of a batch in a stream of its own.
    (Paper: one after another.) Every stream needs bits to begin with.
  - The first bits are random ones, drawn from a seed. They are part of the message and
    count as such. (Paper: the same, and not counted, as chains were long.)

What was written is read again only where the network gives the same bits: by the same
parameters, compiled for the same number of streams, on the same kind of machine with
the same versions. Where it does not, `decompress` does not end where it should.
"""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn
import jax
import numpy as np

from jaxgen.method import PyTree
from jaxgen.ops.ans import (
  MAX_PRECISION,
  Message,
  NormalBuckets,
  bernoulli_interval,
  bernoulli_size,
)

PIXEL_PRECISION = 16
LATENT_BITS = 12
LATENT_PRECISION = 24
MARK = b"jaxgenbb"


def uniform(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For `Message.pop`: every integer a symbol of its own."""
  return inside.astype(np.int64), inside, np.ones_like(inside)


class Compressed(NamedTuple):
  """Images as bits.

  Attributes:
    words: uint32 [...]: all that is needed beside the model and num_images.
    num_images: How many.
    initial_bits: How many bits of `words` were there before the first image, random
      ones; reading the images gives them back. (Heads began as constants.)
  """

  words: np.ndarray
  num_images: int
  initial_bits: int

  def bits_per_dim(self, num_values: int) -> float:
    """All bits, the initial ones too, for each of num_values values of an image."""
    return 32 * len(self.words) / (self.num_images * num_values)

  def to_bytes(self) -> bytes:
    """As a file: a mark of 8 bytes, num_images, initial_bits, words; little-endian."""
    counts = np.array([self.num_images, self.initial_bits], "<u8")
    return MARK + counts.tobytes() + self.words.astype("<u4").tobytes()

  @classmethod
  def from_bytes(cls, data: bytes) -> "Compressed":
    """The inverse of `to_bytes`."""
    if not data.startswith(MARK) or len(data) < 24 or len(data) % 4:
      raise ValueError(
        f"{len(data)} bytes that begin with {data[:8]!r}: expected {MARK!r} and whole "
        "words, a file as `to_bytes` gives it"
      )
    num_images, initial_bits = map(int, np.frombuffer(data[8:24], "<u8"))
    words = np.frombuffer(data[24:], "<u4").astype(np.uint32)
    return cls(words, num_images, initial_bits)


class Codec(NamedTuple):
  """Both directions.

  Attributes:
    compress: images of 0 and 1, [N, H, W, C] of any dtype -> Compressed.
    decompress: Compressed -> uint8 [N, H, W, C], the same images.
  """

  compress: Callable[[np.ndarray], Compressed]
  decompress: Callable[[Compressed], np.ndarray]


def bits_back(
  net: nn.Module,
  params: PyTree,
  *,
  num_streams: int = 16,
  seed: int = 0,
) -> Codec:
  """A codec of binary images by a VAE with Bernoulli pixels.

  Args:
    net: Module as in `jaxgen.vae.networks`, with one output for each value.
    params: Its trained parameters: `state.params["net"]`.
    num_streams: Images side by side: more are faster, and need more bits to begin with
      (LATENT_BITS * latent_dim less the KL, in the mean), and 64 for a head.
    seed: Of the initial bits.
  """
  if num_streams < 1:
    raise ValueError(f"num_streams={num_streams}: expected at least 1")
  buckets = NormalBuckets(LATENT_BITS, LATENT_PRECISION)
  # One program of one shape for both directions: its results are the same bits.
  apply = lambda x, method: net.apply({"params": params}, x, method=method)
  networks = {
    name: jax.jit(lambda x, name=name: apply(x, name)) for name in ("encode", "decode")
  }

  def run(name: str, rows: np.ndarray) -> PyTree:
    """One of the networks on K rows, at most num_streams; float64 [K, ...]."""
    full = np.zeros((num_streams, *rows.shape[1:]), np.float32)
    full[: len(rows)] = rows
    cut = lambda v: np.asarray(v, np.float64)[: len(rows)]
    return jax.tree.map(cut, jax.device_get(networks[name](full)))

  def posterior(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, log_var = run("encode", x)
    return mean, np.exp(0.5 * log_var)

  def sizes(index: np.ndarray) -> np.ndarray:
    logits = run("decode", buckets.centres[index])
    return bernoulli_size(logits, PIXEL_PRECISION).reshape(len(index), -1)

  def write(message: Message, x: np.ndarray) -> None:
    """Images [K, H, W, C], one in each stream."""
    mean, std = posterior(x)
    index = np.zeros(mean.shape, np.int64)
    for i, (m, s) in enumerate(zip(mean.T, std.T, strict=True)):
      find = lambda inside, m=m, s=s: buckets.find(inside, m, s)
      index[:, i] = message.pop(find, LATENT_PRECISION, len(x))
    pixels = zip(x.reshape(len(x), -1).T, sizes(index).T, strict=True)
    for bit, size in pixels:
      interval = bernoulli_interval(bit, size, PIXEL_PRECISION)
      message.push(*interval, PIXEL_PRECISION)
    for column in index.T:
      message.push(column, np.ones_like(column), LATENT_BITS)

  def read(message: Message, num: int) -> np.ndarray:
    """The inverse of `write`, for `num` images: uint8."""
    index = np.zeros((num, net.latent_dim), np.int64)
    for i in reversed(range(net.latent_dim)):
      index[:, i] = message.pop(uniform, LATENT_BITS, num)
    size = sizes(index)
    x = np.zeros(size.shape, np.uint8)
    for i in reversed(range(size.shape[1])):

      def find(inside: np.ndarray, size: np.ndarray = size[:, i]) -> tuple:
        bit = inside.astype(np.int64) < size
        return bit, *bernoulli_interval(bit, size, PIXEL_PRECISION)

      x[:, i] = message.pop(find, PIXEL_PRECISION, num)
    x = x.reshape(num, *net.image_shape)
    mean, std = posterior(x)
    for i in reversed(range(net.latent_dim)):
      interval = buckets.interval(index[:, i], mean[:, i], std[:, i])
      message.push(*interval, LATENT_PRECISION)
    return x

  def compress(x: np.ndarray) -> Compressed:
    x = np.asarray(x)
    if x.shape[1:] != tuple(net.image_shape) or not np.isin(x, (0, 1)).all():
      raise ValueError(
        f"images of shape {x.shape[1:]} from {x.min(initial=0)} to {x.max(initial=0)}: "
        f"expected {tuple(net.image_shape)}, of 0 and 1"
      )
    most = num_streams * (LATENT_PRECISION * net.latent_dim // 32 + 2)
    initial = np.random.default_rng(seed).integers(0, 1 << 32, most, np.uint32)
    message = Message(num_streams, initial)
    # Heads begin as constants; what is read from them has to be random.
    message.pop(uniform, MAX_PRECISION)
    for first in range(0, len(x), num_streams):
      write(message, x[first : first + num_streams])
    used = most - message.least  # What no image needed was never there.
    return Compressed(message.words(unread=message.least), len(x), 32 * used)

  def decompress(compressed: Compressed) -> np.ndarray:
    message = Message.from_words(compressed.words, num_streams)
    firsts = reversed(range(0, compressed.num_images, num_streams))
    parts = [
      read(message, min(num_streams, compressed.num_images - first)) for first in firsts
    ]
    message.push(np.zeros(num_streams), np.ones(num_streams), MAX_PRECISION)
    left = message.num_bits() - 64 * num_streams
    if not message.is_read() or left != compressed.initial_bits:
      raise ValueError(
        f"num_images={compressed.num_images}, num_streams={num_streams}: the message "
        "does not end where it began; expected one of this very model and machine"
      )
    empty = np.zeros((0, *net.image_shape), np.uint8)
    return np.concatenate([empty, *reversed(parts)])

  return Codec(compress, decompress)
