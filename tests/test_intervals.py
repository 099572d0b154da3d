"""Intervals without repeated draws: leaving out, and pairs that share images."""

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jaxgen.metrics import modes, prdc, sliced_wasserstein
from jaxgen.metrics.bootstrap import (
  jackknife_interval,
  mean_interval,
  pairs_interval,
)

RNG = np.random.default_rng


def test_jackknife_of_a_mean_is_students_t():
  x = RNG(0).normal(size=12)
  without = (x.sum() - x) / 11
  np.testing.assert_allclose(jackknife_interval(x.mean(), without), mean_interval(x))
  narrow, wide = (
    np.ptp(jackknife_interval(0.0, without, level=v)) for v in (0.5, 0.99)
  )
  assert narrow < wide
  with pytest.raises(ValueError, match=r"at least 2 values in a row, got shape \[1\]"):
    jackknife_interval(0.0, [1.0])
  with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
    jackknife_interval(0.0, without, level=95)


def held(intervals, truth):
  low, high = np.array(intervals).T
  return np.mean((low <= truth) & (truth <= high))


@pytest.mark.parametrize(("h", "truth"), [(np.add, 0.0), (np.multiply, 0.0)])
def test_intervals_over_pairs_hold_the_truth(h, truth):
  """x + y is the kernel for which the bound on the variance is reached."""
  found = []
  for seed in range(1500):
    rng = RNG(seed)
    x, first = rng.normal(size=40), rng.integers(40, size=60)
    second = (first + rng.integers(1, 40, size=60)) % 40
    found.append(pairs_interval(h(x[first], x[second]), 40))
  level = held(found, truth)
  assert level > 0.94
  assert level < 0.965 or h is np.multiply


def test_pairs_errors():
  with pytest.raises(ValueError, match=r"at least 3 rows, got shape \[5\] of 2"):
    pairs_interval(np.arange(5.0), 2)


# --- precision, recall, density, coverage -----------------------------------------


def test_leaving_one_out_is_what_is_found_without_it(monkeypatch):
  monkeypatch.setattr(prdc, "ROWS_AT_ONCE", 9)
  rng = RNG(0)
  real, fake = rng.normal(size=(25, 2)), rng.normal(0.8, 0.7, size=(22, 2))
  with jax.enable_x64(True):
    found = prdc.leave_one_out(real, fake, k=3)
    for j in range(len(fake)):
      expected = prdc.prdc(real, np.delete(fake, j, axis=0), k=3)
      for name, value in expected.items():
        np.testing.assert_allclose(found[name][j], value, rtol=1e-12, err_msg=name)
    changes = found["recall"] - float(prdc.prdc(real, fake, k=3)["recall"])
  assert set(np.sign(changes.round(9))) == {-1, 0, 1}  # A ball lost, balls that grow.
  with pytest.raises(ValueError, match="got 21 for 25 and 22 rows"):
    prdc.leave_one_out(real, fake, k=21)


def test_intervals_of_coverage_and_density_hold_the_closed_form():
  """On a line: the chance p of a ball under the fakes' normal distribution is known.

  Of M fakes the expected coverage is the mean of 1 - (1 - p)^M, density of M p / k / M
  times the number of balls.
  """
  k, num = 3, 60
  real = np.sort(RNG(0).normal(size=(50, 1)), axis=0)
  apart = np.sort(np.abs(real - real.T), axis=1)[:, k]
  chance = np.diff(norm.cdf(real + apart[:, None] * [-1, 1], 0.7, 0.8))[:, 0]
  truth = {
    "coverage": np.mean(1 - (1 - chance) ** num),
    "density": chance.sum() / k,
  }
  found = {name: [] for name in truth}
  values = {name: [] for name in truth}
  with jax.enable_x64(True):
    for seed in range(300):
      fake = RNG(seed).normal(0.7, 0.8, size=(num, 1))
      without = prdc.leave_one_out(real, fake, k=k)
      value = prdc.prdc(real, fake, k=k)
      for name in truth:
        found[name].append(jackknife_interval(float(value[name]), without[name]))
        values[name].append(float(value[name]))
  for name, expected in truth.items():
    assert np.mean(values[name]) == pytest.approx(expected, abs=0.01)
    assert 0.92 < held(found[name], expected) < 0.985, name


