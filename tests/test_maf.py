"""MADE and MAF: what sees what, determinants, inverses, densities, nflows."""

import math
from pathlib import Path

from golden.make_flow_maf import BLOCKS, HIDDEN, LAYERS, SIZE, inputs
from golden.random_state import random_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.flow.likelihood import normal
from jaxgen.flow.maf import Conditioner, maf, network
from jaxgen.nn.made import AffineAutoregressive, Made

GOLDEN = Path(__file__).parent / "golden" / "flow_maf.npz"
KEY = jax.random.key(0)


def randomized(variables, scale=0.4, seed=0):
  """Every number moved, in float64; what must be positive stays so."""
  rng = np.random.default_rng(seed)
  move = lambda v: jnp.asarray(v + scale * rng.uniform(-1, 1, v.shape))
  return jax.tree.map(move, variables)


@pytest.mark.parametrize(
  ("order", "is_residual"),
  [
    ([0, 1, 2, 3, 4], True),
    ([4, 3, 2, 1, 0], False),
    ([2, 0, 4, 1, 3], True),
    ([2, 0, 4, 1, 3], False),
    ([0], True),
  ],
)
def test_an_output_depends_on_all_inputs_before_it_and_no_other(order, is_residual):
  made = Made(np.array(order), 24, 2, num_outputs=3, is_residual=is_residual)
  x = jax.random.normal(KEY, (6, len(order)))

  @jax.jit
  def influence():
    shapes = jax.eval_shape(made.init, KEY, x)
    variables = randomized(jax.tree.map(lambda s: np.zeros(s.shape), shapes), 0.7)
    one = lambda row: made.apply(variables, row[None])[0]
    return jnp.abs(jax.vmap(jax.jacobian(one))(x)).sum((0, 2))

  before = np.array(order)[None, :] < np.array(order)[:, None]
  np.testing.assert_array_equal(np.asarray(influence()) > 0, before)


def test_made_refuses_what_is_no_order():
  with pytest.raises(ValueError, match="permutation of 0 to 2"):
    Made(np.array([1, 2, 3]), 8).init(KEY, jnp.zeros((1, 3)))


def test_a_new_network_is_the_identity():
  net = network((2, 2, 1), hidden_dim=8, num_layers=2)
  x = jax.random.normal(KEY, (3, 2, 2, 1))
  z, log_det = jax.jit(lambda: net.init_with_output(KEY, x)[0])()
  np.testing.assert_array_equal(z, x.reshape(3, 4))
  np.testing.assert_array_equal(log_det, np.zeros(3))


def test_constant_mu_and_alpha_are_a_gaussian():
  """u = (x - mu) e^-alpha: log p(x) = log N(x; mu, e^(2 alpha))."""
  made = Made(np.arange(3), 4, num_outputs=2)
  layer = AffineAutoregressive(Conditioner(made), np.arange(3))
  x, alpha, mu = np.array([[0.3, -1.0, 2.0]]), np.array([0.5, -0.2, 1.0]), 0.7
  with jax.enable_x64(True):
    variables = jax.jit(layer.init)(KEY, jnp.asarray(x))
    bias = jnp.stack([alpha, np.full(3, mu)], -1).reshape(-1)
    variables["params"]["conditioner"]["made"]["MaskedDense_3"]["bias"] = bias
    z, log_det = jax.jit(layer.apply)(variables, jnp.asarray(x))
    found = normal.log_prob(z).sum(-1) + log_det
  squares = ((x - mu) / np.exp(alpha)) ** 2
  expected = -0.5 * (squares + np.log(2 * np.pi)) - alpha
  np.testing.assert_allclose(found, expected.sum(-1), rtol=1e-12)


