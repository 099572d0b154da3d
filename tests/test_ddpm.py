"""DDPM against closed forms: Gaussian data, constant and linear networks."""

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxgen.diffusion import sampling
from jaxgen.diffusion.ddpm import ddpm
from jaxgen.diffusion.noise_prediction import training
from jaxgen.diffusion.process import diffuse, discrete
from jaxgen.diffusion.schedules import linear_betas
from jaxgen.method import TrainState, averaged
from jaxgen.nn.embed import cosines_first, timestep_embedding
from jaxgen.nn.unet import UNet

MEAN, STD = 0.1, 0.2  # of the data that GaussianNet knows
FEW = (0.01, 0.1, 0.3, 0.5)


def alpha_bars_of(betas):
  return np.cumprod(1.0 - np.asarray(betas))


def at_steps(t, values):
  """A table over steps, also between them, as samplers may ask."""
  return jnp.interp(jnp.asarray(t, jnp.float32), np.arange(len(values)), values)


class GaussianNet(nn.Module):
  """E[noise | x_t] for x ~ N(MEAN, STD^2), in every pixel."""

  betas: tuple

  def __call__(self, x_t, t, train):
    alpha_bar = at_steps(t, alpha_bars_of(self.betas))
    alpha_bar = alpha_bar[:, None, None, None]
    variance = alpha_bar * STD**2 + 1.0 - alpha_bar
    return jnp.sqrt(1.0 - alpha_bar) * (x_t - jnp.sqrt(alpha_bar) * MEAN) / variance


class ConstantNet(nn.Module):
  """The noise that is left if the image is `value` in every pixel."""

  betas: tuple
  value: float

  def __call__(self, x_t, t, train):
    alpha_bar = at_steps(t, alpha_bars_of(self.betas))
    alpha_bar = alpha_bar[:, None, None, None]
    return (x_t - jnp.sqrt(alpha_bar) * self.value) / jnp.sqrt(1.0 - alpha_bar)


class ScaleNet(nn.Module):
  """One parameter: the noise is w x_t."""

  start: float = 0.0

  @nn.compact
  def __call__(self, x_t, t, train):
    return self.param("w", nn.initializers.constant(self.start), ()) * x_t


def sampled_moments(betas, small=False):
  """Mean and variance of x_T, ..., x_0 under Algorithm 2 with GaussianNet."""
  alpha_bars = alpha_bars_of(betas)
  moments = [(0.0, 1.0)]
  for t in reversed(range(len(betas))):
    a, beta = alpha_bars[t], betas[t]
    slope = np.sqrt(1 - a) / (a * STD**2 + 1 - a)  # of the predicted noise in x_t
    scale = (1 - beta / np.sqrt(1 - a) * slope) / np.sqrt(1 - beta)  # Eq. 11
    shift = beta / np.sqrt(1 - a) * slope * np.sqrt(a) * MEAN / np.sqrt(1 - beta)
    mean, variance = moments[-1]
    added = beta * (t > 0)
    if small and t > 0:
      added = beta * (1 - alpha_bars[t - 1]) / (1 - a)
    moments.append((scale * mean + shift, scale**2 * variance + added))
  return np.array(moments)


def without_params(net, betas, **kwargs):
  """A method whose network has nothing to learn, and its state."""
  method = ddpm(net, tx=optax.sgd(1.0), betas=betas, **kwargs)
  return method, TrainState(jnp.zeros((), jnp.int32), {"net": {}}, {}, {}, {})


def images(num, size=8, key=9):
  """`num` images of the data that GaussianNet knows, [num, size, size, 1]."""
  return MEAN + STD * random.normal(random.key(key), (num, size, size, 1))


def test_linear_betas():
  betas = linear_betas()
  assert betas.shape == (1000,)
  np.testing.assert_allclose(betas[[0, 1, -1]], [1e-4, 1e-4 + 0.0199 / 999, 0.02])
  # Section 4: the distance of x_T from the prior is about 1e-5 bits per dimension.
  assert 3e-5 < alpha_bars_of(betas)[-1] < 5e-5


def test_forward_process_is_what_single_steps_make_of_it():
  process = discrete(FEW)
  mean, variance = 0.7, 0.0
  for t, beta in enumerate(FEW):
    mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta  # Eq. 2
    t = jnp.array([t + 1.0])
    image, zero, one = jnp.full((1, 1, 1, 1), 0.7), jnp.zeros(()), jnp.ones(())
    np.testing.assert_allclose(diffuse(process, image, t, zero).item(), mean, rtol=1e-6)
    x_t = diffuse(process, jnp.zeros_like(image), t, one)
    np.testing.assert_allclose(x_t.item() ** 2, variance, rtol=1e-6)


