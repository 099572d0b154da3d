"""The two-player step by hand, and DCGAN against PyTorch."""

from pathlib import Path

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.gan.adversarial import two_player
from jaxgen.gan.dcgan import Discriminator, Generator, dcgan
from jaxgen.losses import adversarial
from jaxgen.method import averaged, create_state
from jaxgen.ops.paths import lerp, slerp

GOLDEN = Path(__file__).parent / "golden" / "dcgan_torch.npz"
KEY = jax.random.key(0)


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def assert_changed(old, new, changed):
  same = jax.tree.map(lambda a, b: bool(np.all(a == b)), old, new)
  assert set(jax.tree.leaves(same)) == {not changed}


class LinearGenerator(nn.Module):
  """G(z) = w z + c."""

  @nn.compact
  def __call__(self, z, label, train):
    w = self.param("w", lambda _: jnp.array(0.7))
    c = self.param("c", lambda _: jnp.array(0.0))
    return (w * z + c).reshape(-1, 1, 1, 1)


class LinearDiscriminator(nn.Module):
  """D(x) = v x."""

  @nn.compact
  def __call__(self, x, label, train):
    return self.param("v", lambda _: jnp.array(0.4)) * x.reshape(-1)


@pytest.mark.parametrize(
  "name", ["non_saturating", "minimax", "least_squares", "wasserstein"]
)
def test_one_step_of_linear_players_by_hand(name):
  """SGD on D(x) = v x, then on G(z) = w z + c against the new v."""
  lr_disc, lr_gen, decay, v, w, c = 0.5, 0.25, 0.9, 0.4, 0.7, 0.0
  method = two_player(
    LinearGenerator(),
    LinearDiscriminator(),
    loss=getattr(adversarial, name),
    gen_tx=optax.sgd(lr_gen),
    disc_tx=optax.sgd(lr_disc),
    latent_dim=1,
    ema_decay=decay,
  )
  real = np.array([0.3, -0.8, 0.5, 0.9, 2.0], np.float32)
  batch = {"image": jnp.asarray(real).reshape(5, 1, 1, 1)}
  late = method.init(KEY, batch).replace(step=jnp.int32(1_000))  # The decay is whole.
  state, metrics = jax.jit(method.train_step)(late, batch, KEY)

  z = np.asarray(jax.random.normal(KEY, (5, 1)))[:, 0]
  fake = w * z + c
  sigmoid = lambda s: 1 / (1 + np.exp(-s))
  d_real, d_fake, d_gen = {  # derivatives of the losses by each score, times 5
    "non_saturating": (lambda s: -sigmoid(-s), sigmoid, lambda s: -sigmoid(-s)),
    "minimax": (lambda s: -sigmoid(-s), sigmoid, lambda s: -sigmoid(s)),
    "least_squares": (lambda s: s - 1, lambda s: s, lambda s: s - 1),
    "wasserstein": (lambda s: -1 + 0 * s, lambda s: 1 + 0 * s, lambda s: -1 + 0 * s),
  }[name]
  grad_v = np.mean(d_real(v * real) * real) + np.mean(d_fake(v * fake) * fake)
  new_v = v - lr_disc * grad_v
  by_fake = d_gen(new_v * fake) * new_v
  grad_w, grad_c = np.mean(by_fake * z), np.mean(by_fake)

  expected = {"v": new_v, "w": w - lr_gen * grad_w, "c": c - lr_gen * grad_c}
  got = {**state.params["gen"], **state.params["disc"]}
  for k in expected:
    np.testing.assert_allclose(got[k], expected[k], rtol=1e-5, err_msg=k)
  average = decay * w + (1 - decay) * expected["w"]
  np.testing.assert_allclose(state.ema["gen"]["w"], average, rtol=1e-6)
  np.testing.assert_allclose(metrics["disc_grad_norm"], abs(grad_v), rtol=1e-5)
  norm = np.hypot(grad_w, grad_c)
  np.testing.assert_allclose(metrics["gen_grad_norm"], norm, rtol=1e-5)
  cut = 0.5 if name == "least_squares" else 0.0
  np.testing.assert_allclose(metrics["disc_accuracy_real"], np.mean(v * real > cut))
  np.testing.assert_allclose(metrics["disc_accuracy_fake"], np.mean(v * fake < cut))


