"""Score SDEs against Gaussians: rates, losses, samples and likelihoods."""

from collections.abc import Callable
import functools
from pathlib import Path

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxgen import parallel
from jaxgen.diffusion import likelihood, stochastic_samplers
from jaxgen.diffusion import score_sde as paper
from jaxgen.diffusion.noise_prediction import spread
from jaxgen.diffusion.process import sub_vp, ve, vp_linear
from jaxgen.diffusion.score_sde import score_sde
from jaxgen.method import TrainState
from jaxgen.ops.ode import Tolerance
from jaxgen.run import load_experiment

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments" / "diffusion"

MEAN, STD = 0.1, 0.2
PROCESSES = {"vp": vp_linear(), "sub_vp": sub_vp(), "ve": ve(0.01, 5.0)}
every_process = pytest.mark.parametrize("name", list(PROCESSES))


class Known(nn.Module):
  """A function of x_t and t as a network without parameters."""

  predict: Callable

  def __call__(self, x_t, told, train):
    t = (told / 1000.0).reshape(-1, *(1,) * (x_t.ndim - 1))
    return self.predict(x_t, t)


def noise(process, x_t, t):
  """E[noise | x_t] for x ~ N(MEAN, STD^2) in every pixel."""
  alpha, sigma = process.alpha(t), process.sigma(t)
  return sigma * (x_t - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)


def known(name, **options):
  net = Known(functools.partial(noise, PROCESSES[name]))
  method = score_sde(net, tx=optax.sgd(1.0), process=PROCESSES[name], **options)
  params = {"net": {}}
  return method, TrainState(jnp.zeros((), jnp.int32), params, {}, {}, params)


def images(num, size=8, key=9):
  x = MEAN + STD * random.normal(random.key(key), (num, size, size, 1))
  return jnp.round((x + 1) * 127.5) / 127.5 - 1


def test_diffusion_rates_are_those_of_the_equations():
  with jax.enable_x64(True):
    t = jnp.linspace(0.01, 1.0, 9)
    beta = 0.1 + 19.9 * t
    rate = lambda name: paper.diffusion_rate(PROCESSES[name], t)
    np.testing.assert_allclose(rate("vp"), beta)
    whole = 0.1 * t + 0.5 * 19.9 * t**2
    np.testing.assert_allclose(rate("sub_vp"), beta * (1 - jnp.exp(-2 * whole)))
    sigma = 0.01 * 500**t
    np.testing.assert_allclose(rate("ve"), sigma**2 * 2 * np.log(500))


@pytest.mark.parametrize("weighted", [False, True])
@every_process
def test_loss_at_the_exact_score(name, weighted):
  process = PROCESSES[name]
  weight = paper.likelihood_weight(process) if weighted else jnp.ones_like
  method, state = known(name, weight=weight)
  key = random.key(0)
  loss = jax.jit(method.eval_step)(state, {"image": images(2048)}, key)["loss"]
  share = spread(*random.split(random.split(key)[0]), 2048)
  t = paper.FIRST_TIME + (1 - paper.FIRST_TIME) * share
  signal, sigma = process.alpha(t) * STD, process.sigma(t)
  expected = np.asarray(signal**2 / (signal**2 + sigma**2))  # Var[noise | x_t]
  if weighted:
    expected = expected * np.asarray(paper.diffusion_rate(process, t) / sigma**2)
  # Of a mean of 64 squares, around their expectation.
  error = np.sqrt(np.sum(expected**2) * 2 / 64) / len(t)
  assert abs(np.mean(loss) - np.mean(expected)) < 4 * error + 1e-3 * expected.mean()
  assert error < 0.3 * expected.mean()


@every_process
def test_samples_by_noise_and_by_the_ode_are_the_data(name):
  sampler = functools.partial(stochastic_samplers.predictor_corrector, snr=0.05)
  last = 1e-5 if name == "ve" else 1e-3
  times = paper.grid(PROCESSES[name], 300, last)
  assert len(times) == 301
  method, state = known(name, sampler=sampler, times=times)
  batch = {"image": jnp.zeros((512, 8, 8, 1))}
  # Of VP, 300 steps with noise are 4 % short of the deviation, and 600 are 1.5 %.
  for draw, rtol in ((method.sample, 0.06), (method.tools["ode"], 0.02)):
    x = jax.jit(draw)(state, batch, random.key(0))["samples"]
    np.testing.assert_allclose(x.mean(), MEAN, atol=0.02)
    np.testing.assert_allclose(x.std(), STD, rtol=rtol)


@every_process
def test_likelihood_is_that_of_the_flow(name):
  """log N(z) of the prior and the change of scale of a Gaussian's solution."""
  process, key = PROCESSES[name], random.key(3)
  with jax.enable_x64(True):
    fine = Tolerance(1e-10, 1e-10, 512)
    method, state = known(name, tolerance=fine, num_levels=16)
    image = images(4, 2)
    found = jax.jit(method.tools["nll"])(state, {"image": image}, key)
    x = likelihood.observe(image, random.split(key)[0], 16)
    at = lambda t: (process.alpha(jnp.asarray(t)), process.sigma(jnp.asarray(t)))
    (alpha, sigma), (end_alpha, end_sigma) = at(paper.FIRST_TIME), at(1.0)
    spread = np.sqrt(alpha**2 * STD**2 + sigma**2)
    ratio = np.sqrt(end_alpha**2 * STD**2 + end_sigma**2) / spread
    z = end_alpha * MEAN + ratio * (x - alpha * MEAN)
    log_p = stats.norm.logpdf(z, scale=end_sigma) + np.log(ratio)
    expected = 4 - 1 - log_p.mean((1, 2, 3)) / np.log(2)
    np.testing.assert_allclose(found["bits_per_dim"], expected, rtol=1e-6)
    # ... which is that of the data, but for what the prior does not know of them.
    data = 3 - stats.norm.logpdf(x, alpha * MEAN, spread).mean((1, 2, 3)) / np.log(2)
    np.testing.assert_allclose(expected, data, atol=0.04)


def test_networks_of_cifar_have_the_parameters_of_ddpm():
  for name in ("score_sde_cifar10", "flow_matching_cifar10"):
    module = load_experiment(EXPERIMENTS / f"{name}.py")
    method = module.build(module.get_config())["method"]
    spec = {"image": np.zeros((2, 32, 32, 3), np.uint8)}
    params = parallel.abstract_state(method.init, spec).params["net"]
    assert sum(p.size for p in jax.tree.leaves(params)) == 35_746_307
