"""Penalties of critics whose gradients are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.losses.penalties import between, gradient_penalty, zero_centered

X = np.random.default_rng(0).standard_normal((5, 2, 3, 1))
W = np.random.default_rng(1).standard_normal((2, 3, 1))
A = np.random.default_rng(2).standard_normal((6, 6))


def linear(w):
  return lambda x: jnp.tensordot(x, w, 3)


def quadratic(a):
  """score = x a x / 2, of gradient (a + a^T) x / 2."""

  def score(x):
    x = x.reshape(len(x), -1)
    return 0.5 * jnp.einsum("bi,ij,bj->b", x, a, x)

  return score


def test_penalty_of_a_linear_critic_is_its_distance_from_slope_one():
  with jax.enable_x64(True):
    for scale in (0.1, 1.0, 3.0):
      w = scale * W / np.linalg.norm(W)
      got = gradient_penalty(linear(w), jnp.asarray(X))
      np.testing.assert_allclose(got, np.full(5, (scale - 1) ** 2), atol=1e-14)
      one = gradient_penalty(linear(w), jnp.asarray(X), target=0.5, one_sided=True)
      expected = np.full(5, max(scale - 0.5, 0.0) ** 2)
      np.testing.assert_allclose(one, expected, atol=1e-14)


def test_each_example_of_a_quadratic_critic_has_its_own_slope():
  with jax.enable_x64(True):
    squared = zero_centered(quadratic(A), jnp.asarray(X))
    penalty = gradient_penalty(quadratic(A), jnp.asarray(X), target=0.3)
  slopes = np.linalg.norm(X.reshape(5, 6) @ (A + A.T) / 2, axis=1)
  np.testing.assert_allclose(squared, slopes**2, rtol=1e-12)
  np.testing.assert_allclose(penalty, (slopes - 0.3) ** 2, rtol=1e-12)


def test_gradient_by_the_weights_is_that_of_the_formula():
  """d/dw (|w| - 1)^2 = 2 (1 - 1/|w|) w, and d/ds |s x|^2 = 2 s |x|^2."""
  with jax.enable_x64(True):
    x = jnp.asarray(X)
    by_w = jax.jit(jax.grad(lambda w: gradient_penalty(linear(w), x).mean()))(
      jnp.asarray(W)
    )
    isotropic = lambda s: zero_centered(quadratic(s * jnp.eye(6)), x).mean()
    by_s = jax.jit(jax.grad(isotropic))(0.7)
  np.testing.assert_allclose(by_w, 2 * (1 - 1 / np.linalg.norm(W)) * W, rtol=1e-12)
  np.testing.assert_allclose(by_s, 2 * 0.7 * (X**2).sum() / 5, rtol=1e-12)


def test_gradient_of_a_network_equals_finite_differences():
  with jax.enable_x64(True):
    x = jnp.asarray(X.reshape(5, 6))

    def penalty(w):
      score = lambda x: jnp.tanh(x @ w).sum(-1) ** 2
      return (gradient_penalty(score, x) + 0.5 * zero_centered(score, x)).mean()

    step = 1e-5 * jnp.asarray(np.random.default_rng(3).standard_normal(A.shape))
    slope = jnp.vdot(jax.grad(penalty)(jnp.asarray(A)), step)
    difference = (penalty(A + step) - penalty(A - step)) / 2
  np.testing.assert_allclose(slope, difference, rtol=1e-7)


@pytest.mark.parametrize("one_sided, value", [(False, 1.0), (True, 0.0)])
def test_a_flat_critic_has_a_finite_gradient(one_sided, value):
  penalty = lambda w: gradient_penalty(
    linear(w), jnp.asarray(X), one_sided=one_sided
  ).mean()
  found, gradient = jax.jit(jax.value_and_grad(penalty))(jnp.zeros(W.shape))
  assert found == value
  np.testing.assert_array_equal(gradient, np.zeros(W.shape))


def test_a_score_of_several_rows_has_one_slope():
  """Three packs of two rows each: the norm is of the gradient by both."""
  rng = np.random.default_rng(4)
  x, a = rng.standard_normal((6, 2, 3, 1)), rng.standard_normal((12, 12))
  w = rng.standard_normal(12)
  packed = lambda score: lambda x: score(x.reshape(3, 12))
  with jax.enable_x64(True):
    flat = gradient_penalty(packed(lambda x: x @ w / np.linalg.norm(w)), jnp.asarray(x))
    squared = zero_centered(packed(quadratic(a)), jnp.asarray(x))
    middle = between(jnp.asarray(x), 0 * x, jnp.array([0.0, 0.5, 1.0]))
  np.testing.assert_allclose(flat, np.zeros(3), atol=1e-14)
  slopes = x.reshape(3, 12) @ (a + a.T) / 2
  np.testing.assert_allclose(squared, (slopes**2).sum(1), rtol=1e-12)
  expected = [0 * x[:2], x[2:4] / 2, x[4:]]
  np.testing.assert_allclose(middle, np.concatenate(expected), atol=1e-14)


def test_points_between_lie_on_the_lines():
  real, fake = jnp.asarray(X), jnp.asarray(-X + 1)
  t = jnp.array([0.0, 0.25, 0.5, 0.75, 1.0])
  expected = [t_ * r + (1 - t_) * f for t_, r, f in zip(t, real, fake, strict=True)]
  np.testing.assert_allclose(between(real, fake, t), np.stack(expected), rtol=1e-6)
