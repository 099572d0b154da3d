"""Frechet distance, KID, inception score, PRDC, neighbours: closed forms and parity.

Reference values: tests/golden/make_metrics_sets.py.
"""

from pathlib import Path

from golden.make_metrics_sets import inputs
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.metrics import distances, psnr, ssim
from jaxgen.metrics.frechet import (
  Moments,
  covariance,
  frechet_distance,
  influence,
  merge,
  moments,
  standard_error,
)
from jaxgen.metrics.inception_score import inception_score
from jaxgen.metrics.kid import kid, polynomial_mmd
from jaxgen.metrics.neighbours import (
  copies,
  copies_of_any,
  k_nearest,
  memorisation,
  nearest,
)
from jaxgen.metrics.prdc import prdc
from jaxgen.metrics.sliced_wasserstein import sliced_wasserstein

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics_sets.npz")
INPUTS = inputs()
X, Y = INPUTS["x"], INPUTS["y"]


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def gaussian(mean, cov, count=50):
  """Moments whose mean and covariance are these."""
  cov = jnp.asarray(cov)
  return Moments(jnp.asarray(count, cov.dtype), jnp.asarray(mean), cov * (count - 1))


def rotation(dim, seed=0):
  return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


@pytest.mark.smoke
def test_frechet_equals_the_references_in_float64(x64):
  ours = frechet_distance(moments(X), moments(Y))
  np.testing.assert_allclose(ours, GOLDEN["fid_pytorch_fid"], rtol=1e-12)
  np.testing.assert_allclose(ours, GOLDEN["fid_torch_fidelity"], rtol=1e-12)
  # Where the rank is 9 of 12 theirs carries noise of sqrt(eps) per missing dimension.
  ours = frechet_distance(moments(X[:10]), moments(Y[:10]))
  np.testing.assert_allclose(ours, GOLDEN["fid_singular"], rtol=1e-8)


def test_frechet_of_known_gaussians(x64):
  means = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 0.5])
  a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 0.25, 9.0])
  q = rotation(3)
  commuting = [gaussian(m, (q * c) @ q.T) for m, c in zip(means, (a, b), strict=True)]
  expected = 1 + 9 + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
  np.testing.assert_allclose(frechet_distance(*commuting), expected, rtol=1e-13)
  # In two dimensions tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)) for any M = A B.
  a, b = np.array([[3.0, 0.9], [0.9, 1.0]]), np.array([[1.0, 0.8], [0.8, 3.0]])
  assert np.abs(a @ b - b @ a).max() > 1
  root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
  distance = frechet_distance(gaussian(np.zeros(2), a), gaussian(np.ones(2), b))
  expected = 2 + np.trace(a) + np.trace(b) - 2 * root
  np.testing.assert_allclose(distance, expected, rtol=1e-13)


def test_frechet_of_singular_covariances(x64):
  few = moments(np.random.default_rng(0).standard_normal((5, 16)))
  trace = jnp.trace(covariance(few))
  for m in (few, moments(np.ones((4, 3)))):  # Rank 4 of 16; no variance at all.
    assert 0 <= frechet_distance(m, m) <= 1e-12 * trace
  # Supports at right angles have nothing in common.
  q, half = rotation(16), np.arange(16) < 8
  a, b = (gaussian(np.zeros(16), (q * s) @ q.T) for s in (half, ~half))
  # The root of rounding errors, 1e-8 a direction, is all that their product gives.
  np.testing.assert_allclose(frechet_distance(a, b), 16, rtol=2e-8)
  # A constant against a Gaussian: nothing but its trace and the means.
  constant = moments(np.full((4, 16), 2.0))
  np.testing.assert_allclose(frechet_distance(constant, a), 64 + 8, rtol=1e-12)
  assert np.isnan(frechet_distance(a, a._replace(scatter=a.scatter * np.nan)))


