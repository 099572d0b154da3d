"""VDM against closed forms: a Gaussian, its perfect denoiser, schedules, gradients."""

from pathlib import Path
import sys

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxgen.diffusion.learned_schedule import END_POINTS, Network, levels_of, process_of
from jaxgen.diffusion.vdm import centres, log_levels, quantised, vdm
from jaxgen.nn.vdm_unet import LinearSchedule, MonotoneSchedule

GOLDEN = Path(__file__).parent / "golden" / "vdm.npz"
sys.path.insert(0, str(GOLDEN.parent))
from diffusion_inputs import inputs  # noqa: E402

MEAN, STD = 0.1, 0.2
ENDS = (-10.0, 5.0)


class GaussianScore(nn.Module):
  """E[noise | z] for x ~ N(MEAN, STD^2), and a parameter without effect."""

  @nn.compact
  def __call__(self, z, gamma, train=False):
    none = self.param("none", nn.initializers.zeros, ())
    alpha2 = nn.sigmoid(-gamma)[:, None, None, None]
    variance = alpha2 * STD**2 + 1 - alpha2
    noise = jnp.sqrt(1 - alpha2) * (z - jnp.sqrt(alpha2) * MEAN) / variance
    return noise * (1 + none)


def images(num, key=9):
  """8-bit images of the Gaussian, f32 [num, 4, 4, 1]."""
  x = MEAN + STD * random.normal(random.key(key), (num, 4, 4, 1))
  level = jnp.clip(jnp.floor((x + 1) * 128), 0, 255)
  return {"image": level / 127.5 - 1}


def bent(state):
  """The state, with a schedule that is far from linear."""
  rng = np.random.default_rng(0)
  params = dict(state.params["net"]["schedule"])
  for name in ("inner", "outer", "bias"):
    params[name] = jnp.asarray(8 * rng.standard_normal(params[name].shape), jnp.float32)
  net = {**state.params["net"], "schedule": params}
  return state.replace(params={"net": net})


def made(schedule, score=None, **kwargs):
  method = vdm(Network(score or GaussianScore(), schedule), tx=optax.sgd(1.0), **kwargs)
  return method, jax.jit(method.init)(random.key(0), images(2))


def gained(first, last):
  """Nats that z at gamma `first` knows of a value more than z at `last`."""
  return 0.5 * np.log((1 + STD**2 * np.exp(-first)) / (1 + STD**2 * np.exp(-last)))


def test_decoder_equals_the_authors():
  golden = np.load(GOLDEN)
  with jax.enable_x64(True):
    log_p = log_levels(jnp.asarray(inputs()[0]), jnp.asarray(-5.0))
    at = jnp.asarray(golden["levels"])[..., None]
    found = jnp.take_along_axis(log_p, at, axis=-1)[..., 0]
  np.testing.assert_allclose(found, golden["log_p"], rtol=1e-10)
  np.testing.assert_allclose(np.exp(log_p).sum(-1), 1, rtol=1e-10)


def test_levels_are_the_256_of_an_image():
  pixels = np.arange(256, dtype=np.uint8)
  x = jnp.asarray(pixels / np.float32(127.5) - 1)
  np.testing.assert_array_equal(quantised(x), pixels)
  np.testing.assert_allclose(centres(quantised(x)), (2.0 * pixels + 1) / 256 - 1)


@pytest.mark.parametrize("num_steps", [None, 10])
def test_diffusion_loss_of_a_perfect_denoiser_is_its_closed_form(num_steps):
  batch, found = images(4096), []
  for schedule in (LinearSchedule(*ENDS), MonotoneSchedule(*ENDS, width=8)):
    method, state = made(schedule, num_steps=num_steps)
    state = bent(state) if isinstance(schedule, MonotoneSchedule) else state
    parts = jax.jit(method.eval_step)(state, batch, random.key(0))
    assert {v.shape for v in parts.values()} == {(4096,)}
    gamma = lambda t, s=schedule, p=state.params["net"]["schedule"]: s.apply(
      {"params": p}, t
    )
    if num_steps:
      g = np.asarray(gamma(jnp.arange(num_steps + 1) / num_steps), np.float64)
      expected = 0.5 * np.sum(np.expm1(np.diff(g)) * left(g[1:]))
    else:
      expected = gained(*ENDS)
    expected /= np.log(2)
    error = np.std(parts["diffusion"]) / 64
    assert error < 0.1 * expected
    # Strata make the true error a fraction of that of independent times.
    np.testing.assert_allclose(parts["diffusion"].mean(), expected, atol=3 * error)
    found.append(parts["diffusion"].mean())
  if num_steps is None:  # The schedule between the ends does not matter.
    np.testing.assert_allclose(*found, rtol=0.05)


def left(gamma):
  """Var[noise | z] for the Gaussian."""
  signal = 1 / (1 + np.exp(gamma))
  return signal * STD**2 / (signal * STD**2 + 1 - signal)


