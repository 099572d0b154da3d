"""Drawing tokens: closed forms of the filters, and one loop over positions."""

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.autoregressive.decoding import Sampler, generate, recompute

PROBS = np.float32([0.1, 0.4, 0.05, 0.25, 0.2])
LOGITS = jnp.log(PROBS)


def probs(**kwargs):
  return np.asarray(jax.nn.softmax(Sampler(**kwargs).filtered(LOGITS[None]))[0])


def only(*tokens):
  kept = np.where(np.isin(np.arange(5), tokens), PROBS, 0)
  return kept / kept.sum()


def test_temperature_is_a_power_of_the_probabilities():
  np.testing.assert_allclose(probs(), PROBS, rtol=1e-5)
  squares = PROBS**2
  np.testing.assert_allclose(probs(temperature=0.5), squares / squares.sum(), rtol=1e-5)


@pytest.mark.parametrize(
  ("options", "tokens"),
  [
    ({"top_k": 1}, [1]),
    ({"top_k": 3}, [1, 3, 4]),
    ({"top_k": 9}, [0, 1, 2, 3, 4]),
    ({"top_p": 0.39}, [1]),
    ({"top_p": 0.41}, [1, 3]),  # 0.4 is less than it, 0.65 is not
    ({"top_p": 0.64}, [1, 3]),
    ({"top_p": 0.66}, [1, 3, 4]),
    ({"top_p": 0.96}, [0, 1, 2, 3, 4]),
    ({"top_k": 3, "top_p": 0.7}, [1, 3]),  # of 0.85: 0.47, then 0.76
  ],
)
def test_filters_keep_the_most_likely(options, tokens):
  np.testing.assert_allclose(probs(**options), only(*tokens), rtol=1e-5, atol=1e-7)


def test_the_temperature_comes_first():
  # Of the squares, normalised: 0.582, 0.227, ...
  found = probs(temperature=0.5, top_p=0.6)
  expected = only(1, 3) ** 2
  np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-5)


def test_draws_have_these_frequencies():
  logits = jnp.broadcast_to(LOGITS, (20_000, 5))
  drawn = Sampler(top_k=3).draw(logits, random.key(0))
  assert drawn.dtype == jnp.int32
  found = np.bincount(np.asarray(drawn), minlength=5) / len(logits)
  np.testing.assert_allclose(found, only(1, 3, 4), atol=0.015)
  assert found[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize(
  "options",
  [{"temperature": 0.0}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0.0}],
)
def test_wrong_options_are_named(options):
  with pytest.raises(ValueError, match=f"{next(iter(options))}=.*expected"):
    Sampler(**options).checked()


def chain_logits(tokens):
  """Almost surely token + 1 modulo 5 follows, but for the position, which is added."""
  following = tokens + 1 + jnp.arange(tokens.shape[1])[None]
  return 50.0 * jax.nn.one_hot(following % 5, 5)


def chain_step(carry, token, position):
  return carry + 1, 50.0 * jax.nn.one_hot((token + 1 + position) % 5, 5)


def test_generate_feeds_back_what_it_drew_and_keeps_what_is_given():
  given = jnp.array([[0, 3, 4, 4, 4, 4], [2, 0, 4, 4, 4, 4]])
  expected = [[0, 3, 0, 3, 2, 2], [2, 0, 2, 0, 4, 4]]
  draw = lambda step, carry, num: generate(
    step, carry, given, num, random.key(0), Sampler()
  ).tolist()
  assert draw(chain_step, 0, 2) == expected
  assert draw(recompute(chain_logits), given[:, :-1] * 0, 2) == expected
  assert draw(chain_step, 0, 6) == given.tolist()
  for num in (0, 7):
    with pytest.raises(ValueError, match=f"num_given={num}"):
      draw(chain_step, 0, num)
