"""GANs of one step: MLP, conditional, least squares, packed, feature matching."""

import functools
import itertools
from pathlib import Path

from drawn import first_state
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import commands, data, parallel, run
from jaxgen.gan import biggan_networks, cgan, improved_gan, lsgan, mlp_gan, pacgan
from jaxgen.gan.adversarial import diversity, neighbour_diversity, two_player
from jaxgen.gan.wgan_gp import wgan_gp
from jaxgen.losses import adversarial
from jaxgen.metrics.classifier import Classifier
from jaxgen.metrics.modes import modes_and_kl, modes_of_images
from jaxgen.nn import progressive, resnet_gan
from jaxgen.nn.maxout import Maxout
from jaxgen.nn.minibatch import MinibatchDiscrimination

KEY = jax.random.key(0)
SGD = optax.sgd(0.1)
MNIST = Path(__file__).resolve().parents[2] / "shared" / "tfds"


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def counts(method, shape=(28, 28, 1)):
  """Parameters of both players, and the shape of samples, computing nothing."""
  batch = {"image": jnp.zeros((4, *shape)), "label": jnp.zeros(4, jnp.int32)}
  state = jax.eval_shape(method.init, KEY, batch)
  samples = jax.eval_shape(method.sample, state, batch, KEY)["samples"]
  assert samples.shape == (4, *shape)
  return count(state.params["gen"]), count(state.params["disc"])


def dense(*sizes):
  return sum((a + 1) * b for a, b in itertools.pairwise(sizes))


# The step.


def test_diversity_compares_the_spread_of_pairs():
  rng = np.random.default_rng(0)
  real = rng.standard_normal((7, 2, 3)).astype(np.float32)  # the seventh is alone
  fake = rng.standard_normal((7, 2, 3)).astype(np.float32)
  spread = lambda x: np.mean(
    [np.sqrt(((x[i] - x[i + 1]) ** 2).sum()) for i in (0, 2, 4)]
  )
  expected = spread(fake) / spread(real)
  np.testing.assert_allclose(diversity(real, fake), expected, rtol=1e-6)
  np.testing.assert_allclose(diversity(real, 3 * real + 1), 3.0, rtol=1e-6)
  assert diversity(real, np.ones_like(real)) == 0
  assert diversity(real[:1], fake[:1]) == 1
  assert np.isfinite(diversity(0 * real, fake))


