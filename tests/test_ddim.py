"""DDIM against closed forms: a Gaussian's exact network, and what encoding keeps."""

import itertools
from pathlib import Path

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.diffusion.ddim import ddim
from jaxgen.diffusion.schedules import linear_betas, linear_steps, quadratic_steps
from jaxgen.method import TrainState
from jaxgen.run import load_experiment

EXPERIMENTS = Path(__file__).parents[1] / "experiments" / "diffusion"

MEAN, STD = 0.1, 0.2
BETAS = tuple(linear_betas())


class GaussianNet(nn.Module):
  """E[noise | x_t] for x ~ N(MEAN, STD^2), in every pixel."""

  @nn.compact
  def __call__(self, x_t, t, train):
    alpha_bars = np.cumprod(1.0 - np.array(BETAS))
    alpha_bar = jnp.interp(t * 1.0, np.arange(len(alpha_bars)), alpha_bars)
    alpha_bar = alpha_bar[:, None, None, None]
    variance = alpha_bar * STD**2 + 1.0 - alpha_bar
    return jnp.sqrt(1.0 - alpha_bar) * (x_t - jnp.sqrt(alpha_bar) * MEAN) / variance


def make(steps, eta=0.0):
  """A method whose network has nothing to learn, and its state."""
  method = ddim(GaussianNet(), tx=optax.sgd(1.0), betas=BETAS, steps=steps, eta=eta)
  return method, TrainState(jnp.zeros((), jnp.int32), {"net": {}}, {}, {}, {})


def moments(steps, eta):
  """Mean and variance of samples, by the paper's Eq. 12 and 16 in float64."""
  alpha_bars = np.append(1.0, np.cumprod(1.0 - np.array(BETAS)))
  mean, variance = 0.0, 1.0
  for now, then in itertools.pairwise(steps):
    a, b = alpha_bars[int(now)], alpha_bars[int(then)]
    slope = np.sqrt(1 - a) / (a * STD**2 + 1 - a)  # of the noise in x_t
    sigma = eta * np.sqrt((1 - b) / (1 - a)) * np.sqrt(1 - a / b)
    scale = np.sqrt(b / a) * (1 - np.sqrt(1 - a) * slope)
    scale += np.sqrt(1 - b - sigma**2) * slope
    shift = np.sqrt(b) * np.sqrt(1 - a) / np.sqrt(a) * slope * np.sqrt(a) * MEAN
    shift -= np.sqrt(1 - b - sigma**2) * slope * np.sqrt(a) * MEAN
    mean, variance = scale * mean + shift, scale**2 * variance + sigma**2
  return mean, variance


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_moments_of_samples_are_those_of_the_papers_formula(eta):
  steps = linear_steps(1000, 20)
  method, state = make(steps, eta)
  batch = {"image": jnp.zeros((1024, 8, 8, 1))}
  samples = np.asarray(jax.jit(method.sample)(state, batch, random.key(0))["samples"])
  mean, variance = moments(steps, eta)
  np.testing.assert_allclose(samples.mean(), mean, atol=4 * STD / 256)
  np.testing.assert_allclose(samples.var(), variance, rtol=4 * np.sqrt(2) / 256)


