"""Flow matching against Gaussians, exact assignments, and densities in closed form."""

from collections.abc import Callable

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize, stats

from jaxgen import parallel
from jaxgen.diffusion import flow_matching as paper
from jaxgen.diffusion import likelihood, ode_samplers, process, schedules
from jaxgen.diffusion.flow_matching import flow_matching
from jaxgen.method import TrainState
from jaxgen.ops.ode import Tolerance

MEAN, STD = 0.1, 0.2
FINE = Tolerance(1e-10, 1e-10, 256)


class Known(nn.Module):
  """A function of x_t and t as a network, with a factor as its parameter."""

  predict: Callable

  @nn.compact
  def __call__(self, x_t, told, train):
    factor = self.param("factor", nn.initializers.ones, ())
    t = (told / 1000.0).reshape(-1, *(1,) * (x_t.ndim - 1))
    return factor * self.predict(x_t, t)


def velocity(x_t, t):
  """E[noise - x | x_t] for x ~ N(MEAN, STD^2) in every pixel."""
  covariance = t - (1 - t) * STD**2
  variance = (1 - t) ** 2 * STD**2 + t**2
  return covariance / variance * (x_t - (1 - t) * MEAN) - MEAN


def denoise(x_t, t):
  gain = (1 - t) * STD**2 / ((1 - t) ** 2 * STD**2 + t**2)
  return MEAN + gain * (x_t - (1 - t) * MEAN)


def known(**options):
  method = flow_matching(Known(velocity), tx=optax.sgd(1.0), **options)
  params = {"net": {"factor": jnp.ones(())}}
  return method, TrainState(jnp.zeros((), jnp.int32), params, {}, {}, params)


def images(num, size=8, key=9):
  """Of 256 levels, of the data that `velocity` knows."""
  x = MEAN + STD * random.normal(random.key(key), (num, size, size, 1))
  return jnp.round((x + 1) * 127.5) / 127.5 - 1


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def test_regression_has_its_optimum_at_the_velocity_of_the_flow():
  method, state = known()
  evaluate = jax.jit(lambda state: method.eval_step(state, batch, random.key(0)))
  batch = {"image": images(4096)}
  loss = evaluate(state)["loss"]
  t = np.linspace(0, 1, 2001)
  covariance, variance = t - (1 - t) * STD**2, (1 - t) ** 2 * STD**2 + t**2
  expected = np.trapezoid(1 + STD**2 - covariance**2 / variance, t)
  np.testing.assert_allclose(loss.mean(), expected, rtol=0.01)
  # E[v] has the same error of |velocity|^2 on both sides.
  at = lambda factor: evaluate(
    state.replace(params={"net": {"factor": jnp.float32(factor)}})
  )["loss"].mean()
  low, high = at(0.8), at(1.2)
  np.testing.assert_allclose(low, high, atol=0.02)
  assert low > loss.mean() + 0.02


def test_paths_are_those_of_the_paper(x64):
  x, noise = random.normal(random.key(0), (2, 5, 3))
  t = jnp.linspace(0.1, 0.9, 5)
  ours, theirs = paper.straight(0.1), process.straight()
  target = process.VELOCITY.target(ours, x, noise, t)
  np.testing.assert_allclose(target, (1 - 0.1) * noise - x)  # Eq. 23, t reversed
  np.testing.assert_allclose(ours.time(ours.sigma(t) / ours.alpha(t)), t)
  same = paper.straight()
  for name in ("alpha", "sigma"):
    np.testing.assert_array_equal(getattr(same, name)(t), getattr(theirs, name)(t))


def test_samples_of_the_exact_velocity():
  for sampler, number in ((ode_samplers.heun, 50), (ode_samplers.euler, 200)):
    method, state = known(sampler=sampler, times=schedules.uniform(number, 1.0))
    batch = {"image": jnp.zeros((1024, 8, 8, 1))}
    x = jax.jit(method.sample)(state, batch, random.key(0))["samples"]
    np.testing.assert_allclose(x.mean(), MEAN, atol=4 * STD / 256)
    np.testing.assert_allclose(x.std(), STD, rtol=0.03)
    levels = (np.asarray(x) + 1) * 127.5
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)


@pytest.mark.parametrize("estimated", [False, True])
def test_density_of_the_exact_flow_is_the_gaussian(estimated, x64):
  """Signs are exact for a diagonal Jacobian."""
  x = random.normal(random.key(1), (6, 1, 3, 1))
  key = random.key(0) if estimated else None
  field = lambda params, x_t, t: velocity(x_t, t)
  straight = process.straight()
  run = lambda x: likelihood.log_prob(
    field, (), x, key, process=straight, start=0.0, tolerance=FINE
  )
  found, count = jax.jit(run)(x)
  expected = stats.norm.logpdf(x, MEAN, STD).sum((1, 2, 3))
  np.testing.assert_allclose(found, expected, rtol=1e-9)
  assert np.all(count > 6)


