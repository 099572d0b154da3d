"""BigGAN's parts in closed form; its networks against BigGAN-PyTorch."""

import functools
from pathlib import Path

from drawn import first_state
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from golden.biggan_inputs import (
  BATCH,
  CLASSES,
  DISC_ATTENTION,
  DISC_WIDTH,
  GEN_ATTENTION,
  GEN_WIDTH,
  MODELS,
  SHARED_DIM,
  by_name,
  inputs,
  some,
)
from golden.random_state import random_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import ndtr

from jaxgen.gan.biggan import THRESHOLDS, biggan, redraw, regularized
from jaxgen.gan.biggan_networks import ConditionalBatchNorm, Discriminator, Generator
from jaxgen.losses.adversarial import hinge
from jaxgen.losses.orthogonal import add_orthogonal_gradient, orthogonal_penalty
from jaxgen.nn.self_attention import SelfAttention

GOLDEN = Path(__file__).parent / "golden" / "biggan.npz"
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def normal(*shape):
  return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


# Self-attention.


@pytest.fixture(scope="module")
def attention():
  """(images, variables whose power iteration has converged, variables -> images)."""
  x = normal(2, 4, 6, 16)
  net = SelfAttention()
  variables = jax.jit(net.init, static_argnames="train")(KEY, x, train=True)
  step = jax.jit(lambda v: net.apply(v, x, train=True, mutable="spectral_norm")[1])
  for _ in range(300):
    variables = {**variables, **step(variables)}
  return x, variables, jax.jit(lambda v: net.apply(v, x, train=False))


def test_attention_is_the_identity_at_first(attention):
  x, variables, attend = attention
  assert variables["params"]["gamma"] == 0
  np.testing.assert_array_equal(attend(variables), x)


def test_attention_is_a_softmax_over_the_largest_of_two_by_two_keys(attention):
  x, variables, attend = attention
  params = {**variables["params"], "gamma": jnp.float32(0.7)}
  out = attend({**variables, "params": params})
  image = np.asarray(x, np.float64)

  def kernel(name):
    w = np.asarray(params[name]["kernel"], np.float64)[0, 0]
    return w / np.linalg.svd(w)[1][0]

  expected = np.empty_like(image)
  for n in range(2):
    keys, values = [], []
    for i in range(0, 4, 2):
      for j in range(0, 6, 2):
        block = image[n, i : i + 2, j : j + 2].reshape(4, 16)
        keys.append((block @ kernel("key")).max(0))
        values.append((block @ kernel("value")).max(0))
    for i in range(4):
      for j in range(6):
        energy = np.array(keys) @ (image[n, i, j] @ kernel("query"))
        weight = np.exp(energy) / np.exp(energy).sum()
        seen = weight @ np.array(values) @ kernel("out")
        expected[n, i, j] = image[n, i, j] + 0.7 * seen
  assert np.array(keys).shape == (6, 2)
  assert np.array(values).shape == (6, 8)
  np.testing.assert_allclose(out, expected, atol=2e-4)


@pytest.mark.parametrize("shape", [(1, 4, 4, 12), (1, 5, 4, 8)])
def test_attention_refuses_what_does_not_divide(shape):
  with pytest.raises(ValueError, match=f"{shape[1]}x4 pixels of {shape[3]} channels"):
    jax.eval_shape(lambda: SelfAttention().init(KEY, jnp.zeros(shape), train=True))


# Orthogonal regularisation.


def test_orthogonal_penalty_and_gradient_of_a_known_matrix():
  """Columns (1, 2) and (3, -1): their product is 1, counted twice."""
  w = np.array([[1.0, 3.0], [2.0, -1.0]], np.float32)
  penalty = jax.jit(jax.value_and_grad(orthogonal_penalty))
  value, slope = penalty(w)
  np.testing.assert_allclose(value, 2 * 1.0**2)
  np.testing.assert_allclose(penalty(2.0 * w)[0], 2 * 4.0**2)
  expected = 4 * w @ np.array([[0.0, 1.0], [1.0, 0.0]])  # 4 W (W^T W * (1 - I))
  np.testing.assert_allclose(slope, expected)
  kernel = np.stack([w, w]).reshape(2, 1, 2, 2)  # a convolution's
  np.testing.assert_allclose(penalty(kernel)[0], 2 * 2.0**2)


