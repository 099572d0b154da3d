"""The critic's step by hand, and what the best linear critic is known to find."""

import functools

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.gan.critic_steps import alternating
from jaxgen.gan.sngan import sngan
from jaxgen.gan.wgan import wgan
from jaxgen.gan.wgan_gp import wgan_gp
from jaxgen.losses.adversarial import hinge
from jaxgen.method import every

KEY = jax.random.key(0)
V, C = np.array([0.4, -0.3]), np.array([0.7, 0.2])
REAL = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
BATCH = {"image": jnp.asarray(REAL).reshape(6, 1, 1, 2)}


class Shift(nn.Module):
  """G(z) = scale z + c."""

  scale: float = 1.0

  @nn.compact
  def __call__(self, z, label, train):
    c = self.param("c", lambda _: jnp.asarray(C, jnp.float32))
    return (self.scale * z + c[None]).reshape(-1, 1, 1, 2)


class Line(nn.Module):
  """D(x) = <v, x>."""

  @nn.compact
  def __call__(self, x, label, train):
    return x.reshape(-1, 2) @ self.param("v", lambda _: jnp.asarray(V, jnp.float32))


def run(method, num_steps, batch=BATCH):
  """States before and after each step, and the metrics of each."""
  states, history = [jax.jit(method.init)(KEY, batch)], []
  step = jax.jit(method.train_step)
  for i in range(num_steps):
    state, metrics = step(states[-1], batch, jax.random.fold_in(KEY, i))
    states.append(state.replace(step=state.step + 1))  # as the runner does
    history.append(metrics)
  return states, history


def fakes(step, player, scale=1.0):
  """What the generator at C makes of the latents of a step."""
  keys = jax.random.split(jax.random.fold_in(KEY, step), 3)
  z = jax.random.normal(keys[("critic", "gen").index(player)], (6, 2))
  return scale * np.asarray(z) + C


def test_one_step_of_linear_players_by_hand():
  lr_critic, lr_gen, weight = 0.1, 0.25, 10.0
  method = wgan_gp(
    *(Shift(), Line()),
    gen_tx=optax.sgd(lr_gen),
    critic_tx=optax.sgd(lr_critic),
    latent_dim=2,
    num_critic_steps=1,
    penalty_weight=weight,
  )
  (_, state), (metrics,) = run(method, 1)
  gap = REAL.mean(0) - fakes(0, "critic").mean(0)
  norm = np.linalg.norm(V)
  gradient = -gap + weight * 2 * (norm - 1) * V / norm
  v = V - lr_critic * gradient
  np.testing.assert_allclose(state.params["critic"]["v"], v, rtol=1e-5)
  np.testing.assert_allclose(state.params["gen"]["c"], C + lr_gen * v, rtol=1e-5)
  np.testing.assert_allclose(metrics["penalty"], weight * (norm - 1) ** 2, rtol=1e-5)
  np.testing.assert_allclose(metrics["score_gap"], V @ gap, rtol=1e-4)
  loss = -V @ gap + weight * (norm - 1) ** 2
  np.testing.assert_allclose(metrics["critic_loss"], loss, rtol=1e-5)
  gen_loss = -(fakes(0, "critic") @ V).mean()
  np.testing.assert_allclose(metrics["gen_loss"], gen_loss, rtol=1e-4)
  np.testing.assert_allclose(
    metrics["critic_grad_norm"], np.hypot(*gradient), rtol=1e-5
  )
  np.testing.assert_allclose(metrics["gen_grad_norm"], np.hypot(*v), rtol=1e-5)


def clipping(num_critic_steps=3, rate=0.1, clip=0.05, gen_rate=0.1):
  return wgan(
    *(Shift(), Line()),
    gen_tx=optax.adam(gen_rate),
    critic_tx=optax.rmsprop(rate),
    latent_dim=2,
    num_critic_steps=num_critic_steps,
    clip=clip,
  )


def test_generator_moves_on_every_third_step_only():
  states, history = run(clipping(), 7)
  c = np.array([s.params["gen"]["c"] for s in states])
  moved = (np.diff(c, axis=0) != 0).all(axis=1)
  np.testing.assert_array_equal(moved, [False, False, True, False, False, True, False])
  counts = [int(s.opt["gen"][0].count) for s in states]
  assert counts == [0, 0, 0, 1, 1, 1, 2, 2]
  norms = np.array([m["gen_grad_norm"] for m in history])
  np.testing.assert_array_equal(norms > 0, moved)
  v = np.array([s.params["critic"]["v"] for s in states])
  assert (np.abs(np.diff(v, axis=0)).max(axis=1) > 0)[:2].all()


def test_clipping_is_of_the_critic_only():
  states, _ = run(clipping(), 4)
  for state in states[1:]:
    assert np.abs(state.params["critic"]["v"]).max() <= np.float32(0.05)
    assert np.abs(state.params["gen"]["c"]).max() > 0.1
  assert np.abs(states[0].params["critic"]["v"]).max() > 0.1


def test_both_ways_of_skipping_a_turn_are_the_same(monkeypatch):
  """On a CPU and elsewhere, with batch norm, spectral norm and Adam."""
  batch = {"image": jax.random.normal(KEY, (4, 8, 8, 1))}
  on_cpu, history = run(small_sngan(), 4, batch)
  elsewhere = lambda *args, cpu, default: default(*args)
  monkeypatch.setattr(lax, "platform_dependent", elsewhere)
  by_cond, other_history = run(small_sngan(), 4, batch)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, on_cpu[-1], by_cond[-1])
  jax.tree.map(close, history, other_history)