def test_frechet_in_float32_is_good_to_a_thousandth_of_the_trace():
  x, y = X.astype(np.float32), Y.astype(np.float32)
  ours = frechet_distance(moments(x), moments(y))
  assert ours.dtype == jnp.float32
  np.testing.assert_allclose(ours, GOLDEN["fid_pytorch_fid"], rtol=1e-4)
  half = moments(jnp.asarray(x, jnp.bfloat16))  # Never computed in 8 bits.
  assert half.mean.dtype == jnp.float32
  np.testing.assert_allclose(half.mean, x.mean(0), atol=0.01)


@pytest.mark.parametrize("sizes", [(60,), (1, 59), (7, 20, 33)])
def test_streamed_moments_equal_those_of_all(x64, sizes):
  parts = np.split(X + 100, np.cumsum(sizes)[:-1])
  streamed = moments(parts[0])
  for part in parts[1:]:
    streamed = merge(streamed, moments(part))
  assert streamed.count == 60
  np.testing.assert_allclose(streamed.mean, (X + 100).mean(0), rtol=1e-14)
  cov = np.cov((X + 100).T)
  np.testing.assert_allclose(covariance(streamed), cov, atol=1e-12 * cov.max())


def test_influence_is_the_derivative_by_the_weight_of_a_row(x64):
  reference, count = moments(Y), len(X)

  def distance(row, eps):
    weights = np.full(count, (1 - eps) / count)
    weights[row] += eps
    mean = weights @ X
    cov = (X - mean).T @ ((X - mean) * weights[:, None]) * count / (count - 1)
    return frechet_distance(gaussian(mean, cov), reference)

  found, eps = influence(X, reference), 1e-4
  for row in (0, 7, count - 1):
    slope = (distance(row, eps) - distance(row, -eps)) / (2 * eps)
    np.testing.assert_allclose(found[row], slope, rtol=1e-5)
  np.testing.assert_allclose(jnp.mean(found), 0.0, atol=1e-9)


def test_standard_error_is_the_spread_of_the_distance(x64):
  rng = np.random.default_rng(0)
  reference = gaussian(np.ones(4), np.diag([1.0, 2.0, 3.0, 0.5]))
  found, errors = [], []
  for _ in range(150):
    x = rng.standard_normal((500, 4))
    found.append(float(frechet_distance(moments(x), reference)))
    errors.append(float(standard_error(x, reference)))
  np.testing.assert_allclose(np.mean(errors), np.std(found), rtol=0.2)
  near = np.abs(np.array(found) - np.mean(found)) < 1.96 * np.array(errors)
  assert 0.9 < near.mean() < 0.99


def test_frechet_errors():
  with pytest.raises(ValueError, match="one dimension, got 12 and 3"):
    frechet_distance(moments(X), moments(X[:, :3]))
  with pytest.raises(ValueError, match=r"at least 2 rows, got counts \(60, 1\)"):
    frechet_distance(moments(X), moments(X[:1]))
  for wrong in (X[0], X[:0], X[None]):
    with pytest.raises(ValueError, match=r"\[N, D\] and not empty"):
      moments(wrong)


@pytest.mark.smoke
def test_mmd_equals_the_references_in_float64(x64):
  ours = polynomial_mmd(X, Y)
  np.testing.assert_allclose(ours, GOLDEN["kid_torch_fidelity"], rtol=1e-12)
  np.testing.assert_allclose(ours, GOLDEN["kid_torchmetrics"], rtol=1e-12)
  # Subsets of all rows are all alike: none is drawn twice.
  mean, std = kid(X, Y, key=random.key(0), num_subsets=3, subset_size=60)
  np.testing.assert_allclose(mean, GOLDEN["kid_torch_fidelity"], rtol=1e-12)
  assert std < 1e-10


def test_mmd_of_unequal_counts_by_hand(x64):
  x, y = np.array([[1.0], [2.0], [-1.0]]), np.array([[0.5], [3.0]])
  k = lambda a, b: (2 * a * b + 0.5) ** 2
  pairs = [(1, 2), (1, -1), (2, -1)]
  expected = np.mean([k(a, b) for a, b in pairs]) + k(0.5, 3.0)
  expected -= 2 * np.mean([k(a, b) for a in (1, 2, -1) for b in (0.5, 3.0)])
  ours = polynomial_mmd(x, y, degree=2, gamma=2.0, coef=0.5)
  np.testing.assert_allclose(ours, expected, rtol=1e-13)


