"""EDM against closed forms: Gaussian data, networks without parameters."""

import itertools

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.diffusion import ode_samplers, schedules
from jaxgen.diffusion.edm import PROCESS, edm, half_life_decay
from jaxgen.diffusion.guidance import NO_LABEL, drop_labels, guided
from jaxgen.diffusion.preconditioned import preconditioning
from jaxgen.method import TrainState
from jaxgen.ops.labelled_augment import labelled_augment, moved

MEAN, STD, SIGMA_DATA = 0.1, 0.2, 0.5


class GaussianNet(nn.Module):
  """The F for which D is E[x | x + noise], for x ~ N(MEAN, STD^2) in every pixel."""

  def __call__(self, x, noise, label=None, augment=None, train=False):
    sigma = jnp.exp(4 * noise)[:, None, None, None]
    c = preconditioning(sigma, SIGMA_DATA)
    noisy = x / c.scale
    clean = (STD**2 * noisy + sigma**2 * MEAN) / (STD**2 + sigma**2)
    return (clean - c.skip * noisy) / c.out


class Told(nn.Module):
  """F is what the network was told: a parameter for each kind of news."""

  @nn.compact
  def __call__(self, x, noise, label=None, augment=None, train=False):
    labelled, mirrored = (
      self.param(name, nn.initializers.zeros, ()) for name in ("labelled", "mirrored")
    )
    known = jnp.zeros(len(x)) if label is None else (label >= 0).astype(x.dtype)
    flips = jnp.zeros(len(x)) if augment is None else augment[:, 0]
    return jnp.ones_like(x) * (labelled * known + mirrored * flips)[:, None, None, None]


def without_params(net, **kwargs):
  method = edm(net, tx=optax.sgd(1.0), **kwargs)
  return method, TrainState(jnp.zeros((), jnp.int32), {"net": {}}, {}, {}, {})


def test_inputs_and_targets_have_unit_variance():
  sigma = jnp.array([0.002, 0.1, 0.5, 3.0, 80.0])
  c = preconditioning(sigma, 0.7)
  np.testing.assert_allclose(c.scale**2 * (0.7**2 + sigma**2), 1, rtol=1e-5)
  target = ((1 - c.skip) ** 2 * 0.7**2 + c.skip**2 * sigma**2) / c.out**2
  np.testing.assert_allclose(target, 1, rtol=1e-5)
  np.testing.assert_allclose(c.weight * c.out**2, 1, rtol=1e-5)
  np.testing.assert_allclose(c.noise, np.log(sigma) / 4, rtol=1e-6)


def test_loss_is_the_expected_error_of_the_exact_denoiser():
  method, state = without_params(GaussianNet())
  x = MEAN + STD * random.normal(random.key(9), (4096, 4, 4, 1))
  losses = jax.jit(method.eval_step)(state, {"image": x}, random.key(0))["loss"]
  sigma = np.exp(-1.2 + 1.2 * np.random.default_rng(0).standard_normal(1_000_000))
  error = STD**2 * sigma**2 / (STD**2 + sigma**2)  # Var[x | x + noise]
  weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
  expected = np.mean(weight * error)
  assert losses.shape == (4096,)
  np.testing.assert_allclose(losses.mean(), expected, rtol=0.02)
  spread = np.var(weight * error) + np.mean((weight * error) ** 2) * 2 / 16
  np.testing.assert_allclose(np.var(losses), spread, rtol=0.1)


def test_levels_of_evaluation_are_finite_whatever_is_drawn(monkeypatch):
  """(511 + u) / 512 is 1 in float32 for the largest u, and its quantile infinite."""
  method, state = without_params(GaussianNet())
  largest = lambda key, shape, minval: jnp.full(shape, 1 - 2.0**-24)
  monkeypatch.setattr(random, "uniform", largest)
  evaluate = jax.jit(method.eval_step)
  losses = evaluate(state, {"image": np.zeros((512, 1, 1, 1), "f")}, random.key(0))
  assert np.isfinite(losses["loss"]).all()


