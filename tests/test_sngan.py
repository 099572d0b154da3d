"""Spectral norm against SVD; the residual networks against torch-mimicry."""

import functools
from pathlib import Path

from drawn import first_state
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from golden.mimicry_inputs import CLASSES, WIDTH, inputs
from golden.random_state import random_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.checkpoint import Checkpoints
from jaxgen.gan.sngan import sngan
from jaxgen.losses.adversarial import hinge, wasserstein
from jaxgen.losses.penalties import between, gradient_penalty
from jaxgen.nn.resnet_gan import Discriminator, Generator
from jaxgen.nn.spectral import spectral_norm
from jaxgen.ops.resize import resize_torch_bilinear

GOLDEN = Path(__file__).parent / "golden" / "mimicry.npz"
KEY = jax.random.key(0)


class Wrapped(nn.Module):
  """One spectrally normalised layer."""

  layer: str
  num_iterations: int = 1

  @nn.compact
  def __call__(self, x, train):
    bias = nn.initializers.normal(1.0)
    layer = {
      "dense": lambda: nn.Dense(5, bias_init=bias, name="layer"),
      "conv": lambda: nn.Conv(5, (3, 3), bias_init=bias, name="layer"),
      "embed": lambda: nn.Embed(7, 5, name="layer"),
    }[self.layer]()
    wrapped = spectral_norm(layer, train=train, num_iterations=self.num_iterations)
    return wrapped(x)


LAYERS = {
  "dense": (nn.Dense(5), jnp.ones((2, 4))),
  "conv": (nn.Conv(5, (3, 3)), jnp.linspace(-1.0, 1.0, 2 * 6 * 6 * 3)),
  "embed": (nn.Embed(7, 5), jnp.array([0, 3, 6])),
}
LAYERS["conv"] = LAYERS["conv"][0], LAYERS["conv"][1].reshape(2, 6, 6, 3)


def matrix_of(params):
  """The kernel or embedding, [everything else, output channels]."""
  (matrix,) = (w for w in params.values() if w.ndim > 1)
  return np.asarray(matrix).reshape(-1, matrix.shape[-1])


@pytest.mark.parametrize("name", LAYERS)
def test_converged_layer_has_the_largest_singular_value_of_svd(name):
  plain, x = LAYERS[name]
  net = Wrapped(name, num_iterations=200)  # Each of them would be compiled.
  variables = jax.jit(Wrapped(name).init, static_argnames="train")(KEY, x, train=True)
  params = {k: 3.0 * w for k, w in variables["params"]["layer"].items()}
  variables = {**variables, "params": {"layer": params}}
  out, after = net.apply(variables, x, train=True, mutable="spectral_norm")
  (vectors,) = after["spectral_norm"].values()
  found = {k.split("/")[-1]: v for k, v in vectors.items()}
  sigma = np.linalg.svd(matrix_of(params), compute_uv=False)[0]
  np.testing.assert_allclose(found["sigma"], sigma, rtol=1e-5)
  normalized = {k: w / sigma if w.ndim > 1 else w for k, w in params.items()}
  expected = plain.apply({"params": normalized}, x)  # biases are left alone
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_each_training_call_is_one_iteration_and_others_keep_nothing():
  x = LAYERS["dense"][1]
  net = Wrapped("dense")
  variables = jax.jit(net.init, static_argnames="train")(KEY, x, train=False)
  w = matrix_of(variables["params"]["layer"])
  u = np.asarray(variables["spectral_norm"]["layer_spectral"]["layer/kernel/u"])[0]
  unit = lambda x: x / np.linalg.norm(x)
  for _ in range(3):
    v = unit(w @ u)
    u = unit(w.T @ v)
    for train in (False, True):  # both use the next u
      out, after = net.apply(variables, x, train=train, mutable="spectral_norm")
      bias = variables["params"]["layer"]["bias"]
      expected = x[0] @ (w / (v @ w @ u)) + bias
      np.testing.assert_allclose(out[0], expected, rtol=1e-5, atol=1e-6)
      if not train:
        kept = {"spectral_norm": variables["spectral_norm"]}
        jax.tree.map(np.testing.assert_array_equal, after, kept)
    variables = {**variables, **after}
    kept = after["spectral_norm"]["layer_spectral"]["layer/kernel/u"]
    np.testing.assert_allclose(kept[0], u, rtol=1e-5)


