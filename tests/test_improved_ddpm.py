"""Improved DDPM against closed forms: learned variances, L_vlb, importance sampling."""

import functools

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.diffusion import improved_ddpm as paper
from jaxgen.diffusion import sampling
from jaxgen.diffusion.ddpm import ddpm
from jaxgen.diffusion.improved_ddpm import HYBRID, VLB, improved_ddpm
from jaxgen.diffusion.noise_prediction import early_steps
from jaxgen.diffusion.schedules import linear_betas
from jaxgen.method import TrainState
from jaxgen.nn.unet import UNet

MEAN, STD = 0.1, 0.2
BETAS = tuple(linear_betas(50, 2e-3, 0.4))


class Net(nn.Module):
  """The exact noise of N(MEAN, STD^2) times a scale, and one value of v."""

  v: float = 0.0
  doubled: bool = True

  @nn.compact
  def __call__(self, x_t, t, train=False):
    scale = self.param("scale", nn.initializers.ones, ())
    v = self.param("v", nn.initializers.constant(self.v), ())
    alpha_bars = np.cumprod(1.0 - np.array(BETAS))
    alpha_bar = jnp.interp(t * 1.0, np.arange(len(alpha_bars)), alpha_bars)
    alpha_bar = alpha_bar[:, None, None, None]
    variance = alpha_bar * STD**2 + 1.0 - alpha_bar
    noise = jnp.sqrt(1.0 - alpha_bar) * (x_t - jnp.sqrt(alpha_bar) * MEAN) / variance
    noise = scale * noise
    both = jnp.concatenate([noise, jnp.broadcast_to(v, noise.shape)], -1)
    return both if self.doubled else noise


def images(num):
  x = MEAN + STD * random.normal(random.key(9), (num, 4, 4, 1))
  return jnp.round((x + 1) * 127.5).clip(0, 255) / 127.5 - 1


def make(v=0.0, objective=HYBRID, **kwargs):
  method = improved_ddpm(
    Net(v), tx=optax.sgd(0.1), betas=BETAS, objective=objective, **kwargs
  )
  return method, jax.jit(method.init)(random.key(0), {"image": images(8)})


@pytest.mark.parametrize("v", [-1.0, 1.0])
def test_ends_of_the_variance_are_those_of_ddpm(v):
  """v = -1: the posterior's variance; v = 1: beta, of which DDPM's first is smaller."""
  variance = sampling.small_variance if v < 0 else sampling.large_variance
  fixed = ddpm(Net(doubled=False), tx=optax.sgd(1.0), betas=BETAS, variance=variance)
  method, state = make(v)
  batch, key = {"image": images(8)}, random.key(1)
  found = jax.jit(method.tools["nll"])(state, batch, key)
  expected = jax.jit(fixed.tools["bits_per_dim"])(state, batch, key)
  np.testing.assert_allclose(found["rate"], expected["rate"], rtol=1e-4, atol=1e-5)
  if v < 0:
    same = found["distortion"], expected["distortion"]
    np.testing.assert_allclose(*same, rtol=1e-4, atol=1e-5)
    samples = jax.jit(method.sample)(state, batch, key)["samples"]
    np.testing.assert_allclose(
      samples, jax.jit(fixed.sample)(state, batch, key)["samples"], atol=1e-4
    )


def test_the_bound_of_a_learned_variance_is_lower():
  """Var[x_{t-1} | x_t] lies between the two: the best v is neither -1 nor 1."""
  batch, bits = {"image": images(64)}, {}
  for v in (-1.0, 0.5, 1.0):
    method, state = make(v)
    found = jax.jit(method.tools["nll"])(state, batch, random.key(1))
    bits[v] = float(found["bits_per_dim"].mean())
  assert bits[0.5] < min(bits[-1.0], bits[1.0])


def test_the_estimate_of_the_bound_is_the_bound():
  """Also where predictions are so bad that the sampler clips them."""
  method, state = make(-0.3)
  state = state.replace(params={"net": {**state.params["net"], "scale": 0.5}})
  batch = {"image": images(8_192)}
  estimate = jax.jit(method.eval_step)(state, batch, random.key(0))["vlb"]
  exact = jax.jit(method.tools["nll"])(state, batch, random.key(1))["bits_per_dim"]
  # L_T, which has nothing to learn, is not in the estimate; here it is about 0.
  np.testing.assert_allclose(estimate.mean(), exact.mean(), rtol=0.01)


def test_early_steps_weigh_all_steps_evenly():
  t, weights = early_steps(random.key(0), random.key(1), 100_000, 50)
  mass = np.bincount(t, weights, minlength=50) / 100_000
  np.testing.assert_allclose(mass, 1 / 50, rtol=0.01)
  assert np.all(np.diff(np.bincount(t)[:10]) < 0)


