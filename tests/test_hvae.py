"""The hierarchical VAE: exact posteriors, probabilities, parity with the authors."""

import itertools
from pathlib import Path

from flax import linen as nn
from golden.make_hvae import LATENT, LEVELS, MIXTURES, WIDTH, images, mixture_outputs
from golden.random_state import random_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.run import load_experiment
from jaxgen.vae import hvae_blocks, hvae_networks
from jaxgen.vae.hvae import clip_and_skip, hvae
from jaxgen.vae.hvae_blocks import Latent
from jaxgen.vae.hvae_networks import Ladder
from jaxgen.vae.likelihoods import gaussian_pixels, rgb_logistic_pixels

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "hvae.npz"
KEY = jax.random.key(0)


# --- a hierarchy whose posterior is known -------------------------------------------

SCALES, WEIGHTS = (1.0, 0.6, 0.4), (1.5, -0.8)  # z2; z1 | z2; x | z1


class Linear(nn.Module):
  """z2 ~ N(0, 1), z1 = 1.5 z2 + ..., x = -0.8 z1 + ..., with q the exact posterior."""

  levels = ((2, 1, 1), (1, 1, 1))
  shift: float = 0.0  # Of the mean of q(z1 | z2, x): how wrong q is.

  def encode(self, x):
    return [x]

  def infer(self, seen, key):
    (x,), ((s2, s1, s), (a, b)) = seen, (SCALES, WEIGHTS)
    marginal = s**2 + b**2 * s1**2  # of x given z2
    precision = 1 / s2**2 + (a * b) ** 2 / marginal
    full = lambda v: jnp.full_like(x, v)
    q2 = x * a * b / marginal / precision, full(-np.log(precision))
    draw = lambda q, i: (
      q[0] + jnp.exp(q[1] / 2) * jax.random.normal(jax.random.fold_in(key, i), x.shape)
    )
    z2 = draw(q2, 0)
    precision = 1 / s1**2 + b**2 / s**2
    mean = (a * z2 / s1**2 + b * x / s**2) / precision
    q1 = mean + self.shift, full(-np.log(precision))
    z1 = draw(q1, 1)
    top = Latent(z2, (full(0.0), full(2 * np.log(s2))), q2)
    return b * z1, [top, Latent(z1, (a * z2, full(2 * np.log(s1))), q1)]

  @nn.compact
  def __call__(self, x):
    return x + self.param("unused", nn.initializers.zeros, ())


def linear_method(shift=0.0, **options):
  log_var = float(2 * np.log(SCALES[2]))
  likelihood = gaussian_pixels(log_var=log_var)
  return hvae(Linear(shift), tx=optax.sgd(0.1), likelihood=likelihood, **options)


def test_with_the_exact_posterior_the_bound_is_log_p():
  """In the mean over draws; the importance-sampled likelihood in every single one."""
  x = jnp.linspace(-1, 1, 5).reshape(5, 1, 1, 1)
  (s2, s1, s), (a, b) = SCALES, WEIGHTS
  var = s**2 + b**2 * (s1**2 + a**2 * s2**2)
  log_p = np.asarray(-0.5 * (x**2 / var + np.log(2 * np.pi * var))).reshape(5)

  def bounds(method):
    state = jax.jit(method.init)(KEY, {"image": x})
    one = lambda key: method.eval_step(state, {"image": x}, key)
    found = jax.jit(jax.vmap(one))(jax.random.split(KEY, 40_000))
    np.testing.assert_allclose(found["kl"], found["kl_1"] + found["kl_2"], rtol=1e-4)
    gap = found["reconstruction"] - found["kl"]
    np.testing.assert_allclose(found["elbo"], gap, atol=1e-4)
    return found["elbo"].mean(0), jax.jit(method.tools["nll"])(state, {"image": x}, KEY)

  elbo, nll = bounds(linear_method())
  np.testing.assert_allclose(elbo, log_p, atol=0.02)
  np.testing.assert_allclose(-nll["nll"], log_p, atol=1e-4)
  # A wrong mean costs KL(q || posterior) = shift^2 / (2 var), and less of the NLL.
  elbo, nll = bounds(linear_method(0.3))
  cost = 0.3**2 * (1 / s1**2 + b**2 / s**2) / 2
  np.testing.assert_allclose(log_p - elbo, cost, atol=0.02)
  np.testing.assert_allclose(-nll["nll"], log_p, atol=0.05)
  # One draw leaves all of it, in the mean.
  rough = linear_method(0.3, nll_draws=1)
  state = jax.jit(rough.init)(KEY, {"image": x})
  one = lambda key: rough.tools["nll"](state, {"image": x}, key)["nll"]
  many = jax.jit(jax.vmap(one))(jax.random.split(KEY, 40_000))
  np.testing.assert_allclose(log_p + many.mean(0), cost, atol=0.02)