def test_orthogonal_filters_of_any_length_cost_nothing():
  q = np.linalg.qr(RNG.standard_normal((18, 5)))[0].reshape(3, 3, 2, 5)
  w = np.float32(q * np.reshape([1.0, 5.0, 0.1, 3.0, 2.0], (1, 1, 1, 5)))
  value, slope = jax.jit(jax.value_and_grad(orthogonal_penalty))(w)
  np.testing.assert_allclose(value, 0.0, atol=1e-9)
  np.testing.assert_allclose(slope, 0.0, atol=1e-4)


def test_regularisation_reaches_kernels_before_the_optimiser():
  params = {
    "shared": {"kernel": normal(3, 4)},
    "block": {"kernel": normal(2, 2, 3, 4), "bias": normal(4)},
  }
  grads = jax.tree.map(np.ones_like, params)
  tx = regularized(optax.sgd(1.0), 0.5)
  updates = jax.jit(lambda p: tx.update(grads, tx.init(p), p)[0])(params)
  penalty = jax.jit(jax.value_and_grad(orthogonal_penalty))
  slope = 0.5 * penalty(params["block"]["kernel"])[1]
  np.testing.assert_allclose(updates["block"]["kernel"], -1 - slope, rtol=1e-5)
  np.testing.assert_array_equal(updates["block"]["bias"], -np.ones(4))
  np.testing.assert_array_equal(updates["shared"]["kernel"], -np.ones((3, 4)))
  tx = optax.chain(add_orthogonal_gradient(1.0), optax.sgd(0.01))
  w = {"w": normal(6, 4)}
  start, lengths, state = penalty(w["w"])[0], np.linalg.norm(w["w"], axis=0), tx.init(w)

  @jax.jit
  def step(w, state):
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, w), state, w)
    return optax.apply_updates(w, updates), state

  for _ in range(300):
    w, state = step(w, state)
  assert penalty(w["w"])[0] < 1e-4 * start
  assert (np.linalg.norm(w["w"], axis=0) > 0.3 * lengths).all()


# The networks.


def test_conditional_batch_norm_by_hand():
  x, y = normal(4, 2, 2, 3), normal(4, 5)
  net = ConditionalBatchNorm(spectral=False)
  variables = jax.jit(net.init, static_argnames="train")(KEY, x, y, train=True)
  run = jax.jit(lambda v: net.apply(v, x, y, train=True, mutable="batch_stats"))
  out, after = run(variables)
  kernel = {k: np.asarray(v["kernel"]) for k, v in variables["params"].items()}
  mean, var = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
  rows = lambda name: (y @ kernel[name])[:, None, None]
  norm = (x - mean.reshape(1, 1, 1, 3)) / np.sqrt(var + 1e-5).reshape(1, 1, 1, 3)
  expected = (1 + rows("gain")) * norm + rows("bias")
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    after["batch_stats"]["norm"]["mean"], 0.1 * mean, rtol=1e-4
  )
  expected = 0.9 + 0.1 * var
  np.testing.assert_allclose(after["batch_stats"]["norm"]["var"], expected, rtol=1e-4)


GEN = dict(num_classes=3, widths=(8, 8, 8), channels=1, shared_dim=4, hierarchical=True)
LABEL = jnp.array([0, 2, 1, 1])
TINY = {  # a block each, and attention
  "gen": Generator(**{**GEN, "widths": (8, 8)}, attention_side=8),
  "disc": Discriminator(3, (8,), 1, attention_side=4),
}


@pytest.fixture(scope="module")
def small():
  """(generator of 16x16 with attention at 8, variables with no zeros in them)."""
  net = Generator(**GEN, attention_side=8)
  z = jnp.zeros((4, 6))
  shapes = jax.eval_shape(lambda: net.init(KEY, z, LABEL, train=True))
  params = jax.tree.map(lambda x: 0.5 * normal(*x.shape), shapes["params"])
  ones = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
  return net, {**ones, "params": params}


