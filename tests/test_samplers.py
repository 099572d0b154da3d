"""Noising processes, grids and samplers against exact solutions."""

import functools
from pathlib import Path
from types import SimpleNamespace

import jax
from jax import random
from jax.experimental import io_callback
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from jaxgen import parallel
from jaxgen.diffusion import ode_samplers, sampling, schedules, stochastic_samplers
from jaxgen.diffusion import process as processes
from jaxgen.diffusion.process import NOISE, SCORE, VELOCITY, V, X

GOLDEN = Path(__file__).parent / "golden" / "samplers_diffusers.npz"
MEAN, STD = 0.3, 0.5
MIXTURE = ((0.3, -1.0, 0.25), (0.7, 0.6, 0.4))  # weight, mean, std
ALL = {
  "vp_linear": processes.vp_linear(),
  "sub_vp": processes.sub_vp(),
  "vp_cosine": processes.vp_cosine(),
  "ve": processes.ve(),
  "edm": processes.edm(),
  "straight": processes.straight(),
  "discrete": processes.discrete(schedules.linear_betas()),
}
every_process = pytest.mark.parametrize("name", list(ALL))


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def at(process, t):
  t = jnp.asarray(t, float)
  return process.alpha(t), process.sigma(t)


def compiled(function, *args):
  """Its results as numpy arrays: one program in place of one for every operation."""
  return jax.device_get(jax.jit(function)(*args))


def denoiser(process, mixture=MIXTURE):
  """E[x | x_t] of a mixture of Gaussians, in every pixel."""
  weights, means, stds = np.array(mixture).T

  def denoise(x_t, t):
    alpha, sigma = process.alpha(t), process.sigma(t)
    variances = alpha**2 * stds**2 + sigma**2
    gaps = x_t[..., None] - (alpha * means).reshape((1,) * x_t.ndim + (-1,))
    as_row = lambda v: v.reshape((1,) * x_t.ndim + (-1,))
    logits = np.log(weights) - 0.5 * jnp.log(variances)
    logits = as_row(logits) - 0.5 * gaps**2 / as_row(variances)
    each = as_row(jnp.asarray(means)) + as_row(alpha * stds**2 / variances) * gaps
    return (jax.nn.softmax(logits) * each).sum(-1)

  return denoise


def exact(process, x, start, end, mixture=MIXTURE):
  """The solution of the ODE: in one dimension, it keeps the quantile."""
  weights, means, stds = np.array(mixture).T
  levels = compiled(lambda *times: [at(process, t) for t in times], start, end)

  def cdf(value, levels):
    alpha, sigma = levels
    return weights @ stats.norm.cdf(
      value, alpha * means, np.sqrt(alpha**2 * stds**2 + sigma**2)
    )

  solve = lambda q: optimize.brentq(
    lambda v: cdf(v, levels[1]) - q, -90, 90, xtol=1e-14
  )
  return np.array([solve(cdf(v, levels[0])) for v in np.ravel(x)]).reshape(x.shape)


@every_process
def test_time_is_the_inverse_of_the_noise_level(name, x64):
  process = ALL[name]
  t = np.linspace(0.01, 0.99, 50) * process.end

  def everything(t):
    alpha, sigma = at(process, t)
    return alpha, sigma, process.time(sigma / alpha), processes.log_snr(process, t)

  alpha, sigma, again, log_snr = compiled(everything, t)
  np.testing.assert_allclose(again, t, rtol=1e-9)
  data = process.time(jnp.zeros(()))
  assert process.alpha(data) == 1
  np.testing.assert_allclose(process.sigma(data), 0, atol=1e-12)
  assert np.all(np.diff(sigma) > 0)
  np.testing.assert_allclose(log_snr, np.log(alpha**2 / sigma**2))


@every_process
def test_float32_is_as_good_as_float64(name):
  process = ALL[name]
  t = np.linspace(0.0 if name == "ve" else 0.002, 1.0, 50) * process.end
  levels = lambda t: (process.alpha(t), process.sigma(t))
  found = compiled(levels, t.astype(np.float32))
  with jax.enable_x64(True):
    expected = compiled(levels, t)
  for a, b in zip(found, expected, strict=True):
    assert (a.dtype, b.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-7)


