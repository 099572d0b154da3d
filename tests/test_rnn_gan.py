"""The recurrent GAN: what each row may depend on, LSTMs by hand, freezing."""

from drawn import first_state, params_of
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.gan.rnn_gan import (
  Discriminator,
  Generator,
  each_step,
  freezing,
  match_pairs,
  mean_probability,
  rnn_gan,
  skip_no_gradient,
)
from jaxgen.losses.adversarial import non_saturating

KEY = jax.random.key(0)
ROWS, COLUMNS, NOISE, WIDTH = 4, 3, 2, 5
IMAGE = jax.random.normal(KEY, (2, ROWS, COLUMNS, 1))
Z = jax.random.uniform(KEY, (2, ROWS * NOISE))


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def dense(params, x):
  return x @ params["kernel"] + params["bias"]


def lstm(params, c, h, x):
  """(c, h) after one step of an LSTM cell."""
  gates = {n: x @ params[f"i{n}"]["kernel"] + dense(params[f"h{n}"], h) for n in "ifgo"}
  c = sigmoid(gates["f"]) * c + sigmoid(gates["i"]) * np.tanh(gates["g"])
  return c, sigmoid(gates["o"]) * np.tanh(c)


def test_generator_by_hand():
  net = Generator((ROWS, COLUMNS, 1), WIDTH, num_layers=2)
  params = params_of(net, Z, train=True)
  got = jax.jit(lambda p: net.apply({"params": p}, Z, train=True))(params)
  p = jax.tree.map(np.asarray, params["step"])
  zeros = np.zeros((2, WIDTH))
  cells, row = [(zeros, zeros)] * 2, np.zeros((2, COLUMNS))
  for t in range(ROWS):
    noise = np.asarray(Z)[:, t * NOISE : (t + 1) * NOISE]
    h = np.maximum(dense(p["first"], np.concatenate([noise, row], axis=1)), 0)
    for i in range(2):
      cells[i] = lstm(p[f"lstm_{i}"], *cells[i], h)
      h = cells[i][1]
    row = np.tanh(dense(p["last"], h))
    np.testing.assert_allclose(got[:, t, :, 0], row, atol=1e-4)


def test_rows_depend_on_earlier_noise_only():
  net = Generator((ROWS, COLUMNS, 1), WIDTH, num_layers=1)
  params = jax.tree.map(lambda w: w / 3, params_of(net, Z, train=True))
  first = params["step"]["first"]
  params["step"]["first"] = {**first, "bias": 2.0 + 0 * first["bias"]}  # ReLUs are on
  render = lambda z: net.apply({"params": params}, z[None], train=True)[0, ..., 0]
  slope = np.abs(jax.jit(jax.jacobian(render))(Z[0]))  # [rows, columns, noise]
  slope = slope.reshape(ROWS, COLUMNS, ROWS, NOISE).sum(axis=(1, 3))
  np.testing.assert_array_equal(slope > 0, np.tri(ROWS, dtype=bool))


def test_discriminator_by_hand():
  net = Discriminator(WIDTH, num_layers=2)
  params = params_of(net, IMAGE, train=True)
  score, features = jax.jit(lambda p: net.apply({"params": p}, IMAGE, train=True))(
    params
  )
  p, halves = jax.tree.map(np.asarray, params), []
  for name, order in (("forwards", 1), ("backwards", -1)):
    h = [x for x in np.asarray(IMAGE)[..., 0].transpose(1, 0, 2)][::order]
    for i in range(2):
      cell, read = (np.zeros((2, WIDTH)),) * 2, []
      for x in h:
        cell = lstm(p[f"{name}_{i}"], *cell, x)
        read.append(cell[1])
      h = read
    halves.append(np.stack(h[::order], axis=1))
  expected = np.concatenate(halves, axis=-1)
  np.testing.assert_allclose(features, expected, atol=1e-5)
  real = sigmoid(dense(p["last"], expected)[..., 0]).mean(axis=1)
  np.testing.assert_allclose(score, np.log(real / (1 - real)), atol=1e-4)


def test_discriminator_reads_both_directions():
  net = Discriminator(WIDTH, num_layers=1)
  params = params_of(net, IMAGE, train=True)
  judge = lambda x: net.apply({"params": params}, x[None], train=True)[1][0]
  slope = np.abs(jax.jit(jax.jacobian(judge))(IMAGE[0]))  # [T, 2 width, rows, ...]
  slope = slope.reshape(ROWS, 2, WIDTH, ROWS, COLUMNS).sum(axis=(2, 4)) > 0
  np.testing.assert_array_equal(slope[:, 0], np.tri(ROWS, dtype=bool))
  np.testing.assert_array_equal(slope[:, 1], np.tri(ROWS, dtype=bool).T)


def test_mean_probability():
  logits = jnp.array([[0.3, -2.0, 1.0], [0.5, 0.5, 0.5]])
  real = np.asarray(sigmoid(np.asarray(logits))).mean(axis=1)
  expected = np.log(real / (1 - real))
  np.testing.assert_allclose(mean_probability(logits), expected, rtol=1e-5)
  extreme = mean_probability(jnp.array([[300.0, 300.0], [-300.0, -300.0]]))
  np.testing.assert_allclose(extreme, [300.0, -300.0], rtol=1e-5)