@pytest.mark.parametrize("subset", [linear_steps, quadratic_steps])
def test_error_of_encoding_and_decoding_falls_with_the_steps(subset):
  x = MEAN + STD * np.random.default_rng(0).standard_normal((16, 8, 8, 1), np.float32)
  made = [make(subset(1000, num_steps)) for num_steps in (10, 20, 40)]

  def everything(x):
    tools = [(method.tools["reconstruct"], state) for method, state in made]
    return [tool(state, {"image": x}, random.key(1)) for tool, state in tools]

  errors = []
  for found in jax.jit(everything)(x):
    square = np.mean(((found["reconstructions"] - x) / 2) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(found["error"], square, rtol=1e-5)
    errors.append(float(found["error"].mean()))
  # A method of order 1: in the end twice the steps, a quarter of the squared error.
  assert errors[0] > 2 * errors[1] > 5 * errors[2] > 0


def test_latents_of_the_exact_network_are_standard_normal():
  method, state = make(linear_steps(1000, 100))
  x = np.asarray(MEAN + STD * random.normal(random.key(0), (64, 8, 8, 1)))

  @jax.jit
  def there_and_back(x):
    latents = method.tools["encode"](state, {"image": x}, random.key(1))
    return latents["latents"], method.tools["decode"](state, latents, random.key(2))

  latents, back = jax.device_get(there_and_back(x))
  np.testing.assert_allclose(latents.mean(), 0.0, atol=0.06)
  np.testing.assert_allclose(latents.std(), 1.0, rtol=0.06)
  # Without noise the order of values is kept: the map is monotone.
  ranks = lambda v: np.argsort(v.ravel())
  np.testing.assert_array_equal(ranks(latents), ranks(x))
  np.testing.assert_allclose(back["images"], x.clip(-1, 1), atol=0.12)


def test_interpolations_join_given_images_or_drawn_latents():
  method, state = make(linear_steps(1000, 5))
  tools, key = method.tools, random.key(0)
  x = MEAN + STD * random.normal(random.key(1), (3, 4, 4, 1))

  def everything(x):
    batch = {"image": x}
    decode = lambda z: tools["decode"](state, {"latents": z}, key)["images"]
    drawn = random.normal(key, (2, *x.shape))
    return {
      "interpolate": tools["interpolate"](state, batch, key)["interpolations"],
      "reconstruct": tools["reconstruct"](state, batch, key)["reconstructions"],
      "walk": tools["walk"](state, batch, key)["interpolations"],
      "first": decode(drawn[0]),
      "last": decode(drawn[1]),
    }

  found = jax.tree.map(np.asarray, jax.jit(everything)(x))
  path, ends = found["interpolate"], found["reconstruct"]
  assert path.shape == (3, 9, 4, 4, 1)
  np.testing.assert_allclose(path[:, 0], ends, atol=1e-4)
  np.testing.assert_allclose(path[:, -1], np.roll(ends, -1, axis=0), atol=1e-4)
  assert np.corrcoef(np.ravel(ends), np.ravel(x))[0, 1] > 0.8  # It is these images.
  np.testing.assert_allclose(found["walk"][:, 0], found["first"], atol=1e-4)
  np.testing.assert_allclose(found["walk"][:, -1], found["last"], atol=1e-4)


def test_without_noise_only_the_start_is_drawn():
  method, state = make(linear_steps(1000, 5))
  batch, key = {"image": jnp.zeros((3, 4, 4, 1))}, random.key(0)

  @jax.jit
  def both(key):
    latents = {"latents": random.normal(random.split(key)[0], (3, 4, 4, 1))}
    samples = method.sample(state, batch, key)
    return samples, method.tools["decode"](state, latents, key)

  samples, decoded = both(key)
  np.testing.assert_allclose(samples["samples"], decoded["images"], atol=1e-6)


@pytest.mark.parametrize(
  "steps", [[5, 3], [3, 5, 0], [5, 2.5, 0], [0], [1001, 0], [5, 5, 0]]
)
def test_steps_that_are_no_subset_are_refused(steps):
  with pytest.raises(ValueError, match=r"steps must be whole numbers that fall from"):
    make(steps)


def test_the_experiment_has_the_network_of_ddpm():
  experiment = load_experiment(EXPERIMENTS / "ddim_cifar10.py")
  method = experiment.build(experiment.get_config())["method"]
  batch = {"image": jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)}
  state = jax.eval_shape(method.init, jax.eval_shape(lambda: random.key(0)), batch)
  assert sum(p.size for p in jax.tree.leaves(state.params)) == 35_746_307
