"""Rational-quadratic splines, and the flow of them."""

import math
from pathlib import Path

from golden.make_flow_maf import BINS, BOUND, inputs
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.flow.likelihood import normal
from jaxgen.flow.neural_spline import network, neural_spline
from jaxgen.ops import spline

GOLDEN = Path(__file__).parent / "golden" / "flow_maf.npz"
KEY = jax.random.key(0)
RAW = 1.5 * np.random.default_rng(1).standard_normal(3 * 5 - 1)


@pytest.fixture(scope="module")
def curve():
  """One spline of 5 bins in [-2, 2], by name, and `spline.forward` of it on a line."""
  with jax.enable_x64(True):
    line = np.linspace(-3, 3, 6001)

    @jax.jit
    def run(raw, line):
      of = spline.knots(raw, 2.0)
      tile = jax.tree.map(lambda v: jnp.tile(v, (len(line), 1)), of)
      y, log_slope = spline.forward(line, tile)
      one = lambda x: spline.forward(x, of)[0]
      slope = jax.vmap(jax.grad(one))(line)
      # In, just below and just above each knot.
      near = of.x[:, None] + jnp.array([0.0, -1e-9, 1e-9])[None]
      at_knots = jax.vmap(jax.vmap(jax.value_and_grad(one)))(near)
      found = {"of": of, "y": y, "log_slope": log_slope, "slope": slope}
      return {**found, "back": spline.inverse(y, tile), "at_knots": at_knots}

    found = jax.device_get(run(jnp.asarray(RAW), jnp.asarray(line)))
  return {"line": line, **found}


def test_knots_end_at_the_bounds_and_ascend(curve):
  of = curve["of"]
  for edges in (of.x, of.y):
    assert (edges[0], edges[-1]) == (-2.0, 2.0)
    assert np.diff(edges).min() >= 4 * spline.MIN_BIN
  assert of.slope.min() >= spline.MIN_SLOPE
  assert (of.slope[0], of.slope[-1]) == (1.0, 1.0)


def test_spline_passes_through_its_knots_with_a_continuous_derivative(curve):
  """From both sides, at the bounds too."""
  of, (y, slope) = curve["of"], curve["at_knots"]
  np.testing.assert_allclose(y[:, 0], of.y, atol=1e-12)
  np.testing.assert_allclose(slope[:, 0], of.slope, rtol=1e-10)
  sides = np.repeat(of.slope[:, None], 2, axis=1)
  np.testing.assert_allclose(slope[:, 1:], sides, rtol=1e-5)


def test_spline_ascends_and_is_the_identity_outside(curve):
  line, y, log_slope = curve["line"], curve["y"], curve["log_slope"]
  assert np.diff(y).min() > 0
  outside = np.abs(line) > 2
  np.testing.assert_array_equal(y[outside], line[outside])
  np.testing.assert_array_equal(log_slope[outside], 0)
  assert np.abs(log_slope[~outside]).max() > 0.5
  np.testing.assert_allclose(np.exp(log_slope), curve["slope"], rtol=1e-10)


def test_inverse_undoes(curve):
  x, log_slope = curve["back"]
  np.testing.assert_allclose(x, curve["line"], atol=1e-12)
  np.testing.assert_allclose(log_slope, -curve["log_slope"], atol=1e-9)


def test_zeros_are_the_identity():
  x = jnp.linspace(-2.0, 2.0, 9)
  of = spline.knots(jnp.zeros((9, spline.num_parameters(4))), 1.5)
  y, log_slope = spline.forward(x, of)
  np.testing.assert_allclose(y, x, atol=1e-6)
  np.testing.assert_allclose(log_slope, 0, atol=1e-6)


def test_wrong_numbers_of_parameters_are_refused():
  with pytest.raises(ValueError, match=r"expected a last axis of 3 K - 1"):
    spline.knots(jnp.zeros((2, 9)), 1.0)