def test_every_block_sees_its_own_chunk_of_z_only(small):
  """Scales and shifts of a norm move with a number of z if it is the block's."""
  net, variables = small
  names = [f"block_{i}/norm_{j}/{k}" for i in (0, 1) for j in (1, 2) for k in "gb"]

  def maps(z):
    """What the linear maps return, by name of the norm, and the first map."""
    _, kept = net.apply(
      *(variables, z, LABEL),
      train=False,
      mutable="intermediates",
      capture_intermediates=lambda module, _: isinstance(module, nn.Dense),
    )
    found = flatten_dict(kept["intermediates"])
    call = lambda *path: next(v for p, (v,) in found.items() if p[:-1] == path)
    out = {"first": call("first")}
    for name in names:
      block, norm, kind = name.split("/")
      out[name] = call(block, norm, {"g": "gain", "b": "bias"}[kind])
    return out

  z, steps = normal(4, 6), np.eye(7, 6, dtype=np.float32)[:, None]  # the last is none
  for name, found in jax.jit(jax.vmap(maps))(z[None] + steps).items():
    moved = np.abs(found[:6] - found[6:]).min((1, 2))
    own = np.arange(6) // 2 == (0 if name == "first" else 1 + int(name[6]))
    np.testing.assert_array_equal(moved[~own], 0, err_msg=name)
    assert moved[own].min() > 1e-3, name


def test_weights_between_classes_are_labels_too(small):
  net, variables = small
  z = normal(4, 6)
  call = jax.jit(lambda label: net.apply(variables, z, label, train=False))
  images = call(LABEL)
  one_hot = jax.nn.one_hot(LABEL, 3)
  np.testing.assert_allclose(call(one_hot), images, atol=1e-6)
  other = call(jax.nn.one_hot((LABEL + 1) % 3, 3))
  assert np.abs(other - images).max((1, 2, 3)).min() > 1e-3


def test_errors_name_what_does_not_fit():
  image, z = jnp.zeros((4, 16, 16, 1)), jnp.zeros((4, 6))
  shape = lambda net, *args: jax.eval_shape(
    lambda: net.init(KEY, *args, LABEL, train=True)
  )
  with pytest.raises(
    ValueError, match="latents of 7 numbers; expected a multiple of 3"
  ):
    shape(Generator(**GEN), jnp.zeros((4, 7)))
  with pytest.raises(ValueError, match=r"attention_side=4: .* \[8, 16\]"):
    shape(Generator(**GEN, attention_side=4), z)
  with pytest.raises(ValueError, match=r"attention_side=16: .* \[8, 4\]"):
    shape(Discriminator(3, (8, 8), 2, attention_side=16), image)
  with pytest.raises(ValueError, match="16x16 pixels; expected multiples of 32"):
    shape(Discriminator(3, (8,) * 5, 5), image)


def test_half_precision_is_inside_only():
  gen, disc = (TINY[name].clone(dtype=jnp.bfloat16) for name in ("gen", "disc"))

  def play(z):
    fake, gen_variables = gen.init_with_output(KEY, z, LABEL, train=True)
    score, disc_variables = disc.init_with_output(KEY, fake, LABEL, train=True)
    _, inside = gen.apply(
      gen_variables, z, LABEL, train=True, mutable=True, capture_intermediates=True
    )
    _, more = disc.apply(
      disc_variables, fake, LABEL, train=True, mutable=True, capture_intermediates=True
    )
    inside, more = inside["intermediates"], more["intermediates"]
    inner = [inside["block_0"], inside["attention"], more["attention"]]
    return (gen_variables, disc_variables, fake, score), inner

  kept, inside = jax.eval_shape(play, jnp.zeros((4, 4)))
  assert {x.dtype.name for x in jax.tree.leaves(kept)} == {"float32"}
  assert {x.dtype.name for x in jax.tree.leaves(inside)} == {"bfloat16"}


