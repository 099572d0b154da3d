"""The entropy coder, and images coded at the rate of a VAE's bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jaxgen.losses import bernoulli
from jaxgen.ops.ans import (
  HEAD_BITS,
  MAX_PRECISION,
  Message,
  NormalBuckets,
  bernoulli_interval,
  bernoulli_size,
)
from jaxgen.vae.bits_back import bits_back
from jaxgen.vae.networks import FullyConnected
from jaxgen.vae.variational import elbo

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)


def table(num, precision, rng):
  """Random intervals of up to `num` symbols that fill 2^precision: starts, sizes."""
  cuts = np.unique(rng.integers(1, 1 << precision, num - 1))
  edges = np.concatenate([[0], cuts, [1 << precision]])
  return edges[:-1], np.diff(edges)


def finder(starts, sizes):
  def find(inside):
    symbols = np.searchsorted(starts, inside.astype(np.int64), side="right") - 1
    return symbols, starts[symbols], sizes[symbols]

  return find


# --- the coder --------------------------------------------------------------------


@pytest.mark.parametrize("num_streams", [1, 7])
def test_symbols_come_back_in_the_opposite_order(num_streams):
  """Random tables of any precision, in any number of the streams, mixed."""
  rng = np.random.default_rng(num_streams)
  message = Message(num_streams, rng.integers(0, 1 << 32, 5, np.uint32))
  before, calls = message.words(), []
  for _ in range(600):
    precision = int(rng.integers(3, 29))
    starts, sizes = table(int(rng.integers(2, 8)), precision, rng)
    symbols = rng.integers(0, len(sizes), rng.integers(1, num_streams + 1))
    message.push(starts[symbols], sizes[symbols], precision)
    calls.append((symbols, starts, sizes, precision))
  assert not message.is_read()
  message = Message.from_words(message.words(), num_streams)
  for symbols, starts, sizes, precision in reversed(calls):
    found = message.pop(finder(starts, sizes), precision, len(symbols))
    np.testing.assert_array_equal(found, symbols)
  np.testing.assert_array_equal(message.words(), before)
  assert message.is_read()


@pytest.mark.parametrize("precision", [12, 16])
def test_rate_is_the_entropy(precision):
  """Every symbol as often as its table says: 65,536 cost 65,536 entropies."""
  rng = np.random.default_rng(0)
  starts, sizes = table(20, precision, rng)
  symbols = np.repeat(np.arange(len(sizes)), sizes * (1 << 16 - precision))
  symbols = rng.permutation(symbols).reshape(-1, 2)
  message = Message(2)
  for pair in symbols:
    message.push(starts[pair], sizes[pair], precision)
  p = sizes / (1 << precision)
  entropy = -(p * np.log2(p)).sum()
  spent = message.num_bits() - 2 * HEAD_BITS
  assert message.num_bits() == 32 * len(message.words())
  # The interval that a head holds is what remains of its 64 bits.
  assert 0 < spent < 2 * 64 + entropy * symbols.size
  np.testing.assert_allclose(spent / symbols.size, entropy, rtol=1e-3)


def test_bits_that_were_read_are_given_back():
  """A symbol popped from random bits and pushed again leaves them as they were."""
  rng = np.random.default_rng(0)
  starts, sizes = table(6, 10, rng)
  message = Message(3, rng.integers(0, 1 << 32, 400, np.uint32))
  before = message.words()
  drawn = [message.pop(finder(starts, sizes), 10) for _ in range(900)]
  share = np.bincount(np.concatenate(drawn), minlength=len(sizes)) / 2700
  np.testing.assert_allclose(
    share, sizes / 1024, atol=0.03
  )  # Drawn as they are likely.
  assert 0 < message.least < 400
  for symbols in reversed(drawn):
    message.push(starts[symbols], sizes[symbols], 10)
  np.testing.assert_array_equal(message.words(), before)


def test_what_cannot_be_coded_is_refused():
  message = Message(2)
  with pytest.raises(ValueError, match="intervals outside"):
    message.push([0], [0], 8)
  with pytest.raises(ValueError, match="intervals outside"):
    message.push([250], [7], 8)
  with pytest.raises(ValueError, match="precision=29"):
    message.push([0], [1], 29)
  with pytest.raises(ValueError, match="does not lie in|do not lie in|not lie in"):
    message.pop(lambda inside: (inside, inside + 1, np.ones_like(inside)), 8)
  with pytest.raises(ValueError, match="expected a longer message"):
    message.pop(lambda inside: (inside, inside, np.ones_like(inside)), 8)
  with pytest.raises(ValueError, match="num_streams=0"):
    Message(0)
  with pytest.raises(ValueError, match="3 words: expected at least 4"):
    Message.from_words(np.zeros(3, np.uint32), 2)


# --- intervals --------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.05), (-60.0, 1e-4)])
def test_normal_buckets_share_all_integers_by_their_mass(mean, std):
  bits, precision = 6, 20
  buckets, index = NormalBuckets(bits, precision), np.arange(1 << bits)
  every = np.full(len(index), mean), np.full(len(index), std)
  start, size = buckets.interval(index, *every)
  assert start[0] == 0
  assert size.min() >= 1
  np.testing.assert_array_equal(start[1:], (start + size)[:-1])
  assert start[-1] + size[-1] == 1 << precision
  edges = norm.ppf(np.arange(65) / 64)
  mass = np.diff(norm.cdf((edges - mean) / std))
  np.testing.assert_allclose(size / (1 << precision), mass, atol=2e-4)
  np.testing.assert_allclose(norm.cdf(buckets.centres) * 64, index + 0.5, atol=1e-4)
  for inside in (start, start + size - 1):
    found = buckets.find(inside.astype(np.uint64), *every)
    for a, b in zip(found, (index, start, size), strict=True):
      np.testing.assert_array_equal(a, b)


def test_bernoulli_sizes_and_intervals():
  logits = np.array([-1e4, -2.0, 0.0, 3.0, 1e4])
  size = bernoulli_size(logits, 16)
  p = 1 / (1 + np.exp(-logits[1:4]))
  np.testing.assert_allclose(size[1:4] / 65536, p, atol=1e-5)
  np.testing.assert_array_equal(size[[0, 4]], [1, 65535])
  start, length = bernoulli_interval(np.array([1, 0]), np.array([10, 10]), 8)
  np.testing.assert_array_equal([start, length], [[0, 10], [10, 246]])


# --- images -----------------------------------------------------------------------


def make(scale=1.3, seed=0):
  """A VAE whose posteriors are narrower than the prior, and inside of it."""
  net = FullyConnected(SHAPE, (8,), 3)
  params = jax.jit(net.init)(jax.random.key(seed), jnp.zeros((1, *SHAPE)))["params"]
  params = jax.tree.map(lambda v: scale * v, params)
  params["log_var"]["bias"] = params["log_var"]["bias"] - 3.0
  return net, params


def images(num):
  return np.random.default_rng(1).integers(0, 2, (num, *SHAPE)).astype(np.uint8)


@pytest.mark.parametrize(("num", "num_streams"), [(0, 3), (1, 1), (1, 4), (23, 5)])
def test_images_come_back_bit_for_bit(num, num_streams):
  net, params = make()
  x = images(num)
  packed = bits_back(net, params, num_streams=num_streams).compress(x)
  assert packed.words.dtype == np.uint32
  assert packed.num_images == num
  # A codec of its own, of other initial bits: all that it needs is in the words.
  other = bits_back(net, params, num_streams=num_streams, seed=7)
  found = other.decompress(packed)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, x)


def content(packed, num_streams):
  """Bits that a message holds: whole words, and what its heads are filled with."""
  cut = len(packed.words) - 2 * num_streams
  heads = packed.words[cut:].copy().view(np.uint64)
  return 32 * cut + np.log2(heads.astype(np.float64)).sum()


def test_rate_is_the_bound_and_all_bits_count():
  """2,000 images, each in a stream of its own, where the first bits are all random.

  Without bits back it would be the KL's complement more: 36 bits of latents each.
  """
  (net, params), num = make(), 2_000
  x = images(num)
  codec = bits_back(net, params, num_streams=num)
  packed = codec.compress(x)
  flat = lambda v: v.reshape(len(v), -1)
  log_prob = lambda x, logits: bernoulli.log_prob(flat(x), flat(logits))
  level = net.bind({"params": params})
  one = lambda key: jnp.stack(elbo(level, log_prob, jnp.asarray(x, jnp.float32), key))
  draws = jax.jit(jax.vmap(one))(jax.random.split(KEY, 50))
  bound, _, kl = np.asarray(draws).mean((0, 2)) / np.log(2)
  assert 3 < kl < 15
  constant = (HEAD_BITS - MAX_PRECISION) * num  # Of the heads, once they are stirred.
  found = content(packed, num) - packed.initial_bits - constant
  np.testing.assert_allclose(found / num, -bound, rtol=0.01)
  # What the latents were read from, up to two words that a head holds in part.
  read = packed.initial_bits / num
  assert 36 - kl < read < 36 - kl + 64
  assert packed.bits_per_dim(16) == 32 * len(packed.words) / num / 16
  assert packed.bits_per_dim(16) > (-bound + read) / 16
  np.testing.assert_array_equal(codec.decompress(packed), x)


def test_initial_bits_are_read_once():
  """A chain of 20 images reads no more of them than its first."""
  net, params = make()
  codec, x = bits_back(net, params, num_streams=50), images(1_000)
  chain, first = codec.compress(x), codec.compress(x[:50])
  assert chain.initial_bits == first.initial_bits > 0
  assert chain.bits_per_dim(16) < 0.7 * first.bits_per_dim(16)


def test_no_changed_bit_gives_other_images():
  """Only initial bits can change unseen."""
  (net, params), x, unseen = make(), images(40), 0
  codec = bits_back(net, params, num_streams=3)
  packed = codec.compress(x)
  for i in range(len(packed.words)):
    words = packed.words.copy()
    words[i] ^= 1 << i % 32
    try:
      found = codec.decompress(packed._replace(words=words))
    except ValueError:
      continue
    np.testing.assert_array_equal(found, x)
    unseen += 1
  assert 32 * unseen <= packed.initial_bits


def test_other_models_and_images_are_refused():
  (net, params), x = make(), images(12)
  packed = bits_back(net, params, num_streams=3).compress(x)
  refused = pytest.raises(ValueError, match="end where it began|longer message")
  with refused:
    bits_back(*make(seed=1), num_streams=3).decompress(packed)
  with refused:
    bits_back(net, params, num_streams=4).decompress(packed)
  codec = bits_back(net, params, num_streams=3)
  with refused:
    codec.decompress(packed._replace(num_images=11))
  with refused:  # The count of initial bits is checked.
    codec.decompress(packed._replace(initial_bits=packed.initial_bits - 32))
  with pytest.raises(ValueError, match=r"from 0 to 255: expected \(4, 4, 1\)"):
    codec.compress(255 * x)
  with pytest.raises(ValueError, match=r"shape \(8, 2, 1\)"):
    codec.compress(x.reshape(12, 8, 2, 1))
  with pytest.raises(ValueError, match="num_streams=0"):
    bits_back(net, params, num_streams=0)