def test_mmd_is_unbiased(x64):
  """Its mean over all subsets of a population is the population's own MMD."""
  from itertools import combinations

  x = X[:5] / 3
  of = lambda a, b: polynomial_mmd(x[list(a)], x[list(b)])
  splits = [(a, tuple(set(range(5)) - set(a))) for a in combinations(range(5), 2)]
  values = [of(a, b) for a, b in splits]
  # Every ordered pair of different rows occurs equally often in each of the terms.
  scale = np.abs(values).max()
  np.testing.assert_allclose(np.mean(values), 0, atol=1e-12 * scale)
  assert scale > 0.1


def test_kid_mean_and_deviation_over_subsets(x64):
  draw = lambda seed: kid(
    X / 5, Y / 5, key=random.key(seed), num_subsets=200, subset_size=10
  )
  (mean, std), again, other = draw(0), draw(0), draw(1)
  assert (mean, std) == again and mean != other[0]
  whole = float(polynomial_mmd(X / 5, Y / 5))
  error = std / np.sqrt(200)
  assert abs(mean - whole) < 4 * error < 0.5 * whole
  np.testing.assert_allclose(std, other[1], rtol=0.4)


def test_kid_errors():
  with pytest.raises(ValueError, match="got 1000 for 60 and 60 rows"):
    kid(X, Y, key=random.key(0))
  with pytest.raises(ValueError, match="at least 2 rows a set, got 1 and 60"):
    polynomial_mmd(X[:1], Y)
  with pytest.raises(ValueError, match="num_subsets must be at least 1, got 0"):
    kid(X, Y, key=random.key(0), num_subsets=0, subset_size=5)


@pytest.mark.smoke
def test_inception_score_equals_torch_fidelity(x64):
  mean, std = inception_score(INPUTS["logits"], num_splits=10)
  np.testing.assert_allclose(mean, GOLDEN["isc_mean"], rtol=1e-13)
  np.testing.assert_allclose(std, GOLDEN["isc_std"], rtol=1e-12)


def test_inception_score_bounds_and_shuffle():
  certain = np.full((70, 7), -np.inf, np.float32)
  certain[np.arange(70), np.arange(70) % 7] = 0.0  # One-hot, every label in turn.
  np.testing.assert_allclose(inception_score(certain, num_splits=2), (7, 0), atol=1e-5)
  same = np.tile(INPUTS["logits"][:1], (20, 1)).astype(np.float32)
  np.testing.assert_allclose(inception_score(same), (1, 0), atol=1e-6)
  in_order = np.sort(np.arange(70) % 7)  # Each split holds one label unless shuffled.
  split = inception_score(certain[in_order], num_splits=7)
  np.testing.assert_allclose(split, (1, 0), atol=1e-6)
  mixed = inception_score(certain[in_order], num_splits=7, key=random.key(0))
  assert 3 < mixed[0] < 7 and mixed[1] > 0
  with pytest.raises(ValueError, match="from 1 to 70, got 71"):
    inception_score(certain, num_splits=71)


def brute_prdc(real, fake, k):
  """By definition, with direct differences."""
  far = lambda a, b: np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
  radius = lambda a: np.sort(far(a, a), axis=1)[:, k]  # Column 0 is itself.
  to_real = far(fake, real) <= radius(real)[None]
  to_fake = far(real, fake) <= radius(fake)[None]
  return {
    "precision": to_real.any(1).mean(),
    "recall": to_fake.any(1).mean(),
    "density": to_real.sum(1).mean() / k,
    "coverage": to_real.any(0).mean(),
  }