def test_parameters_without_a_shared_embedding_are_those_of_biggan_pytorch():
  """test_cli has the two experiments of its size."""
  gen, z, label = (
    Generator(10, (256,) * 4),
    jnp.zeros((2, 128)),
    jnp.zeros(2, jnp.int32),
  )
  shapes = jax.eval_shape(lambda: gen.init(KEY, z, label, train=True))
  assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == 4_304_387


# The method.


@pytest.fixture(scope="module")
def trained():
  """(method, its batch, state after 60 steps with ema_decay of 0.9)."""
  tx = optax.adam(1e-3, b1=0.0, b2=0.999)
  method = biggan(
    **TINY, gen_tx=tx, disc_tx=tx, latent_dim=4, num_disc_steps=1, ema_decay=0.9
  )
  image = jnp.clip(normal(4, 8, 8, 1), -1, 1)
  batch = {"image": image, "label": LABEL}
  state, step = first_state(method, batch), jax.jit(method.train_step)
  for i in range(60):
    state, _ = step(state, batch, jax.random.fold_in(KEY, i))
    state = state.replace(step=state.step + 1)
  return method, batch, state


class Layers(nn.Module):
  """One of each kind of layer."""

  num_classes: int = 3

  @nn.compact
  def __call__(self, x, label, train):
    x = nn.Dense(12, name="shared")(x.reshape(len(x), -1)) + nn.Embed(3, 12)(label)
    return nn.Conv(3, (3, 3))(nn.LayerNorm()(x).reshape(-1, 2, 2, 3))


def test_kernels_start_orthogonal_and_the_average_with_them():
  net, tx = Layers(), optax.sgd(0.1)
  method = biggan(net, net, gen_tx=tx, disc_tx=tx, latent_dim=6)
  batch = {"image": jnp.zeros((4, 2, 3, 1)), "label": LABEL}
  before = jax.jit(method.init)(KEY, batch)
  kernels = [w for w in jax.tree.leaves(before.params) if w.ndim > 1]
  assert len(kernels) == 2 * 3
  for kernel in kernels:
    values = np.linalg.svd(np.reshape(kernel, (-1, kernel.shape[-1])))[1]
    np.testing.assert_allclose(values, 1.0, rtol=1e-4)
  jax.tree.map(np.testing.assert_array_equal, before.ema["gen"], before.params["gen"])
  halves = redraw(before.params, KEY, lambda _, shape, dtype: np.full(shape, 0.5))
  for old, new in zip(*map(jax.tree.leaves, (before.params, halves)), strict=True):
    np.testing.assert_array_equal(new, old if old.ndim < 2 else 0.5)


@pytest.mark.parametrize("network", ["gen", "disc", "averaged_gen"])
def test_spectral_norms_in_use_approach_one(trained, network):
  """|W|_2 / sigma of every kernel, after training and some passes more."""
  _, batch, state = trained
  player = network.removeprefix("averaged_")
  net, x = TINY[player], batch["image"] if player == "disc" else normal(4, 4)
  params = (state.params if network == player else state.ema)[player]
  step = jax.jit(
    lambda stats: net.apply(
      {"params": params, **stats}, x, LABEL, train=True, mutable=list(stats)
    )[1]
  )

  def norms(stats):
    found = {}
    for path, sigma in flatten_dict(stats["spectral_norm"]).items():
      if path[-1].endswith("/sigma"):
        layer, leaf, _ = path[-1].split("/")
        w = flatten_dict(params)[*path[:-2], layer, leaf]
        w = np.reshape(w, (-1, w.shape[-1]))
        found["/".join(path[:-1])] = np.linalg.svd(w)[1][0] / sigma
    return found

  stats = state.stats[network]
  early = norms(stats)
  assert len(early) == {"gen": 13, "disc": 9}[player]
  assert all(0.99 < value < 1.25 for value in early.values()), early
  for _ in range(400):
    stats = step(stats)
  assert all(abs(value - 1) < 2e-3 for value in norms(stats).values()), norms(stats)


