"""Residual flows: the bound, the inverse, and the estimate of the determinant."""

from pathlib import Path

from flax import traverse_util
from golden.make_residual_flow import NETWORK, SHAPE, images
from golden.make_residual_flow import state as authors_state
from golden.random_state import random_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.flow.likelihood import normal
from jaxgen.flow.residual_flow import (
  Block,
  Roulette,
  conv_network,
  estimate_log_det,
  exact_log_det,
  network,
  residual_flow,
)
from jaxgen.nn.lipschitz import (
  LipschitzConv,
  LipschitzDense,
  LipschitzMlp,
  lip_swish,
)

KEY = jax.random.key(0)
SIZE = 3
BOUND = 0.97


@pytest.fixture(scope="module")
def g():
  """A residual with large weights after 40 power iterations, in float64."""
  net = LipschitzMlp((16,), 0.9)
  with jax.enable_x64(True):
    x = 2 * jax.random.normal(KEY, (4, SIZE), jnp.float64)
    variables = jax.jit(net.init, static_argnums=2)(KEY, x, False)
    wide = lambda v: jnp.asarray(4 * v + 0.5, jnp.float64)
    params = jax.tree.map(wide, variables["params"])
    variables = {**variables, "params": params}
    update = jax.jit(lambda v: net.apply(v, x, True, mutable=["power_iteration"])[1])
    for _ in range(8):
      variables = {**variables, **update(variables)}
  return net, variables, x


def test_lip_swish_has_slopes_of_at_most_one():
  x = jnp.linspace(-200, 200, 40_001)
  for beta in (-3.0, 0.5, 5.0):
    slope = jax.jit(jax.vmap(jax.grad(lip_swish), (0, None)))(x, beta)
    assert 0.99 < np.abs(slope).max() <= 1.0


def test_dense_layer_has_the_norm_that_it_says(g):
  """Kernels above the bound are scaled to it; those below are left alone."""
  net, variables, _ = g
  for name in ("LipschitzDense_0", "LipschitzDense_1"):
    sub = {k: v[name] for k, v in variables.items()}
    outputs = sub["params"]["bias"].size
    layer = LipschitzDense(outputs, net.bound)
    inputs = jnp.eye(sub["params"]["kernel"].shape[0])
    with jax.enable_x64(True):
      kernel = layer.apply(sub, inputs, False) - sub["params"]["bias"][None]
      assert np.linalg.norm(sub["params"]["kernel"], 2) > 2
      np.testing.assert_allclose(np.linalg.norm(kernel, 2), net.bound, rtol=1e-3)
      small = {**sub, "params": jax.tree.map(lambda v: 0.01 * v, sub["params"])}
      kernel = layer.apply(small, inputs, False) - small["params"]["bias"][None]
    np.testing.assert_allclose(kernel, small["params"]["kernel"], atol=1e-12)


@pytest.mark.parametrize("size", [1, 3])
def test_convolution_has_the_norm_that_it_says(size):
  """That of the whole map of images, a matrix of 48 x 32, with its border of zeros."""
  layer = LipschitzConv(2, size, BOUND)
  with jax.enable_x64(True):
    image = jnp.zeros((1, 4, 4, 3))
    variables = jax.jit(layer.init, static_argnums=2)(KEY, image, False)
    wide = lambda v: jnp.asarray(5 * v, jnp.float64)
    params = jax.tree.map(wide, variables["params"])
    for _ in range(40):
      moved = layer.apply({**variables, "params": params}, image, True, mutable=True)[1]
      variables = {**variables, "power_iteration": moved["power_iteration"]}
    matrix = lambda kernel, bound: jax.jacobian(
      lambda x: LipschitzConv(2, size, bound).apply(
        {**variables, "params": {**params, "kernel": kernel}}, x, False
      )
    )(image).reshape(32, 48)
    norm = lambda *given: np.linalg.norm(matrix(*given), 2)
    assert norm(params["kernel"], 1e6) > 2
    np.testing.assert_allclose(norm(params["kernel"], BOUND), BOUND, rtol=1e-6)
    small = 0.01 * params["kernel"]
    np.testing.assert_allclose(norm(small, BOUND), norm(small, 1e6), rtol=1e-12)


def test_residual_is_a_contraction(g):
  net, variables, x = g
  with jax.enable_x64(True):
    one = lambda row: net.apply(variables, row[None], False)[0]
    rows = jnp.concatenate([x, 0.1 * x, 5 * x])
    jacobian = jax.jit(jax.vmap(jax.jacobian(one)))(rows)
  norms = np.linalg.norm(jacobian, 2, axis=(1, 2))
  assert 0.1 < norms.max() < 1