def test_intervals_of_recall_hold_its_mean():
  real = RNG(0).normal(size=(60, 2))
  found, values = [], []
  with jax.enable_x64(True):
    for seed in range(300):
      fake = RNG(seed).normal(0.5, 0.6, size=(50, 2))
      values.append(float(prdc.prdc(real, fake, k=3)["recall"]))
      without = prdc.leave_one_out(real, fake, k=3)["recall"]
      found.append(jackknife_interval(values[-1], without))
  assert 0.93 < held(found, np.mean(values)) <= 1


# --- modes --------------------------------------------------------------------------


def test_modes_without_a_sample():
  labels = RNG(0).integers(0, 12, 30)
  reference = np.arange(1.0, 13)
  found = modes.leave_one_out(labels, 12, reference)
  for j in range(len(labels)):
    expected = modes.modes_and_kl(np.delete(labels, j), 12, reference)
    for name, value in expected.items():
      np.testing.assert_allclose(found[name][j], value, rtol=1e-12)
  assert len(set(found["modes"])) == 2  # Some occur once.
  with pytest.raises(ValueError, match="of 1 samples none"):
    modes.leave_one_out([3], 12)


def test_intervals_of_modes_hold_the_closed_form():
  chance = 0.985 ** np.arange(300)
  chance /= chance.sum()
  truth = np.sum(1 - (1 - chance) ** 500)
  found = []
  for seed in range(300):
    labels = RNG(seed).choice(300, 500, p=chance)
    value = modes.modes_and_kl(labels, 300)["modes"]
    without = modes.leave_one_out(labels, 300)["modes"]
    found.append(jackknife_interval(value, without))
  assert held(found, truth) > 0.94  # 1.0: too wide by up to a half.


# --- sliced Wasserstein distance ------------------------------------------------------


FEW = dict(patches_per_image=4, num_directions=8, num_levels=1)


def test_groups_are_left_out_of_both_sets():
  x, y = random.normal(random.key(0), (2, 9, 8, 8, 2))
  y = 0.5 * y + y[:, :1]
  key = random.key(3)
  found = sliced_wasserstein.leave_groups_out(x, y, key=key, num_groups=3, **FEW)
  assert found.shape == (3, 1)
  x_key, y_key, direction_key = random.split(random.fold_in(key, 0), 3)
  directions = random.normal(direction_key, (8, 98))
  patches = [
    np.asarray(sliced_wasserstein.level_patches(v, 0, 1, 4, k))
    for v, k in ((x, x_key), (y, y_key))
  ]
  for group in range(3):
    points = []
    for patch in patches:
      rest = np.delete(patch, [group, group + 3, group + 6], axis=0).reshape(-1, 49, 2)
      rest = (rest - rest.mean((0, 1))) / rest.std((0, 1))
      points.append(jnp.asarray(rest.reshape(-1, 98)))
    expected = 1e3 * sliced_wasserstein.projected_distance(*points, directions)
    np.testing.assert_allclose(found[group, 0], expected, rtol=1e-4)
  with pytest.raises(ValueError, match="num_groups must be from 2 to 9, got 10"):
    sliced_wasserstein.leave_groups_out(x, y, key=key, num_groups=10)


def test_intervals_of_sliced_distances_hold_their_mean():
  """Images of sets that differ, and of sets that do not: a mean over many draws."""
  for spread in (0.0, 1.0):
    values, found = [], []
    for seed in range(80):
      key, draw = random.split(random.key(seed))
      x, y = np.asarray(random.normal(draw, (2, 40, 8, 8, 1)))
      y = y + spread * y[:, :1]
      values.append(
        float(sliced_wasserstein.sliced_wasserstein(x, y, key=key, **FEW)[0])
      )
      without = sliced_wasserstein.leave_groups_out(x, y, key=key, **FEW)[:, 0]
      found.append(jackknife_interval(values[-1], without))
    level = held(found, np.mean(values))
    assert level > 0.9, (spread, level)
    widths = np.diff(np.array(found))
    assert widths.mean() < 12 * np.std(values), spread  # Says something.