def test_posterior_is_bayes_rule():
  process = discrete(FEW)
  alpha_bars, x, x_t = alpha_bars_of(FEW), -0.4, 1.3
  at = lambda t: sampling.levels(process, jnp.float32(t))
  for t in (1, 2, 3):  # N(x_{t-1}; prior) N(x_t; likelihood) / Z
    prior_precision = 1 / (1 - alpha_bars[t - 1])
    precision = prior_precision + (1 - FEW[t]) / FEW[t]
    pull = prior_precision * np.sqrt(alpha_bars[t - 1]) * x
    pull += np.sqrt(1 - FEW[t]) / FEW[t] * x_t
    steps = at(t + 1), at(t)
    variance = sampling.small_variance(*steps)
    np.testing.assert_allclose(variance, 1 / precision, rtol=1e-5)
    np.testing.assert_allclose(sampling.large_variance(*steps), FEW[t], rtol=1e-5)
    mean = sampling.posterior_mean(x_t, x, *steps)
    np.testing.assert_allclose(mean, pull / precision, rtol=1e-5)
  into_data = at(1), at(0)
  mean = sampling.posterior_mean(x_t, x, *into_data)
  np.testing.assert_allclose(mean, x, rtol=1e-6)
  assert sampling.small_variance(*into_data) == 0


def test_loss_is_the_expected_error_of_the_exact_denoiser():
  betas = tuple(linear_betas(50, 2e-3, 0.4))
  method, state = without_params(GaussianNet(betas), betas)
  loss = jax.jit(method.eval_step)(state, {"image": images(4096)}, random.key(0))
  alpha_bars = alpha_bars_of(betas)
  variances = alpha_bars * STD**2 + 1 - alpha_bars
  expected = alpha_bars * STD**2 / variances  # Var[noise | x_t], by step
  assert loss["loss"].shape == (4096,)
  standard_error = np.std(loss["loss"]) / 64
  assert standard_error < 0.01
  assert abs(loss["loss"].mean() - expected.mean()) < 4 * standard_error
  # All steps occur equally often: the spread over examples is that over steps
  # and, within a step, that of a mean of 64 squares.
  spread = np.var(expected) + np.mean(expected**2) * 2 / 64
  np.testing.assert_allclose(np.var(loss["loss"]), spread, rtol=0.1)


def test_evaluation_spreads_its_steps_evenly():
  betas = tuple(linear_betas(50, 2e-3, 0.4))
  method, state = without_params(GaussianNet(betas), betas)
  evaluate = jax.jit(lambda key: method.eval_step(state, {"image": images(64)}, key))
  found = [evaluate(random.key(i))["loss"] for i in range(30)]
  independent = np.std(np.concatenate(found)) / 8  # of a mean of 64
  assert np.std(np.mean(found, axis=1)) < 0.3 * independent


class TimeNet(nn.Module):
  """What the network is told as the time."""

  def __call__(self, x_t, t, train):
    return jnp.ones_like(x_t) * t[:, None, None, None]


def test_networks_are_told_the_very_time_also_between_steps():
  """As churn and Heun's method in another time ask for; a step t is index t - 1."""
  parts = training(
    TimeNet(), tx=None, process=discrete(FEW), num_steps=4, ema_decay=0.9
  )
  x = np.zeros((2, 1, 1, 1), np.float32)
  for t in (1.0, 2.0, 2.5, 3.125):
    np.testing.assert_array_equal(parts.predict({}, x, jnp.float32(t)), x + t - 1.0)
  steps = np.arange(1000)  # To embeddings, whole times are the integers of training.
  whole = steps.astype(np.float32)
  for embed in (timestep_embedding, cosines_first):
    np.testing.assert_array_equal(embed(steps, 8), embed(whole, 8))


@pytest.mark.parametrize(("step", "at_most"), [(0, 0.1), (2, 0.25), (1000, 1.0)])
def test_train_step_follows_the_gradient_and_averages_with_decay(step, at_most):
  """The decay rises with the steps, so that the start is forgotten."""
  betas, lr, decay, w = linear_betas(50, 2e-3, 0.4), 0.1, 0.75, 0.3
  method = ddpm(ScaleNet(w), tx=optax.sgd(lr), betas=betas, ema_decay=decay)
  batch = {"image": images(4096)}
  state = jax.jit(method.init)(random.key(0), batch).replace(step=jnp.int32(step))
  after, metrics = jax.jit(method.train_step)(state, batch, random.key(1))
  # d/dw E (noise - w x_t)^2, with E noise x_t = sqrt(1 - alpha_bar)
  alpha_bars = alpha_bars_of(betas)
  squares = alpha_bars * (MEAN**2 + STD**2) + 1 - alpha_bars
  gradient = 2 * np.mean(w * squares - np.sqrt(1 - alpha_bars))
  np.testing.assert_allclose(metrics["grad_norm"], abs(gradient), rtol=0.02)
  new = after.params["net"]["w"]
  np.testing.assert_allclose(new, w - lr * gradient, rtol=0.02)
  decay = min(decay, at_most)
  expected = decay * w + (1 - decay) * new
  np.testing.assert_allclose(after.ema["net"]["w"], expected, rtol=1e-6)
  assert averaged(after).params["net"]["w"] == after.ema["net"]["w"] != new