def test_estimate_and_its_gradient_are_unbiased():
  """g(x) = tanh(x A), |A| = 0.7, against the Jacobian; 40,000 draws of N and v."""
  fn = lambda a, x: jnp.tanh(x @ a)
  # Few exact terms: the weights of those that roulette leaves decide.
  roulette = Roulette(num_exact=1, stop=0.4)
  flat = lambda grads: jnp.concatenate([v.reshape(-1) for v in grads])

  @jax.jit
  def run(a, x, keys):
    exact = lambda a, x: exact_log_det(lambda x: fn(a, x), x).sum()
    estimate = lambda a, x, key: estimate_log_det(fn, a, x, key, roulette).sum()
    both = lambda f: jax.value_and_grad(f, argnums=(0, 1))
    pack = lambda value, grads: jnp.concatenate([value[None], flat(grads)])
    draws = jax.vmap(lambda key: pack(*both(estimate)(a, x, key)))(keys)
    return pack(*both(exact)(a, x)), draws

  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((SIZE, SIZE)) + np.eye(SIZE)
    a, x = 0.7 * a / np.linalg.norm(a, 2), 0.3 * rng.standard_normal((2, SIZE))
    keys = jax.random.split(KEY, 40_000)
    found = run(jnp.asarray(a), jnp.asarray(x), keys)
    expected, draws = (np.asarray(v) for v in found)
    eye = np.eye(SIZE)[None]
    jacobian = a.T[None] * (1 - np.tanh(x @ a) ** 2)[:, :, None]
  direct = np.log(np.linalg.det(eye + jacobian)).sum()
  np.testing.assert_allclose(expected[0], direct, rtol=1e-10)
  error = np.std(draws, 0) / np.sqrt(len(draws))
  assert np.sum(np.abs(expected) > 20 * error) > SIZE**2 / 2
  off = np.abs(np.mean(draws, 0) - expected) / error
  assert off.max() < 4, off


def test_number_of_terms_is_as_likely_as_its_weight_says():
  roulette = Roulette(num_exact=2, stop=0.3)
  draws = jax.jit(jax.vmap(roulette.draw))(jax.random.split(KEY, 20_000))
  assert draws.min() == 2
  for k in (1, 2, 3, 5):
    share = np.mean(np.asarray(draws) >= k)
    np.testing.assert_allclose(share, roulette.survival(jnp.array(k)), atol=0.015)


def test_inverse_undoes_a_block_and_its_determinant_is_the_series(g):
  net, variables, x = g
  block = Block(net)
  wrap = {k: {"residual": v} for k, v in variables.items()}

  @jax.jit
  def run(x, variables, wrap):
    one = lambda row: net.apply(variables, row[None], False)[0]
    return block.apply(wrap, x), jax.vmap(jax.jacobian(one))(x)

  with jax.enable_x64(True):
    (z, log_det), jacobian = run(x, variables, wrap)
    back = jax.jit(lambda v, z: block.apply(v, z, method="inverse"))(wrap, z)
    jacobian = np.asarray(jacobian)
  assert np.abs(z - x).max() > 0.1
  np.testing.assert_allclose(back[0], x, atol=1e-6)
  np.testing.assert_allclose(back[1], -log_det, atol=1e-6)
  power, series = np.eye(SIZE), 0.0  # Eq. 4, of which no Jacobian is known in training.
  for k in range(1, 300):
    power = power @ jacobian
    series -= (-1) ** k * np.trace(power, axis1=1, axis2=2) / k
  assert np.abs(series).max() > 0.05
  np.testing.assert_allclose(log_det, series, atol=1e-9)


@pytest.fixture(scope="module")
def two_blocks():
  """A network of two values and random variables, its singular vectors exact."""
  net = network((1, 2, 1), hidden_dims=(8,), num_blocks=2, bound=0.9)
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(net.init, KEY, jnp.zeros((1, 1, 2, 1)))
  found = jax.tree.map(lambda v: 0.5 * rng.standard_normal(v.shape), shapes)
  for name, layer in found["power_iteration"].items():
    for dense, v in layer["residual"].items():
      kernel = 4 * found["params"][name]["residual"][dense]["kernel"]
      found["params"][name]["residual"][dense]["kernel"] = kernel
      v["v"] = np.linalg.svd(kernel)[0][:, 0]
  found["first_batch"] = jax.tree.map(lambda v: np.exp(v), found["first_batch"])
  return net, found


