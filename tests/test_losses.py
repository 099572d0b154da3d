"""Losses against integrals, sums over all outcomes and known optima."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgen.losses import adversarial, bernoulli, gaussian


def test_gaussian_log_prob_is_the_density():
  x, mean, log_var = 0.3, -0.4, 0.7
  std = np.exp(log_var / 2)
  density = np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
  one = gaussian.log_prob(*(jnp.full((1,), v) for v in (x, mean, log_var)))
  three = gaussian.log_prob(*(jnp.full((2, 3), v) for v in (x, mean, log_var)))
  np.testing.assert_allclose(one, np.log(density), rtol=1e-6)
  np.testing.assert_allclose(three, np.full(2, 3 * np.log(density)), rtol=1e-6)


def test_gaussian_log_prob_integrates_to_one():
  x, dx = np.linspace(-30, 30, 20001, retstep=True)
  log_p = gaussian.log_prob(
    jnp.asarray(x)[:, None], jnp.full((1, 1), 1.5), jnp.full((1, 1), 2.0)
  )
  np.testing.assert_allclose(np.exp(log_p).sum() * dx, 1.0, rtol=1e-5)


def test_kl_is_the_integral():
  x, dx = np.linspace(-12, 12, 20001, retstep=True)
  mean, log_var = np.array([0.0, 1.3, -0.5]), np.array([0.0, -1.2, 0.8])
  expected = 0.0
  for m, v in zip(mean, np.exp(log_var), strict=True):
    log_q = -0.5 * ((x - m) ** 2 / v + np.log(2 * np.pi * v))
    log_p = -0.5 * (x**2 + np.log(2 * np.pi))
    expected += np.sum(np.exp(log_q) * (log_q - log_p)) * dx
  kl = gaussian.kl_to_standard(jnp.asarray(mean), jnp.asarray(log_var))
  np.testing.assert_allclose(kl, expected, rtol=1e-5)
  assert gaussian.kl_to_standard(jnp.zeros((2, 3)), jnp.zeros((2, 3))).sum() == 0


def test_kl_of_two_gaussians_is_the_integral():
  mean1, var1, mean2, var2 = 0.3, 0.5, -0.4, 1.7
  x = np.linspace(-12, 12, 200_001)
  p, q = stats.norm(mean1, var1**0.5), stats.norm(mean2, var2**0.5)
  integral = np.trapezoid(p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), x)
  found = gaussian.kl(*(jnp.float32(v) for v in (mean1, var1, mean2, var2)))
  np.testing.assert_allclose(found, integral, rtol=1e-5)


@pytest.mark.parametrize("std", [0.001, 0.05, 3.0])
def test_the_levels_of_an_image_share_all_the_probability(std):
  levels = jnp.linspace(-1.0, 1.0, 256)
  log_p = gaussian.log_level(levels, jnp.float32(0.3), jnp.float32(std**2))
  np.testing.assert_allclose(jnp.exp(log_p).sum(), 1.0, atol=1e-5)
  inside = stats.norm(0.3, std)
  expected = inside.logcdf(-0.2 + 1 / 255) + np.log1p(
    -np.exp(inside.logcdf(-0.2 - 1 / 255) - inside.logcdf(-0.2 + 1 / 255))
  )  # In the tail, where a difference of CDFs in float32 would be 0.
  found = gaussian.log_level(jnp.float32(-0.2), jnp.float32(0.3), jnp.float32(std**2))
  np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_outer_levels_have_the_gradients_of_their_tails():
  """They reach to infinity: its gradient is zero, not NaN."""
  x = jnp.array([-1.0, 0.2, 1.0])
  log_p = lambda mean, var: gaussian.log_level(x, mean, var).sum()
  mean, var = 0.1, 0.25
  found = jax.jit(jax.grad(log_p, (0, 1)))(jnp.float32(mean), jnp.float32(var))
  step = 1e-6
  with jax.enable_x64(True):
    x = jnp.array([-1.0, 1 / 5, 1.0])
    slope = lambda f, at: (f(at + step) - f(at - step)) / (2 * step)
    expected = (
      slope(lambda m: log_p(m, var), mean),
      slope(lambda v: log_p(mean, v), var),
    )
  np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_reparameterised_gradient_is_that_of_the_expectation():
  # E z^2 = mean^2 + var: d/dmean = 2 mean, d/dlog_var = var.
  mean, log_var = jnp.full(200_000, 0.7), jnp.full(200_000, -0.5)
  loss = lambda m, v: jnp.mean(gaussian.sample(m, v, jax.random.key(0)) ** 2)
  by_mean, by_log_var = jax.jit(jax.grad(loss, argnums=(0, 1)))(mean, log_var)
  np.testing.assert_allclose(by_mean.sum(), 2 * 0.7, rtol=0.01)
  np.testing.assert_allclose(by_log_var.sum(), np.exp(-0.5), rtol=0.01)


def test_bernoulli_sums_to_one_over_all_images():
  logits = jnp.array([0.3, -2.0, 1.1, 0.0, 4.0])
  x = jnp.array(list(itertools.product([0.0, 1.0], repeat=5)))
  log_p = bernoulli.log_prob(x, jnp.broadcast_to(logits, x.shape))
  assert log_p.shape == (32,)
  np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, rtol=1e-6)


def test_bernoulli_is_the_log_probability_even_of_sure_logits():
  p = 1 / (1 + np.exp(-1.5))
  got = bernoulli.log_prob(jnp.array([[1.0], [0.0]]), jnp.array([[1.5], [1.5]]))
  np.testing.assert_allclose(got, np.log([p, 1 - p]), rtol=1e-6)
  sure = bernoulli.log_prob(jnp.array([[1.0], [0.0]]), jnp.full((2, 1), 200.0))
  np.testing.assert_allclose(sure, [0.0, -200.0], atol=1e-6)


# Two distributions over four points, as 8 draws each. Every discriminator is then
# a table of four scores, and its best table is known.
P, Q = np.array([4, 2, 1, 1]), np.array([1, 2, 2, 3])
p, q = P / 8, Q / 8


def value(loss, table):
  table = jnp.asarray(table)
  return loss.disc(jnp.repeat(table, P), jnp.repeat(table, Q))


def js_divergence():
  m = (p + q) / 2
  return 0.5 * np.sum(p * np.log(p / m)) + 0.5 * np.sum(q * np.log(q / m))


OPTIMA = {  # name: (best table of scores, loss there)
  "minimax": (np.log(p / q), 2 * np.log(2) - 2 * js_divergence()),
  "non_saturating": (np.log(p / q), 2 * np.log(2) - 2 * js_divergence()),
  "least_squares": (p / (p + q), 0.5 * np.sum(p * q / (p + q))),
  "hinge": (np.where(p == q, 0.5, np.sign(p - q)), 2 * np.sum(np.minimum(p, q))),
}


@pytest.mark.parametrize("name", OPTIMA)
def test_best_discriminator_has_the_known_loss(name):
  loss = getattr(adversarial, name)
  table, expected = OPTIMA[name]
  best = value(loss, table)
  np.testing.assert_allclose(best, expected, rtol=1e-6)
  rng = np.random.default_rng(0)
  for size in (0.01, 0.3, 3.0):
    assert value(loss, table + size * rng.standard_normal(4)) >= best - 1e-6


def test_equal_distributions_cannot_be_told_apart():
  scores = jnp.zeros(8)
  np.testing.assert_allclose(adversarial.minimax.disc(scores, scores), 2 * np.log(2))
  np.testing.assert_allclose(adversarial.minimax.gen(scores), -np.log(2))
  np.testing.assert_allclose(adversarial.hinge.disc(scores, scores), 2.0)
  half = adversarial.least_squares.disc(scores + 0.5, scores + 0.5)
  np.testing.assert_allclose(half, 0.25)


def test_wasserstein_of_a_shift_is_its_length():
  x = jnp.array([0.0, 1.0, 5.0])  # the best critic of a shift along x is x itself
  np.testing.assert_allclose(adversarial.wasserstein.disc(x, x - 2.5), -2.5)


@pytest.mark.parametrize(
  "name", ["minimax", "non_saturating", "least_squares", "hinge", "wasserstein"]
)
def test_players_pull_scores_the_right_way(name):
  loss = getattr(adversarial, name)
  scores = jnp.linspace(-0.9, 0.8, 6)
  by_real, by_fake = jax.jit(jax.grad(loss.disc, argnums=(0, 1)))(scores, scores + 0.1)
  assert np.all(by_real < 0)  # descending raises the scores of real images
  assert np.all(by_fake[scores + 0.1 > loss.boundary] > 0)
  assert np.all(jax.grad(loss.gen)(scores) < 0)


def test_only_minimax_starves_a_generator_that_fools_nobody():
  rejected = jnp.full(4, -20.0)
  minimax = jax.jit(jax.grad(adversarial.minimax.gen))(rejected)
  kept = jax.jit(jax.grad(adversarial.non_saturating.gen))(rejected)
  np.testing.assert_allclose(minimax, -np.exp(-20.0) / 4, rtol=1e-5)
  np.testing.assert_allclose(kept, -0.25, rtol=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 0.9, 0.6])
def test_one_sided_smoothing_scales_the_best_discriminator(alpha):
  loss = adversarial.one_sided_smoothing(alpha)
  best = alpha * p / (p + q)  # Section 3.4, beta = 0
  table = np.log(best / (1 - best))
  entropy = -np.sum(p * (alpha * np.log(best) + (1 - alpha) * np.log(1 - best)))
  entropy -= np.sum(q * np.log(1 - best))
  np.testing.assert_allclose(value(loss, table), entropy, rtol=1e-6)
  rng = np.random.default_rng(0)
  for size in (0.01, 0.3, 3.0):
    other = table + size * rng.standard_normal(4)
    assert value(loss, other) >= value(loss, table) - 1e-6
  undecided = table[p == q]
  np.testing.assert_allclose(loss.boundary, undecided, atol=1e-6)
  scores = jnp.linspace(-3.0, 3.0, 7)
  np.testing.assert_array_equal(
    loss.gen(scores), adversarial.non_saturating.gen(scores)
  )


@pytest.mark.parametrize("alpha", [0.0, 1.1])
def test_smoothing_wants_a_probability(alpha):
  with pytest.raises(ValueError, match=f"real_label={alpha}"):
    adversarial.one_sided_smoothing(alpha)


@pytest.mark.parametrize("a, b, c", [(0.0, 1.0, 1.0), (-1.0, 1.0, 0.0), (-2, 3, 1)])
def test_least_squares_of_any_coding(a, b, c):
  loss = adversarial.least_squares_coded(a, b, c)
  table = (b * p + a * q) / (p + q)  # Eq. 5
  best = value(loss, table)
  np.testing.assert_allclose(
    best, 0.5 * (b - a) ** 2 * np.sum(p * q / (p + q)), rtol=1e-6
  )
  rng = np.random.default_rng(0)
  for size in (0.01, 0.3, 3.0):
    assert value(loss, table + size * rng.standard_normal(4)) >= best - 1e-6
  np.testing.assert_allclose(loss.boundary, table[p == q])
  aim = jax.jit(jax.grad(loss.gen))(jnp.full(3, float(c)))
  np.testing.assert_array_equal(aim, np.zeros(3))


def test_least_squares_generator_descends_on_pearson():
  """Eq. 7 with b - c = 1 and b - a = 2, with the generator's loss of real images."""
  loss = adversarial.least_squares_coded(-1.0, 1.0, 0.0)
  table = jnp.asarray((p - q) / (p + q))
  both = loss.gen(jnp.repeat(table, P)) + loss.gen(jnp.repeat(table, Q))
  pearson = np.sum((p + q - 2 * q) ** 2 / (p + q))
  np.testing.assert_allclose(both, pearson / 2, rtol=1e-6)


def test_codes_out_of_order_are_errors():
  with pytest.raises(ValueError, match=r"a=1.0, b=0.0, c=2.0: expected b and c above"):
    adversarial.least_squares_coded(1.0, 0.0, 2.0)