def test_the_average_has_statistics_of_its_own_and_is_what_is_sampled(trained):
  method, batch, state = trained
  stats = [flatten_dict(state.stats[n]) for n in ("gen", "averaged_gen")]
  apart = [np.abs(stats[0][p] - stats[1][p]).max() for p in stats[0] if p[-1] == "mean"]
  assert min(apart) > 1e-4
  averaged = state.replace(params={**state.params, **state.ema})
  for tool in (method.sample, method.tools["truncation"]):
    draw = jax.jit(
      lambda stats, tool=tool: next(
        iter(tool(averaged.replace(stats=stats), batch, KEY).values())
      )
    )
    found = draw(state.stats)
    other = draw({**state.stats, "averaged_gen": state.stats["gen"]})
    assert np.abs(other - found).max() > 1e-4
    again = draw({**state.stats, "gen": state.stats["averaged_gen"]})
    np.testing.assert_array_equal(again, found)


class Echo(nn.Module):
  """A generator that shows z, or the label's weights, as pixels."""

  num_classes: int = 3
  show_label: bool = False

  @nn.compact
  def __call__(self, z, label, train):
    self.param("unused", nn.initializers.ones, ())
    return (label if self.show_label else z)[:, None, None]


def echo(**kwargs):
  gen, tx = Echo(**kwargs), optax.sgd(0.1)  # its judge is not asked
  method = biggan(gen, gen, gen_tx=tx, disc_tx=tx, latent_dim=50, ema_decay=0.0)
  batch = {"image": jnp.zeros((40, 8, 8, 3)), "label": jnp.arange(40) % 3}
  return method, batch, jax.jit(method.init)(KEY, batch)


def test_truncation_draws_the_same_quantiles_within_every_threshold():
  method, batch, state = echo()
  z = np.asarray(jax.jit(method.tools["truncation"])(state, batch, KEY)["truncated"])
  assert z.shape == (40, len(THRESHOLDS), 1, 1, 50)
  z = z[:, :, 0, 0]
  quantiles = []
  for k, threshold in enumerate(THRESHOLDS):
    assert 0.98 * threshold < np.abs(z[:, k]).max() <= threshold
    low, high = ndtr(-threshold), ndtr(threshold)
    quantiles.append((ndtr(z[:, k]) - low) / (high - low))
    # The variance of N(0, 1) given |z| <= t: 1 - 2 t pdf(t) / (high - low).
    pdf = np.exp(-(threshold**2) / 2) / np.sqrt(2 * np.pi)
    expected = 1 - 2 * threshold * pdf / (high - low)
    np.testing.assert_allclose(np.var(z[:, k]), expected, rtol=0.08, atol=1e-5)
  np.testing.assert_allclose(quantiles, quantiles[:1] * len(quantiles), atol=2e-3)


def test_classes_are_walked_through_in_a_line_with_z_held():
  method, batch, state = echo(show_label=True)
  weights = np.asarray(
    jax.jit(method.tools["interpolate_classes"])(state, batch, KEY)["classes"]
  )
  t = np.linspace(0, 1, 8)
  for row, label in zip(weights[:, :, 0, 0], batch["label"], strict=True):
    np.testing.assert_allclose(row[:, label], 1 - t, atol=1e-6)
    np.testing.assert_allclose(row[:, (label + 1) % 3], t, atol=1e-6)
  method, batch, state = echo()
  z = np.asarray(
    jax.jit(method.tools["interpolate_classes"])(state, batch, KEY)["classes"]
  )
  np.testing.assert_array_equal(z, np.repeat(z[:, :1], 8, axis=1))
  assert np.abs(np.diff(z, axis=0)).min(0).max() > 0


# Parity with BigGAN-PyTorch: its names for the parts of our networks.
LAYERS = {"norm_1": "bn1", "norm_2": "bn2", "conv_1": "conv1", "conv_2": "conv2"}
LAYERS |= {"shortcut": "conv_sc", "query": "theta", "key": "phi", "value": "g"}
LAYERS |= {"out": "o", "gain": "gain", "bias": "bias"}
TOP = {
  "gen": {"first": "linear", "last": "output_layer.2", "shared": "shared"},
  "disc": {"last": "linear", "label": "embed"},
}
LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "gain", "bias": "bias"}
LEAVES |= {"mean": "stored_mean", "var": "stored_var", "gamma": "gamma"}