def test_gradient_treats_the_vectors_as_constants_and_sigma_not():
  """d <D, W / sigma> / dW = (D - <D, W / sigma> v u^T) / sigma with sigma = v^T W u."""
  x = jnp.eye(4)
  net = Wrapped("dense")
  variables = jax.jit(net.init, static_argnames="train")(KEY, x, train=False)
  direction = np.random.default_rng(0).standard_normal((4, 5))

  def objective(params):
    return jnp.vdot(
      net.apply({**variables, "params": params}, x, train=False), direction
    )

  got = jax.jit(jax.grad(objective))(variables["params"])["layer"]["kernel"]
  w = matrix_of(variables["params"]["layer"])
  u = np.asarray(variables["spectral_norm"]["layer_spectral"]["layer/kernel/u"])[0]
  v = w @ u / np.linalg.norm(w @ u)
  u = w.T @ v / np.linalg.norm(w.T @ v)
  sigma = v @ w @ u
  expected = (direction - np.vdot(direction, w / sigma) * np.outer(v, u)) / sigma
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


class Chain(nn.Module):
  """Three normalised dense layers: 1-Lipschitz."""

  @nn.compact
  def __call__(self, x, train):
    for i, width in enumerate((16, 16, 1)):
      x = spectral_norm(nn.Dense(width, name=f"dense_{i}"), train=train)(nn.relu(x))
    return x[:, 0]


def test_it_bounds_the_lipschitz_constant():
  x = jax.random.normal(KEY, (200, 8))
  net = Chain()
  variables = jax.jit(net.init, static_argnames="train")(KEY, x, train=True)
  params = jax.tree.map(lambda w: 5.0 * w, variables["params"])

  @jax.jit
  def call(stats):
    variables = {"params": params, **stats}
    return net.apply(variables, x, train=True, mutable="spectral_norm")

  _, stats = call({"spectral_norm": variables["spectral_norm"]})
  for _ in range(100):
    _, stats = call(stats)
  score = lambda x, stats: net.apply({"params": params, **stats}, x, train=False)
  slopes = jax.jit(jax.grad(lambda x, stats: score(x, stats).sum()))
  slope = lambda stats: np.linalg.norm(slopes(x, stats), axis=-1)
  assert 0.05 < slope(stats).max() <= 1 + 1e-5
  ones = jax.tree.map(jnp.ones_like, stats)  # not yet converged: no bound
  assert slope(ones).max() > slope(stats).max()


# Parity with torch-mimicry: its names for the parts of our networks.
TOP = {
  "gen": {"first": "l1", "norm": "b5", "last": "c5"},
  "disc": {"last": "l5", "label": "l_y"},
}
FIRST_BLOCK = {"gen": 2, "disc": 1}
PARTS = {"norm_1": "b1", "norm_2": "b2", "conv_1": "c1", "conv_2": "c2"}
PARTS |= {"shortcut": "c_sc", "norm": "bn", "label": "embed"}


def module_name(network, path, conditional):
  """torch-mimicry's name of our module at `path`."""
  top, *rest = path
  if not top.startswith("block"):
    return TOP[network][top]
  if rest[-1] == "norm" and not conditional:
    rest = rest[:-1]  # their batch norm is wrapped only where it has classes
  block = f"block{int(top[-1]) + FIRST_BLOCK[network]}"
  return ".".join([block, *(PARTS[part] for part in rest)])