def test_processes_are_those_of_the_papers(x64):
  t = np.linspace(0, 1, 11)
  beta = lambda s: 0.1 + s * 19.9
  integral = np.array([np.trapezoid(beta(s), s) for s in np.linspace(0, t, 101).T])
  alpha, sigma = at(ALL["vp_linear"], t)
  np.testing.assert_allclose(alpha, np.exp(-0.5 * integral))
  np.testing.assert_allclose(alpha**2 + sigma**2, 1)
  sub_alpha, sub_sigma = at(ALL["sub_vp"], t)
  np.testing.assert_allclose(sub_alpha, alpha)
  np.testing.assert_allclose(sub_sigma, 1 - np.exp(-integral))
  alpha, sigma = at(processes.vp_cosine(0.0), t)
  np.testing.assert_allclose(alpha, np.cos(np.pi * t / 2), atol=1e-15)
  np.testing.assert_allclose(sigma, np.sin(np.pi * t / 2))
  alpha, sigma = at(ALL["ve"], t)
  np.testing.assert_allclose(sigma, 0.01 * 5000**t)
  betas = schedules.cosine_betas(50)
  alpha, sigma = at(processes.discrete(betas), np.arange(50))
  np.testing.assert_allclose(alpha[1:] ** 2, np.cumprod(1 - betas)[:49])
  cosine = at(ALL["vp_cosine"], np.arange(50) / 50)
  np.testing.assert_allclose((alpha, sigma), cosine, rtol=1e-9)
  np.testing.assert_allclose(betas[-1], 0.999)


@pytest.mark.parametrize("betas", [[0.1, 0.0], [0.1, 1.0], [[0.1]]])
def test_betas_outside_the_unit_interval_are_refused(betas):
  with pytest.raises(ValueError, match=r"betas must be a vector with entries in"):
    processes.discrete(betas)


@every_process
def test_predictions_are_ways_to_say_the_same(name, x64):
  process = ALL[name]
  x, noise = np.random.default_rng(0).standard_normal((2, 5, 4))
  times = np.linspace(0.0003, 0.97, 5) * process.end
  between = np.append(0.5, times[1:])  # Not on a step, where VELOCITY has a corner.

  def ways(x, noise, t, predictions):
    x_t = processes.diffuse(process, x, t, noise)
    found = {"noise": processes.noise_of(process, x_t, x, t)}
    for kind, prediction in predictions.items():
      predicted = prediction.target(process, x, noise, t)
      one = x_t[2:3], predicted[2:3], t[2]
      found[kind] = prediction.to_x(process, x_t, predicted, t)
      found[f"one {kind}"] = prediction.to_x(process, *one)
    return found

  def everything(x, noise, times, between):
    kinds = {"x": X, "noise, x": NOISE, "score": SCORE, "v": V}
    moving = between if name == "discrete" else times
    found = ways(x, noise, times, kinds)
    return found, ways(x, noise, moving, {"velocity": VELOCITY})

  for found in compiled(everything, x, noise, times, between):
    np.testing.assert_allclose(found.pop("noise"), noise, rtol=1e-6)
    assert len(found) in (2, 8)
    for kind, again in found.items():
      if kind.startswith("one"):
        np.testing.assert_allclose(again[0], x[2], rtol=1e-6, err_msg=kind)
      else:
        np.testing.assert_allclose(again, x, rtol=1e-6, atol=1e-9, err_msg=kind)


def test_score_and_velocity_are_derivatives(x64):
  for name in ("vp_linear", "straight", "sub_vp"):
    process, one = ALL[name], ((1.0, MEAN, STD),)
    denoise = denoiser(process, one)

    def everything(x_t, t, process=process, denoise=denoise):
      x = denoise(x_t, t)
      noise = processes.noise_of(process, x_t, x, t)
      score = SCORE.target(process, x, noise, t)
      return at(process, t), score, processes.flow(denoise, process)(x_t, t)

    x_t = np.linspace(-2, 2, 7)[:, None]
    (alpha, sigma), score, found = compiled(everything, x_t, 0.4)
    variance = alpha**2 * STD**2 + sigma**2
    np.testing.assert_allclose(score, -(x_t - alpha * MEAN) / variance)
    path = lambda t: exact(process, x_t, 0.4, t, one)
    slope = (path(0.4 + 1e-5) - path(0.4 - 1e-5)) / 2e-5
    np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-8)