# --- the network --------------------------------------------------------------------

NET = Ladder((2, 2, 1), ((2, 2, 1), (1, 1, 2)), 4, 2, 1, middle=4)


class Plain(nn.Module):
  """In place of a block's four convolutions, which the authors' outputs prove."""

  width: int
  num_outputs: int
  is_wide: bool
  last_scale: float = 1.0

  @nn.compact
  def __call__(self, x):
    init = hvae_blocks.uniform(self.last_scale)
    return nn.Dense(self.num_outputs, kernel_init=init)(nn.gelu(x))


def make_plain(patch):
  for module in (hvae_blocks, hvae_networks):
    patch.setattr(module, "Block", Plain)


@pytest.fixture
def plain(monkeypatch):
  make_plain(monkeypatch)


@pytest.fixture(scope="module")
def small():
  """On all 16 binary images of 2x2: method, state with random weights, batch."""
  method = hvae(NET, tx=optax.adam(1e-2), ema_decay=0.5)
  bits = np.array(list(itertools.product([-1.0, 1.0], repeat=4)), np.float32)
  batch = {"image": jnp.asarray(bits.reshape(16, 2, 2, 1))}
  with pytest.MonkeyPatch.context() as patch:
    make_plain(patch)
    state = jax.jit(method.init)(KEY, batch)
  rng = np.random.default_rng(0)
  move = lambda v: v + 0.1 * rng.standard_normal(v.shape).astype(np.float32)
  return method, state.replace(params=jax.tree.map(move, state.params)), batch


@pytest.fixture(scope="module")
def tools(small):
  method, state, batch = small
  run = lambda s: {name: tool(s, batch, KEY) for name, tool in method.tools.items()}
  with pytest.MonkeyPatch.context() as patch:
    make_plain(patch)
    return jax.jit(run)(state)


def test_probabilities_of_all_images_sum_to_one(small, tools, plain):
  """So p, q and the draws are those of one model; and the bound lies below."""
  method, state, batch = small
  log_p = -tools["nll"]["nll"]
  np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, atol=0.03)
  one = lambda key: method.eval_step(state, batch, key)["elbo"]
  elbo = jax.jit(jax.vmap(one))(jax.random.split(KEY, 500)).mean(0)
  assert np.all(elbo < log_p + 0.02)
  assert np.mean(log_p - elbo) > 0.1


def test_given_latents_give_the_same_image_again(small, plain):
  _, state, batch = small

  @jax.jit
  def run(params, x):
    bound = NET.bind({"params": params})
    seen = bound.encode(x)
    outputs, latents = bound.infer(seen, KEY)
    again, _ = bound.generate(16, KEY, [latent.z for latent in latents])
    many = lambda key: bound.infer(seen, key)[1][0]
    return outputs, again, jax.vmap(many)(jax.random.split(KEY, 4_000))

  outputs, again, first = run(state.params["net"], (batch["image"] + 1) / 2)
  np.testing.assert_allclose(again, outputs, atol=1e-5)
  # Draws have the moments of what they are drawn from.
  mean, log_var = (np.asarray(v[0]) for v in first.posterior)
  np.testing.assert_allclose(first.z.mean(0), mean, atol=0.1)
  np.testing.assert_allclose(first.z.var(0), np.exp(log_var), rtol=0.2)


def test_tools_are_images(tools, small):
  _, _, batch = small
  walk, ends = (
    tools["interpolate"]["interpolations"],
    tools["reconstruct"]["reconstructions"],
  )
  assert walk.shape == (16, 8, 2, 2, 1)
  np.testing.assert_allclose(walk[:, 0], ends, atol=1e-5)
  np.testing.assert_allclose(walk[:, -1], jnp.roll(ends, -1, axis=0), atol=1e-5)
  parts = tools["by_level"]["by_level"]
  assert parts.shape == (16, 3, 2, 2, 1)
  np.testing.assert_allclose(parts[:, -1], ends, atol=1e-5)
  assert np.abs(parts[:, 0] - ends).max() > 1e-3
  share = np.mean(tools["denoise"]["corrupted"] != batch["image"])
  np.testing.assert_allclose(share, 0.25 / 2, atol=0.1)


