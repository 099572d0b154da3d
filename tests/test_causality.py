"""The proofs of `causality.py` catch what they are for."""

from causality import all_sequences, check_causal, check_sums_to_one, dependence
import jax.numpy as jnp
import numpy as np
import pytest

X = np.linspace(0.5, 1.5, 8, dtype=np.float32).reshape(4, 2)


def before(x):
  """Sums over strictly earlier positions: predict[i] of inputs[j < i]."""
  return jnp.cumsum(x**2, axis=0) - x**2


def test_dependence_is_the_jacobian():
  # of x_j^2, in each of two channels: 2 x_j
  expected = np.tril(np.ones((4, 4)), -1) * (2 * X.sum(axis=1))[None]
  np.testing.assert_allclose(dependence(before, X), expected, rtol=1e-5)


def test_causal_models_pass():
  shift = lambda x: jnp.concatenate([jnp.zeros((1, 2)), x[:-1]])
  check_causal(lambda x: jnp.cumsum(shift(x) ** 2, axis=0), X)
  check_causal(shift, X, sees_all=False)
  with pytest.raises(AssertionError, match="does not see"):
    check_causal(shift, X)
  with pytest.raises(AssertionError, match="see nothing"):
    check_causal(jnp.zeros_like, X, sees_all=False)


@pytest.mark.parametrize(
  "leak", [lambda x: jnp.cumsum(x, axis=0), lambda x: 1e-20 * jnp.roll(x, -1, axis=0)]
)
def test_leaks_are_found_however_small(leak):
  with pytest.raises(AssertionError, match="not zero"):
    check_causal(leak, X, sees_all=False)


def test_sums():
  assert all_sequences(3, 2).tolist()[:4] == [[0, 0], [0, 1], [0, 2], [1, 0]]
  uniform = lambda x: jnp.full(len(x), -2 * jnp.log(3.0))
  check_sums_to_one(uniform, 3, 2)
  with pytest.raises(AssertionError):
    check_sums_to_one(lambda x: uniform(x) + 1e-3, 3, 2)