def test_fakes_of_ten_shapes_are_near_each_other():
  """The spread of pairs hardly sees it."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  real = draw(70, 4, 4, 1)
  fake = draw(10, 4, 4, 1)[rng.integers(10, size=70)] + 0.05 * draw(70, 4, 4, 1)

  def nearest(x):
    x = x[:64].reshape(4, 16, 16)
    distance = np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)
    return (distance + 1e9 * np.eye(16)).min(1).mean()

  ratio = jax.jit(neighbour_diversity)
  found = ratio(real, fake)
  np.testing.assert_allclose(found, nearest(fake) / nearest(real), rtol=1e-3)
  np.testing.assert_allclose(ratio(real, 2 * real + 1), 2.0, rtol=1e-3)
  assert diversity(real, fake) > 0.8
  assert found < 0.4
  assert ratio(real, np.ones_like(real)) < 1e-3
  assert neighbour_diversity(real[:1], fake[:1]) == 1
  two = real[:2], fake[:2]
  np.testing.assert_allclose(ratio(*two), diversity(*two), rtol=1e-6)


class Shift(nn.Module):
  """G(z) = z + c."""

  @nn.compact
  def __call__(self, z, label, train):
    c = self.param("c", lambda _: jnp.array(0.5))
    return (z + c).reshape(-1, 1, 1, 1)


class Slope(nn.Module):
  """D(x) = v x, with features (x, x^2)."""

  @nn.compact
  def __call__(self, x, label, train):
    x = x.reshape(-1)
    v = self.param("v", lambda _: jnp.array(0.4))
    return v * x, jnp.stack([x, x**2], axis=-1)


REAL = np.array([0.3, -0.8, 0.5, 0.9, 2.0, 0.1], np.float32)
BATCH = {"image": jnp.asarray(REAL).reshape(-1, 1, 1, 1)}


def latents(key, shape, dtype):
  return jax.random.uniform(key, shape, dtype, -1.0, 1.0)


def test_later_generator_updates_see_the_generator_just_updated():
  options = dict(gen_tx=SGD, disc_tx=SGD, latent_dim=1, draw_latent=latents)
  method = two_player(
    Shift(), Slope(), loss=adversarial.non_saturating, num_gen_updates=3, **options
  )
  state, metrics = jax.jit(method.train_step)(method.init(KEY, BATCH), BATCH, KEY)
  z, v, c = np.asarray(latents(KEY, (6, 1), jnp.float32))[:, 0], 0.4, 0.5
  sigmoid = lambda s: 1 / (1 + np.exp(-s))
  fake = z + c
  v -= 0.1 * np.mean(-sigmoid(-v * REAL) * REAL + sigmoid(v * fake) * fake)
  for _ in range(3):
    slope = np.mean(-sigmoid(-v * (z + c)) * v)
    c -= 0.1 * slope
  np.testing.assert_allclose(state.params["disc"]["v"], v, rtol=1e-5)
  np.testing.assert_allclose(state.params["gen"]["c"], c, rtol=1e-5)
  np.testing.assert_allclose(metrics["gen_grad_norm"], abs(slope), rtol=1e-4)


def test_statistics_move_once_per_generator_update():
  gen = improved_gan.Generator((8, 8, 1), (4,))
  disc = mlp_gan.Discriminator((4,), 2)
  still = optax.sgd(0.0)  # every update then sees the same activations
  norms = []
  for updates in (1, 2):
    method = two_player(
      *(gen, disc),
      loss=adversarial.non_saturating,
      gen_tx=still,
      disc_tx=still,
      latent_dim=3,
      num_gen_updates=updates,
    )
    batch = {"image": jnp.zeros((4, 8, 8, 1))}
    first = first_state(method, batch)
    state, _ = jax.jit(method.train_step)(first, batch, KEY)
    norms.append(state.stats["gen"]["batch_stats"]["norm_0"]["mean"])
  assert np.abs(norms[0]).max() > 1e-3
  np.testing.assert_allclose(norms[1], norms[0] * (1 - 0.9**2) / 0.1, rtol=1e-5)


# mlp_gan


def test_maxout_is_the_largest_of_its_affine_maps():
  layer = Maxout(3, 2)
  x = np.asarray(jax.random.normal(KEY, (5, 4)))
  weights = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)
  bias = np.arange(6, dtype=np.float32).reshape(3, 2)
  pieces = {"kernel": weights.reshape(4, 6), "bias": bias.reshape(6)}
  variables = jax.jit(layer.init)(KEY, x)
  shapes = lambda tree: jax.tree.map(np.shape, tree)
  assert shapes(variables["params"]) == shapes({"pieces": pieces})
  out = jax.jit(layer.apply)({"params": {"pieces": pieces}}, x)
  expected = np.maximum(
    x @ weights[..., 0] + bias[:, 0], x @ weights[..., 1] + bias[:, 1]
  )
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_maxout_gives_its_gradient_to_the_largest_piece_alone():
  layer = Maxout(2, 3)
  x = jax.random.normal(KEY, (5, 4))
  params = jax.jit(layer.init)(jax.random.key(1), x)["params"]
  outer = jax.random.normal(jax.random.key(2), (5, 2))
  value = lambda p: (layer.apply({"params": p}, x) * outer).sum()
  grads = jax.device_get(jax.grad(value)(params))["pieces"]
  x, outer, p = jax.device_get((x, outer, params["pieces"]))
  pieces = (x @ p["kernel"] + p["bias"]).reshape(5, 2, 3)
  expected = np.zeros((5, 2, 3))
  for i, j in np.ndindex(5, 2):
    expected[i, j, pieces[i, j].argmax()] = outer[i, j]
  np.testing.assert_allclose(grads["bias"], expected.sum(0).reshape(6), atol=1e-5)
  np.testing.assert_allclose(grads["kernel"], x.T @ expected.reshape(5, 6), atol=1e-5)


def test_dropout_is_where_the_papers_have_it():
  """In training only, in both players of cgan and in the judge of mlp_gan."""
  x, y = jnp.ones((64, 4, 4, 1)), jnp.zeros(64, jnp.int32)
  nets = {
    "cgan gen": (cgan.Generator(3, (4, 4, 1), 9, 9, 9), jnp.ones((64, 5))),
    "cgan disc": (cgan.Discriminator(3, (9, 2), (9, 2), (9, 2)), x),
    "mlp disc": (mlp_gan.Discriminator((9,), 2, nn.initializers.ones), x),
    "pixels": (
      mlp_gan.Discriminator((9,), 2, nn.initializers.ones, dropout_rate=0.0),
      x,
    ),
  }
  for name, (net, inputs) in nets.items():
    variables = jax.jit(net.init, static_argnames="train")(
      {"params": KEY, "noise": KEY}, inputs, y, train=True
    )
    rngs = {"noise": jax.random.key(1)}
    call = jax.jit(functools.partial(net.apply, rngs=rngs), static_argnames="train")
    trained, sampled = (
      np.reshape(call(variables, inputs, y, train=train), (64, -1))
      for train in (True, False)
    )
    assert np.ptp(trained, axis=0).max() > 1e-3, name  # equal rows, other masks
    assert np.ptp(sampled, axis=0).max() < 1e-5, name
  # 9 units of 16 ones: kept units count double, kept pixels 1.25 times.
  disc = mlp_gan.Discriminator((9,), 2, nn.initializers.ones)
  x = jnp.ones((20_000, 4, 4, 1))
  variables = jax.jit(disc.init, static_argnames="train")(
    {"params": KEY, "noise": KEY}, x, train=True
  )
  judge = jax.jit(lambda v: disc.apply(v, x, train=True, rngs={"noise": KEY}))
  scores = np.asarray(judge(variables))
  np.testing.assert_allclose(scores.mean(), 9 * 16, rtol=0.02)
  pixels, units = 16 * 0.25, 9  # E a^2 of a unit: 16^2 + 16 * 0.2 / 0.8
  variance = pixels * units**2 + units * (16**2 + pixels)
  np.testing.assert_allclose(scores.var(), variance, rtol=0.05)


def test_mlp_gan_has_the_layers_of_the_papers_configuration():
  method = mlp_gan.mlp_gan(
    mlp_gan.Generator(), mlp_gan.Discriminator(), gen_tx=SGD, disc_tx=SGD
  )
  gen = dense(100, 1200, 1200, 784)
  disc = dense(784, 240 * 5) + dense(240, 240 * 5) + dense(240, 1)
  assert counts(method) == (gen, disc) == (2_503_984, 1_231_441)


def test_mlp_generator_ends_in_the_papers_sigmoid():
  net = mlp_gan.Generator((2, 2, 1), (3,))
  z = np.asarray(jax.random.normal(KEY, (5, 6)))
  image, variables = net.init_with_output(jax.random.key(1), z, train=True)
  p = jax.device_get(variables["params"])
  h = np.maximum(z @ p["hidden_0"]["kernel"] + p["hidden_0"]["bias"], 0)
  sigmoid = 1 / (1 + np.exp(-(h @ p["last"]["kernel"] + p["last"]["bias"])))
  np.testing.assert_allclose(image.reshape(5, 4), 2 * sigmoid - 1, atol=1e-6)
  assert np.abs(p["last"]["kernel"]).max() <= 0.05


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
def test_mlp_gan_learns_where_the_data_are(name):
  """A shift of a uniform distribution finds its mean under both of the losses."""
  method = mlp_gan.mlp_gan(
    Shift(),
    mlp_gan.Discriminator((8,), 3, dropout_rate=0.0, input_dropout_rate=0.0),
    loss=getattr(adversarial, name),
    gen_tx=optax.sgd(0.05),
    disc_tx=optax.adam(1e-2),
    latent_dim=1,
  )
  step = parallel.jit_backend(jax.devices()[:1]).compile_train(method.train_step)
  image = 1.5 + np.random.default_rng(0).standard_normal((256, 1, 1, 1))
  batch = {"image": jnp.asarray(image, jnp.float32)}
  state, path = jax.jit(method.init)(KEY, batch), []
  for _ in range(600):
    state, _ = step(state, batch, KEY)
    path.append(float(state.params["gen"]["c"]))
  np.testing.assert_allclose(np.mean(path[-200:]), image.mean(), atol=0.2)


# cgan


@pytest.fixture(scope="module")
def conditional():
  gen = cgan.Generator(3, (4, 4, 1), 5, 6, 7, dropout_rate=0.0)
  disc = cgan.Discriminator(3, (4, 2), (3, 2), (5, 2), dropout_rate=0.0)
  method = cgan.cgan(gen, disc, gen_tx=SGD, disc_tx=SGD, latent_dim=2)
  batch = {"image": jnp.zeros((6, 4, 4, 1)), "label": jnp.array([0, 1, 2, 0, 1, 2])}
  return method, gen, disc, jax.jit(method.init)(KEY, batch), batch


def test_cgan_has_the_layers_of_the_paper():
  method = cgan.cgan(cgan.Generator(), cgan.Discriminator(), gen_tx=SGD, disc_tx=SGD)
  gen = dense(100, 200) + dense(10, 1000) + dense(1200, 1200, 784)
  disc = dense(784, 240 * 5) + dense(10, 50 * 5)
  disc += dense(290, 240 * 4) + dense(240, 1)
  assert counts(method) == (gen, disc)


def test_cgan_asks_both_players_about_the_label(conditional):
  method, _, disc, state, batch = conditional
  sample = jax.jit(method.sample)
  asked = sample(state, batch, KEY)["samples"]
  ones = sample(state, {**batch, "label": jnp.ones(6, jnp.int32)}, KEY)["samples"]
  same = np.isclose(asked, ones).reshape(6, -1).all(axis=1)
  np.testing.assert_array_equal(same, np.asarray(batch["label"]) == 1)
  variables = {"params": state.params["disc"]}
  judge = jax.jit(functools.partial(disc.apply, variables, train=True))
  scores = [judge(asked, jnp.full(6, i)) for i in range(3)]
  assert np.abs(scores[0] - scores[1]).min() > 1e-6
  assert np.abs(scores[1] - scores[2]).min() > 1e-6


def test_cgan_step_is_that_of_eq_2(conditional):
  """Gradients of the value function, in which x and G(z|y) have the same labels."""
  method, gen, disc, state, batch = conditional
  image = jax.random.uniform(KEY, (6, 4, 4, 1), minval=-1.0)
  batch = {**batch, "image": image}
  after, metrics = jax.jit(method.train_step)(state, batch, KEY)
  y = batch["label"]
  z = jax.random.uniform(KEY, (6, 2))
  generate = jax.jit(lambda p: gen.apply({"params": p}, z, y, train=True))
  fake = generate(state.params["gen"])

  @jax.jit
  @jax.grad
  def slope(params):
    p = lambda x: nn.sigmoid(disc.apply({"params": params}, x, y, train=True))
    return -(jnp.log(p(image)) + jnp.log(1 - p(fake))).mean()

  expected = slope(state.params["disc"])
  moved = jax.tree.map(
    lambda a, b: (a - b) / 0.1, state.params["disc"], after.params["disc"]
  )
  for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
  assert metrics["disc_grad_norm"] > 0


# lsgan


@pytest.mark.parametrize("a, b, c", [(0.0, 1.0, 1.0), (-1.0, 1.0, 0.0)])
def test_lsgan_takes_the_codes_of_the_paper(a, b, c):
  method = lsgan.lsgan(
    *(Shift(), Slope()), gen_tx=SGD, disc_tx=SGD, a=a, b=b, c=c, latent_dim=1
  )
  _, metrics = jax.jit(method.train_step)(method.init(KEY, BATCH), BATCH, KEY)
  z, v = np.asarray(jax.random.normal(KEY, (6, 1)))[:, 0], 0.4
  real, fake = v * REAL, v * (z + 0.5)
  np.testing.assert_allclose(
    metrics["disc_loss"], 0.5 * np.mean((real - b) ** 2 + (fake - a) ** 2), rtol=1e-5
  )
  new = v - 0.1 * np.mean((real - b) * REAL + (fake - a) * (z + 0.5))
  np.testing.assert_allclose(
    metrics["gen_loss"], 0.5 * np.mean((new * (z + 0.5) - c) ** 2), rtol=1e-5
  )
  np.testing.assert_allclose(
    metrics["disc_accuracy_real"], np.mean(real > (a + b) / 2), rtol=1e-6
  )


# pacgan


class Table(nn.Module):
  """A score for each pair of points, which are one-hot in channels."""

  @nn.compact
  def __call__(self, x, label, train):
    first, second = x.reshape(len(x), 2, 4).transpose(1, 0, 2)
    table = self.param("table", nn.initializers.zeros, (4, 4))
    return jnp.einsum("ni,nj,ij->n", first, second, table)


def test_packing_sees_the_divergence_of_products():
  """Theorem 1's premise: a packed discriminator at its best measures JSD(P^2, Q^2).

  P is even over four points, Q misses one: as JSD(P, Q) falls short of log 2, packing
  brings it nearer.
  """
  p, q = np.full(4, 1 / 4), np.array([1, 1, 1, 0]) / 3

  def jsd(p, q):
    m = (p + q) / 2
    terms = lambda a: np.sum(a[a > 0] * np.log(a[a > 0] / m[a > 0]))
    return (terms(p) + terms(q)) / 2

  pairs = np.array([[i, j] for i in range(4) for j in range(4)]).reshape(-1)
  x = np.eye(4, dtype=np.float32)[pairs].reshape(32, 1, 1, 4)
  net = pacgan.Packed(Table(), 2)
  squares = np.outer(p, p), np.outer(q, q)
  best = np.clip(np.log(squares[0]) - np.log(np.maximum(squares[1], 1e-9)), -20, 20)
  params = {"params": {"disc": {"table": jnp.asarray(best, jnp.float32)}}}
  scores = np.asarray(net.apply(params, x, train=True), np.float64)
  np.testing.assert_allclose(scores, best.reshape(-1), rtol=1e-6)
  loss = np.sum(squares[0].reshape(-1) * np.log1p(np.exp(-scores)))
  loss += np.sum(squares[1].reshape(-1) * np.log1p(np.exp(scores)))
  np.testing.assert_allclose(loss, 2 * np.log(2) - 2 * jsd(*squares), rtol=1e-5)
  assert jsd(*squares) > 1.5 * jsd(p, q)


class Echo(nn.Module):
  """Returns what it is given."""

  num_classes: int | None = None

  def __call__(self, x, label, train):
    return x, label


def test_packing_stacks_neighbours_along_channels():
  x = np.random.default_rng(0).random((6, 2, 3, 2), np.float32)
  label = jnp.arange(6)
  for m in (1, 2, 3):
    packed, labels = pacgan.Packed(Echo(), m, 7).apply({}, x, label, train=True)
    expected = [np.concatenate(x[i : i + m], axis=-1) for i in range(0, 6, m)]
    np.testing.assert_array_equal(packed, np.stack(expected))
    digits = [np.base_repr(i, 7).zfill(m) for i in labels]
    assert "".join(digits) == "012345"
  assert pacgan.Packed(Echo(), 2).apply({}, x, label, train=True)[1] is None
  with pytest.raises(ValueError, match="6 images cannot be packed by num_packed=4"):
    pacgan.Packed(Echo(), 4).apply({}, x, label, train=True)


@pytest.mark.parametrize(
  "make",
  [
    lambda classes: cgan.Discriminator(classes, (4, 2), (3, 2), (5, 2)),
    lambda classes: cgan.JoinedDiscriminator(classes, ((4, 2),)),
    lambda classes: resnet_gan.Discriminator(4, classes, spectral=True),
    lambda classes: biggan_networks.Discriminator(classes, (8,), 1),
    lambda classes: progressive.Discriminator(8, 16, 4, classes),
  ],
)
def test_packs_have_labels_or_a_discriminator_that_wants_them_is_refused(make):
  def scores(classes, num_classes):
    net = pacgan.Packed(make(classes), 2, num_classes)
    keys, x, label = dict(params=KEY, noise=KEY), jnp.zeros((8, 8, 8, 1)), jnp.zeros(8)
    play = lambda y: net.init_with_output(keys, x, y, train=True)[0]
    return jax.eval_shape(play, label.astype(int))

  assert scores(9, 3).shape == (4,)
  for num_classes, expected in ((3, 9), (0, 0)):
    with pytest.raises(ValueError, match=f"=3: expected {expected} to judge packs"):
      scores(3, num_classes)


class Plane(nn.Module):
  """Critic <v, x> of slope |v| = 1."""

  @nn.compact
  def __call__(self, x, label, train):
    return x.reshape(len(x), 2) @ self.param("v", lambda _: jnp.array([0.6, -0.8]))


def test_a_packed_critic_of_slope_one_costs_nothing():
  """Of the images alone the slopes would be 0.6 and 0.8."""
  method = wgan_gp(
    Shift(), pacgan.Packed(Plane(), 2), gen_tx=SGD, critic_tx=SGD, latent_dim=1
  )
  after, metrics = jax.jit(method.train_step)(method.init(KEY, BATCH), BATCH, KEY)
  np.testing.assert_allclose(metrics["penalty"], 0.0, atol=1e-10)
  z = jax.random.normal(jax.random.split(KEY, 4)[0], (6, 1))
  gap = (REAL.reshape(3, 2) - np.reshape(z + 0.5, (3, 2))).mean(0)
  v = np.array([0.6, -0.8]) + 0.1 * gap
  np.testing.assert_allclose(after.params["critic"]["disc"]["v"], v, rtol=1e-5)


@pytest.mark.parametrize("m", [1, 2, 4])
def test_pacgan_has_the_layers_of_the_authors_code(m):
  method = pacgan.pacgan(
    *(pacgan.Generator(), pacgan.Discriminator()),
    num_packed=m,
    gen_tx=SGD,
    disc_tx=SGD,
  )
  conv = lambda a, b: 25 * a * b + b
  gen = dense(100, 2048) + 2 * (512 + 256 + 128 + 64)
  gen += conv(512, 256) + conv(256, 128) + conv(128, 64) + conv(64, 3)
  disc = conv(3 * m, 64) + conv(64, 128) + conv(128, 256) + conv(256, 512)
  disc += 2 * (128 + 256 + 512) + dense(2048, 1)
  assert counts(method, (28, 28, 3)) == (gen, disc)
  assert (gen, disc) == (4_514_819, 4_310_401 + 4_800 * (m - 1))


@pytest.mark.parametrize("m", [1, 4])
def test_the_small_discriminator_has_the_layers_of_the_authors_code(m):
  file = commands.find_experiment("gan/pacgan_quarter_mnist")
  experiment = run.load_experiment(file)
  config = experiment.get_config()
  config.num_packed = m
  conv = lambda a, b: 9 * a * b + b
  gen = dense(256, 1024) + 2 * (64 + 32 + 16 + 8)
  gen += conv(64, 32) + conv(32, 16) + conv(16, 8) + conv(8, 3)
  disc = conv(3 * m, 2) + conv(2, 4) + conv(4, 8) + 2 * (2 + 4 + 8) + dense(128, 1)
  assert counts(experiment.build(config)["method"], (28, 28, 3)) == (gen, disc)


@pytest.mark.parametrize("small, large", [(2, 4), (4, 7), (7, 14), (2, 3), (5, 5)])
def test_transposed_convolution_is_the_transpose_of_the_same_convolution(small, large):
  rng = np.random.default_rng(0)
  x, y = (rng.standard_normal((1, n, n, 1)).astype(np.float32) for n in (small, large))
  kernel = rng.standard_normal((5, 5, 1, 1)).astype(np.float32)
  numbers = ("NHWC", "HWIO", "NHWC")
  strides = (1, 1) if small == large else (2, 2)
  down = jax.lax.conv_general_dilated(
    y, kernel, strides, "SAME", dimension_numbers=numbers
  )
  padding = pacgan.padding_to(small, large, strides[0])
  up = jax.lax.conv_transpose(x, kernel[::-1, ::-1], strides, [padding] * 2)
  assert up.shape == y.shape
  np.testing.assert_allclose(np.sum(down * x), np.sum(up * y), rtol=1e-4)


def test_pacgan_draws_latents_in_its_cube():
  z = pacgan.uniform_latent(KEY, (1000, 3), jnp.float32)
  assert -1 <= z.min() < -0.99
  assert 0.99 < z.max() < 1


# improved_gan


def test_minibatch_discrimination_is_the_sum_of_closeness():
  layer = MinibatchDiscrimination(3, 2)
  x = jax.random.normal(KEY, (5, 4))
  out, variables = layer.init_with_output(jax.random.key(1), x)
  kernel = 20 * np.asarray(variables["params"]["kernel"])
  out = jax.jit(layer.apply)({"params": {"kernel": kernel}}, x)
  m = np.einsum("ia,abc->ibc", x, kernel)
  expected = np.zeros((5, 3))
  for i in range(5):
    for j in range(5):
      for b in range(3):
        expected[i, b] += np.exp(-np.abs(m[i, b] - m[j, b]).sum())
  np.testing.assert_array_equal(out[:, :4], x)
  np.testing.assert_allclose(out[:, 4:], expected, rtol=1e-4)
  collapsed = jax.jit(layer.apply)(variables, jnp.ones((5, 4)))
  np.testing.assert_allclose(collapsed[:, 4:], 5.0)


def test_scores_depend_on_the_batch_with_minibatch_discrimination_only():
  x = jax.random.normal(KEY, (5, 2, 2, 1))
  for num_kernels in (0, 3):
    disc = improved_gan.Discriminator((6, 4), num_kernels, 2)
    variables = jax.jit(disc.init, static_argnames="train")(KEY, x, train=True)
    score = jax.jit(lambda x, v=variables, d=disc: d.apply(v, x, train=True)[0])
    alone = np.isclose(score(x)[0], score(x.at[1:].multiply(-2.0))[0], rtol=1e-6)
    assert alone == (num_kernels == 0)


def test_minibatch_discrimination_sees_the_global_batch_under_jit():
  """And its device's rows under pmap, whose closeness is then a part of it."""
  gen = improved_gan.Generator((4, 4, 1), (4,))
  disc = improved_gan.Discriminator((4,), 3, 2)
  method = improved_gan.improved_gan(
    gen, disc, gen_tx=SGD, disc_tx=SGD, latent_dim=2, match_features=False
  )
  image = np.random.default_rng(0).random((8, 4, 4, 1), np.float32) * 2 - 1
  results = []
  for backend in (
    parallel.jit_backend(jax.devices()[:1]),
    parallel.jit_backend(jax.devices()[:2]),
    parallel.pmap_backend(jax.devices()[:2]),
  ):
    state = backend.init(method.init, KEY, {"image": image})
    step = backend.compile_train(method.train_step)
    _, metrics = step(state, backend.put_batch({"image": image}), KEY)
    results.append(float(metrics["disc_loss"]))
  np.testing.assert_allclose(results[1], results[0], rtol=1e-5)
  assert abs(results[2] - results[0]) > 1e-4