def test_density_of_two_values_integrates_to_one(x64):
  weights = np.random.default_rng(2).standard_normal((2, 3, 2))

  def field(weights, x_t, t):
    inside, outside = weights
    return jnp.tanh(x_t @ inside.T + jnp.arange(3.0)[None] * t) @ outside

  line, step = np.linspace(-9, 9, 101, retstep=True)
  grid = jnp.asarray(np.stack(np.meshgrid(line, line), -1).reshape(-1, 2))
  run = lambda x: likelihood.log_prob(
    field, weights, x, None, process=process.straight(), start=0.0
  )
  found, _ = jax.jit(run)(grid)
  np.testing.assert_allclose(np.exp(found).sum() * step**2, 1, rtol=1e-3)
  assert abs(found.max() + np.log(2 * np.pi)) > 0.05


def test_bits_per_dim_are_those_of_the_noisy_image(x64):
  method, state = known(tolerance=FINE, num_levels=16)
  image, key = images(8), random.key(3)
  found = jax.jit(method.tools["nll"])(state, {"image": image}, key)
  x = likelihood.observe(image, random.split(key)[0], 16)
  log_p = stats.norm.logpdf(x, MEAN, STD).mean((1, 2, 3))
  expected = -(log_p + np.log(2)) / np.log(2) + 4  # [-1, 1] has volume 2; 4 bits
  np.testing.assert_allclose(found["bits_per_dim"], expected, rtol=1e-6)
  np.testing.assert_allclose(found["nll"], 64 * np.log(2) * expected, rtol=1e-6)
  assert np.abs(x - image).max() <= 2 / 16
  back = likelihood.restore(likelihood.observe(image, key))
  np.testing.assert_allclose(back, image, atol=1e-6)


def test_optimal_transport_is_the_assignment_of_scipy():
  x, noise = random.normal(random.key(0), (2, 16, 2, 2, 1))
  same, moved = jax.jit(paper.optimal_transport)(x, noise)
  np.testing.assert_array_equal(same, x)
  costs = np.square(x.reshape(16, 1, -1) - noise.reshape(1, 16, -1)).sum(-1)
  rows, columns = optimize.linear_sum_assignment(costs)
  np.testing.assert_array_equal(moved[rows], noise[columns])
  assert not np.array_equal(columns, np.arange(16))


def test_optimal_transport_pairs_the_whole_batch_on_any_devices():
  method, _ = known(couple=paper.optimal_transport)
  found = []
  for devices in (1, 2):
    backend = parallel.jit_backend(jax.devices()[:devices])
    spec = {"image": np.zeros((8, 2, 2, 1), np.float32)}
    state = backend.init(method.init, random.key(0), spec)
    batch = backend.put_batch({"image": np.asarray(images(8, 2))})
    step = backend.compile_train(method.train_step)
    state, metrics = step(state, batch, random.key(1))
    found.append((metrics["loss"], state.params["net"]["factor"]))
  np.testing.assert_allclose(*found, rtol=1e-5)


def test_reflow_pairs_noise_with_what_the_flow_makes_of_it(x64):
  """Of a Gaussian's exact flow, MEAN + STD noise: paths that do not cross."""
  couple = paper.reflow(denoise, num_steps=100)
  noise = random.normal(random.key(0), (8, 2, 2, 1))
  x, same = jax.jit(couple)(jnp.zeros_like(noise), noise)
  np.testing.assert_array_equal(same, noise)
  np.testing.assert_allclose(x, MEAN + STD * noise, atol=2e-3)


def test_one_step_is_enough_after_reflow():
  """The velocity of those pairs is constant along each path."""
  straightened = lambda x_t, t: (lambda noise: noise - (MEAN + STD * noise))(
    (x_t - (1 - t) * MEAN) / ((1 - t) * STD + t)
  )
  method = flow_matching(
    Known(straightened),
    tx=optax.sgd(1.0),
    couple=lambda x, noise: (MEAN + STD * noise, noise),
    sampler=ode_samplers.euler,
    times=schedules.uniform(1, 1.0),
  )
  _, state = known()
  batch = {"image": images(64)}
  loss = jax.jit(method.eval_step)(state, batch, random.key(0))["loss"]
  np.testing.assert_allclose(loss, 0, atol=1e-9)
  x = jax.jit(method.sample)(state, {"image": jnp.zeros((512, 8, 8, 1))}, random.key(0))
  np.testing.assert_allclose(x["samples"].std(), STD, rtol=0.02)