def to_theirs(path, x):
  """An array of ours in PyTorch's layout."""
  x = np.asarray(x)
  if path[0] == "first":  # their first map is channels first
    x = np.moveaxis(x.reshape(*x.shape[:-1], 4, 4, WIDTH), -1, -3)
    x = x.reshape(*x.shape[:-3], -1)
  if path[-1] == "kernel":
    return x.T if x.ndim == 2 else x.transpose(3, 2, 0, 1)
  return x


def to_ours(path, x):
  """The inverse of `to_theirs`."""
  if path[-1] == "kernel":
    x = x.T if x.ndim == 2 else x.transpose(2, 3, 1, 0)
  if path[0] == "first":
    x = np.moveaxis(x.reshape(*x.shape[:-1], WIDTH, 4, 4), -3, -1)
    x = x.reshape(*x.shape[:-3], -1)
  return x


def theirs_and_ours(net, network, x, label, conditional=False, spectral=False):
  """({our path: their name}, parameters of `random_state`, shapes of the rest)."""
  shapes = jax.eval_shape(lambda: net.init(KEY, x, label, train=True))
  names, their_shapes = {}, {}
  for path, leaf in flatten_dict(shapes.pop("params")).items():
    # PyTorch's spectral norm renames weights, torch-mimicry's own (l5, l_y) does not.
    renamed = spectral and not (conditional and path[0] in ("last", "label"))
    weight = "weight_orig" if renamed else "weight"
    name = "bias" if path[-1] == "bias" else weight
    names[path] = f"{module_name(network, path[:-1], conditional)}.{name}"
    their_shapes[names[path]] = to_theirs(path, np.zeros(leaf.shape)).shape
  state = random_state(their_shapes)
  params = {p: to_ours(p, state[n].astype(float)) for p, n in names.items()}
  return names, unflatten_dict(params), shapes


def unpack(golden, key, sizes):
  """{their name: flat array}."""
  names = golden[f"{key}:names"].tolist()
  assert sizes.keys() == set(names)
  ends = np.cumsum([sizes[name] for name in names])
  return dict(zip(names, np.split(golden[key], ends[:-1]), strict=True))


def worst_error(got, golden, key):
  """Of {their name: array}, each relative to the largest value of its array."""
  expected = unpack(golden, key, {name: x.size for name, x in got.items()})
  largest = lambda x: np.abs(x).max()
  error = lambda a, b: largest(np.ravel(a) - b) / max(largest(b), 1e-3)
  return max(error(x, expected[name]) for name, x in got.items())


def upsample_as_theirs(x):
  return resize_torch_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]))


@pytest.mark.parametrize("model", ["wgan_gp", "cgan_pd"])
def test_generator_equals_torch_mimicry_in_float64(model):
  golden, conditional = np.load(GOLDEN), model == "cgan_pd"
  z, label, direction, *_ = inputs()
  label = label if conditional else None
  net = Generator(
    width=WIDTH, num_classes=CLASSES * conditional, upsample=upsample_as_theirs
  )
  with jax.enable_x64(True):
    z = jnp.asarray(z)
    names, params, shapes = theirs_and_ours(net, "gen", z, label, conditional)
    fresh = lambda path, x: np.full(x.shape, float(path[-1].key == "var"))
    stats = jax.tree_util.tree_map_with_path(fresh, shapes)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(params):
      fake, after = net.apply(
        {"params": params, **stats}, z, label, train=True, mutable="batch_stats"
      )
      return jnp.vdot(fake, direction), (fake, after["batch_stats"])

    (_, (fake, averages)), grads = jax.device_get(run(params))

  expected = golden[f"{model}/gen/fake"]
  np.testing.assert_allclose(fake[:, ::3, ::3], expected, rtol=0, atol=1e-10)
  by_name = {names[p]: to_theirs(p, g) for p, g in flatten_dict(grads).items()}
  assert worst_error(by_name, golden, f"{model}/gen/grad") < 1e-8
  found = {}
  for path, x in flatten_dict(averages).items():
    if path[-1] == "var":  # theirs is unbiased; one update from 1, of weight 0.1
      side = 32 if path[0] == "norm" else 4 * 2 ** (int(path[0][-1]))
      side *= 2 if "norm_2" in path else 1
      n = len(z) * side**2
      x = 0.9 + (x - 0.9) * n / (n - 1)
    found[f"{module_name('gen', path[:-1], conditional)}.{path[-1]}"] = x
  assert worst_error(found, golden, f"{model}/gen/average") < 1e-8