def test_feature_matching_moves_the_generator_to_the_statistics():
  """c of G(z) = z + c by hand, against features (x, x^2)."""
  method = improved_gan.improved_gan(
    *(Shift(), Slope()), gen_tx=SGD, disc_tx=SGD, latent_dim=1
  )
  state, metrics = jax.jit(method.train_step)(method.init(KEY, BATCH), BATCH, KEY)
  fake = np.asarray(jax.random.normal(KEY, (6, 1)))[:, 0] + 0.5
  gaps = fake.mean() - REAL.mean(), (fake**2).mean() - (REAL**2).mean()
  np.testing.assert_allclose(
    metrics["gen_loss"], gaps[0] ** 2 + gaps[1] ** 2, rtol=1e-4
  )
  slope = 2 * gaps[0] + 2 * gaps[1] * 2 * fake.mean()
  np.testing.assert_allclose(state.params["gen"]["c"], 0.5 - 0.1 * slope, rtol=1e-4)


def test_features_are_what_the_scores_are_made_of():
  disc = improved_gan.Discriminator((6, 4), 0)
  x = jax.random.normal(KEY, (5, 2, 2, 1))
  (scores, features), variables = disc.init_with_output(KEY, x, train=True)
  scores, features, last = jax.device_get(
    (scores, features, variables["params"]["last"])
  )
  np.testing.assert_allclose(
    scores, (features @ last["kernel"] + last["bias"])[:, 0], rtol=1e-5
  )
  assert features.shape == (5, 4)