def test_bound_is_one_and_its_parts_are_what_they_say():
  method, state = made(LinearSchedule(-13.0, 5.0), num_sampling_steps=500)
  batch = images(512)
  bits = jax.jit(method.tools["bits_per_dim"])(state, batch, random.key(0))
  parts = ("reconstruction", "latent", "diffusion")
  total = sum(bits[name] for name in parts)
  np.testing.assert_allclose(bits["bits_per_dim"], total, rtol=1e-5)
  x = np.asarray(centres(quantised(batch["image"])), np.float64)
  data = stats.norm(MEAN, STD)
  exact = -np.log2(data.cdf(x + 1 / 256) - data.cdf(x - 1 / 256)).mean()
  # This denoiser does not know of levels: noise far below them costs it half a bit.
  assert 0 < bits["bits_per_dim"].mean() - exact < 0.6
  gamma = np.linspace(-13, 5, 501)
  steps = 0.5 * np.sum(np.expm1(np.diff(gamma)) * left(gamma[1:])) / np.log(2)
  np.testing.assert_allclose(bits["diffusion"].mean(), steps, rtol=0.02)
  var = 1 / (1 + np.exp(-5.0))
  latent = 0.5 * ((1 - var) * x**2 + var - np.log(var) - 1) / np.log(2)
  latent = latent.mean((1, 2, 3))
  np.testing.assert_allclose(bits["latent"], latent, rtol=1e-3, atol=1e-6)
  # Noise of 1.5e-3 between levels that are 7.8e-3 apart.
  errors = 2 * stats.norm.sf(1 / 256 / np.exp(-6.5))
  assert errors < bits["reconstruction"].mean() < 8 * errors


def test_reconstruction_of_noisier_latents():
  method, state = made(LinearSchedule(-7.0, 5.0))
  batch = {"image": jnp.full((4096, 4, 4, 1), 100 / 127.5 - 1)}
  found = jax.jit(method.eval_step)(state, batch, random.key(0))["reconstruction"]
  z = np.linspace(-8, 8, 2001) * np.exp(-3.5)
  weights = stats.norm.pdf(z, 0, np.exp(-3.5)) * (z[1] - z[0])
  offsets = np.arange(-100, 156) / 128
  logits = -0.5 * (z[:, None] - offsets) ** 2 * np.exp(7.0)
  log_p = logits[:, 100] - np.log(np.exp(logits).sum(1))
  expected = -(weights * log_p).sum() / np.log(2)
  np.testing.assert_allclose(found.mean(), expected, rtol=0.02)


@pytest.mark.parametrize("joint", [False, True])
def test_gradients_of_the_schedule(joint):
  """End points by the bound, what lies between by the square of the diffusion loss."""

  class Poor(nn.Module):
    """A denoiser that could be better, so that the schedule matters."""

    @nn.compact
    def __call__(self, z, gamma, train=False):
      w = self.param("w", nn.initializers.constant(0.5), ())
      return z * (w + 0.1 * jnp.tanh(gamma))[:, None, None, None]

  schedule = MonotoneSchedule(*ENDS, width=4)
  method, state = made(schedule, Poor(), joint=joint)
  state, batch, key = bent(state), images(32), random.key(3)
  after, metrics = jax.jit(method.train_step)(state, batch, key)
  before, after = state.params["net"], after.params["net"]
  moved = jax.tree.map(lambda a, b: np.asarray(a - b), before, after)

  # The same draws, by hand.
  time_key, noise_key, _ = random.split(key, 3)
  _, noise_key = random.split(noise_key)
  t = (random.uniform(time_key) + jnp.arange(32) / 32) % 1.0
  x = centres(quantised(batch["image"]))
  noise = random.normal(noise_key, x.shape)

  def diffusion(params):
    at = levels_of(lambda t: schedule.apply({"params": params["schedule"]}, t), t, None)
    wide = at.at[:, None, None, None]
    z = jnp.sqrt(nn.sigmoid(-wide)) * x + jnp.sqrt(nn.sigmoid(wide)) * noise
    predicted = Poor().apply({"params": params["score"]}, z, at.at)
    squares = ((noise - predicted) ** 2).sum((1, 2, 3))
    return 0.5 * at.rate * squares / 16 / jnp.log(2.0)

  mean = jax.jit(jax.grad(lambda p: diffusion(p).mean()))(before)
  square = jax.jit(jax.grad(lambda p: (diffusion(p) ** 2).mean()))(before)
  np.testing.assert_allclose(metrics["diffusion"], diffusion(before).mean(), rtol=1e-5)
  np.testing.assert_allclose(moved["score"]["w"], mean["score"]["w"], rtol=1e-3)
  for name in ("inner", "outer", "bias", "linear"):
    expected = (mean if joint else square)["schedule"][name]
    scale = np.abs(expected).max()
    found = moved["schedule"][name]
    np.testing.assert_allclose(
      found, expected, rtol=1e-2, atol=1e-3 * scale, err_msg=name
    )
  # The other parts hang on the end points too: the prior on gamma(1) alone.
  for name in END_POINTS:
    assert moved["schedule"][name] != 0


def test_samples_of_the_exact_denoiser_are_gaussian():
  method, state = made(LinearSchedule(*ENDS), num_sampling_steps=200)
  batch = {"image": jnp.zeros((1024, 8, 8, 1))}
  samples = jax.jit(method.sample)(state, batch, random.key(0))["samples"]
  values = centres(quantised(samples))
  np.testing.assert_allclose(quantised(samples), (samples + 1) * 127.5, atol=1e-3)
  np.testing.assert_allclose(values.mean(), MEAN, atol=0.005)
  np.testing.assert_allclose(values.std(), STD, rtol=0.04)


def test_no_steps_are_refused():
  with pytest.raises(ValueError, match="num_steps must be None or at least 1, got 0"):
    made(LinearSchedule(), num_steps=0)


def test_time_inverts_the_noise_level():
  found = process_of(lambda t: -5.0 + 9.0 * t + jnp.sin(t))
  t = jnp.linspace(0.0, 1.0, 11)
  np.testing.assert_allclose(found.time(found.sigma(t) / found.alpha(t)), t, atol=1e-5)