def test_an_interval_of_no_steps_is_an_error():
  with pytest.raises(ValueError, match="at least 1, got 0"):
    every(0, jnp.int32(0), lambda x: x, 1.0)
  with pytest.raises(ValueError, match="clip must be positive, got 0"):
    clipping(clip=0)


SHIFT = np.array([3.0, -4.0], np.float32)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_critics_find_the_distance_of_point_masses_and_of_shifted_gaussians(scale):
  """Data are the fakes moved by `SHIFT`, which is 5 long: the best critics are lines.

  Under the penalty, loss = -5 |v| + weight (|v| - 1)^2 is least at
  |v| = 1 + 5 / (2 weight), along the shift. Clipped, every v_i is at its bound, and the
  gap is clip times the 1-norm of the shift.
  """
  weight, clip = 10.0, 0.01
  players = Shift(scale), Line()
  still = dict(gen_tx=optax.sgd(0.0), latent_dim=2)
  methods = {
    "penalty": wgan_gp(
      *players, critic_tx=optax.sgd(0.05), penalty_weight=weight, **still
    ),
    "clip": wgan(*players, critic_tx=optax.rmsprop(0.01), clip=clip, **still),
  }
  found = {}
  for name, method in methods.items():
    state, step = jax.jit(method.init)(KEY, BATCH), jax.jit(method.train_step)
    for _ in range(60):  # always the same latents, so that the shift is exact
      image = jnp.asarray(fakes(0, "critic", scale) + SHIFT, jnp.float32)
      key = jax.random.fold_in(KEY, 0)
      state, metrics = step(state, {"image": image.reshape(6, 1, 1, 2)}, key)
    found[name] = state.params["critic"]["v"], metrics["score_gap"]
  slope = 1 + 5 / (2 * weight)
  np.testing.assert_allclose(found["penalty"][0], slope * SHIFT / 5, rtol=1e-4)
  np.testing.assert_allclose(found["penalty"][1], slope * 5, rtol=1e-4)
  np.testing.assert_allclose(found["clip"][0], clip * np.sign(SHIFT), rtol=1e-5)
  np.testing.assert_allclose(found["clip"][1], clip * 7, rtol=1e-4)


class Gen(nn.Module):
  """With batch norm, and a bias where it matters."""

  @nn.compact
  def __call__(self, z, label, train):
    h = nn.relu(nn.BatchNorm(not train)(nn.Dense(32, use_bias=False)(z)))
    return nn.tanh(nn.Conv(1, (3, 3))(jnp.repeat(h.reshape(-1, 4, 8, 1), 2, axis=1)))


class Disc(nn.Module):
  @nn.compact
  def __call__(self, x, label, train):
    layer = nn.SpectralNorm(nn.Conv(4, (3, 3), (2, 2)), collection_name="spectral_norm")
    x = nn.leaky_relu(layer(x, update_stats=train))
    return nn.Dense(1)(x.reshape(len(x), -1))[:, 0]


def small_sngan():
  return sngan(
    *(Gen(), Disc()),
    gen_tx=optax.adam(1e-3),
    disc_tx=optax.adam(1e-3),
    latent_dim=3,
    num_disc_steps=3,
  )


def test_running_averages_move_whenever_the_generator_generates():
  """Once per step, twice on its turn; by making the passes one by one."""
  batch = {"image": jax.random.normal(KEY, (4, 8, 8, 1))}
  states, history = run(small_sngan(), 3, batch)

  @jax.jit
  def generate(state, stats, step, player):
    key = jax.random.split(jax.random.fold_in(KEY, step), 3)[player]
    variables = {"params": state.params["gen"], **stats}
    z = jax.random.normal(key, (4, 3))
    return Gen().apply(variables, z, None, True, mutable=["batch_stats"])[1]

  stats = states[0].stats["gen"]
  for step in range(3):
    stats = generate(states[step], stats, step, 0)
    if step == 2:
      stats = generate(states[step], stats, step, 1)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, states[step + 1].stats["gen"], stats)
  assert set(history[0]) >= {"disc_loss", "disc_accuracy_real", "disc_accuracy_fake"}


def test_penalty_and_projection_are_optional_functions():
  """(score, real, mixed) -> [B], with the labels of the batch bound."""
  seen = {}

  def penalty(score, real, mixed):
    seen.update(real=real.shape, mixed=mixed.shape, score=score(real).shape)
    return 0.0 * score(real) + 3.0

  arguments = dict(
    loss=hinge, gen_tx=optax.sgd(0.1), critic_tx=optax.sgd(0.1), latent_dim=2
  )
  make = functools.partial(
    alternating, Shift(), Line(), num_critic_steps=1, **arguments
  )
  (_, plain), (metrics,) = run(make(), 1)
  (_, more), (penalized,) = run(make(penalty=penalty), 1)
  assert "penalty" not in metrics
  assert seen == {"real": (6, 1, 1, 2), "mixed": (6, 1, 1, 2), "score": (6,)}
  np.testing.assert_allclose(
    penalized["critic_loss"], metrics["critic_loss"] + 3.0, rtol=1e-6
  )
  project = lambda params: jax.tree.map(lambda w: 2.0 * w, params)
  (_, doubled), _ = run(make(project=project), 1)
  v = plain.params["critic"]["v"]
  np.testing.assert_allclose(more.params["critic"]["v"], v, rtol=1e-6)
  np.testing.assert_allclose(doubled.params["critic"]["v"], 2 * v, rtol=1e-6)