def test_splines_are_nflows():
  """Found: 1e-14 absolute. nflows' slopes of 0 are log 2; ours are 1."""
  golden = np.load(GOLDEN)
  _, values, raw = inputs()
  raw[..., 2 * BINS :] -= math.log(math.expm1(1 - spline.MIN_SLOPE))
  with jax.enable_x64(True):
    of = jax.jit(spline.knots, static_argnums=1)(jnp.asarray(raw), BOUND)
    for name in ("forward", "inverse"):
      found = np.stack(jax.jit(getattr(spline, name))(jnp.asarray(values), of))
      np.testing.assert_allclose(found, golden[f"spline/{name}"], atol=1e-8)


def wild(net, x, scale=0.3):
  """Variables of a network in float64, every parameter moved."""
  variables = jax.jit(net.init)(KEY, x)
  rng = np.random.default_rng(0)
  move = lambda v: jnp.asarray(v + scale * rng.uniform(-1, 1, v.shape))
  return {**variables, "params": jax.tree.map(move, variables["params"])}


def test_log_det_is_the_jacobians_and_inverse_undoes():
  net = network((2, 2, 1), hidden_dim=8, num_layers=2, num_blocks=1, num_bins=4)
  with jax.enable_x64(True):
    x = 2 * jax.random.normal(KEY, (6, 2, 2, 1), jnp.float64)
    variables = wild(net, x)

    @jax.jit
    def run(variables, x):
      z, log_det = jax.jit(net.apply)(variables, x)
      one = lambda row: net.apply(variables, row[None])[0][0]
      jacobian = jax.vmap(jax.jacobian(one))(x).reshape(-1, 4, 4)
      back = net.apply(variables, z, method="inverse")
      return log_det, jnp.linalg.slogdet(jacobian)[1], back

    log_det, expected, (x_again, log_det_back) = run(variables, x)
    assert np.std(log_det) > 0.1  # Some are inside of the splines' interval.
    np.testing.assert_allclose(log_det, expected, atol=1e-10)
    np.testing.assert_allclose(x_again, x, atol=1e-6)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-6)


def test_a_network_starts_as_a_permutation():
  net = network((2, 3, 1), hidden_dim=8, num_layers=3, num_blocks=1)
  x = 2 * jax.random.normal(KEY, (4, 2, 3, 1))
  z, log_det = jax.jit(net.apply)(jax.jit(net.init)(KEY, x), x)
  order = np.argmin(np.abs(x.reshape(4, 1, 6) - z[:, :, None]).max(0), axis=1)
  assert sorted(order) == list(range(6)) != list(order)
  np.testing.assert_allclose(z, x.reshape(4, 6)[:, order], atol=1e-5)
  np.testing.assert_allclose(log_det, np.zeros(4), atol=1e-5)


def test_density_of_two_values_integrates_to_one():
  net = network((1, 2, 1), hidden_dim=8, num_layers=2, num_blocks=1, num_bins=4)
  line, step = np.linspace(-8, 8, 601, retstep=True)
  grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 1, 2, 1)
  with jax.enable_x64(True):
    variables = wild(net, jnp.asarray(grid[:1]), 0.15)
    z, log_det = jax.jit(net.apply)(variables, jnp.asarray(grid))
    density = np.exp(normal.log_prob(z).sum(-1) + log_det)
  np.testing.assert_allclose(density.sum() * step**2, 1.0, atol=1e-3)


def test_training_finds_a_density_of_two_modes():
  """Pixels near black or near white, each of 4 levels: 3 bits are the least."""
  net = network((1, 2, 1), hidden_dim=16, num_layers=2, num_blocks=1)
  method = neural_spline(net, tx=optax.adam(0.01))
  level = np.random.default_rng(0).choice([10, 11, 12, 13, 240, 241, 242, 243], 256)
  batch = {"image": jnp.asarray(level.reshape(128, 1, 2, 1) / 127.5 - 1, jnp.float32)}
  state, step = jax.jit(method.init)(KEY, batch), jax.jit(method.train_step)
  losses = []
  for key in jax.random.split(KEY, 300):
    state, metrics = step(state, batch, key)
    losses.append(float(metrics["loss"]))
  assert losses[0] > 8.0  # A Gaussian of that mean and variance has 8.9.
  assert np.mean(losses[-20:]) < 7.0  # One mode from black to white has 8.


def test_odd_numbers_of_values_are_refused():
  with pytest.raises(ValueError, match=r"\(1, 3, 1\)"):
    network((1, 3, 1))