def heun_factor(levels):
  """What deviations from MEAN are multiplied by, from the first level to 0."""
  factor = 1.0
  slope = lambda y, s: y * s / (STD**2 + s**2)  # (x - D) / sigma
  for now, then in itertools.pairwise(levels):
    first = slope(factor, now)
    guess = factor + (then - now) * first
    second = slope(guess, then) if then > 0 else first
    factor += (then - now) * (first + second) / 2
  return factor


def test_samples_of_the_exact_denoiser_are_gaussian():
  batch = {"image": jnp.zeros((1024, 8, 8, 1))}
  method, state = without_params(GaussianNet())
  drawn = jax.jit(method.sample)(state, batch, random.key(0))
  samples, number = drawn["samples"], drawn["num_evaluations"]
  # Two for each of 18 steps but the last (Table 2: NFE 35).
  np.testing.assert_array_equal(number, np.full(1024, 35))
  factor = heun_factor(schedules.karras_levels(18))
  np.testing.assert_allclose(80 * factor, STD, rtol=0.1)  # what 18 steps can do
  np.testing.assert_allclose(samples.std(), 80 * factor, rtol=0.01)
  np.testing.assert_allclose(samples.mean(), MEAN * (1 - factor), atol=0.004)
  method, state = without_params(GaussianNet(), levels=schedules.karras_levels(150))
  stochastic = method.tools["stochastic"]
  for name, sample in {"heun": method.sample, "stochastic": stochastic}.items():
    samples = jax.jit(sample)(state, batch, random.key(0))["samples"]
    np.testing.assert_allclose(samples.mean(), MEAN, atol=0.005, err_msg=name)
    np.testing.assert_allclose(samples.std(), STD, rtol=0.02, err_msg=name)


def test_eighteen_steps_call_the_network_35_times():
  levels = schedules.karras_levels(18)
  denoise = lambda x, sigma: 0.25 / (0.25 + sigma**2) * x
  found = ode_samplers.heun(denoise, PROCESS, jnp.ones((1, 1)), levels)
  assert found.num_evaluations == 35


def test_networks_are_told_the_label_and_the_augmentation():
  batch = {
    "image": random.normal(random.key(1), (64, 8, 8, 1)),
    "label": jnp.arange(64, dtype=jnp.int32) % 10,
  }
  moved_by = {}
  for rate in (0.0, 1.0):
    method = edm(
      Told(),
      tx=optax.sgd(1.0),
      conditional=True,
      augment=labelled_augment,
      label_dropout=rate,
    )
    state = jax.jit(method.init)(random.key(0), batch)
    state, _ = jax.jit(method.train_step)(state, batch, random.key(1))
    moved_by[rate] = state.params["net"]
    np.testing.assert_array_equal(
      state.ema["net"]["mirrored"], moved_by[rate]["mirrored"]
    )
  assert moved_by[0.0]["labelled"] != 0
  assert moved_by[1.0]["labelled"] == 0
  assert moved_by[1.0]["mirrored"] != 0


def test_average_forgets_half_in_its_half_life():
  product = 1.0
  for step in range(10_000, 10_100):
    product *= float(half_life_decay(jnp.int32(step), 100.0))
  np.testing.assert_allclose(product, 0.5, rtol=1e-3)
  # At first the half-life is a twentieth of the steps done: none, then 5 of 100.
  assert half_life_decay(jnp.int32(0), 100.0) == 0
  np.testing.assert_allclose(
    half_life_decay(jnp.int32(100), 100.0), 0.5**0.2, rtol=1e-6
  )


def test_guidance_goes_on_from_none_to_the_label():
  calls = []

  def predict(x, t, label):
    calls.append(len(x))
    return x * (label[:, None] + 2.0) + t[:, None]

  x, label = jnp.array([[1.0], [2.0]]), jnp.array([3, 0])
  found = guided(predict, label, 3.0)(x, jnp.float32(0.5))
  none, labelled = x * (NO_LABEL + 2) + 0.5, x * (label[:, None] + 2) + 0.5
  np.testing.assert_allclose(found, none + 3 * (labelled - none))
  np.testing.assert_allclose(guided(predict, label, 1.0)(x, jnp.float32(0.5)), labelled)
  assert calls == [4, 2]
  dropped = drop_labels(random.key(0), jnp.zeros(10_000, jnp.int32), 0.3)
  assert set(np.unique(dropped)) == {NO_LABEL, 0}
  np.testing.assert_allclose((dropped == NO_LABEL).mean(), 0.3, atol=0.02)


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    (dict(label_dropout=1.5, conditional=True), r"in \[0, 1\], got 1.5"),
    (dict(guidance=2.0), "guidance=2.0: expected conditional=True"),
  ],
)
def test_what_makes_no_sense_is_refused(kwargs, message):
  with pytest.raises(ValueError, match=message):
    edm(GaussianNet(), tx=optax.sgd(1.0), **kwargs)