def test_log_det_of_a_network_is_the_jacobians_and_inverse_undoes(two_blocks):
  net, variables = two_blocks

  @jax.jit
  def run(x, variables):
    one = lambda row: net.apply(variables, row[None])[0][0]
    z, log_det = net.apply(variables, x)
    back = net.apply(variables, z, method="inverse")
    return jax.vmap(jax.jacobian(one))(x), log_det, back

  with jax.enable_x64(True):
    x = 2 * np.random.default_rng(1).standard_normal((5, 1, 2, 1))
    jacobian, log_det, back = jax.device_get(run(x, variables))
  expected = np.linalg.slogdet(jacobian.reshape(5, 2, 2))[1]
  assert np.std(expected) > 0.01
  np.testing.assert_allclose(log_det, expected, atol=1e-9)
  np.testing.assert_allclose(back[0], x, atol=1e-6)
  np.testing.assert_allclose(back[1], -log_det, atol=1e-6)


def test_density_of_two_values_integrates_to_one(two_blocks):
  net, variables = two_blocks
  line, step = np.linspace(-100, 100, 401, retstep=True)
  grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 1, 2, 1)
  with jax.enable_x64(True):
    z, log_det = jax.jit(net.apply)(variables, grid)
    log_p = normal.log_prob(z).sum(-1) + log_det
  np.testing.assert_allclose(np.exp(log_p).sum() * step**2, 1, rtol=1e-3)


def test_bounds_of_one_and_more_are_refused():
  for make in (network, conv_network):
    with pytest.raises(ValueError, match=r"bound=1\.0"):
      make((4, 4, 1), bound=1.0)
  with pytest.raises(ValueError, match=r"divisible by 2\^2"):
    conv_network((6, 6, 1))


def of_authors(theirs):
  """Our parameters of NETWORK on SHAPE, from those of the authors' by name."""
  found, pixels = {}, np.arange(64).reshape(4, 4, 4).transpose(1, 2, 0).reshape(-1)
  for name, value in theirs.items():
    _, level, _, i, *rest = name.split(".")
    i = int(i) + 4 * int(level)  # Four layers come before the second level.
    at = (f"layers_{i}",) if i < 8 else ("layers_8", f"layers_{i - 8}")
    dense = i >= 8
    place = lambda v, dense=dense: v[pixels] if dense else v
    if "nnet" not in rest:
      if rest[-1] == "weight":
        bias = theirs[name.removesuffix("weight") + "bias"]
        found[(*at, "log_scale")] = place(value)
        found[(*at, "shift")] = place(bias * jnp.exp(value))  # (x + bias) e^weight
      continue
    k = (int(rest[-2]) + (i == 1)) // 2  # The first block does not start with swish.
    if rest[-1] == "beta":
      found[(*at, "residual", f"beta_{k}")] = value.reshape(())
      continue
    layer = (*at, "residual", f"Lipschitz{'Dense' if dense else 'Conv'}_{k}")
    if rest[-1] == "bias":
      found[(*layer, "bias")] = place(value) if k == 2 else value
    elif not dense:
      found[(*layer, "kernel")] = value.transpose(2, 3, 1, 0)
    else:
      kernel = place(value) if k == 2 else value
      found[(*layer, "kernel")] = (kernel[:, pixels] if k == 0 else kernel).T
  return traverse_util.unflatten_dict(found), pixels


@pytest.fixture(scope="module")
def authors():
  """A network with the authors' variables, converged; what theirs made of them."""
  golden = np.load(Path(__file__).parent / "golden" / "residual_flow.npz")
  names = [name for name in golden.files if name.startswith("grad/")]
  shapes = {name.removeprefix("grad/"): golden[name].shape for name in names}
  theirs = authors_state(random_state(shapes))
  net = conv_network(SHAPE, **NETWORK, evaluation=None)
  with jax.enable_x64(True):
    x = jnp.asarray(images())
    stats = {**jax.jit(net.init)(KEY, x)}
    stats = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), stats)
    del stats["params"]
    params, pixels = of_authors(theirs)

    @jax.jit
    def move(stats, params):
      def once(stats, _):
        rngs = {"draws": KEY}
        given = {**stats, "params": params}
        _, moved = net.apply(given, x, True, mutable=["power_iteration"], rngs=rngs)
        return {**stats, **moved}, None

      return jax.lax.scan(once, stats, length=200)[0]

    return net, theirs, move(stats, params), x, pixels, golden


