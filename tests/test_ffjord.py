"""FFJORD: linear dynamics in closed form, exact determinants, inverses, gradients."""

import functools
from pathlib import Path
import sys

from flax import linen as nn
from flax import traverse_util
from golden.make_ffjord import NETWORK, images
from golden.make_ffjord import SHAPE as IMAGE
from golden.make_ffjord import state as authors_state
from golden.random_state import random_state
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from jaxgen.flow.ffjord import (
  ContinuousFlow,
  Dynamics,
  conv_network,
  estimated_trace,
  exact_trace,
  network,
)
from jaxgen.ops.ode import NUM_STAGES, Tolerance, solve

KEY = jax.random.key(0)
FINE = Tolerance(1e-10, 1e-10, 256)
MATRIX = np.array([[0.3, 1.0, -0.2], [-1.2, -0.5, 0.4], [0.1, 0.6, 0.8]])
SHAPE = (1, 3, 1)


class Linear(nn.Module):
  """dx/dt = A x."""

  @nn.compact
  def __call__(self, t, x):
    return x @ self.param("a", lambda _: jnp.asarray(MATRIX)).T


def jit(fn):
  """Compiled, with numpy arrays as results: JAX ones are cut to 32 bits outside."""
  return lambda *args: jax.device_get(jax.jit(fn)(*args))


def rattled(net, *inputs, scale=0.5):
  """Float64 variables with large time dependence."""
  rng = np.random.default_rng(0)
  variables = jax.jit(net.init)(KEY, *inputs)
  move = lambda v: jnp.asarray(v + scale * rng.standard_normal(v.shape), jnp.float64)
  return {**variables, "params": jax.tree.map(move, variables["params"])}


@functools.cache
def network_of(tolerance=FINE, shape=SHAPE, scale=0.5):
  net = network(shape, hidden_dims=(8,), time=1.2, tolerance=tolerance)
  with jax.enable_x64(True):
    return net, rattled(net, jnp.zeros((1, *shape)), scale=scale)


def test_linear_dynamics_in_closed_form():
  """z = expm(A T) x and log_det = T tr(A), for every row."""
  flow = ContinuousFlow(Linear(), time=1.7, tolerance=FINE)
  with jax.enable_x64(True):
    x = jax.random.normal(KEY, (5, 3), jnp.float64)
    variables = {"params": {"dynamics": {"a": jnp.asarray(MATRIX)}}}
    z, log_det = jit(flow.apply)(variables, x)
    x = np.asarray(x)
  np.testing.assert_allclose(z, x @ expm(1.7 * MATRIX).T, atol=1e-8)
  np.testing.assert_allclose(log_det, np.full(5, 1.7 * np.trace(MATRIX)), atol=1e-9)


def test_log_det_is_that_of_the_jacobian_and_inverse_undoes():
  net, variables = network_of()
  with jax.enable_x64(True):
    x = jax.random.normal(KEY, (4, *SHAPE), jnp.float64)
    z, log_det = jit(net.apply)(variables, x)
    one = lambda v: net.apply(variables, v.reshape(1, *SHAPE))[0][0]
    jacobian = jit(jax.vmap(jax.jacrev(one)))(x.reshape(4, -1))
    back = jit(lambda z: net.apply(variables, z, method="inverse"))(z)
    x = np.asarray(x)
  assert np.abs(z - x.reshape(4, -1)).max() > 0.5
  assert np.abs(log_det).mean() > 0.1
  np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, atol=1e-8)
  np.testing.assert_allclose(back[0], x, atol=1e-8)
  np.testing.assert_allclose(back[1], -log_det, atol=1e-8)


def test_inverse_in_single_precision():
  net, variables = network_of(Tolerance(1e-6, 1e-6), scale=0.3)
  single = jax.tree.map(lambda v: v.astype(np.float32), variables)
  x = jax.random.normal(KEY, (64, *SHAPE))
  z, _ = jit(net.apply)(single, x)
  back, _ = jit(lambda z: net.apply(single, z, method="inverse"))(z)
  assert back.dtype == np.float32
  assert np.abs(z - x.reshape(64, -1)).max() > 0.5
  np.testing.assert_allclose(back, x, atol=1e-5)


def test_density_of_two_values_integrates_to_one():
  net, variables = network_of(Tolerance(1e-6, 1e-6), (1, 2, 1), 0.4)
  with jax.enable_x64(True):
    line, step = np.linspace(-12, 12, 121, retstep=True)
    grid = jnp.asarray(np.stack(np.meshgrid(line, line), -1).reshape(-1, 1, 2, 1))
    z, log_det = jit(net.apply)(variables, grid)
  log_p = -0.5 * (z**2).sum(-1) - np.log(2 * np.pi) + log_det
  np.testing.assert_allclose(np.exp(log_p).sum() * step**2, 1, rtol=1e-4)