def test_denoisers_at_the_ends(x64):
  """Flow matching has alpha = 0 at t = 1, and v-prediction does not mind either."""
  for name, prediction in (("straight", VELOCITY), ("vp_cosine", V)):
    process = ALL[name]
    x, noise = random.normal(random.key(0), (2, 5, 4))
    predict = lambda x_t, t: prediction.target(process, x, noise, t)
    denoise = processes.denoiser(predict, process, prediction)
    x_t = processes.diffuse(process, x, jnp.ones(()), noise)
    np.testing.assert_allclose(denoise(x_t, jnp.ones(())), x)
    assert np.abs(processes.clipped(denoise)(x_t, jnp.ones(()))).max() <= 1


def test_grids():
  np.testing.assert_allclose(schedules.uniform(4, 1.0), [1, 0.75, 0.5, 0.25, 0])
  karras = schedules.karras_levels(18)
  assert len(karras) == 19
  np.testing.assert_allclose(karras[[0, 17, 18]], [80, 0.002, 0])
  np.testing.assert_allclose(np.diff(karras[:-1] ** (1 / 7), 2), 0, atol=1e-12)
  log = schedules.log_levels(5, 0.1, 10)
  np.testing.assert_allclose(log, [10, 10**0.5, 1, 10**-0.5, 0.1, 0])
  linear = schedules.linear_steps(1000, 10)
  np.testing.assert_array_equal(linear, [*range(901, 0, -100), 0])
  quadratic = schedules.quadratic_steps(1000, 10)
  expected = 1 + np.floor(800 * (np.arange(10) / 9) ** 2)
  np.testing.assert_array_equal(quadratic, [*expected[::-1], 0])
  np.testing.assert_array_equal(schedules.even_steps(1000, 4), [1000, 667, 334, 1, 0])
  for make in (schedules.linear_steps, schedules.quadratic_steps, schedules.even_steps):
    for num in (1, 7, 200, 250):
      steps = make(250, num)
      assert len(steps) == num + 1
      assert np.all(np.diff(steps) < 0)
      assert steps[0] <= 250
    with pytest.raises(ValueError, match="num_steps must be from 1 to 250, got 251"):
      make(250, 251)


def test_schedules_are_those_of_diffusers():
  """As far as their float32 goes; steps exactly, which are counted from 0 there."""
  golden = np.load(GOLDEN.with_name("schedules_diffusers.npz"))
  chains = {"linear": schedules.linear_betas(), "cosine": schedules.cosine_betas()}
  for name, betas in chains.items():
    ours = np.cumprod(1.0 - betas)[::111]
    np.testing.assert_allclose(ours, golden[f"alpha_bar/{name}"], rtol=2e-5)
  rules = {"linspace": schedules.even_steps, "leading": schedules.linear_steps}
  for spacing, rule in rules.items():
    for num in (7, 10):
      theirs = golden[f"{spacing}/{num}"]
      np.testing.assert_array_equal(rule(1000, num), np.append(theirs + 1, 0))
  alpha_bar = np.cumprod(1.0 - schedules.linear_betas())[[0, -1]]
  ours = schedules.karras_levels(7, *np.sqrt(1.0 / alpha_bar - 1.0))
  # Of their lowest level, 0.01, the square is 1 - alpha_bar in float32.
  np.testing.assert_allclose(ours, golden["karras"], rtol=2e-4)


def slope_of_errors(sampler, process, start, end, grid, numbers=(20, 40, 80)):
  """Order of convergence: log-log slope of the error in the number of steps."""
  noise = np.linspace(-1.5, 1.5, 5)[:, None]
  denoise, grids = denoiser(process), [grid(number) for number in numbers]

  def everything(noise, grids):
    x = processes.diffuse(process, 0.5 * noise, jnp.asarray(start), noise)
    return x, [sampler(denoise, process, x, times).x for times in grids]

  x, found = compiled(everything, noise, grids)
  expected = exact(process, x, start, end)
  errors = [np.abs(x - expected).max() for x in found]
  return -np.polyfit(np.log(numbers), np.log(errors), 1)[0]