@pytest.mark.parametrize("slope", [200.0, -200.0])
def test_samples_far_from_the_data_stay_finite(slope):
  """alpha_i = slope x_{i-1}, which without a bound is inf, or shift is, from x_1 on."""
  made = Made(np.arange(4), 4, 1, num_outputs=2, is_residual=False)
  layer = AffineAutoregressive(Conditioner(made), np.arange(4))
  shapes = jax.eval_shape(layer.init, KEY, jnp.zeros((1, 4)))
  variables = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
  kernels = variables["params"]["conditioner"]["made"]
  for i in range(2):  # Unit j of both hidden layers is x_j; alpha_i reads unit i - 1.
    kernels[f"MaskedDense_{i}"]["kernel"] = np.eye(4, dtype=np.float32)
  kernels["MaskedDense_2"]["kernel"][range(3), [2, 4, 6]] = slope
  inverse = jax.jit(lambda z: layer.apply(variables, z, method="inverse"))
  x, log_det = inverse(jnp.ones((1, 4)))
  # e^-7 is small enough for an alpha that is not clipped.
  alpha = [0.0, 7.0, 7.0, 7.0] if slope > 0 else [0.0, -7.0, slope * math.exp(-7), -7.0]
  np.testing.assert_allclose(x, np.exp([alpha]), rtol=1e-5)
  np.testing.assert_allclose(log_det, [sum(alpha)], rtol=1e-5)


def test_log_det_is_the_jacobians_and_inverse_undoes():
  """In float64; orders alternate, running averages are random."""
  net = network((2, 3, 1), hidden_dim=12, num_layers=3, has_batch_norm=True)
  with jax.enable_x64(True):
    x = jax.random.normal(KEY, (4, 2, 3, 1), jnp.float64)
    variables = randomized(jax.jit(net.init)(KEY, x))

    @jax.jit
    def run(variables, x):
      z, log_det = jax.jit(net.apply)(variables, x)
      one = lambda row: net.apply(variables, row[None])[0][0]
      jacobian = jax.vmap(jax.jacobian(one))(x).reshape(-1, 6, 6)
      back = net.apply(variables, z, method="inverse")
      return log_det, jacobian, back

    log_det, jacobian, (x_again, log_det_back) = run(variables, x)
    # Layers of both orders: everything depends on everything.
    assert np.abs(jacobian).sum(0).min() > 1e-3
    _, expected = np.linalg.slogdet(jacobian)
    assert np.abs(log_det).min() > 0.1
    np.testing.assert_allclose(log_det, expected, atol=1e-10)
    np.testing.assert_allclose(x_again, x, atol=1e-6)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-6)


def test_density_of_two_values_integrates_to_one():
  net = network((1, 2, 1), hidden_dim=8, num_layers=2, has_batch_norm=True)
  line, step = np.linspace(-12, 12, 601, retstep=True)
  grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 1, 2, 1)
  with jax.enable_x64(True):
    variables = randomized(jax.jit(net.init)(KEY, jnp.asarray(grid[:1])), 0.2)
    z, log_det = jax.jit(net.apply)(variables, jnp.asarray(grid))
    density = np.exp(normal.log_prob(z).sum(-1) + log_det)
  np.testing.assert_allclose(density.sum() * step**2, 1.0, atol=1e-4)


def test_parameter_count_of_nflows():
  """nflows' MaskedAutoregressiveFlow(784, 1024, 5, 1), counted in torch."""
  net = network((28, 28, 1))
  variables = jax.eval_shape(net.init, KEY, jnp.zeros((1, 28, 28, 1)))
  assert sum(v.size for v in jax.tree.leaves(variables)) == 22_551_200