# Stacked MNIST.


def test_stacked_mnist_says_its_shapes_without_reading(tmp_path):
  source = data.stacked_mnist(batch_size=8, data_dir=tmp_path)
  assert source.spec["image"].shape == (8, 28, 28, 3)
  assert source.spec["label"].dtype == np.int32
  with pytest.raises(ValueError, match="num_images=0"):
    data.stacked_mnist(batch_size=8, num_images=0)


@pytest.fixture(scope="module")
def mnist():
  """The test set, which is decoded once: stacked sets are made of these arrays."""
  if not (MNIST / "mnist").exists():
    pytest.skip(f"no prepared MNIST in {MNIST}")
  source = data.tfds_images(
    "mnist", "test", batch_size=10_000, channels=1, data_dir=MNIST
  )
  source.check()
  batch = source.examples.load()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(type(source.examples), "load", lambda _: batch)
    yield batch


def stacked(seed, **options):
  options = {"num_images": 3_000, "splits": ("test",), "batch_size": 3_000, **options}
  return data.stacked_mnist(seed=seed, data_dir=MNIST, **options)


def test_stacked_mnist_shows_the_digits_of_its_labels(mnist):
  batch = next(stacked(0).epoch())
  image, label = batch["image"], batch["label"]
  assert image.dtype == np.uint8
  assert label.dtype == np.int32
  known = {x.tobytes(): y for x, y in zip(mnist["image"], mnist["label"], strict=True)}
  digits = label[:, None] // np.array([100, 10, 1]) % 10
  for row in range(0, 3_000, 10):
    for channel in range(3):
      found = known[np.ascontiguousarray(image[row, ..., channel, None]).tobytes()]
      assert found == digits[row, channel]
  frequency = [np.bincount(digits[:, i], minlength=10) / 3_000 for i in range(3)]
  expected = np.bincount(mnist["label"], minlength=10) / 10_000
  for channel in frequency:
    assert np.abs(channel - expected).max() < 4.5 * np.sqrt(0.11 * 0.89 / 3_000)
  assert len(np.unique(label)) > 900  # of 1,000: 950 expected
  agree = np.mean(digits[:, 0] == digits[:, 1])
  assert abs(agree - 0.1) < 0.03  # the channels are independent