bashforth = lambda order: functools.partial(ode_samplers.adams_bashforth, order=order)
ORDERS = {
  "euler": (ode_samplers.euler, 1),
  "heun": (ode_samplers.heun, 2),
  "dpm_solver_pp_2m": (ode_samplers.dpm_solver_pp_2m, 2),
  "adams_bashforth": (bashforth(2), 2),
}
SPANS = {  # process, from, to, grid
  "edm": ("edm", 5.0, 0.0, lambda n: schedules.uniform(n, 5.0**0.5) ** 2),
  "vp": ("vp_linear", 1.0, 0.05, lambda n: schedules.uniform(n, 1.0, 0.05)),
  "straight": ("straight", 1.0, 0.0, lambda n: schedules.uniform(n, 1.0)),
}


@pytest.mark.parametrize("span", list(SPANS))
@pytest.mark.parametrize("sampler", list(ORDERS))
def test_order_of_convergence(sampler, span, x64):
  name, start, end, grid = SPANS[span]
  if (sampler, span) == ("dpm_solver_pp_2m", "straight"):
    # Its steps are in log(alpha / sigma), of which none is small at alpha = 0.
    start, end, grid = 0.9, 0.05, lambda n: schedules.uniform(n, 0.9, 0.05)
  method, order = ORDERS[sampler]
  slope = slope_of_errors(method, ALL[name], start, end, grid)
  assert order - 0.25 < slope < order + 0.4


@pytest.mark.parametrize("order", [3, 4])
def test_order_of_long_multistep_methods(order, x64):
  """On a grid that starts with short steps, as these have a lower order."""
  start, end = 0.9, 0.1
  grid = lambda n: start + (end - start) * schedules.uniform(n, 1.0)[::-1] ** 2
  numbers = (60, 120, 240)
  slope = slope_of_errors(bashforth(order), ALL["vp_cosine"], start, end, grid, numbers)
  assert order - 0.3 < slope < order + 0.5


def test_multistep_weights_are_those_of_adams_and_bashforth(x64):
  times = schedules.uniform(6, 3.0)
  weights_of = lambda times: ode_samplers._multistep_weights(ALL["edm"], times, 4)
  of_x, of_noise = compiled(weights_of, times)
  np.testing.assert_allclose(of_x, 0, atol=1e-12)
  known = ([1, 0, 0, 0], [3 / 2, -1 / 2, 0, 0], [23 / 12, -16 / 12, 5 / 12, 0])
  for i, weights in enumerate([*known, *[np.array([55, -59, 37, -9]) / 24] * 3]):
    np.testing.assert_allclose(of_noise[i], -0.5 * np.array(weights), atol=1e-12)


def test_samplers_that_are_special_cases_of_others(x64):
  key, ddim = random.key(2), stochastic_samplers.ddim
  churned = stochastic_samplers.stochastic_heun
  for name, times in (
    ("edm", schedules.karras_levels(7)),
    ("straight", schedules.uniform(5, 1.0)),
  ):

    def everything(key, name=name, times=times):
      process = ALL[name]
      x = sampling.prior(process, random.key(1), jnp.zeros((3, 2)), times[0])
      args = denoiser(process), process, x, times, key
      of_order_one = ode_samplers.adams_bashforth(*args, order=1)
      pairs = (
        (ddim(*args), ode_samplers.euler(*args)),
        (of_order_one, ode_samplers.euler(*args)),
        (churned(*args, churn=0.0), ode_samplers.heun(*args)),
        (ddim(*args, eta=1.0), stochastic_samplers.ancestral(*args)),
      )
      return [(a.x, b.x) for a, b in pairs]

    for a, b in compiled(everything, key):
      np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


ALL_SAMPLERS = {
  "euler": ode_samplers.euler,
  "heun": ode_samplers.heun,
  "adams_bashforth": ode_samplers.adams_bashforth,
  "dpm_solver_pp_2m": ode_samplers.dpm_solver_pp_2m,
  "ddim": functools.partial(stochastic_samplers.ddim, eta=0.5),
  "ancestral": stochastic_samplers.ancestral,
  "large": functools.partial(
    stochastic_samplers.ancestral, variance=sampling.large_variance
  ),
  "stochastic_heun": stochastic_samplers.stochastic_heun,
  "predictor_corrector": stochastic_samplers.predictor_corrector,
}
every_sampler = pytest.mark.parametrize("sampler", list(ALL_SAMPLERS))