def test_estimate_is_unbiased_and_draws_for_every_row():
  net, variables = network_of(Tolerance(1e-6, 1e-6))
  with jax.enable_x64(True):
    x = jnp.repeat(jax.random.normal(KEY, (1, *SHAPE), jnp.float64), 20_000, 0)
    train = lambda v, key: net.apply(v, x, train=True, rngs={"draws": key})
    z, draws = jit(train)(variables, KEY)
    exact_z, exact = jit(net.apply)(variables, x[:1])
  np.testing.assert_allclose(z, np.repeat(exact_z, len(z), 0), atol=1e-4)
  error = np.std(draws) / np.sqrt(len(draws))
  assert len(np.unique(np.round(draws, 6))) == 4  # Signs of 3 values: v and -v agree.
  assert np.abs(exact[0]) > 20 * error
  assert np.abs(np.mean(draws) - exact[0]) < 4 * error


def test_signs_are_exact_for_a_diagonal_jacobian():
  field = lambda a, t, x: jnp.tanh(a * x) * (1 + t)
  with jax.enable_x64(True):
    a = jnp.array([0.5, -2.0, 1.5])
    x = jax.random.normal(KEY, (6, 3), jnp.float64)
    v = jax.random.rademacher(KEY, (6, 3), jnp.float64)
    t = jnp.asarray(0.3)
    exact = jit(jax.vmap(lambda x: exact_trace(field)(a, t, (x, t), None)[1]))(x)
    guess = jit(jax.vmap(lambda x, v: estimated_trace(field)(a, t, (x, t), v)[1]))(x, v)
    a, x = np.asarray(a), np.asarray(x)
  direct = (1.3 * a[None] * (1 - np.tanh(a[None] * x) ** 2)).sum(-1)
  np.testing.assert_allclose(exact, direct, rtol=1e-12)
  np.testing.assert_allclose(guess, direct, rtol=1e-12)