@pytest.mark.parametrize("small", [False, True])
def test_samples_of_the_exact_denoiser_are_gaussian(small):
  betas = tuple(linear_betas(200, 5e-4, 0.1))
  variance = sampling.small_variance if small else sampling.large_variance
  method, state = without_params(GaussianNet(betas), betas, variance=variance)
  batch = {"image": jnp.zeros((1024, 8, 8, 1))}
  key = random.key(0, impl="rbg")  # Half the time of the default.
  samples = jax.jit(method.sample)(state, batch, key)["samples"]
  assert samples.shape == batch["image"].shape
  mean, variance = sampled_moments(betas, small)[-1]
  np.testing.assert_allclose(samples.mean(), mean, atol=4 * STD / 256)
  np.testing.assert_allclose(samples.var(), variance, rtol=4 * np.sqrt(2) / 256)
  np.testing.assert_allclose(
    (mean, np.sqrt(variance)), (MEAN, STD), rtol=0.08 if small else 0.03
  )
  kurtosis = stats.kurtosis(np.asarray(samples).ravel())
  assert abs(kurtosis) < 0.1


@pytest.mark.parametrize(("value", "sampled"), [(0.3, 0.3), (3.0, 1.0), (-3.0, -1.0)])
def test_the_last_step_adds_no_noise_and_predictions_are_clipped(value, sampled):
  method, state = without_params(ConstantNet(FEW, value), FEW)
  batch = {"image": jnp.zeros((4, 2, 2, 3))}
  samples = jax.jit(method.sample)(state, batch, random.key(0))["samples"]
  np.testing.assert_allclose(samples, sampled, atol=1e-5)