@functools.cache
def gradients(objective):
  method, state = make(-0.3, objective)
  after, metrics = jax.jit(method.train_step)(
    state, {"image": images(1024)}, random.key(2)
  )
  move = jax.tree.map(lambda a, b: float(b - a), after.params, state.params)
  return move["net"], metrics, after


def test_the_hybrid_loss_moves_the_mean_by_the_simple_loss_alone():
  only = HYBRID._replace(bound_weight=0.0)
  moves, metrics, _ = gradients(HYBRID)
  simple_moves, _, _ = gradients(only)
  np.testing.assert_allclose(moves["scale"], simple_moves["scale"], rtol=1e-5)
  assert simple_moves["v"] == 0
  assert moves["v"] != 0
  expected = metrics["simple"] + 1e-3 * metrics["vlb"]
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
  free, _, _ = gradients(HYBRID._replace(bound_moves_mean=True))
  assert abs(free["scale"] - moves["scale"]) > 1e-7


def test_the_bound_alone_moves_the_mean():
  moves, metrics, after = gradients(VLB)
  assert moves["scale"] != 0
  np.testing.assert_allclose(metrics["loss"], metrics["vlb"], rtol=1e-6)
  assert after.stats["steps"]["counts"].sum() == 1024


def test_importance_sampling_is_unbiased_and_follows_the_sizes():
  history = {"squares": jnp.array([1.0, 4.0, 25.0]), "counts": jnp.full(3, 10.0)}
  t, weights = paper.important_steps(history, random.key(0), 200_000)
  p = 0.999 * np.array([1, 2, 5]) / 8 + 0.001 / 3
  np.testing.assert_allclose(np.bincount(t) / 200_000, p, atol=0.005)
  values = jnp.array([1.0, 3.0, -2.0])
  np.testing.assert_allclose((weights * values[t]).mean(), values.mean(), atol=0.03)
  few = {**history, "counts": jnp.array([10.0, 9.0, 10.0])}
  t, weights = paper.important_steps(few, random.key(0), 90_000)
  np.testing.assert_allclose(weights, 1.0, rtol=1e-6)
  np.testing.assert_allclose(np.bincount(t) / 90_000, 1 / 3, atol=0.01)


def test_history_is_the_mean_of_the_squares():
  history = {"squares": jnp.zeros(3), "counts": jnp.zeros(3)}
  history = paper.updated_history(history, jnp.array([0, 2, 0]), jnp.array([1, 5, 3.0]))
  np.testing.assert_allclose(history["squares"], [5, 0, 25])
  np.testing.assert_allclose(history["counts"], [2, 0, 1])
  history = paper.updated_history(history, jnp.array([0]), jnp.array([2.0]))
  np.testing.assert_allclose(history["squares"], [14 / 3, 0, 25])
  old = {"squares": jnp.full(3, 7.0), "counts": jnp.full(3, 100.0)}
  old = paper.updated_history(old, jnp.array([1]), jnp.array([9.0]))
  np.testing.assert_allclose(old["squares"], [7, 7 + (81 - 7) / 10, 7])


def test_samples_of_few_steps_have_the_right_moments():
  method, state = make(0.5, num_sample_steps=25)
  batch = {"image": jnp.zeros((1024, 4, 4, 1))}
  x = jax.jit(method.sample)(state, batch, random.key(0))["samples"]
  np.testing.assert_allclose(x.mean(), MEAN, atol=0.02)
  np.testing.assert_allclose(x.std(), STD, rtol=0.25)


def test_the_network_has_two_outputs_per_value():
  """Only the last convolution is larger than that of DDPM's CIFAR-10 network."""
  count = lambda net: sum(
    p.size
    for p in jax.tree.leaves(
      jax.eval_shape(
        lambda: net.init(random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1))
      )
    )
  )
  extra = count(UNet(out_channels=6)) - count(UNet())
  assert count(UNet()) == 35_746_307
  assert extra == 3 * (9 * 128 + 1)


def test_gradients_are_finite_at_every_step():
  method, state = make(0.2, VLB)
  state = state.replace(
    stats={"steps": {"squares": jnp.ones(50), "counts": jnp.full(50, 10.0)}}
  )
  assert isinstance(state, TrainState)
  after, metrics = jax.jit(method.train_step)(
    state, {"image": images(512).at[0].set(1.0).at[1].set(-1.0)}, random.key(3)
  )
  assert np.isfinite(metrics["grad_norm"])
  assert all(np.isfinite(p).all() for p in jax.tree.leaves(after.params))