@pytest.mark.parametrize("score, frozen", [(0.6, False), (0.8, True)])
def test_freezing_below_a_share_of_the_opponents_loss(score, frozen):
  """Losses 0.87 and 1.04: not below 0.7; 0.74 and 1.17: below."""
  real, fake = jnp.full(3, score), jnp.full(3, -score)
  loss = freezing(non_saturating, 0.7)
  value, grads = jax.jit(jax.value_and_grad(loss.disc, argnums=(0, 1)))(real, fake)
  expected, moving = jax.jit(jax.value_and_grad(non_saturating.disc, argnums=(0, 1)))(
    real, fake
  )
  assert (expected < 0.7 * non_saturating.gen(fake)) == frozen
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  for got, full in zip(grads, moving, strict=True):
    np.testing.assert_allclose(got, 0 * full if frozen else full, rtol=1e-6)


def test_a_step_judged_real_hides_the_others_from_the_mean_probability_only():
  """At logits 20 and -20, -log D has no slope; the mean of both -log D's has -1/2."""
  logits = jnp.array([[20.0, -20.0]])
  loss = lambda score: lambda x: non_saturating.gen(score(x))
  slope = lambda score: jax.jit(jax.grad(loss(score)))(logits)
  np.testing.assert_allclose(slope(mean_probability), [[0, 0]], atol=1e-6)
  np.testing.assert_allclose(slope(each_step), [[0, -0.5]], atol=1e-6)
  net = Discriminator(WIDTH, 1, score=each_step)
  x = jnp.zeros((2, ROWS, COLUMNS, 1))
  play = lambda: net.init_with_output(KEY, x, train=True)[0]
  scores, _ = jax.eval_shape(play)
  assert scores.shape == (2, ROWS)


def test_an_optimiser_without_a_gradient_stands_still():
  tx = skip_no_gradient(optax.adamw(0.1))
  params = {"w": jnp.ones(3), "b": jnp.ones(())}
  grads = jax.tree.map(lambda x: 2.0 * x, params)
  updates, state = tx.update(grads, tx.init(params), params)
  plain, _ = optax.adamw(0.1).update(grads, optax.adamw(0.1).init(params), params)
  jax.tree.map(np.testing.assert_array_equal, updates, plain)
  still, same = tx.update(jax.tree.map(jnp.zeros_like, grads), state, params)
  assert not any(np.any(u) for u in jax.tree.leaves(still))
  jax.tree.map(np.testing.assert_array_equal, same, state)
  partly = {"w": jnp.zeros(3), "b": jnp.ones(())}  # not frozen: momentum goes on
  assert np.all(tx.update(partly, state, params)[0]["w"] != 0)


def test_pairs_of_features_are_matched():
  judge = lambda x: (x.sum(axis=(1, 2, 3)), 2 * x[..., 0])
  real, fake = np.random.default_rng(0).standard_normal((2, 5, ROWS, COLUMNS, 1))
  expected = 4 * ((real - fake) ** 2).sum() / (5 * ROWS)
  np.testing.assert_allclose(match_pairs(judge, real, fake), expected, rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 1e3])
def test_a_frozen_discriminator_waits_while_the_generator_learns(share):
  method = rnn_gan(
    *(Generator((ROWS, COLUMNS, 1), WIDTH, 1), Discriminator(WIDTH, 1)),
    gen_tx=optax.adam(0.1),
    disc_tx=optax.adam(0.1),
    latent_dim=ROWS * NOISE,
    freeze_share=share,
  )
  before = first_state(method, {"image": IMAGE})
  after, metrics = jax.jit(method.train_step)(before, {"image": IMAGE}, KEY)
  changed = lambda a, b: any(
    np.any(x != y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
  )
  frozen = bool(share)
  assert changed(before.params["disc"], after.params["disc"]) != frozen
  assert changed(before.opt["disc"], after.opt["disc"]) != frozen
  assert (metrics["disc_grad_norm"] == 0) == frozen
  assert changed(before.params["gen"], after.params["gen"])
  paths = jax.eval_shape(method.tools["interpolate"], after, {"image": IMAGE}, KEY)
  assert paths["linear"].shape == (2, 8, ROWS, COLUMNS, 1)


class Copy(nn.Module):
  """Images that are the latents."""

  @nn.compact
  def __call__(self, z, label=None, *, train):
    self.param("unused", nn.initializers.zeros, (1,))
    return z.reshape(len(z), ROWS, -1, 1)


def sampled(**kwargs):
  """What `Copy` samples, in order: the latents."""
  tx = dict(gen_tx=optax.sgd(0.1), disc_tx=optax.sgd(0.1))
  disc = Discriminator(WIDTH, 1)
  method = rnn_gan(Copy(), disc, latent_dim=ROWS * 50, **tx, **kwargs)
  batch = {"image": jnp.zeros((8, ROWS, 50, 1))}
  state = first_state(method, batch)
  drawn = jax.jit(lambda: method.sample(state, batch, KEY))()
  return np.sort(np.asarray(drawn["samples"]), axis=None)


def test_latents_are_uniform_if_not_told_otherwise_and_must_divide_into_rows():
  net = Generator((ROWS, COLUMNS, 1), WIDTH)
  with pytest.raises(ValueError, match="z has 7 numbers; expected a multiple of 4"):
    net.init(KEY, jnp.zeros((2, 7)), train=True)
  z = sampled()
  np.testing.assert_allclose(z, np.linspace(0, 1, z.size), atol=0.05)
  z = sampled(draw_latent=jax.random.normal)
  np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=0.06)