@every_sampler
def test_samples_of_an_exact_denoiser_have_the_right_moments(sampler):
  """From alpha = 0 to the data on straight paths, and by EDM's grid."""
  for name, times in (
    ("straight", schedules.uniform(200, 1.0)),
    ("edm", schedules.karras_levels(200)),
  ):
    process, key = ALL[name], random.key(2, impl="rbg")  # Half the time of the default.

    def denoise(x_t, t, process=process):
      """`denoiser` of one Gaussian, in fewer operations."""
      alpha, sigma = process.alpha(t), process.sigma(t)
      gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
      return MEAN + gain * (x_t - alpha * MEAN)

    def go(key, process=process, times=times, denoise=denoise):
      x = sampling.prior(process, random.key(1), jnp.zeros((512, 32)), times[0])
      return ALL_SAMPLERS[sampler](denoise, process, x, times, key).x

    x = compiled(go, key)
    assert x.dtype == np.float32
    error = STD / np.sqrt(x.size)
    np.testing.assert_allclose(x.mean(), MEAN, atol=0.005 + 4 * error)
    np.testing.assert_allclose(x.std(), STD, rtol=0.04 + 3 / np.sqrt(2 * x.size))
    assert abs(stats.kurtosis(x.ravel())) < 0.15


@every_sampler
def test_evaluations_are_counted(sampler):
  process, calls = ALL["edm"], []

  def denoise(x_t, t):
    io_callback(lambda t: calls.append(float(t)), None, t, ordered=True)
    return 0.0 * x_t

  @jax.jit
  def go(times):
    x, key = jnp.ones((2, 3)), random.key(0)
    return ALL_SAMPLERS[sampler](denoise, process, x, times, key).num_evaluations

  for end in (0.0, 0.1):
    calls.clear()
    number = int(go(jnp.array([2.0, 1.0, 0.5, end])))
    jax.effects_barrier()
    assert number == len(calls)
    assert all(t > 0 for t in calls)


@pytest.mark.parametrize(
  "sampler", ["heun", "adams_bashforth", "dpm_solver_pp_2m", "stochastic_heun"]
)
def test_one_program_is_for_any_number_of_steps(sampler):
  process, key, traced = ALL["edm"], random.key(0), []
  x = np.linspace(-2.0, 2.0, 6, dtype=np.float32)[:, None]

  @jax.jit
  def go(times):
    traced.append(len(times) - 1)
    return ALL_SAMPLERS[sampler](denoiser(process), process, x, times, key)

  for times in (schedules.karras_levels(3), np.array([2.0, 1.0, 0.5, 0.1])):
    found, expected = go(sampling.padded(times, 7)), go(times)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-5, atol=1e-6)
    assert found.num_evaluations == expected.num_evaluations
  assert traced == [7, 3]


def test_deterministic_samplers_go_both_ways(x64):
  process, times = ALL["vp_cosine"], np.linspace(0.95, 0.05, 65)
  samplers = (ode_samplers.heun, ode_samplers.dpm_solver_pp_2m, ode_samplers.euler)
  x = np.linspace(-2, 2, 6)[:, None]

  def everything(x):
    both = lambda sampler, x, times: sampler(denoiser(process), process, x, times).x
    return [both(s, both(s, x, times), times[::-1]) for s in samplers]

  for back, limit in zip(compiled(everything, x), (0.01, 0.01, 0.2), strict=True):
    assert 1e-9 < np.abs(back - x).max() < limit


def test_rescaling_gives_the_coordinates_of_edm(x64):
  """y = x_t / alpha_t at the noise level; a step of Euler's is the same there."""
  process, times = ALL["discrete"], schedules.linear_steps(1000, 20)

  def everything(x, times):
    alpha, sigma = at(process, times)
    denoise = denoiser(process)
    here = denoise, process, x, times
    edm = ALL["edm"], x / alpha[0], sigma / alpha
    there = processes.rescaled(denoise, process), *edm
    pairs = ((s(*here), s(*there)) for s in (ode_samplers.euler, ode_samplers.heun))
    return [(a.x, b.x) for a, b in pairs]

  euler, heun = compiled(everything, np.linspace(-2, 2, 6)[:, None], times)
  np.testing.assert_allclose(*euler, rtol=1e-9)
  assert 1e-6 < np.abs(heun[0] - heun[1]).max() < 0.1  # Another method of order 2.