@pytest.mark.parametrize("model", ["wgan_gp", "sngan", "cgan_pd"])
def test_discriminator_equals_torch_mimicry_in_float64(model):
  """Loss, penalty and all gradients; the vectors of spectral norm after two passes."""
  golden, conditional = np.load(GOLDEN), model == "cgan_pd"
  spectral = model != "wgan_gp"
  _, label, _, real, fake, t = inputs()
  label = label if conditional else None
  net = Discriminator(
    width=WIDTH,
    num_classes=CLASSES * conditional,
    spectral=spectral,
    pool=jnp.sum if spectral else jnp.mean,
  )
  with jax.enable_x64(True):
    real, fake, t = (jnp.asarray(x) for x in (real, fake, t))
    names, params, shapes = theirs_and_ours(
      net, "disc", real, label, conditional, spectral
    )
    vectors = flatten_dict(shapes)
    owner = lambda path: module_name(
      "disc", (*path[1:-2], path[-1].split("/")[0]), conditional
    )
    sizes = {owner(p): x.size for p, x in vectors.items() if p[-1].endswith("/u")}
    before = unpack(golden, f"{model}/disc/before", sizes) if spectral else {}
    start = lambda p, x: before[owner(p)][None] if p[-1].endswith("u") else np.ones(())
    stats = unflatten_dict({p: start(p, x) for p, x in vectors.items()})

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(params):
      call = lambda x, stats: net.apply(
        {"params": params, **stats}, x, label, train=True, mutable=list(stats)
      )
      real_score, after = call(real, stats)
      fake_score, after = call(fake, after)
      if spectral:
        return hinge.disc(real_score, fake_score), after
      score = lambda x: call(x, {})[0]
      penalty = 10.0 * gradient_penalty(score, between(real, fake, t)).mean()
      return wasserstein.disc(real_score, fake_score) + penalty, after

    (loss, after), grads = jax.device_get(run(params))

  np.testing.assert_allclose(loss, golden[f"{model}/disc/loss"], rtol=1e-9)
  by_name = {names[p]: to_theirs(p, g) for p, g in flatten_dict(grads).items()}
  assert worst_error(by_name, golden, f"{model}/disc/grad") < 1e-8
  if spectral:
    found = {owner(p): x for p, x in flatten_dict(after).items() if p[-1][-1] == "u"}
    assert worst_error(found, golden, f"{model}/disc/after") < 1e-8


def test_published_parameter_counts_with_labels():
  """test_cli has those without."""
  gen, disc = Generator(num_classes=10), Discriminator(num_classes=10)
  tx = optax.sgd(0.1)
  method = sngan(gen, disc, gen_tx=tx, disc_tx=tx)
  batch = {"image": jnp.zeros((2, 32, 32, 3)), "label": jnp.zeros(2, jnp.int32)}
  state = jax.eval_shape(method.init, KEY, batch)
  count = lambda name: sum(x.size for x in jax.tree.leaves(state.params[name]))
  assert (count("gen"), count("disc")) == (4_304_387, 1_055_105)


def tiny(num_disc_steps=1):
  tx = optax.adam(1e-3, b1=0.0, b2=0.9)
  return sngan(
    Generator(channels=1, width=4, num_doublings=1, num_classes=3),
    Discriminator(width=4, num_classes=3, spectral=True, pool=jnp.sum),
    gen_tx=tx,
    disc_tx=tx,
    latent_dim=3,
    num_disc_steps=num_disc_steps,
  )