TINY = Generator(channels=1, width=2, num_doublings=1), Discriminator(2, 2, 2)


def tiny(gen_rate, disc_rate):
  """DCGAN on 8x8 images, averaged, under SGD."""
  return two_player(
    *TINY,
    loss=adversarial.non_saturating,
    gen_tx=optax.sgd(gen_rate),
    disc_tx=optax.sgd(disc_rate),
    latent_dim=3,
    ema_decay=0.9,
  )


@pytest.fixture(scope="module")
def game():
  """The method, its first state, a batch, and a step that takes both rates."""
  method = tiny(0.1, 0.1)
  image = jax.random.uniform(jax.random.key(1), (6, 8, 8, 1), minval=-1.0)
  batch = {"image": image, "label": jnp.arange(6)}
  state = jax.jit(method.init)(KEY, batch)
  step = jax.jit(lambda state, *rates: tiny(*rates).train_step(state, batch, KEY))
  return method, state, batch, step


@pytest.fixture(scope="module")
def stepped(game):
  """The state after one step in which both networks learn."""
  _, state, _, step = game
  return step(state, 0.1, 0.1)[0]


@pytest.mark.parametrize("name, other", [("gen", "disc"), ("disc", "gen")])
def test_each_update_changes_its_own_network_only(game, name, other):
  _, before, _, step = game
  after, metrics = step(before, 0.1 * (name == "gen"), 0.1 * (name == "disc"))
  assert metrics[f"{other}_grad_norm"] > 0
  assert_changed(before.params[name], after.params[name], changed=True)
  assert_changed(before.params[other], after.params[other], changed=False)