def test_gradients_equal_those_of_fine_fixed_steps():
  """Of params, y and rows, through 400 steps of the classical Runge-Kutta method."""
  net = Dynamics((8,))
  augmented = estimated_trace(lambda v, t, x: net.apply(v, t, x))

  def fixed(variables, y, v, steps=400):
    field = jax.vmap(augmented, in_axes=(None, None, 0, 0))
    h = 1.0 / steps
    plus = lambda y, w, k: jax.tree.map(lambda y, k: y + w * k, y, k)

    def step(y, i):
      t = i * h
      k1 = field(variables, t, y, v)
      k2 = field(variables, t + h / 2, plus(y, h / 2, k1), v)
      k3 = field(variables, t + h / 2, plus(y, h / 2, k2), v)
      k4 = field(variables, t + h, plus(y, h, k3), v)
      for w, k in ((1, k1), (2, k2), (2, k3), (1, k4)):
        y = plus(y, w * h / 6, k)
      return y, None

    return jax.lax.scan(step, y, jnp.arange(steps))[0]

  adaptive = lambda *args: solve(
    augmented, *args, start=0.0, end=1.0, tolerance=Tolerance(1e-9, 1e-9)
  )[0]
  # Rows in unlike numbers of steps, and no common divisor with the groups but 1.
  with jax.enable_x64(True):
    size = jnp.array([0.1, 1.0, 6.0])[:, None]
    x = size * jax.random.normal(KEY, (3, 4), jnp.float64)
    v = jax.random.normal(jax.random.key(1), (3, 4), jnp.float64)
    args = rattled(net, 0.0, x), (x, jnp.zeros(3)), v
    weights = jnp.array([[1.0, -2.0, 0.5, 1.0]])

    def loss(run, *args):
      z, log_det = run(*args)
      return (weights * jnp.sin(z)).sum() + (log_det**2).sum()

    grads = lambda run: jit(jax.grad(functools.partial(loss, run), (0, 1, 2)))
    found, expected = grads(adaptive)(*args), grads(fixed)(*args)
  flat, _ = jax.tree.flatten(expected)
  assert min(np.abs(g).max() for g in flat) > 1e-3
  for a, b in zip(jax.tree.leaves(found), flat, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_rows_have_steps_of_their_own_and_count_them():
  """dx/dt = r cos(r t): a row's steps do not depend on the others."""
  calls = []

  def field(params, t, y, rate):
    jax.debug.callback(calls.append, rate)
    return rate * jnp.cos(rate * t)

  tolerance = Tolerance(1e-8, 1e-8, 2048)
  run = lambda rates: solve(
    field, (), jnp.zeros_like(rates), rates, start=0.0, end=2.0, tolerance=tolerance
  )
  with jax.enable_x64(True):
    rates = jnp.array([1.0, 60.0])
    both, counts = jit(run)(rates)
    alone = [jit(run)(rates[i : i + 1]) for i in range(2)]
    jax.effects_barrier()
    calls.clear()
    _, number = jit(run)(rates[1:])
    jax.effects_barrier()
    rates = np.asarray(rates)
  np.testing.assert_allclose(both, np.sin(2 * rates), atol=1e-6)
  assert counts[1] > 5 * counts[0]
  assert (counts[0] - 1) % NUM_STAGES == 0
  for i, (value, count) in enumerate(alone):
    np.testing.assert_allclose(value[0], both[i], atol=1e-14)
    assert count[0] == counts[i]
  # A few more are made where diffrax asks for shapes, and dropped but for the callback.
  assert 0 <= len(calls) - number[0] < NUM_STAGES


def test_too_few_steps_are_seen():
  few = Tolerance(1e-6, 1e-6, max_steps=12)
  field = lambda params, t, y, rate: rate * jnp.cos(rate * t)
  rates = jnp.array([1.0, 300.0])
  found, _ = solve(field, (), rates * 0, rates, start=0.0, end=2.0, tolerance=few)
  np.testing.assert_allclose(found[0], np.sin(2.0), atol=1e-5)
  assert np.isnan(found[1])


def test_missing_diffrax_is_told(monkeypatch):
  monkeypatch.setitem(sys.modules, "diffrax", None)
  with pytest.raises(ImportError, match=r"jaxgen\[ode\]"):
    solve(lambda p, t, y, _: y, (), jnp.ones((1, 1)), start=0.0, end=1.0)


def of_authors(theirs):
  """Our parameters of NETWORK, from those of the authors' by name."""
  found = {}
  for name, value in theirs.items():
    _, level, _, i, *_, layer, _, kind = name.split(".")
    value = value if kind == "bias" else value.transpose(2, 3, 1, 0)
    key = f"levels_{level}_{i}", "dynamics", f"Conv_{layer}"
    found[(*key, "bias" if kind == "bias" else "kernel")] = value
  return traverse_util.unflatten_dict(found)


@pytest.fixture(scope="module")
def authors():
  """Weights and images of a network of the authors', and what theirs made of them."""
  golden = np.load(Path(__file__).parent / "golden" / "ffjord.npz")
  names = [name for name in golden.files if name.startswith("grad/")]
  shapes = {name.removeprefix("grad/"): golden[name].shape for name in names}
  return authors_state(random_state(shapes)), images(), golden


def test_convolutions_are_those_of_the_authors_code(authors):
  """z, log_det and gradients, in float64."""
  theirs, x, golden = authors
  net = conv_network(IMAGE, **NETWORK, tolerance=Tolerance(1e-7, 1e-7), exact=True)

  def loss(theirs, x):
    z, log_det = net.apply({"params": of_authors(theirs)}, x)
    return (z**2).sum() / 2 - log_det.sum(), (z, log_det)

  with jax.enable_x64(True):
    found = jit(jax.value_and_grad(loss, has_aux=True))(theirs, jnp.asarray(x))
  (_, (z, log_det)), grads = found
  parts = golden["z"][:, :32], golden["z"][:, 32:]  # What left first, and the rest.
  last = lambda v: v.reshape(2, 2, 4, 4).transpose(0, 2, 3, 1).reshape(2, -1)
  np.testing.assert_allclose(z, np.concatenate([*map(last, parts)], 1), atol=1e-6)
  np.testing.assert_allclose(log_det, golden["log_det"], atol=1e-6)
  for name, grad in grads.items():
    np.testing.assert_allclose(grad, golden[f"grad/{name}"], atol=2e-5, err_msg=name)


def test_convolutions_are_undone_and_their_estimates_are_right(authors):
  theirs, x, golden = authors
  options = dict(**NETWORK, tolerance=Tolerance(1e-6, 1e-6))
  net = conv_network(IMAGE, **options)

  def run(theirs, x, keys):
    variables = {"params": of_authors(theirs)}
    estimate = lambda key: net.apply(variables, x, rngs={"draws": key})
    z, draws = jax.vmap(estimate)(keys)
    return z, draws, net.apply(variables, z[0], method="inverse")

  with jax.enable_x64(True):
    keys = jax.random.split(KEY, 64)
    _, draws, back = jit(run)(theirs, jnp.asarray(x), keys)
  np.testing.assert_allclose(back[0], x, atol=1e-5)
  np.testing.assert_allclose(back[1], -golden["log_det"], atol=1e-5)
  error = draws.std(0) / np.sqrt(len(draws))
  assert (error > 0).all() and (error < 1).all()
  np.testing.assert_array_less(np.abs(draws.mean(0) - golden["log_det"]), 4 * error)


def test_paper_network_has_the_authors_number_of_parameters():
  """Theirs says 800,646; ten are of T, which none of its gradients reach."""
  net = conv_network((28, 28, 1), tolerance=Tolerance())
  shapes = jax.eval_shape(net.init, KEY, jnp.zeros((1, 28, 28, 1)))
  assert sum(v.size for v in jax.tree.leaves(shapes["params"])) == 800_646 - 10


def test_sides_that_cannot_be_halved_are_refused():
  with pytest.raises(ValueError, match=r"divisible by 2\^2"):
    conv_network((6, 6, 1), tolerance=Tolerance())