def their_name(network, path):
  """BigGAN-PyTorch's name of our parameter or variable at `path`."""
  if path[-1].endswith("/u"):  # ..., layer_spectral, layer/kernel/u
    layer = path[-1].split("/")[0]
    return (
      their_name(network, (*path[:-2], layer, "kernel")).removesuffix("weight") + "u0"
    )
  top, *parts, leaf = path
  leaf = LEAVES[leaf]
  if top in TOP[network]:
    return f"{TOP[network][top]}.{leaf}"
  if top == "norm":
    return f"output_layer.0.{leaf}"
  # It is the third block that makes maps of 32x32, the second that leaves 16x16.
  attention = {"gen": "blocks.2.1", "disc": "blocks.1.1"}[network]
  place = attention if top == "attention" else f"blocks.{top[-1]}.0"
  return ".".join([place, *(LAYERS[p] for p in parts if p != "norm"), leaf])


def is_embedding(path):
  """Whether PyTorch has it in the order of ours: rows are classes."""
  return path[0] in ("shared", "label") or path[-1] == "embedding"


def to_theirs(path, x, first_width, classes=False):
  """An array of ours in PyTorch's layout.

  Args:
    path: Ours.
    x: The array; kernels with the output channels last.
    first_width: Channels of the first map, which is channels first there.
    classes: Whether gains and biases of norms have a row per class.
  """
  x = np.asarray(x)
  if path[0] == "first":
    x = np.moveaxis(x.reshape(*x.shape[:-1], 4, 4, first_width), -1, -3)
    x = x.reshape(*x.shape[:-3], -1)
  if path[-1] != "kernel" or is_embedding(path):
    return x
  if classes and path[-2] in ("gain", "bias"):
    return x
  return x.T if x.ndim == 2 else x.transpose(3, 2, 0, 1)


def to_ours(like, path, theirs, *args):
  """The inverse of `to_theirs` for an array of shape `like`."""
  order = np.arange(np.prod(like, dtype=int)).reshape(like)
  out = np.empty(order.size)
  out[to_theirs(path, order, *args).ravel()] = np.ravel(theirs)
  return out.reshape(like)


def weights_of(network, shapes, *args):
  """(params, statistics) with the arrays of `random_state` and `by_name`."""
  shapes = dict(shapes)
  params = flatten_dict(shapes.pop("params"))
  names = {p: their_name(network, p) for p in params}
  layout = lambda p, x: to_theirs(p, np.empty(x.shape), *args).shape
  state = random_state({names[p]: layout(p, x) for p, x in params.items()})
  params = {
    p: to_ours(x.shape, p, state[names[p]].astype(float), *args)
    for p, x in params.items()
  }
  stats = {}
  for path, x in flatten_dict(shapes).items():
    stats[path] = np.ones(x.shape)
    if not path[-1].endswith("sigma"):
      where = ("first", "u") if path[1] == "first_spectral" else path[1:]
      found = by_name(their_name(network, path[1:]), x.shape)
      stats[path] = to_ours(x.shape, where, found, *args)
  return unflatten_dict(params), stats


def worst_error(network, found, golden, key, *args):
  """Of {our path: array}, each relative to the largest of the values compared."""
  arrays = {}
  for path, x in found.items():
    where = ("first", "u") if path[0] == "first_spectral" else path
    arrays[their_name(network, path)] = some(to_theirs(where, x, *args))
  names = golden[f"{key}:names"].tolist()
  assert arrays.keys() == set(names)
  ends = np.cumsum([arrays[name].size for name in names])
  expected = dict(zip(names, np.split(golden[key], ends[:-1]), strict=True))
  largest = lambda x: np.abs(x).max()
  scale = lambda x: max(largest(x), 1e-3 * largest(golden[key]))
  errors = {n: largest(x - expected[n]) / scale(expected[n]) for n, x in arrays.items()}
  return max(errors.values())


def moving(stats):
  """{our path: array} of what moves in training."""
  return {p[1:]: x for p, x in flatten_dict(stats).items() if p[-1][-5:] != "sigma"}