def test_running_averages_move_once_in_gen_and_twice_in_disc(game, stepped):
  """By making each pass with its batch statistics one by one."""
  _, before, batch, _ = game
  gen, disc = TINY
  z = jax.random.normal(KEY, (6, 3))

  @jax.jit
  def passes(before, after):
    call = lambda net, params, stats, x: net.apply(
      {"params": params, **stats}, x, train=True, mutable=["batch_stats"]
    )
    fake, gen_stats = call(gen, before.params["gen"], before.stats["gen"], z)
    stats, params = before.stats["disc"], before.params["disc"]
    _, stats = call(disc, params, stats, batch["image"])
    _, disc_stats = call(disc, params, stats, fake)
    old = before.stats["averaged_gen"]
    _, averaged_stats = call(gen, after.ema["gen"], old, z)
    return {"gen": gen_stats, "disc": disc_stats, "averaged_gen": averaged_stats}

  expected = passes(before, stepped)
  assert expected.keys() == stepped.stats.keys()
  for name in expected:
    got = jax.tree.leaves(stepped.stats[name])
    for a, b in zip(got, jax.tree.leaves(expected[name]), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  assert_changed(before.stats, stepped.stats, changed=True)


def test_averaged_generator_samples_with_its_own_running_averages(game):
  method, state, batch, _ = game
  names = enumerate(("gen", "averaged_gen", "disc"), start=2)
  stats = {
    n: jax.tree.map(lambda x, i=i: x * (i + 1) - i, state.stats[n]) for i, n in names
  }
  ema = {"gen": jax.tree.map(lambda w: 3.0 * w, state.params["gen"])}
  state = averaged(state.replace(stats=stats, ema=ema))
  got = jax.jit(method.sample)(state, batch, KEY)["samples"]
  variables = {"params": ema["gen"], **stats["averaged_gen"]}
  z = jax.random.normal(KEY, (6, 3))
  expected = jax.jit(lambda v: TINY[0].apply(v, z, train=False))(variables)
  np.testing.assert_allclose(got, expected, atol=1e-6)
  assert np.abs(got).max() > 1e-3


def test_sample_is_a_function_of_its_key_in_the_shape_of_the_images(game, stepped):
  method, _, batch, _ = game
  sample = jax.jit(method.sample)
  one = sample(averaged(stepped), batch, KEY)["samples"]
  assert one.shape == (6, 8, 8, 1)
  assert np.abs(one).max() <= 1
  same = sample(averaged(stepped), {**batch, "image": batch["image"] * 0}, KEY)
  other = sample(averaged(stepped), batch, jax.random.key(1))["samples"]
  np.testing.assert_array_equal(one, same["samples"])
  assert not np.allclose(one, other)


def test_interpolation_starts_and_ends_at_generated_images(game, stepped):
  method, _, batch, _ = game
  paths = jax.jit(method.tools["interpolate"])(averaged(stepped), batch, KEY)
  assert paths["spherical"].shape == paths["linear"].shape == (6, 8, 8, 8, 1)
  for end in (0, -1):
    np.testing.assert_allclose(
      paths["spherical"][:, end], paths["linear"][:, end], atol=1e-5
    )
  middle = paths["spherical"][:, 4] - paths["linear"][:, 4]
  assert np.abs(middle).max() > 1e-4


def test_slerp_keeps_the_length_and_goes_at_constant_speed():
  a, b = jnp.array([[3.0, 0.0], [0.0, 2.0]]), jnp.array([[0.0, 3.0], [0.0, 4.0]])
  t = jnp.linspace(0.0, 1.0, 5)
  path = slerp(a, b, t)
  angles = np.arange(5) * np.pi / 8
  quarter = 3 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
  np.testing.assert_allclose(path[0], quarter, atol=1e-5)
  straight = np.stack([0 * t, 2 + 2 * t], axis=-1)
  np.testing.assert_allclose(path[1], straight, atol=1e-5)  # parallel: no arc
  np.testing.assert_allclose(lerp(a, b, t)[1], straight, atol=1e-6)


@pytest.mark.parametrize(
  "gen, disc, side",
  [
    (Generator(), Discriminator(), 64),
    (Generator(1, 4, 3), Discriminator(4, 3), 32),
    (Generator(1, 4, 2, 7), Discriminator(4, 2, 7), 28),
  ],
)
def test_sizes_and_published_parameter_counts(gen, disc, side):
  channels = gen.channels
  method = dcgan(gen, disc, gen_tx=optax.sgd(0.1), disc_tx=optax.sgd(0.1))
  batch = {"image": jnp.zeros((2, side, side, channels))}
  state = jax.eval_shape(method.init, KEY, batch)
  samples = jax.eval_shape(method.sample, state, batch, KEY)["samples"]
  assert samples.shape == (2, side, side, channels)
  if side == 64:
    assert count(state.params["gen"]) == 3_576_704
    assert count(state.params["disc"]) == 2_765_568


def test_half_precision_is_inside_only():
  gen, disc = Generator(1, 2, 1, dtype=jnp.bfloat16), Discriminator(2, 1, 4, "bfloat16")

  def play(z):
    fake, gen_variables = gen.init_with_output(KEY, z, train=True)
    disc_variables = jax.jit(disc.init, static_argnames="train")(KEY, fake, train=True)
    score, inside = disc.apply(
      disc_variables, fake, train=True, mutable=True, capture_intermediates=True
    )
    kept = gen_variables, disc_variables, fake, score
    return kept, inside["intermediates"]["conv_0"]

  kept, inside = jax.eval_shape(play, jnp.zeros((2, 3)))
  assert {x.dtype.name for x in jax.tree.leaves(kept)} == {"float32"}
  assert {x.dtype.name for x in jax.tree.leaves(inside)} == {"bfloat16"}


def test_wrong_image_size_is_an_error():
  with pytest.raises(ValueError, match="32x32 pixels; expected 64x64"):
    jax.eval_shape(
      lambda: Discriminator().init(KEY, jnp.zeros((1, 32, 32, 3)), train=True)
    )


def test_initial_weights_have_the_published_spread(game):
  _, state, _, _ = game
  leaves = jax.tree_util.tree_leaves_with_path(state.params)
  pick = lambda name: np.concatenate(
    [x.ravel() for path, x in leaves if path[-1].key == name]
  )
  np.testing.assert_allclose(pick("kernel").std(), 0.02, rtol=0.2)
  assert 0 < np.abs(pick("scale") - 1).max() < 0.08
  assert np.all(pick("bias") == 0)


class GivenLatent(nn.Module):
  """A generator that takes its latent from batch["label"]."""

  net: nn.Module

  def __call__(self, z, label, train):
    return self.net(label, None, train=train)


def golden_params(golden, name, first_norm):
  """(weights, gradients, running averages) of PyTorch, in Flax's tree."""
  convs = [f"conv_{k}" for k in range(4)]
  params, grads, averages = {}, {}, {}
  for k, layer in enumerate(["first", *convs] if name == "gen" else [*convs, "last"]):
    params[layer] = {"kernel": golden[f"{name}/weight/{k}"].astype(float)}
    grads[layer] = {"kernel": golden[f"{name}/grad/{k}"]}
  for k in range(4 if name == "gen" else 3):
    norm, key = f"norm_{k + first_norm}", f"{name}/norm/{k}"
    params[norm] = {n: golden[f"{key}/{n}"] for n in ("scale", "bias")}
    grads[norm] = {n: golden[f"{key}/{n}_grad"] for n in ("scale", "bias")}
    averages[norm] = {n: golden[f"{key}/{n}"] for n in ("mean", "var")}
  return params, grads, averages


def biased(var, num_values, num_updates):
  """PyTorch's running variance, had it averaged biased variances, from ones."""
  start = 0.9**num_updates
  return start + (var - start) * (num_values - 1) / num_values


def relative_error(got, expected):
  return np.abs(got - expected).max() / np.abs(expected).max()


def test_one_step_equals_pytorch_in_float64():
  golden = np.load(GOLDEN)
  lr = float(golden["lr"])
  gen, disc = GivenLatent(Generator(width=3)), Discriminator(width=3)
  gen_params, gen_grads, gen_averages = golden_params(golden, "gen", 0)
  disc_params, disc_grads, disc_averages = golden_params(golden, "disc", 1)
  params = {"gen": {"net": gen_params}, "disc": disc_params}
  grads = {"gen": {"net": gen_grads}, "disc": disc_grads}
  averages = {"gen": {"net": gen_averages}, "disc": disc_averages}
  fresh = lambda name, average: average * 0 + (name[-1].key == "var")
  stats = jax.tree_util.tree_map_with_path(fresh, averages)

  with jax.enable_x64(True):
    tx = optax.sgd(lr)
    method = dcgan(gen, disc, gen_tx=tx, disc_tx=tx, latent_dim=5)
    variables = {n: {"params": params[n], "batch_stats": stats[n]} for n in params}
    state = create_state(variables, {"gen": tx, "disc": tx})
    image = jnp.asarray(golden["pixels"] / 127.5 - 1.0)
    batch = {"image": image, "label": jnp.asarray(golden["z"])}

    @jax.jit
    def run(state):
      fake, _ = gen.apply(
        {"params": state.params["gen"], **state.stats["gen"]},
        *(None, batch["label"], True),
        mutable=["batch_stats"],
      )
      return fake, *method.train_step(state, batch, KEY)

    fake, after, metrics = jax.device_get(run(state))

  assert relative_error(fake[:, ::3, ::3], golden["fake"]) < 1e-8
  for name in ("disc_loss", "gen_loss"):
    np.testing.assert_allclose(metrics[name], golden[name], rtol=1e-8)
  got = jax.tree.map(lambda a, b: (a - b) / lr, params, after.params)
  errors = jax.tree.map(relative_error, got, grads)
  assert max(jax.tree.leaves(errors)) < 1e-8, errors

  for name, num_updates, found, expected in (
    ("gen", 1, after.stats["gen"]["batch_stats"]["net"], gen_averages),
    ("disc", 2, after.stats["disc"]["batch_stats"], disc_averages),
  ):
    for norm, average in expected.items():
      level = int(norm.split("_")[1])
      side = 4 * 2**level if name == "gen" else 32 // 2**level
      var = biased(average["var"], 2 * side**2, num_updates)
      assert relative_error(found[norm]["mean"], average["mean"]) < 1e-8
      assert relative_error(found[norm]["var"], var) < 1e-8
