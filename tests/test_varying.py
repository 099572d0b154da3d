"""The proof that replicas stay equal fails where they do not."""

import jax
from jax import lax
import jax.numpy as jnp
import optax
import pytest
import toy
import varying

from jaxgen import parallel

AXIS = parallel.AXIS
index = lambda: lax.axis_index(AXIS).astype(jnp.float32)


def found(fn, *given):
  """What varies over devices of fn(3 numbers), where they do or do not."""
  traced = jax.make_jaxpr(fn, axis_env=[(AXIS, 2)])(1.0, 2.0, 3.0)
  return varying.varying(traced.jaxpr, list(given))


def scanned(x, y, z):
  """z is in the carry after x's turn, which takes two to reach y."""
  turn = lambda carry, _: ((carry[0], carry[0], carry[1]), carry[2])
  return lax.scan(turn, (x, y, z), length=3)


@pytest.mark.parametrize(
  ("fn", "given", "expected"),
  [
    (lambda x, y, z: (x + y, x * z), (False, True, False), [True, False]),
    (lambda x, y, z: (lax.pmean(x, AXIS) + y,), (True, False, False), [False]),
    (lambda x, y, z: (lax.pmax(x, AXIS) + y,), (True, True, False), [True]),
    (
      lambda x, y, z: (
        jax.vmap(lambda v: lax.psum(v, "rows"), axis_name="rows")(x * jnp.ones(3)),
      ),
      (True, False, False),
      [True],
    ),
    (
      lambda x, y, z: (lax.psum(x, AXIS, axis_index_groups=[[0], [1]]),),
      (True, False, False),
      [True],
    ),
    (lambda x, y, z: (x, x + index()), (False, False, False), [False, True]),
    (scanned, (True, False, False), [True] * 4),
    (scanned, (False, False, True), [False, False, True, True]),
    (
      lambda x, y, z: lax.cond(x > 0, lambda: (y, z), lambda: (z, 2 * z)),
      (False, True, False),
      [True, False],
    ),
    (
      lambda x, y, z: lax.cond(x > 0, lambda: (y, z), lambda: (z, 2 * z)),
      (True, False, False),
      [True, True],
    ),
    (
      lambda x, y, z: lax.while_loop(
        lambda c: c[0] < 9, lambda c: (c[0] + 1, c[1] * z), (x, y)
      ),
      (False, False, True),
      [False, True],
    ),
    (
      lambda x, y, z: lax.while_loop(
        lambda c: c[0] < y, lambda c: (c[0] + 1, c[1] * z), (x, z)
      ),
      (False, True, False),
      [True, True],
    ),
    (jax.jit(lambda x, y, z: (x, jax.nn.relu(y))), (True, False, True), [True, False]),
  ],
)
def test_what_varies(fn, given, expected):
  assert found(fn, *given) == expected


def test_replicas_of_a_step_without_averages_part(monkeypatch):
  method, spec = toy.toy(toy.Net(), tx=optax.sgd(0.1)), toy.Numbers.spec
  state = parallel.abstract_state(method.init, spec)
  assert varying.apart(method, state, spec) == []
  monkeypatch.setattr(parallel, "pmean", lambda tree: tree)
  found = {path.split("[")[1] for path in varying.apart(method, state, spec)}
  assert found >= {"0].params"}