def nflows_variables(is_residual):
  """nflows' weights of `random_state` by our names. It reverses before each layer."""
  per_block = 2 if is_residual else 1
  names, shapes = [], {}
  for i in range(LAYERS):
    made = f"_transform._transforms.{2 * i + 1}.autoregressive_net"
    inner = (
      f"blocks.{b}.linear_layers.{j}" if is_residual else f"blocks.{b}.linear"
      for b in range(BLOCKS)
      for j in range(per_block)
    )
    layers = ("initial_layer", *inner, "final_layer")
    names.append([f"{made}.{layer}" for layer in layers])
    for j, name in enumerate(names[-1]):
      outputs = 2 * SIZE if j == len(layers) - 1 else HIDDEN
      shapes[f"{name}.weight"] = (outputs, SIZE if j == 0 else HIDDEN)
      shapes[f"{name}.bias"] = (outputs,)
  state, params = random_state(shapes), {}
  for i, layer in enumerate(names):
    made = {}
    for j, name in enumerate(layer):
      state64 = lambda kind, name=name: state[f"{name}.{kind}"].astype(np.float64)
      kernel, bias = state64("weight").T, state64("bias")
      if i % 2 and j == 0:
        kernel = kernel[::-1]
      if i % 2 and j == len(layer) - 1:
        kernel, bias = (
          v.reshape(*v.shape[:-1], SIZE, 2)[..., ::-1, :].reshape(v.shape)
          for v in (kernel, bias)
        )
      made[f"MaskedDense_{j}"] = {"kernel": kernel, "bias": bias}
    params[f"layers_{i}"] = {"conditioner": {"made": made}}
  return params


class NflowsMade(Made):
  """nflows' scale softplus(raw) + 1e-3 and shift, as the paper's alpha and mu."""

  def __call__(self, x):
    raw, shift = jnp.moveaxis(super().__call__(x), -1, 0)
    scale = jax.nn.softplus(raw) + 1e-3
    return jnp.stack([-jnp.log(scale), -shift / scale], axis=-1)


@pytest.mark.parametrize("kind", ["residual", "plain"])
def test_log_prob_is_nflows(kind, monkeypatch):
  """Of `network`, but for what its outputs mean. Found: 6e-15 of it, gradient 5e-13."""
  golden, params = np.load(GOLDEN), nflows_variables(kind == "residual")
  monkeypatch.setattr("jaxgen.flow.maf.Made", NflowsMade)
  sizes = dict(hidden_dim=HIDDEN, num_layers=LAYERS, num_blocks=BLOCKS)
  net = network((1, SIZE, 1), is_residual=kind == "residual", **sizes)

  def log_prob(x, params):
    z, log_det = net.apply({"params": params}, x.reshape(-1, 1, SIZE, 1))
    each = normal.log_prob(z).sum(-1) + log_det
    return each.sum(), each

  with jax.enable_x64(True):
    x = jnp.asarray(inputs()[0][:, ::-1])
    grad, found = jax.jit(jax.grad(log_prob, has_aux=True))(x, params)
    grad = grad[:, ::-1]
  np.testing.assert_allclose(found, golden[f"maf/{kind}/log_prob"], rtol=1e-8)
  np.testing.assert_allclose(grad, golden[f"maf/{kind}/grad"], rtol=1e-8, atol=1e-8)


def test_training_finds_the_density_of_correlated_pixels():
  """The second pixel is the first and a Gaussian of 15 levels: 6.8 bits at least."""
  net = network((1, 2, 1), hidden_dim=16, num_layers=1)
  tx = optax.adam(optax.cosine_decay_schedule(0.02, 400))
  method = maf(net, tx=tx, alpha=None)
  rng = np.random.default_rng(0)
  first = rng.integers(40, 216, 256)
  second = np.clip(first + np.round(15 * rng.standard_normal(256)), 0, 255)
  image = np.stack([first, second], -1).reshape(256, 1, 2, 1) / 127.5 - 1
  batch = {"image": jnp.asarray(image, jnp.float32)}
  state, step = jax.jit(method.init)(KEY, batch), jax.jit(method.train_step)
  losses = []
  for key in jax.random.split(KEY, 400):
    state, metrics = step(state, batch, key)
    losses.append(float(metrics["loss"]))
  # At first a standard normal, whose density is at most 1 / sqrt(2 pi): 8 + 1.33 bits.
  assert losses[0] > 9.3
  # Two independent Gaussians of the pixels' variances have 7.7.
  assert np.mean(losses[-20:]) < 7.2, losses[::50]