def check_prdc(real, fake, k, rtol=1e-6):
  ours, expected = prdc(real, fake, k=k), brute_prdc(real, fake, k)
  assert ours.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(ours[name], value, rtol=rtol, err_msg=name)
  return expected


@pytest.mark.smoke
@pytest.mark.parametrize("k", [3, 5])
def test_prdc_equals_the_references_and_the_definition(k):
  ours = prdc(X, Y, k=k)  # float32: counts, so exact all the same.
  for name in ("precision", "recall", "density", "coverage"):
    np.testing.assert_allclose(ours[name], GOLDEN[f"{name}_{k}"], rtol=1e-6)
  expected = check_prdc(X, Y, k)
  assert len({round(v, 3) for v in expected.values()}) == 4
  with jax.enable_x64(True):
    check_prdc(X, Y[:23], k, rtol=1e-14)


def test_prdc_counts_ties_and_copies():
  rng = np.random.default_rng(0)
  grid = rng.integers(0, 3, (40, 3)).astype(float)  # Many ties, many duplicates.
  check_prdc(grid, rng.integers(0, 4, (31, 3)).astype(float), 2)
  # Duplicates whose distances round differently: k + 1 equal rows make a ball of
  # radius 0 that an exact copy is inside of.
  real = np.repeat(rng.standard_normal((8, 50)) + 10, 4, axis=0).astype(np.float32)
  copied, moved = prdc(real, real[::3], k=3), prdc(real, real[::3] + 0.01, k=3)
  assert (copied["precision"], copied["coverage"]) == (1, 1)
  np.testing.assert_allclose(copied["density"], 4 / 3, rtol=1e-6)
  assert (moved["precision"], moved["coverage"], moved["density"]) == (0, 0, 0)


def test_prdc_errors():
  for k in (0, 12):
    with pytest.raises(ValueError, match=f"got {k} for 60 and 12 rows"):
      prdc(X, Y[:12], k=k)
  with pytest.raises(ValueError, match="real and fake must have one dimension"):
    prdc(X, Y[:, :3])


@pytest.mark.parametrize(("block", "count"), [(1, 37), (200, 38), (2**24, 39)])
def test_nearest_whatever_the_block(monkeypatch, block, count):
  monkeypatch.setattr(distances, "BLOCK", block)  # Shapes of their own: no old trace.
  x, y = X[:count], X[20:] + 0.01
  direct = np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))
  distance, index = nearest(x, y)
  np.testing.assert_array_equal(index, direct.argmin(1))
  np.testing.assert_allclose(distance, direct.min(1), rtol=1e-4)
  check_prdc(X, Y[:count], 3)
  with jax.enable_x64(True):
    distance, index = k_nearest(x, y, 4)
  np.testing.assert_array_equal(index, direct.argsort(1)[:, :4])
  np.testing.assert_allclose(distance, np.sort(direct, 1)[:, :4], rtol=1e-13)


def test_nearest_measures_small_distances_of_large_features():
  """|x|^2 + |y|^2 - 2 x.y alone would have lost them: 1e-6 of 1e4 in float32."""
  y = (100 * X).astype(np.float32)
  distance, index = nearest(y[::-1] * np.float32(1 + 2e-7), y)
  np.testing.assert_array_equal(index, np.arange(60)[::-1])
  expected = np.linalg.norm(y[::-1] * np.float32(1 + 2e-7) - y[::-1], axis=1)
  np.testing.assert_allclose(distance, expected, rtol=1e-5)
  np.testing.assert_array_equal(nearest(y, y)[0], 0)
  # Four rows nearer to each other than rounding, in the wrong order.
  steps = np.array([4.0, 3.0, 1.0, 2.0])[:, None] / 1024
  close = np.concatenate([y[:5] + step for step in steps]).astype(np.float32)
  index = k_nearest(y[:5], np.concatenate([close, y[5:]]), 2)[1]
  np.testing.assert_array_equal(index - np.arange(5)[:, None], [[10, 15]] * 5)
  for k in (0, 61):
    with pytest.raises(ValueError, match=f"the 60 rows of y, got {k}"):
      k_nearest(X, Y, k)