def test_loss_is_that_of_warm_up_and_free_bits(small, plain):
  _, state, batch = small

  @jax.jit
  def run(params):
    bound = NET.bind({"params": params})
    pixel_key, z_key = jax.random.split(KEY)
    x = jax.random.bernoulli(pixel_key, (batch["image"] + 1) / 2).astype(jnp.float32)
    outputs, latents = bound.infer(bound.encode(x), z_key)
    kls = [hvae_blocks.kl(latent).mean() for latent in latents]
    log_p = x * outputs - jax.nn.softplus(outputs)
    return jnp.stack(kls), log_p.sum((1, 2, 3)).mean()

  kls, reconstruction = jax.device_get(run(state.params["net"]))
  free = float(kls.mean())  # Less than one block has, more than another.
  tx = optax.adam(1e-2)
  method = hvae(NET, tx=tx, free_bits=free, warmup_steps=4, ema_decay=0.5)
  step = jax.jit(method.train_step)
  for done, weight in ((0, 0.25), (2, 0.75), (9, 1.0)):
    _, metrics = step(state.replace(step=jnp.int32(done)), batch, KEY)
    expected = (weight * np.maximum(kls, free).sum() - reconstruction) / 4
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["elbo"], reconstruction - kls.sum(), rtol=1e-4)


def test_large_gradients_are_clipped_and_huge_ones_skipped():
  tx = clip_and_skip(optax.sgd(1.0, momentum=0.9), clip_norm=2.0, skip_norm=10.0)
  params = {"a": jnp.zeros(2)}
  state = tx.init(params)
  for grad, expected in (
    ([0.6, 0.8], [-0.6, -0.8]),
    ([3.0, 4.0], [-1.2, -1.6]),
    ([6.0, 8.1], [0.0, 0.0]),
    ([np.nan, 0.0], [0.0, 0.0]),
  ):
    updates, after = tx.update({"a": jnp.array(grad)}, state, params)
    np.testing.assert_allclose(updates["a"], expected, atol=1e-5)
    changed = not np.array_equal(jax.tree.leaves(after)[0], jax.tree.leaves(state)[0])
    assert changed == bool(np.any(expected))


def test_shapes_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match=r"expected sides of 4 \* 2"):
    Ladder((6, 6, 1), ((4, 2, 1), (1, 1, 1)), 4, 2, 1, patch=2).init(
      KEY, jnp.zeros((1, 6, 6, 1))
    )
  with pytest.raises(ValueError, match=r"resolutions \[4, 3\]"):
    Ladder((4, 4, 1), ((4, 2, 1), (3, 1, 1)), 4, 2, 1).init(
      KEY, jnp.zeros((1, 4, 4, 1))
    )


def test_patches_are_put_back():
  x = jnp.arange(2 * 6 * 6 * 2.0).reshape(2, 6, 6, 2)
  inside = hvae_networks.to_channels(x, 3)
  assert inside.shape == (2, 2, 2, 18)
  np.testing.assert_array_equal(inside[0, 0, 1].reshape(3, 3, 2), x[0, :3, 3:])
  np.testing.assert_array_equal(hvae_networks.to_pixels(inside, 3), x)


# --- the authors' code ----------------------------------------------------------------


def test_parameter_count_of_the_published_model():
  module = load_experiment(ROOT / "experiments" / "vae" / "hvae_cifar10.py")
  method = module.build(module.get_config())["method"]
  batch = {"image": jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)}
  state = jax.eval_shape(method.init, KEY, batch)
  assert sum(x.size for x in jax.tree.leaves(state.params)) == 39_145_700