def test_convolutions_are_those_of_the_authors_code(authors):
  """z, the log-determinant, and gradients by their parameters, in float64."""
  net, theirs, stats, x, pixels, golden = authors

  @jax.jit
  def run(theirs, stats, x):
    def loss(theirs):
      params, _ = of_authors(theirs)
      z, log_det = net.apply({**stats, "params": params}, x)
      return (z[0] ** 2).sum() / 2 - log_det[0], (z, log_det)

    return jax.value_and_grad(loss, has_aux=True)(theirs)

  with jax.enable_x64(True):
    (_, (z, log_det)), grads = run(theirs, stats, x)
  np.testing.assert_allclose(z, golden["z"][:, pixels], atol=1e-8)
  np.testing.assert_allclose(log_det[0], golden["log_det"], rtol=1e-8)
  for name, grad in grads.items():
    np.testing.assert_allclose(grad, golden[f"grad/{name}"], atol=1e-7, err_msg=name)


def test_convolutions_are_undone_and_their_estimates_are_right(authors):
  """z back to x, and log_det the mean of what evaluations estimate."""
  net, theirs, stats, x, _, _ = authors
  estimating = conv_network(SHAPE, **NETWORK, evaluation=Roulette(4))

  @jax.jit
  def run(stats, theirs, x, keys):
    variables = {**stats, "params": of_authors(theirs)[0]}
    z, log_det = net.apply(variables, x)
    estimate = lambda key: estimating.apply(variables, x, rngs={"draws": key})[1]
    back = net.apply(variables, z, method="inverse")
    return log_det, back, jax.lax.map(estimate, keys)

  with jax.enable_x64(True):
    keys = jax.random.split(KEY, 300)
    log_det, back, draws = jax.device_get(run(stats, theirs, x, keys))
  np.testing.assert_allclose(back[0], x, atol=1e-6)
  np.testing.assert_allclose(back[1], -log_det, atol=1e-6)
  error = draws.std(0) / np.sqrt(len(draws))
  assert (error < 0.5).all()
  np.testing.assert_array_less(np.abs(draws.mean(0) - log_det), 4 * error)


def test_paper_network_has_the_authors_number_of_parameters():
  """Theirs says 16,608,693; 104 are of the distribution of N, and are not trained."""
  shapes = jax.eval_shape(
    conv_network((28, 28, 1)).init, KEY, jnp.zeros((1, 28, 28, 1))
  )
  assert sum(v.size for v in jax.tree.leaves(shapes["params"])) == 16_608_693 - 104


def test_training_keeps_the_bound_and_lowers_the_bits():
  """Pixels that are alike: an independent Gaussian for each has 9 bits or more."""
  net = network((1, 2, 1), hidden_dims=(16,), num_blocks=2, bound=BOUND)
  method = residual_flow(net, tx=optax.adam(0.02))
  level = np.random.default_rng(0).choice([16, 240], 64) + np.arange(64) % 8
  image = np.repeat(level, 2).reshape(64, 1, 2, 1) / 127.5 - 1
  batch = {"image": jnp.asarray(image, jnp.float32)}
  state, step = jax.jit(method.init)(KEY, batch), jax.jit(method.train_step)
  losses = []
  for i in range(300):
    state, metrics = step(state, batch, jax.random.fold_in(KEY, i))
    state = state.replace(step=state.step + 1)
    losses.append(float(metrics["loss"]))
  assert np.mean(losses[-30:]) < losses[0] - 1
  # What is evaluated is exact, and the mean of the estimates.
  keys, evaluate = jax.random.split(KEY, 100), jax.jit(method.eval_step)
  estimates = [float(step(state, batch, key)[1]["loss"]) for key in keys]
  exact = [float(evaluate(state, batch, k)["bits_per_dim"].mean()) for k in keys]
  error = np.std(estimates) / np.sqrt(len(keys))
  assert error < 0.1
  np.testing.assert_allclose(np.mean(exact), np.mean(estimates), atol=4 * error)
  variables = {"params": state.params["net"], **state.stats["net"]}
  for block in ("layers_1", "layers_3"):
    for layer, v in state.stats["net"]["power_iteration"][block]["residual"].items():
      kernel = state.params["net"][block]["residual"][layer]["kernel"]
      sigma = np.linalg.norm(v["v"] @ kernel)
      assert np.linalg.norm(kernel, 2) * min(1, BOUND / sigma) < 0.99
  x = jax.random.normal(KEY, (16, 1, 2, 1))
  z, _ = jax.jit(net.apply)(variables, x)
  x_again, _ = jax.jit(lambda v, z: net.apply(v, z, method="inverse"))(variables, z)
  np.testing.assert_allclose(x_again, x, atol=1e-3)