def test_memorisation_finds_planted_copies():
  rng = np.random.default_rng(0)
  train, test, fresh = rng.standard_normal((3, 200, 20)).astype(np.float32)
  samples = fresh.copy()
  samples[:50] = train[:50]  # 30 exact copies, 20 noisy ones.
  samples[30:50] += 0.1 * rng.standard_normal((20, 20))
  report = memorisation(samples, train, test)
  np.testing.assert_allclose(report["copied_rate"], 0.25)
  assert report["test_copied_rate"] == 0
  gap = lambda a: np.sqrt(((a[:, None] - train[None]) ** 2).sum(-1)).min(1).mean()
  np.testing.assert_allclose(report["nearest_train_distance"], gap(samples), rtol=1e-5)
  np.testing.assert_allclose(report["test_nearest_train_distance"], gap(test), 1e-5)
  whole = copies(samples, train)
  for found, expected in zip(
    copies_of_any(samples, np.split(train, 2)), whole, strict=True
  ):
    np.testing.assert_array_equal(found, expected)
  # The rule is a ratio of the first to the second neighbour, scale-free.
  line = np.array([[0.0], [4.0]])
  rate = lambda at, **kw: memorisation(np.array([[at]]), line, line, **kw)[
    "copied_rate"
  ]
  assert (rate(0.99), rate(1.01), rate(1.01, ratio=0.5)) == (1, 0, 1)
  assert memorisation(train, np.concatenate([train, train]), test)["copied_rate"] == 1
  far, copied = copies_of_any(np.array([[0.99]]), np.split(line, 2))  # One row each.
  np.testing.assert_allclose(far, 0.99, rtol=1e-6)
  assert copied
  with pytest.raises(ValueError, match="between 0 and 1, got 3"):
    memorisation(samples, train, test, ratio=3)
  with pytest.raises(ValueError, match="at least 2 training rows"):
    copies_of_any(np.array([[1.0]]), [line[:1]])


def test_blocks_and_devices_change_nothing(x64, monkeypatch):
  """Of the distances of sets: rows on 8 devices; blocks that divide nothing."""
  rng = np.random.default_rng(0)
  x, y = rng.standard_normal((48, 5)), rng.standard_normal((40, 5)) ** 2

  def scores(x, y):
    found = prdc(x, y, k=3)
    return np.array(
      [
        *(frechet_distance(moments(x), moments(y)), polynomial_mmd(x, y)),
        *(kid(x, y, key=random.key(0), num_subsets=3, subset_size=30)),
        *(inception_score(x, num_splits=3)),
        *(float(v) for v in found.values()),
      ]
    )

  whole = scores(x, y)
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  sharded = [jax.device_put(jnp.asarray(v), rows) for v in (x, y)]
  assert len({s.device for s in sharded[0].addressable_shards}) == 8
  np.testing.assert_allclose(scores(*sharded), whole, rtol=1e-10)
  monkeypatch.setattr(distances, "BLOCK", 300)
  # The size of a block is read when a program is traced: here, under another setting.
  with jax.default_matmul_precision("highest"):
    np.testing.assert_allclose(scores(x, y), whole, rtol=1e-10)


def test_devices_change_nothing_of_images():
  """Patches and their projections, neighbours, PSNR, SSIM: of images on 8 devices."""
  images = np.random.default_rng(0).random((2, 16, 12, 12, 1), np.float32)
  options = dict(key=random.key(0), patches_per_image=2, num_directions=4)

  @jax.jit
  def of_pairs(x, y):
    flat = (v.reshape(len(v), -1) for v in (x, y))
    return *copies(*flat), psnr.psnr(x, y), ssim.ssim(x, y)

  scores = lambda x, y: [*of_pairs(x, y), sliced_wasserstein(x, y, **options)]
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  found = scores(*jax.device_put(list(images), rows))
  assert len(found[2].sharding.device_set) == 8
  for ours, expected in zip(found, scores(*images), strict=True):
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