@pytest.fixture(scope="module")
def stepped():
  """(state before, batch, state and metrics after one step)."""
  method = tiny()
  image = jax.random.uniform(jax.random.key(1), (6, 8, 8, 1), minval=-1.0)
  batch = {"image": image, "label": jnp.arange(6) % 3}
  before = first_state(method, batch)
  return before, batch, *jax.jit(method.train_step)(before, batch, KEY)


def test_vectors_are_statistics_and_move_with_both_batches(stepped):
  """Two power iterations of the kernel before its update."""
  before, _, after, metrics = stepped
  path = "block_1", "conv_2"
  w = matrix_of(before.params["disc"][path[0]][path[1]])
  name = ("spectral_norm", path[0], f"{path[1]}_spectral", f"{path[1]}/kernel/u")
  u = np.asarray(flatten_dict(before.stats["disc"])[name])[0]
  for _ in range(2):
    v = w @ u / np.linalg.norm(w @ u)
    u = w.T @ v / np.linalg.norm(w.T @ v)
  np.testing.assert_allclose(
    flatten_dict(after.stats["disc"])[name][0], u, rtol=1e-4, atol=1e-5
  )
  for player in ("real", "fake"):
    assert 0 <= metrics[f"disc_accuracy_{player}"] <= 1


def test_vectors_survive_a_checkpoint(stepped, tmp_path):
  """Their names hold slashes, as Flax gives them."""
  *_, after, _ = stepped
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  spec = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, after)
  with Checkpoints(tmp_path) as checkpoints:
    found = checkpoints.restore(lambda _: jax.tree.map(spec, after))
  jax.tree.map(np.testing.assert_array_equal, found.stats, after.stats)


def test_labels_reach_both_players(stepped):
  state, batch, *_ = stepped
  method = tiny()
  image = lambda label: jax.jit(method.sample)(state, {**batch, "label": label}, KEY)
  double = np.float32([[1.0], [2.0], [1.0]])  # of label 1
  scale = lambda w: w * double if w.shape == (3, 8) else w
  state = state.replace(params=jax.tree.map(scale, state.params))
  one, other = (image(jnp.full(6, k))["samples"] for k in (0, 1))
  assert np.abs(one - other).max() > 1e-3
  disc = Discriminator(width=4, num_classes=3, spectral=True, pool=jnp.sum)
  variables = {"params": state.params["disc"], **state.stats["disc"]}
  apply = jax.jit(functools.partial(disc.apply, train=False))
  score = lambda k: apply(variables, batch["image"], jnp.full(6, k))
  assert np.abs(score(0) - score(1)).max() > 1e-3


def test_half_precision_is_inside_only():
  gen = Generator(1, 4, 1, num_classes=3, dtype=jnp.bfloat16)
  disc = Discriminator(4, 3, spectral=True, dtype=jnp.bfloat16)

  def play(z, label):
    fake, gen_variables = gen.init_with_output(KEY, z, label, train=True)
    score, disc_variables = disc.init_with_output(KEY, fake, label, train=True)
    _, inside = disc.apply(
      disc_variables, fake, label, train=True, mutable=True, capture_intermediates=True
    )
    return (gen_variables, disc_variables, fake, score), inside["intermediates"]

  kept, inside = jax.eval_shape(play, jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32))
  assert {x.dtype.name for x in jax.tree.leaves(kept)} == {"float32"}
  assert {x.dtype.name for x in jax.tree.leaves(inside["block_1"])} == {"bfloat16"}


def test_a_side_that_does_not_halve_twice_is_an_error():
  x = jnp.zeros((1, 14, 14, 1))
  with pytest.raises(ValueError, match="14x14 pixels; expected multiples of 4"):
    jax.eval_shape(lambda: Discriminator().init(KEY, x, train=True))