def test_devices_change_nothing():
  process, times = ALL["edm"], schedules.karras_levels(4)
  names = ("large", "stochastic_heun", "predictor_corrector")

  def sample(state, batch, key):
    x = sampling.prior(process, key, batch["image"], times[0])
    args = denoiser(process), process, x, times, key
    return {name: ALL_SAMPLERS[name](*args).x for name in names}

  found = []
  for devices in (1, 2):
    backend = parallel.jit_backend(jax.devices()[:devices])
    batch = backend.put_batch({"image": np.zeros((4, 2, 2, 1), np.float32)})
    found.append(backend.compile_eval(sample)((), batch, random.key(0)))
  for name in names:
    np.testing.assert_allclose(*(x[name] for x in found), rtol=1e-3, atol=1e-3)


def test_bad_input_is_refused():
  x, process = jnp.zeros((2, 3)), ALL["edm"]
  with pytest.raises(ValueError, match=r"order must be at least 1, got 0"):
    ode_samplers.adams_bashforth(None, process, x, [1.0, 0.0], order=0)
  with pytest.raises(ValueError, match=r"eta=0.5 draws noise: pass a key"):
    stochastic_samplers.ddim(None, process, x, [1.0, 0.0], eta=0.5)
  with pytest.raises(ValueError, match=r"times must be a vector of at least 2"):
    ode_samplers.euler(None, process, x, [1.0])
  with pytest.raises(ValueError, match=r"expected at most 2 steps, got 3"):
    sampling.padded(schedules.uniform(3, 1.0), 2)


THEIRS = {  # Name in the golden file: our sampler, relative tolerance.
  "ddpm_fixed_small": (stochastic_samplers.ancestral, 1e-9),
  "ddpm_fixed_large": (ALL_SAMPLERS["large"], 1e-9),
  "ddim_0.0": (stochastic_samplers.ddim, 1e-9),
  "ddim_0.5": (functools.partial(stochastic_samplers.ddim, eta=0.5), 1e-9),
  "heun": (ode_samplers.heun, 1e-9),
  # These two compute in float32 whatever they are given.
  "euler": (ode_samplers.euler, 1e-6),
  "dpm_solver_pp_2m": (ode_samplers.dpm_solver_pp_2m, 2e-6),
}


@pytest.mark.parametrize("name", list(THEIRS))
def test_equals_diffusers_step_for_step(name, x64, monkeypatch):
  golden = np.load(GOLDEN)
  times = np.append(golden[f"{name}/times"] + 1.0, 0.0)  # They count from 0.
  path, process = golden[f"{name}/path"], ALL["discrete"]
  alpha, sigma = compiled(lambda t: at(process, t), times)
  denoise, grid = denoiser(process), times
  if name in ("euler", "heun"):  # In the coordinates of EDM.
    path = np.append(path[:1] / alpha[0], path[1:], axis=0)
    denoise, process, grid = (
      processes.rescaled(denoise, process), ALL["edm"], sigma / alpha,
    )  # fmt: skip
  sampler, tolerance = THEIRS[name]
  # Their noise: the last step of DDPM draws none.
  noise = np.zeros((10, 1, 6))
  if f"{name}/noise" in golden:
    noise[: len(golden[f"{name}/noise"])] = golden[f"{name}/noise"]
  monkeypatch.setattr(
    stochastic_samplers, "random", SimpleNamespace(fold_in=lambda key, i: i)
  )
  monkeypatch.setattr(
    stochastic_samplers, "normal", lambda i, like: jnp.asarray(noise)[i]
  )

  def everything(x, grid):
    lengths = (1, 3, 10)
    return {n: sampler(denoise, process, x, grid[: n + 1], 0).x for n in lengths}

  for steps, x in compiled(everything, path[0], np.asarray(grid)).items():
    error = np.abs(x - path[steps]).max() / np.abs(path[steps]).max()
    assert error < tolerance, (steps, error)