class Brightness(Classifier):
  """Reads digit d off an image whose every pixel is 20 d."""

  def predict(self, images):
    self._check_shape(images)
    return {"logits": np.eye(10)[images[:, 0, 0, 0] // 20]}


def test_modes_of_images_labels_each_channel_on_its_own():
  judge = Brightness({}, (28, 28, 1), 10)
  triples = np.array([[1, 2, 3], [3, 2, 1], [1, 2, 3], [0, 0, 9]])
  image = np.broadcast_to(20 * triples[:, None, None], (4, 28, 28, 3))
  found = modes_and_kl(modes_of_images(image.astype(np.uint8), judge), 1000)
  assert found["modes"] == 3
  expected = 0.5 * np.log(0.5 * 1000) + 2 * 0.25 * np.log(0.25 * 1000)
  np.testing.assert_allclose(found["kl"], expected)
  every = np.stack(np.unravel_index(np.arange(1000), (10, 10, 10)), axis=-1)
  image = np.broadcast_to(20 * every[:, None, None], (1000, 28, 28, 3))
  found = modes_and_kl(modes_of_images(image.astype(np.uint8), judge), 1000)
  assert found["modes"] == 1000
  np.testing.assert_allclose(found["kl"], 0, atol=1e-12)


def test_modes_of_images_wants_three_channels_of_digits():
  with pytest.raises(ValueError, match=r"got shape \[4, 28, 28, 1\] and 10 classes"):
    image = np.zeros((4, 28, 28, 1), np.uint8)
    modes_of_images(image, Brightness({}, (28, 28, 1), 10))
  with pytest.raises(ValueError, match="and 7 classes"):
    image = np.zeros((4, 28, 28, 3), np.uint8)
    modes_of_images(image, Brightness({}, (28, 28, 1), 7))


def test_stacked_mnist_is_a_function_of_its_seed(mnist):
  del mnist
  sources = [stacked(seed, batch_size=50) for seed in (0, 0, 1)]
  one, same, other = (next(source(3)) for source in sources)
  np.testing.assert_array_equal(one["image"], same["image"])
  np.testing.assert_array_equal(one["label"], same["label"])
  assert (one["label"] != other["label"]).mean() > 0.9
  in_order = [next(source.epoch())["label"] for source in sources[1:]]
  assert (in_order[0] != in_order[1]).mean() > 0.9  # other triples, not only an order
  both = data.stacked_mnist(batch_size=64, num_images=64, data_dir=MNIST).examples
  both.open()
  assert [len(digits) for digits in both._sets] == [60_000, 10_000]
  assert len(both._digits["label"]) == 20_000  # both are of the arrays above
