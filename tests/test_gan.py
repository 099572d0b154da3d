"""The two-player step by hand, and DCGAN against PyTorch."""

from pathlib import Path

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.gan.adversarial import lerp, slerp, two_player
from jaxgen.gan.dcgan import Discriminator, Generator, dcgan
from jaxgen.losses import adversarial
from jaxgen.method import averaged

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
    w, c = self.param("w", lambda _: jnp.array(0.7)), self.param("c", jnp.zeros, ())
    return (w * z + c).reshape(-1, 1, 1, 1)


class LinearDiscriminator(nn.Module):
  """D(x) = v x."""

  @nn.compact
  def __call__(self, x, label, train):
    return self.param("v", lambda _: jnp.array(0.4)) * x.reshape(-1)


@pytest.mark.parametrize("name", ["non_saturating", "minimax", "wasserstein"])
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
  real = np.array([0.3, -0.8, 0.5, 0.9], np.float32)
  batch = {"image": jnp.asarray(real).reshape(4, 1, 1, 1)}
  state, metrics = jax.jit(method.train_step)(method.init(KEY, batch), batch, KEY)

  z = np.asarray(jax.random.normal(KEY, (4, 1)))[:, 0]
  fake = w * z + c
  sigmoid = lambda s: 1 / (1 + np.exp(-s))
  d_real, d_fake, d_gen = {  # derivatives of the losses by each score, times 4
    "non_saturating": (lambda s: -sigmoid(-s), sigmoid, lambda s: -sigmoid(-s)),
    "minimax": (lambda s: -sigmoid(-s), sigmoid, lambda s: -sigmoid(s)),
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
  np.testing.assert_allclose(metrics["disc_accuracy_real"], np.mean(v * real > 0))
  np.testing.assert_allclose(metrics["disc_accuracy_fake"], np.mean(v * fake < 0))


def tiny(**kwargs):
  gen = Generator(channels=1, width=2, num_doublings=1)
  disc = Discriminator(width=2, num_halvings=2, base_size=2)
  return two_player(gen, disc, latent_dim=3, **kwargs)


@pytest.fixture(scope="module")
def stepped():
  """8x8 images: the method, its state before and after one step, the batch."""
  sgd = optax.sgd(0.1)
  kwargs = dict(loss=adversarial.non_saturating, gen_tx=sgd, disc_tx=sgd)
  method = tiny(ema_decay=0.9, **kwargs)
  image = jax.random.uniform(jax.random.key(1), (6, 8, 8, 1), minval=-1.0)
  batch = {"image": image, "label": jnp.arange(6)}
  before = jax.jit(method.init)(KEY, batch)
  after, _ = jax.jit(method.train_step)(before, batch, KEY)
  return method, before, after, batch


def frozen(name):
  """One step in which only the network `name` has a learning rate."""
  rate = lambda network: optax.sgd(0.1 if network == name else 0.0)
  kwargs = dict(gen_tx=rate("gen"), disc_tx=rate("disc"))
  return tiny(loss=adversarial.non_saturating, **kwargs)


@pytest.mark.parametrize("name, other", [("gen", "disc"), ("disc", "gen")])
def test_each_update_changes_its_own_network_only(stepped, name, other):
  _, _, _, batch = stepped
  method = frozen(name)
  before = jax.jit(method.init)(KEY, batch)
  after, metrics = jax.jit(method.train_step)(before, batch, KEY)
  assert metrics[f"{other}_grad_norm"] > 0
  assert_changed(before.params[name], after.params[name], changed=True)
  assert_changed(before.params[other], after.params[other], changed=False)


def test_running_averages_move_once_in_the_generator_twice_in_the_discriminator(
  stepped,
):
  """By recomputing each pass and its batch statistics one by one."""
  _, before, after, batch = stepped
  z = jax.random.normal(KEY, (6, 3))
  gen, disc = Generator(1, 2, 1), Discriminator(2, 2, 2)

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

  for name, expected in passes(before, after).items():
    got = jax.tree.leaves(after.stats[name])
    for a, b in zip(got, jax.tree.leaves(expected), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  assert_changed(before.stats, after.stats, changed=True)


def test_sample_is_a_function_of_its_key_in_the_shape_of_the_images(stepped):
  method, _, state, batch = stepped
  sample = jax.jit(method.sample)
  one = sample(averaged(state), batch, KEY)["samples"]
  assert one.shape == (6, 8, 8, 1)
  assert np.abs(one).max() <= 1
  again = sample(averaged(state), {"image": batch["image"] * 0}, KEY)["samples"]
  other = sample(averaged(state), batch, jax.random.key(1))["samples"]
  np.testing.assert_array_equal(one, again)
  assert not np.allclose(one, other)


def test_averaged_generator_samples_with_its_own_running_averages():
  """A generator whose weights are frozen at 10 times its average."""
  net = Generator(channels=1, width=2, num_doublings=1)
  method = tiny(
    loss=adversarial.non_saturating,
    gen_tx=optax.sgd(0.0),
    disc_tx=optax.sgd(0.0),
    ema_decay=1.0,
  )
  batch = {"image": jnp.zeros((64, 8, 8, 1))}
  state = jax.jit(method.init)(KEY, batch)
  scaled = jax.tree.map(lambda w: 10.0 * w, state.params["gen"])
  state = state.replace(params={**state.params, "gen": scaled})

  @jax.jit
  def train(state):
    step = lambda s, key: (method.train_step(s, batch, key)[0], None)
    return jax.lax.scan(step, state, jax.random.split(KEY, 60))[0]

  state = train(state)
  samples = method.sample(averaged(state), batch, KEY)["samples"]
  z = jax.random.normal(KEY, (64, 3))
  variables = {"params": state.ema["gen"], **state.stats["gen"]}
  expected, _ = net.apply(variables, z, train=True, mutable=["batch_stats"])
  error = np.abs(samples - expected).max() / np.abs(expected).max()
  assert error < 0.25  # the running averages are not those of this very batch
  mismatched = net.apply(variables, z, train=False)
  assert np.abs(mismatched - expected).max() / np.abs(expected).max() > 0.5


def test_interpolation_starts_and_ends_at_generated_images(stepped):
  method, _, state, batch = stepped
  paths = jax.jit(method.tools["interpolate"])(averaged(state), batch, KEY)
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


def test_wrong_image_size_is_an_error():
  with pytest.raises(ValueError, match="32x32 pixels; expected 64x64"):
    jax.eval_shape(
      lambda: Discriminator().init(KEY, jnp.zeros((1, 32, 32, 3)), train=True)
    )


def test_initial_weights_have_the_published_spread():
  batch = {"image": jnp.zeros((2, 28, 28, 1))}
  tx = optax.sgd(0.1)
  nets = Generator(1, 32, 2, 7), Discriminator(32, 2, 7)
  state = jax.jit(dcgan(*nets, gen_tx=tx, disc_tx=tx).init)(KEY, batch)
  kernel = state.params["gen"]["ConvTranspose_1"]["kernel"]
  np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.05)
  scale = state.params["gen"]["norm_0"]["scale"]
  np.testing.assert_allclose([scale.mean(), scale.std()], [1.0, 0.02], atol=0.01)


class GivenLatent(nn.Module):
  """A generator that takes its latent from batch["label"]."""

  net: nn.Module

  def __call__(self, z, label, train):
    return self.net(label, None, train=train)


def golden_params(golden, name, first_norm):
  """(weights, gradients, running averages) of PyTorch, in Flax's tree."""
  kind = "ConvTranspose" if name == "gen" else "Conv"
  params, grads, averages = {}, {}, {}
  for k in range(5):
    params[f"{kind}_{k}"] = {"kernel": golden[f"{name}/weight/{k}"].astype(float)}
    grads[f"{kind}_{k}"] = {"kernel": golden[f"{name}/grad/{k}"]}
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
  with jax.enable_x64(True):
    gen, disc = Generator(width=3), Discriminator(width=3)
    tx = optax.sgd(lr)
    method = dcgan(GivenLatent(gen), disc, gen_tx=tx, disc_tx=tx, latent_dim=5)
    image = jnp.asarray(golden["pixels"] / 127.5 - 1.0)
    batch = {"image": image, "label": jnp.asarray(golden["z"])}

    gen_params, gen_grads, gen_averages = golden_params(golden, "gen", 0)
    disc_params, disc_grads, disc_averages = golden_params(golden, "disc", 1)
    state = jax.jit(method.init)(KEY, batch)
    params = {"gen": {"net": gen_params}, "disc": disc_params}
    state = state.replace(
      params=jax.tree.map(lambda p, _: jnp.asarray(p), params, state.params),
      stats=jax.tree.map(lambda x: x.astype(float), state.stats),
    )

    def fakes_and_step(state):
      variables = {"params": state.params["gen"], **state.stats["gen"]}
      fake, _ = method_gen.apply(
        variables, None, batch["label"], train=True, mutable=["batch_stats"]
      )
      return fake, *method.train_step(state, batch, KEY)

    method_gen = GivenLatent(gen)
    fake, after, metrics = jax.device_get(jax.jit(fakes_and_step)(state))

  assert relative_error(fake[:, ::3, ::3], golden["fake"]) < 1e-8
  for name in ("disc_loss", "gen_loss"):
    np.testing.assert_allclose(metrics[name], golden[name], rtol=1e-8)
  step = jax.tree.map(lambda a, b: (a - b) / lr, params, after.params)
  expected = {"gen": {"net": gen_grads}, "disc": disc_grads}
  errors = jax.tree.map(relative_error, step, expected)
  assert max(jax.tree.leaves(errors)) < 1e-8, errors

  for name, stats, expected, num_updates in (
    ("gen", after.stats["gen"]["batch_stats"]["net"], gen_averages, 1),
    ("disc", after.stats["disc"]["batch_stats"], disc_averages, 2),
  ):
    for norm in expected:
      level = int(norm.split("_")[1])
      side = 4 * 2**level if name == "gen" else 32 // 2**level
      var = biased(expected[norm]["var"], 2 * side**2, num_updates)
      assert relative_error(stats[norm]["mean"], expected[norm]["mean"]) < 1e-8
      assert relative_error(stats[norm]["var"], var) < 1e-8
