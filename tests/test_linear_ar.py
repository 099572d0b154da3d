"""Linear autoregression: weights, exact likelihood, samples, sums over batches."""

from causality import check_causal, random_like
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

from jaxgen.autoregressive.linear_ar import (
  history,
  linear_ar,
  linear_levels,
  mu_law_levels,
)
from jaxgen.ops import mu_law

KEY = jax.random.key(0)
WEIGHTS, STD = (0.05, 1.2, -0.6), 0.08  # a_0, a_1, a_2


def series(num, length, seed=0):
  """Draws from AR(2), from zeros."""
  noise = STD * np.random.default_rng(seed).standard_normal((length + 2, num))
  x = np.zeros((length + 2, num))
  for t in range(2, length + 2):
    x[t] = WEIGHTS[0] + WEIGHTS[1] * x[t - 1] + WEIGHTS[2] * x[t - 2] + noise[t]
  return x[2:].T.astype(np.float32).clip(-1, 1)


def trained(order=2, batches=3, **options):
  method = linear_ar(order, entry="audio", cells=linear_levels(), **options)
  step = jax.jit(method.train_step)
  state = jax.jit(method.init)(KEY, {"audio": jnp.zeros((4, 8))})
  for i in range(batches):
    state, metrics = step(state, {"audio": series(64, 500, i)}, KEY)
  return method, state, metrics


def test_weights_are_those_of_the_process_and_of_yule_and_walker():
  _, state, metrics = trained()
  sums = state.stats["net"]["sums"]
  moments, count = np.asarray(sums["moments"], np.float64), float(sums["count"])
  assert count == 3 * 64 * 500
  found = np.linalg.solve(moments[:-1, :-1], moments[:-1, -1])
  np.testing.assert_allclose(found, WEIGHTS, atol=0.01)
  # Yule-Walker: autocovariances r of a long series, Toeplitz(r_0, r_1) a = (r_1, r_2).
  x = series(1, 200_000, 9)[0].astype(np.float64)
  x -= x.mean()
  r = [np.mean(x[: len(x) - k] * x[k:]) for k in range(3)]
  np.testing.assert_allclose(linalg.solve_toeplitz(r[:2], r[1:]), found[1:], atol=0.02)
  assert metrics["change"] < 0.02


def test_likelihood_is_that_of_the_joint_gaussian():
  """x = m + L e; its density over tiny cells, the levels, is the sum over time."""
  method, state, _ = trained()
  x = np.round((series(3, 6, 5) + 1) * 127.5) / 127.5 - 1
  nll = jax.jit(method.eval_step)(state, {"audio": jnp.asarray(x, jnp.float32)}, KEY)[
    "nll"
  ]
  sums = state.stats["net"]["sums"]
  s = np.asarray(sums["moments"], np.float64) / float(sums["count"])
  a = np.linalg.solve(s[:-1, :-1], s[:-1, -1])
  std = np.sqrt(s[-1, -1] - a @ s[:-1, -1])
  back = np.eye(6) - a[1] * np.eye(6, k=-1) - a[2] * np.eye(6, k=-2)
  forward = np.linalg.inv(back)
  joint = stats.multivariate_normal(
    forward @ np.full(6, a[0]), std**2 * forward @ forward.T
  )
  np.testing.assert_allclose(nll, -joint.logpdf(x) - 6 * np.log(2 / 255), rtol=2e-3)


@pytest.mark.parametrize(
  ("cells", "every"),
  [
    (linear_levels(), np.arange(256, dtype=np.float32) / 127.5 - 1),
    (mu_law_levels(), mu_law.decode(np.arange(256, dtype=np.float32))),
  ],
)
def test_probabilities_of_the_levels_sum_to_one(cells, every):
  method = linear_ar(1, entry="audio", cells=cells)
  state = jax.jit(method.init)(KEY, {"audio": jnp.zeros((4, 8))})
  noise = 0.1 * jax.random.normal(KEY, (4, 50))
  state, _ = jax.jit(method.train_step)(state, {"audio": noise}, KEY)
  np.testing.assert_allclose(cells.observe(every), every, atol=1e-6)
  x = jnp.stack([jnp.full(256, cells.observe(jnp.float32(0.3))), every], axis=1)
  pair = jax.jit(method.eval_step)(state, {"audio": x}, KEY)["nll"]
  first = jax.jit(method.eval_step)(state, {"audio": x[:1, :1]}, KEY)["nll"]
  np.testing.assert_allclose(np.exp(first - pair).sum(), 1.0, rtol=1e-4)


def test_samples_have_the_covariances_of_the_process():
  method, state, _ = trained(sample_rate=8000)
  out = jax.jit(method.sample)(state, {"audio": jnp.zeros((64, 500))}, KEY)
  np.testing.assert_array_equal(out["sample_rate"], np.full(64, 8000))
  covariances = lambda x: [
    np.cov(x[:, 50 : 450 - k].ravel(), x[:, 50 + k : 450].ravel())[0, 1]
    for k in range(3)
  ]
  found = covariances(np.asarray(out["samples"]))
  np.testing.assert_allclose(found, covariances(series(64, 500, 7)), rtol=0.1)


def test_batches_add_up_and_masked_values_do_not_count():
  method = linear_ar(2, entry="audio", cells=linear_levels())
  state = jax.jit(method.init)(KEY, {"audio": jnp.zeros((4, 8))})
  x = series(4, 30)
  at_once, _ = jax.jit(method.train_step)(state, {"audio": jnp.asarray(x)}, KEY)
  half, _ = jax.jit(method.train_step)(state, {"audio": jnp.asarray(x[:2])}, KEY)
  both, _ = jax.jit(method.train_step)(half, {"audio": jnp.asarray(x[2:])}, KEY)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    at_once.stats,
    both.stats,
  )
  mask = (np.arange(4) < 2).astype(np.float32)[:, None] * np.ones((4, 30), np.float32)
  masked, _ = jax.jit(method.train_step)(
    state, {"audio": jnp.asarray(x), "mask": mask}, KEY
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    masked.stats,
    half.stats,
  )


def test_a_mean_depends_on_the_order_s_values_before_it_and_no_other():
  weights = random_like(np.zeros(4), 1.0)
  x = random_like(np.zeros((6, 1)), 1.0, seed=1)
  predict = lambda x: (history(x.T, 3) @ weights).T
  found = check_causal(predict, x, sees_all=False)
  expected = sum(abs(weights[k]) * np.eye(6, k=-k) for k in (1, 2, 3))
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_history_is_what_came_before():
  found = history(jnp.array([[1.0, 2.0, 3.0]]), 2)
  np.testing.assert_array_equal(found[0], [[1, 0, 0], [1, 1, 0], [1, 2, 1]])
  with pytest.raises(ValueError, match="order=0"):
    linear_ar(0, entry="audio", cells=linear_levels())