@pytest.mark.parametrize("model", MODELS)
def test_generator_equals_biggan_pytorch_in_float64(model):
  """Images and gradients in both modes; vectors and running averages after training."""
  golden, (*_, shared) = np.load(GOLDEN), MODELS[model]
  factors = (16, 16, 8, 4, 2) if shared else (4, 4, 4, 4)
  net = Generator(
    CLASSES,
    tuple(GEN_WIDTH * k for k in factors),
    shared_dim=SHARED_DIM if shared else 0,
    hierarchical=shared,
    attention_side=GEN_ATTENTION if shared else 0,
  )
  layout = GEN_WIDTH * factors[0], not shared
  with jax.enable_x64(True):
    z, label, direction, *_ = map(jnp.asarray, inputs(model))
    shapes = jax.eval_shape(lambda: net.init(KEY, z, label, train=True))
    params, stats = weights_of("gen", shapes, *layout)
    stats = unflatten_dict(stats)

    @functools.partial(jax.jit, static_argnames="train")
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(params, train):
      variables = {"params": params, **stats}
      fake, after = net.apply(variables, z, label, train=train, mutable=list(stats))
      return jnp.vdot(fake, direction), (fake, after)

    results = {t: jax.device_get(run(params, train=t)) for t in (False, True)}

  for train, suffix, prefix in ((True, "", ""), (False, "_eval", "eval_")):
    (_, (fake, after)), grads = results[train]
    expected = golden[f"{model}/gen/fake{suffix}"]
    np.testing.assert_allclose(fake[:, ::7, ::7], expected, rtol=0, atol=1e-10)
    key = f"{model}/gen/{prefix}grad"
    assert worst_error("gen", flatten_dict(grads), golden, key, *layout) < 1e-8
    if not train:
      jax.tree.map(np.testing.assert_array_equal, after, stats)
  found = moving(results[True][0][1][1])
  for path, x in found.items():
    if path[-1] == "var":  # theirs is unbiased; one update of weight 0.1
      place = 4 if path[0] == "norm" else int(path[0][-1]) + (path[1] == "norm_2")
      place = len(factors) - 1 if path[0] == "norm" else place
      n = BATCH * (4 * 2**place) ** 2
      old = 0.9 * flatten_dict(stats)["batch_stats", *path]
      found[path] = old + (x - old) * n / (n - 1)
  assert worst_error("gen", found, golden, f"{model}/gen/after", *layout) < 1e-8


def test_discriminator_equals_biggan_pytorch_in_float64():
  """Scores, the loss's gradients, vectors after both passes."""
  golden = np.load(GOLDEN)
  widths = tuple(DISC_WIDTH * k for k in (1, 2, 4, 8, 16))
  net = Discriminator(CLASSES, widths, 4, attention_side=DISC_ATTENTION)
  with jax.enable_x64(True):
    _, label, _, real, fake = map(jnp.asarray, inputs("shared"))
    shapes = jax.eval_shape(lambda: net.init(KEY, real, label, train=True))
    params, stats = weights_of("disc", shapes, 0)
    # Their vector is over classes: they start at its singular vector, we at ours.
    (embedding,) = (p for p in stats if p[-1] == "label/embedding/u")
    left, _, right = np.linalg.svd(params["label"]["embedding"], full_matrices=False)
    stats[embedding] = right[:1]
    stats = unflatten_dict(stats)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(params):
      call = lambda x, stats: net.apply(
        {"params": params, **stats}, x, label, train=True, mutable=list(stats)
      )
      real_score, after = call(real, stats)
      fake_score, after = call(fake, after)
      scores = jnp.concatenate([real_score, fake_score])
      return hinge.disc(real_score, fake_score), (scores, after)

    (_, (scores, after)), grads = jax.device_get(run(params))

  np.testing.assert_allclose(scores, golden["disc/score"], rtol=1e-9)
  assert worst_error("disc", flatten_dict(grads), golden, "disc/grad", 0) < 1e-8
  found = {p: x for p, x in moving(after).items() if p[-1] != embedding[-1]}
  found["label_spectral", "label/embedding/u"] = left[:, :1].T
  assert worst_error("disc", found, golden, "disc/after", 0) < 1e-8