def test_chain_goes_from_noise_to_the_sample():
  betas = tuple(linear_betas(50, 2e-3, 0.4))
  method, state = without_params(GaussianNet(betas), betas)
  batch, key = {"image": jnp.zeros((256, 8, 8, 1))}, random.key(0)
  chain = jax.jit(method.tools["chain"])(state, batch, key)
  samples = jax.jit(method.sample)(state, batch, key)["samples"]
  assert {k: x.shape for k, x in chain.items()} == {
    "chain": (256, 20, 8, 8, 1),
    "predictions": (256, 20, 8, 8, 1),
  }
  np.testing.assert_allclose(chain["chain"][:, -1], samples, atol=1e-6)
  np.testing.assert_allclose(chain["predictions"][:, -1], samples, atol=1e-6)
  # Frame k shows x_t for the smallest t with 19 - 20 t // 50 == k.
  ends = [min(t for t in range(50) if 19 - 20 * t // 50 == k) for k in range(20)]
  mean, variance = sampled_moments(betas)[::-1][ends].T
  frames = np.asarray(chain["chain"])
  np.testing.assert_allclose(frames.mean((0, 2, 3, 4)), mean, atol=0.04)
  np.testing.assert_allclose(frames.var((0, 2, 3, 4)), variance, rtol=0.06)

  few, state = without_params(ConstantNet(FEW, 0.3), FEW)
  chain = jax.jit(few.tools["chain"])(state, batch, key)
  assert chain["chain"].shape == (256, len(FEW), 8, 8, 1)
  np.testing.assert_allclose(chain["predictions"], 0.3, atol=1e-5)


def test_interpolation_mixes_neighbours_under_one_noise():
  betas = np.full(20, 1e-3)
  method = ddpm(ScaleNet(), tx=optax.sgd(1.0), betas=betas)  # finds no noise
  batch = {"image": images(3)}
  state = jax.jit(method.init)(random.key(0), batch)
  mixed = jax.jit(method.tools["interpolate"])(state, batch, random.key(1))
  mixed = np.asarray(mixed["interpolations"])
  assert mixed.shape == (3, 9, 8, 8, 1)
  # Decoding undoes the shrinking by sqrt(alpha_bar). What it leaves at the ends is
  # the noise of 5 steps of encoding and about 4 of decoding, all of variance 1e-3.
  first, last = np.asarray(batch["image"]), np.roll(batch["image"], -1, axis=0)
  for end, image in ((mixed[:, 0], first), (mixed[:, -1], last)):
    np.testing.assert_allclose(np.std(end - image), np.sqrt(9e-3), rtol=0.2)
  # This network is linear, so mixtures lie on a line if nothing else is drawn.
  for k, weight in enumerate(np.linspace(0, 1, 9)):
    expected = (1 - weight) * mixed[:, 0] + weight * mixed[:, -1]
    np.testing.assert_allclose(mixed[:, k], expected, atol=1e-5)


def test_bound_of_a_constant_prediction_term_by_term():
  value = 4 / 255 + 1e-3
  method, state = without_params(ConstantNet(FEW, value), FEW)
  levels = np.array([-255, -1, 3, 5, 255]) / 255  # of -255, -253, ..., 255
  batch = {"image": jnp.asarray(levels[:, None, None, None], jnp.float32)}
  bits = jax.jit(method.tools["bits_per_dim"])(state, batch, random.key(0))

  alpha_bars = np.append(1.0, alpha_bars_of(FEW))
  kl = lambda m1, v1, m2, v2: (
    np.log(np.sqrt(v2 / v1)) + (v1 + (m1 - m2) ** 2) / (2 * v2) - 0.5
  )
  nats = kl(np.sqrt(alpha_bars[-1]) * levels, 1 - alpha_bars[-1], 0, 1)
  variances = FEW * (1 - alpha_bars[:-1]) / (1 - alpha_bars[1:])
  for t in (1, 2, 3):
    pull = np.sqrt(alpha_bars[t]) * FEW[t] / (1 - alpha_bars[t + 1])
    nats = nats + kl(pull * levels, variances[t], pull * value, FEW[t])
  decoder = stats.norm(value, np.sqrt(variances[1]))
  upper, lower = levels + 1 / 255, levels - 1 / 255
  upper[-1], lower[0] = np.inf, -np.inf
  far = levels > value  # Survival functions are exact where the CDF is nearly 1.
  decoder_nats = -np.log(
    np.where(
      far,
      decoder.sf(lower) - decoder.sf(upper),
      decoder.cdf(upper) - decoder.cdf(lower),
    )
  )
  expected = {
    "rate": nats,
    "distortion": decoder_nats,
    "bits_per_dim": nats + decoder_nats,
  }
  for name, value in expected.items():
    np.testing.assert_allclose(bits[name], value / np.log(2), rtol=1e-4, err_msg=name)


def test_bound_is_tight_for_the_exact_denoiser():
  betas = tuple(linear_betas())
  method, state = without_params(GaussianNet(betas), betas)
  levels = np.round((np.asarray(images(64)) + 1) * 127.5).clip(0, 255) / 127.5 - 1
  batch = {"image": jnp.asarray(levels, jnp.float32)}
  bits = jax.jit(method.tools["bits_per_dim"])(state, batch, random.key(0))
  data = stats.norm(MEAN, STD)
  exact = -np.log2(data.cdf(levels + 1 / 255) - data.cdf(levels - 1 / 255))
  gap = np.mean(bits["bits_per_dim"]) - exact.mean()
  # Posterior variances smaller than beta_t cost about 0.2 bits, the rest is T < inf.
  assert 0 < gap < 0.25


def test_bfloat16_keeps_the_state_and_the_loss_in_float32():
  def make(dtype):
    net = UNet(4, (1,), 0, (), num_groups=2, dtype=dtype)
    return ddpm(net, tx=optax.adam(1e-3), betas=linear_betas())

  batch = {"image": images(8)}
  full, half = make(jnp.float32), make(jnp.bfloat16)
  state = jax.jit(half.init)(random.key(0), batch)
  after, metrics = jax.eval_shape(half.train_step, state, batch, random.key(1))
  dtypes = lambda tree: {x.dtype for x in jax.tree.leaves(tree)}
  for tree in (state.params, state.ema, after.params, after.ema, metrics):
    assert dtypes(tree) == {jnp.dtype("float32")}

  # A new network predicts no noise, so its loss is the mean square of the noise.
  in_half, in_full = (jax.jit(method.eval_step) for method in (half, full))
  fresh = in_half(state, batch, random.key(2))["loss"]
  assert fresh.dtype == jnp.float32
  np.testing.assert_allclose(fresh.mean(), 1.0, atol=0.2)
  wave = lambda p: 0.1 * np.sin(np.arange(p.size, dtype=np.float32)).reshape(p.shape)
  noisy = jax.tree.map(lambda p: np.asarray(p) + wave(p), state.params)
  state = state.replace(params=noisy)
  found = [fn(state, batch, random.key(2))["loss"] for fn in (in_half, in_full)]
  assert np.any(found[0] != found[1])
  np.testing.assert_allclose(*found, rtol=0.02)
