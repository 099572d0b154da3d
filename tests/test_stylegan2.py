"""StyleGAN2: layers by hand, regularisers in closed form, and when they have a turn."""

from drawn import params_of
from flax import linen as nn
import jax
from jax import lax, random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.gan.ada import Ada, Augmented, adapt
from jaxgen.gan.stylegan2 import Lazy, lazy_adam, path_lengths, stylegan2
from jaxgen.nn.style import Mapping, StyleGenerator
from jaxgen.nn.stylegan2 import Discriminator, Synthesis, modulated_conv
from jaxgen.ops.upfirdn import fir_taps, upsample2d

KEY = random.key(0)


def normal(*shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_demodulated_features_have_unit_variance_whatever_the_style():
  x, kernel = normal(4, 32, 32, 24), normal(3, 3, 24, 16, seed=1)
  style = np.exp(2 * normal(4, 24, seed=2)) * np.float32([[1e-2], [1], [10], [1e3]])
  inside = np.asarray(modulated_conv(x, kernel, style))[:, 1:-1, 1:-1]
  np.testing.assert_allclose(inside.std(axis=(1, 2)).mean(axis=1), 1.0, atol=0.05)
  plain = np.asarray(modulated_conv(x, kernel, style, demodulate=False))
  assert plain[3].std() > 1e3 * plain[0].std()


def test_modulation_is_of_the_weights_of_every_example():
  """Scale, demodulate, convolve, one example after the other (Eq. 1 and 3)."""
  x, kernel, style = (
    normal(3, 6, 5, 4),
    normal(3, 3, 4, 2, seed=1),
    normal(3, 4, seed=2),
  )
  for demodulate in (True, False):
    found = modulated_conv(x, kernel, style, demodulate=demodulate)
    for i in range(3):
      weights = kernel * style[i][None, None, :, None]
      if demodulate:
        weights /= np.sqrt((weights**2).sum(axis=(0, 1, 2)) + 1e-8)
      expected = lax.conv_general_dilated(
        x[i : i + 1],
        weights,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
      )
      np.testing.assert_allclose(found[i], expected[0], rtol=1e-4, atol=1e-5)


def test_doubling_is_that_of_the_image_and_commutes_with_the_kernel():
  """A kernel of one weight is a filter's shift: 1/2 pixel of x for each step of it."""
  x, ones = normal(2, 5, 5, 3), np.ones((2, 3), np.float32)
  eye = np.zeros((3, 3, 3, 3), np.float32)
  eye[1, 1] = np.eye(3)
  up = lambda kernel: modulated_conv(x, kernel, ones, demodulate=False, up=True)
  expected = np.asarray(upsample2d(x, fir_taps()))
  np.testing.assert_allclose(up(eye), expected, atol=1e-5)
  moved = np.roll(eye, 1, axis=0)  # reads the row below
  np.testing.assert_allclose(up(moved)[:, :-1], expected[:, 1:], atol=1e-5)


def test_parameters_with_labels_are_as_many_as_published():
  """Those of CIFAR-10 by class; test_cli has the three experiments without labels."""
  label, rngs = jnp.zeros(1, jnp.int32), {"params": KEY, "noise": KEY}

  def count(net, x):
    variables = jax.eval_shape(lambda: net.init(rngs, x, label, train=True))
    return sum(x.size for x in jax.tree.leaves(variables["params"]))

  gen = StyleGenerator(Mapping(2, num_classes=10), Synthesis(32))
  assert count(gen, jnp.zeros((1, 512))) == 20_215_315
  disc = Discriminator(residual=False, num_classes=10)
  assert count(disc, jnp.zeros((1, 32, 32, 3))) == 23_089_664
  assert [Synthesis(side).num_ws for side in (1024, 256, 32)] == [18, 14, 8]


@pytest.mark.parametrize("num_layers", [8, 2])
def test_labels_count_in_the_projection(num_layers):
  disc = Discriminator(32, 4, group_size=1, num_classes=3, num_label_layers=num_layers)
  x = normal(2, 8, 8, 1)
  variables = {"params": params_of(disc, x, jnp.zeros(2, jnp.int32))}
  label = variables["params"]["label"]  # a hundredth of the learning rate
  variables["params"]["label"] = jax.tree.map(lambda w: 100 * w, label)
  apply = jax.jit(disc.apply)
  scores = [apply(variables, x, jnp.full(2, i, jnp.int32)) for i in range(3)]
  assert np.isfinite(scores).all()
  assert len(np.unique(np.round(scores, 6))) == 6
  mapped = variables["params"]["label"]  # The embedding, and the layers after it.
  assert len(mapped) == 1 + num_layers


def test_images_of_other_sides_are_an_error():
  with pytest.raises(ValueError, match=r"images of \(8, 16\) pixels: expected squares"):
    Discriminator().init(KEY, jnp.zeros((1, 8, 16, 1)))
  with pytest.raises(ValueError, match="resolution=12: expected a power of two"):
    Synthesis(12).init(KEY, jnp.zeros((1, 4, 8)))


def test_images_are_clipped_outside_of_training_only():
  net = Synthesis(8, 1, 32, 4)
  ws = 30 * normal(4, net.num_ws, 8)
  variables, rngs = {"params": params_of(net, ws)}, {"noise": KEY}
  draw = lambda v: [net.apply(v, ws, train, rngs=rngs) for train in (True, False)]
  trained, sampled = jax.jit(draw)(variables)
  assert np.abs(trained).max() > 1
  np.testing.assert_array_equal(sampled, np.clip(trained, -1, 1))


def test_path_lengths_of_a_linear_generator():
  """|A_l^T y|, root mean square over the layers l."""
  a, ws, y = normal(2, 5, 12), normal(3, 2, 5, seed=1), normal(3, 2, 2, 3, seed=2)
  render = lambda ws: jnp.einsum("blw,lwp->bp", ws, a).reshape(-1, 2, 2, 3)
  pulled = np.einsum("lwp,bp->blw", a, y.reshape(3, -1))
  expected = np.sqrt((pulled**2).sum(axis=2).mean(axis=1))
  np.testing.assert_allclose(path_lengths(render, ws, y), expected, rtol=1e-5)


def test_lazy_adam_is_slower_by_the_updates_it_adds():
  rate, interval, b2 = 0.1, 3, 0.9
  tx = lazy_adam(rate, interval, b2=b2)
  w, g = jnp.ones(1), jnp.full(1, 4.0)
  updates, opt = tx.update(g, tx.init(w), w)
  c = interval / (interval + 1)
  np.testing.assert_allclose(updates, -c * rate, rtol=1e-5)
  np.testing.assert_allclose(opt[0].nu, (1 - b2**c) * 16.0, rtol=1e-5)
  # As much memory is left after interval + 1 updates as of b2 after interval.
  np.testing.assert_allclose((b2**c) ** (interval + 1), b2**interval)


class Identity(nn.Module):
  """w = scale z."""

  @nn.compact
  def __call__(self, z, label):
    return z * self.param("scale", lambda _: jnp.float32(1.5))


class Linear(nn.Module):
  """Images of 1x2 pixels: <A, ws> + c."""

  num_ws: int = 2

  @nn.compact
  def __call__(self, ws, train):
    a = self.param("a", lambda _: jnp.asarray(normal(2, 3, 2, seed=5)))
    c = self.param("c", lambda _: jnp.zeros(2))
    return (jnp.einsum("blw,lwp->bp", ws, a) + c[None]).reshape(-1, 1, 2, 1)


class Quadratic(nn.Module):
  """D(x) = k |x|^2 / 2 + <v, x>, so that |dD/dx|^2 = |k x + v|^2."""

  @nn.compact
  def __call__(self, x, label, train):
    x = x.reshape(len(x), 2)
    v = self.param("v", lambda _: jnp.float32([0.4, -0.3]))
    k = self.param("k", lambda _: jnp.float32(0.7))
    return 0.5 * k * (x**2).sum(axis=1) + x @ v


def players(**kwargs):
  settings = dict(
    gen_tx=optax.sgd(0.0),
    disc_tx=optax.sgd(0.0),
    batch_size=6,
    latent_dim=3,
    r1=Lazy(2.0, 3),
    path=Lazy(0.5, 2),
    ema_images=60,
  )
  gen = StyleGenerator(Identity(), Linear(), w_dim=3)
  return stylegan2(gen, Quadratic(), **settings | kwargs)


IMAGE = normal(6, 1, 2, 1, seed=7)


def run(method, num_steps):
  """States before and after each step, and the metrics of each."""
  batch = {"image": jnp.asarray(IMAGE)}
  states, history = [jax.jit(method.init)(KEY, batch)], []
  step = jax.jit(method.train_step)
  for i in range(num_steps):
    state, metrics = step(states[-1], batch, random.fold_in(KEY, i))
    states.append(state.replace(step=state.step + 1))  # as the runner does
    history.append(metrics)
  return states, history


def test_regularisers_have_their_turn_only_and_r1_is_that_of_a_quadratic():
  states, history = run(players(), 6)
  x = IMAGE.reshape(6, 2)
  slope = 0.7 * x + np.array([0.4, -0.3])
  r1 = (slope**2).sum(axis=1).mean()
  found = [float(m["r1"]) for m in history]
  np.testing.assert_allclose(found, [0, 0, r1, 0, 0, r1], rtol=1e-5)
  lengths = np.array([m["path_length"] for m in history])
  np.testing.assert_array_equal(lengths > 0, [False, True] * 3)
  means = np.array([s.stats["path"]["mean"] for s in states])
  expected = [0.0]
  for length in lengths:
    old = expected[-1]
    expected.append(old + 0.01 * (length - old) if length else old)
  np.testing.assert_allclose(means, expected, rtol=1e-5)


def test_the_update_of_r1_is_half_gamma_times_the_interval():
  """Beside the same step with no weight, by hand: d |k x + v|^2 / d (v, k)."""
  rate, gamma = 0.01, 2.0
  last = lambda weight: run(
    players(disc_tx=optax.sgd(rate), r1=Lazy(weight, 3), path=None), 3
  )[0][-1].params["disc"]
  plain, penalised = last(0.0), last(gamma)
  x, v, k = IMAGE.reshape(6, 2), np.asarray(plain["v"]), float(plain["k"])
  slope = k * x + v
  step = rate * gamma / 2 * 3
  np.testing.assert_allclose(
    penalised["v"], v - step * 2 * slope.mean(axis=0), rtol=1e-4, atol=1e-6
  )
  change = step * 2 * (slope * x).sum(axis=1).mean()
  np.testing.assert_allclose(penalised["k"], k - change, rtol=1e-4)


def test_the_update_of_path_lengths_by_hand():
  """d (|A y| - level)^2 / dA, beside the same step without, for half of the batch."""
  rate, weight = 1e-3, 50.0
  first = lambda path: run(players(gen_tx=optax.sgd(rate), path=path), 1)[0][-1]
  plain, penalised = first(None).params["gen"], first(Lazy(weight, 1)).params["gen"]
  y_key = random.split(random.split(random.fold_in(KEY, 0), 4)[2], 4)[1]
  y = np.asarray(random.normal(y_key, IMAGE.shape)).reshape(6, 2)[::2] / np.sqrt(2)
  a = np.asarray(plain["synthesis"]["a"])
  pulled = np.einsum("lwp,bp->blw", a, y)
  lengths = np.sqrt((pulled**2).sum(axis=2).mean(axis=1))
  excess = lengths - 0.01 * lengths.mean()  # The mean starts at zero.
  slope = np.einsum("b,blw,bp->lwp", 2 * excess / lengths, pulled, y) / (3 * 2)
  found = np.asarray(penalised["synthesis"]["a"]) - a
  np.testing.assert_allclose(found, -rate * weight * slope, rtol=1e-3, atol=1e-6)
  for name in ("mapping", "synthesis"):  # No part of the slope: they stay.
    for key in {"scale", "c"} & set(plain[name]):
      np.testing.assert_array_equal(penalised[name][key], plain[name][key])


@pytest.mark.parametrize("ramp_up", [None, 0.5])
def test_the_average_has_its_half_life_in_images(ramp_up):
  method = players(gen_tx=optax.sgd(0.05), ema_images=12, ema_ramp_up=ramp_up)
  states, _ = run(method, 4)
  scale = lambda tree: float(tree["gen"]["mapping"]["scale"])
  average = scale(states[0].ema)
  for i, state in enumerate(states[1:]):
    half_life = 12 if ramp_up is None else min(12, ramp_up * 6 * i)  # images
    decay = 0.5 ** (6 / half_life) if half_life else 0.0
    average = decay * average + (1 - decay) * scale(state.params)
    np.testing.assert_allclose(scale(state.ema), average, rtol=1e-5)
  w = [np.asarray(s.stats["averaged_gen"]["w_average"]["value"]) for s in states]
  assert (w[0] == 0).all()
  assert (w[4] != 0).all()


def test_p_follows_the_mean_sign_of_real_scores():
  ada = Ada(target=0.6, num_images=1000, interval=4)
  follow = jax.jit(lambda stats, sign, step: adapt(stats, sign, step, 50, ada))
  stats = {"p": jnp.float32(0.3), "signs": jnp.zeros(())}
  amount = 4 * 50 / 1000
  step = 0
  for signs, p in (
    ([1.0, 1.0, 0.0, 0.5], 0.3 + amount),  # r = 0.625
    ([1.0, 1.0, 0.0, 0.3], 0.3),  # 0.575
    ([0.0] * 4, 0.3 - amount),
    ([0.0] * 4, 0.0),  # p stays a probability
  ):
    for i, sign in enumerate(signs):
      before = float(stats["p"])
      stats = follow(stats, jnp.float32(sign), jnp.int32(step))
      step += 1
      if i < 3:
        assert float(stats["p"]) == before
    np.testing.assert_allclose(stats["p"], p, atol=1e-6)
    assert float(stats["signs"]) == 0.0


def test_the_discriminator_sees_augmented_images_in_training_only():
  seen = Augmented(Quadratic(), lambda x, key, p: x * (1 + p))
  variables = seen.init(KEY, IMAGE, None, train=False)
  variables["ada"]["p"] = jnp.float32(1.0)
  score = lambda x, train: seen.apply(variables, x, None, train, rngs={"noise": KEY})
  np.testing.assert_allclose(score(IMAGE, True), score(2 * IMAGE, False), rtol=1e-6)
  # Real images all score above 0 where D(x) = 1 + 0 x: p rises by 2 * 6 / 60 at a time.
  ada = Ada(lambda x, key, p: x * 0 + 1, num_images=60, interval=2)
  states, history = run(players(ada=ada), 4)
  p = [float(m["augment_p"]) for m in history]
  np.testing.assert_allclose(p, [0.0, 0.2, 0.2, 0.4], rtol=1e-6)
  assert float(states[-1].stats["disc"]["ada"]["p"]) == p[-1]


def test_every_layer_of_a_doubled_map_has_a_gradient():
  """The row of the generic table is 4x4: neither doubles nor has a residual block."""
  gen, disc = Synthesis(8, 1, 16, 4), Discriminator(16, 4, group_size=2)
  ws = normal(2, gen.num_ws, 3)
  params = {"gen": params_of(gen, ws), "disc": params_of(disc, normal(2, 8, 8, 1))}

  @jax.jit
  @jax.grad
  def slope(params):
    image = gen.apply({"params": params["gen"]}, ws, True, rngs={"noise": KEY})
    return disc.apply({"params": params["disc"]}, image, train=True).sum()

  for path, x in jax.tree_util.tree_leaves_with_path(slope(params)):
    assert np.abs(x).max() > 0, path