def from_torch(net, x):
  """The authors' random weights as ours, in float64."""
  shapes, places = {}, {}
  params = jax.eval_shape(net.init, KEY, x)["params"]

  def add(theirs, ours, shape):
    shapes[theirs], places[theirs] = shape, ours

  def add_conv(theirs, *ours):
    found = params
    for name in ours:
      found = found[name]
    h, w, i, o = found["kernel"].shape
    add(f"{theirs}.weight", (*ours, "kernel"), (o, i, h, w))
    add(f"{theirs}.bias", (*ours, "bias"), (o,))

  def add_block(theirs, *ours):
    for i in range(4):
      add_conv(f"{theirs}.c{i + 1}", *ours, f"Conv_{i}")

  add_conv("encoder.in_conv", "enter")
  add_conv("decoder.out_net.out_conv", "leave")
  ups = [(i, j) for i, (_, num, _) in enumerate(net.levels) for j in range(num)]
  for n, (i, j) in enumerate(ups):
    add_block(f"encoder.enc_blocks.{n}", f"up_{i}_{j}")
  order = reversed(list(enumerate(net.levels)))
  downs = [(i, j) for i, (_, _, num) in order for j in range(num)]
  for n, (i, j) in enumerate(downs):
    for theirs, ours in (
      ("enc", "posterior_net"),
      ("prior", "prior_net"),
      ("resnet", "residual"),
    ):
      add_block(f"decoder.dec_blocks.{n}.{theirs}", f"down_{i}_{j}", ours)
    add_conv(f"decoder.dec_blocks.{n}.z_proj", f"down_{i}_{j}", "project")
  for n, (size, _, _) in enumerate(reversed(net.levels)):
    shape = (1, net.width, size, size)
    add(f"decoder.bias_xs.{n}", (f"bias_{size}",), shape)
  add("decoder.gain", ("gain",), (1, net.width, 1, 1))
  add("decoder.bias", ("shift",), (1, net.width, 1, 1))
  found = {}
  for theirs, value in random_state(shapes).items():
    *path, last = places[theirs]
    here = found
    for name in path:
      here = here.setdefault(name, {})
    if value.ndim == 4:
      value = value.transpose(2, 3, 1, 0) if last == "kernel" else value[0]
      value = value.transpose(1, 2, 0) if last.startswith("bias_") else value
    here[last] = value.reshape(value.shape if value.shape[1:] != (1, 1) else -1)
  assert jax.tree.structure(found) == jax.tree.structure(params)
  return jax.tree.map(lambda v: np.asarray(v, np.float64), found)


def test_same_weights_give_the_authors_outputs_bounds_and_gradients():
  golden = np.load(GOLDEN)
  likelihood = rgb_logistic_pixels(num_mixtures=MIXTURES)
  net = Ladder((8, 8, 3), LEVELS, WIDTH, LATENT, likelihood.num_outputs, middle=4)
  with jax.enable_x64(True):
    seen, target = (jnp.asarray(v) for v in images())
    params = from_torch(net, seen)

    def total(seen, params):
      level = net.bind({"params": params})
      outputs, latents = level.infer(level.encode(seen), None)
      kl = jnp.stack([hvae_blocks.kl(latent) for latent in latents])
      nll = -likelihood.log_prob(target, outputs) / 192
      return kl.sum() + (outputs**2).sum(), (outputs, kl, nll)

    grad, found = jax.jit(jax.grad(total, has_aux=True))(seen, params)
    for name, value in zip(("outputs", "kl", "nll"), found, strict=True):
      # Theirs takes a density for improbable levels, ours the probability.
      rtol = 1e-6 if name == "nll" else 1e-8
      np.testing.assert_allclose(value, golden[name], rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(grad, golden["grad"], rtol=1e-8, atol=1e-8)
    outputs, levels = (jnp.asarray(v) for v in mixture_outputs())
    log_p = jax.jit(likelihood.log_prob)(levels, outputs) / 48
    np.testing.assert_allclose(log_p, golden["mixture"], rtol=1e-6)


def test_mean_of_an_rgb_mixture_is_that_of_its_levels():
  """Red 0.2, green -0.1 + 0.5 red, blue 0.1 + 0.5 red - 0.5 green."""
  likelihood = rgb_logistic_pixels(num_mixtures=1)
  half = float(np.arctanh(0.5))
  channels = [(0.2, -7, half), (-0.1, -7, half), (0.1, -7, -half)]
  outputs = jnp.array([0.0, *np.ravel(channels)]).reshape(1, 1, 1, 10)
  found = jax.jit(likelihood.mean)(outputs).reshape(3)
  np.testing.assert_allclose(found, [0.2, 0.0, 0.1 + 0.5 * 0.2], atol=1e-6)