# Augmentation.


def placed(**kwargs):
  """`moved`, of one smooth image, with numbers that are zero unless given."""
  names = ("mirrored", "turned", "zoom", "rotation", "stretch", "direction")
  values = {
    n: jnp.zeros(1, bool if n in ("mirrored", "turned") else float) for n in names
  }
  values |= {"shift": jnp.zeros((1, 2))}
  values |= {k: jnp.asarray(v)[None] for k, v in kwargs.items()}
  return np.asarray(moved(jnp.asarray(PICTURE)[None], **values))[0, :, :, 0]


ROW, COLUMN = np.mgrid[:16, :16] - 7.5
blob = lambda y, x, tall=2.0, wide=2.0: np.exp(
  -((ROW - y) ** 2) / (2 * tall**2) - (COLUMN - x) ** 2 / (2 * wide**2)
)
PICTURE = blob(-1.5, 2.5)[..., None].astype(np.float32)


def copies(at, border):
  """A place, and where the mirrors at both borders show it."""
  return at, border - at, -border - at


def test_augmentations_do_what_their_numbers_say():
  image = PICTURE[..., 0]
  np.testing.assert_array_equal(placed(), image)
  np.testing.assert_array_equal(placed(direction=0.7), image)
  np.testing.assert_array_equal(placed(mirrored=True), image[:, ::-1])
  np.testing.assert_array_equal(placed(turned=True), image[::-1])
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=0.04)
  close(placed(rotation=np.pi / 2), np.rot90(image, -1))
  close(placed(shift=[1.0, -0.5]), blob(-2.5, 4.5))  # an eighth of 16 pixels each
  close(placed(zoom=2.0), blob(-1.5 * 2**0.4, 2.5 * 2**0.4, 2 * 2**0.4, 2 * 2**0.4))
  # What is made smaller has mirror images beyond its border, the middle of a pixel.
  far, near, border = 2**0.4, 2**-0.4, 15 * 2**-0.4
  wide = sum(blob(y, 2.5 * far, 2 * near, 2 * far) for y in copies(-1.5 * near, border))
  close(placed(stretch=2.0), wide)
  tall = sum(blob(-1.5 * far, x, 2 * far, 2 * near) for x in copies(2.5 * near, border))
  close(placed(stretch=2.0, direction=np.pi / 2), tall)


def test_labels_are_zero_where_nothing_was_done():
  x = random.normal(random.key(0), (64, 8, 8, 1))
  y, labels = jax.jit(lambda x, k: labelled_augment(x, k, 0.0))(x, random.key(1))
  mirrored = np.asarray(labels[:, 0]) == 1
  assert 16 < mirrored.sum() < 48
  np.testing.assert_array_equal(labels[:, 1:], 0)
  np.testing.assert_array_equal(y[mirrored], x[mirrored][:, :, ::-1])
  np.testing.assert_array_equal(y[~mirrored], x[~mirrored])


def test_share_of_augmentations():
  x = jnp.zeros((4096, 7, 7, 1))
  _, labels = jax.eval_shape(labelled_augment, x, random.key(0))
  assert labels.shape == (4096, 9)
  draw = jax.jit(lambda key: labelled_augment(x, key, 0.3)[1])
  done = np.mean(np.asarray(draw(random.key(0))) != 0, axis=0)
  expected = [0.5, 0.15, 0.3, 0.3, 0.3, 0.3, 0.15, 0.3, 0.3]
  np.testing.assert_allclose(done, expected, atol=0.03)
