"""Consistency models and progressive distillation of a Gaussian's exact denoiser."""

from collections.abc import Callable

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.diffusion import consistency as paper
from jaxgen.diffusion import preconditioned, schedules, stochastic_samplers
from jaxgen.diffusion import progressive_distillation as halving
from jaxgen.diffusion.consistency import EPSILON, consistency
from jaxgen.diffusion.progressive_distillation import progressive_distillation
from jaxgen.method import TrainState

MEAN, STD = 0.1, 0.2


class Known(nn.Module):
  """A function of the input and what is told, [B, 1, 1, 1], with no parameters."""

  predict: Callable

  def __call__(self, x, told, label=None, train=False):
    wide = lambda a: a.reshape(-1, *(1,) * (x.ndim - 1))
    given = () if label is None else (wide(label),)
    return self.predict(x, wide(told), *given)


class Scale(nn.Module):
  """w x + told / 10, of one parameter."""

  @nn.compact
  def __call__(self, x, told, label=None, train=False):
    w = self.param("w", nn.initializers.constant(0.3), ())
    return w * x + told.reshape(-1, *(1,) * (x.ndim - 1)) / 10


def exact(net, params, x_t, sigma, sigma_data, label):
  """The denoiser of that Gaussian, in the place of `preconditioned.denoise`."""
  sigma = sigma[:, None, None, None]
  mean = MEAN if label is None else MEAN + 0.3 * label[:, None, None, None]
  return mean + STD**2 / (STD**2 + sigma**2) * (x_t - mean)


EXACT = {"teacher": {}, "denoise": exact}


def exact_f(x, sigma, label=0.0):
  """Along the ODE of a Gaussian around MEAN + 0.3 label, to EPSILON."""
  mean = MEAN + 0.3 * label
  return mean + (x - mean) * ratio(sigma)


def ratio(sigma):
  return jnp.sqrt((STD**2 + EPSILON**2) / (STD**2 + sigma**2))


def network_of(f, sigma_data=0.5):
  """F of c_skip x + c_out F(c_in x, told) = f(x, sigma)."""

  def predict(scaled, told, *label):
    sigma = jnp.exp(4.0 * told)
    above, norm = sigma - EPSILON, jnp.sqrt(sigma**2 + sigma_data**2)
    x = scaled * norm
    skip = sigma_data**2 / (above**2 + sigma_data**2)
    out = sigma_data * above / norm
    return (f(x, sigma, *label) - skip * x) / jnp.where(jnp.abs(out) > 1e-9, out, 1.0)

  return Known(predict)


def of(method, params=()):
  params = {"net": dict(params)}
  both = {**params, "teacher": {}}
  return TrainState(jnp.zeros((), jnp.int32), both, {}, {}, params)


def images(num, size=8, key=9):
  return MEAN + STD * np.random.default_rng(key).standard_normal((num, size, size, 1))


def loss_of(f, num_levels, **options):
  schedule = paper.constant(num_levels)
  method = consistency(network_of(f), tx=optax.sgd(1.0), schedule=schedule, **options)
  batch = {"image": images(512, 2)}
  loss = jax.jit(method.eval_step)(of(method), batch, random.key(0))["loss"]
  return np.asarray(loss).mean()


def test_boundary_condition_is_exact():
  x, params = np.float32(images(4)), {"w": jnp.float32(0.3)}
  at = jax.jit(
    lambda sigma: paper.consistency_function(
      Scale(), params, x, jnp.full(4, sigma), 0.5, train=False
    )
  )
  np.testing.assert_array_equal(at(EPSILON), x)
  assert np.abs(at(0.1) - x).max() > 1e-3


def test_levels_are_those_of_karras():
  i = jnp.arange(18.0)
  found = paper.level(i, jnp.float32(18), 80.0)
  np.testing.assert_allclose(found[::-1], schedules.karras_levels(18)[:-1], rtol=1e-4)


def test_exact_function_has_no_distillation_loss_but_the_error_of_the_solver():
  """Heun's error in a step is of order 3: the loss of order 6 in 1 / N."""
  with jax.enable_x64(True):
    numbers = (40, 80, 160)
    losses = [loss_of(exact_f, n, **EXACT) for n in numbers]
    wrong = loss_of(lambda x, sigma: exact_f(x, 1.1 * sigma), 80, **EXACT)
  order = -np.polyfit(np.log(numbers), np.log(losses), 1)[0]
  assert 5.3 < order < 6.7
  assert wrong > 100 * losses[1]


def test_training_without_a_teacher_uses_the_same_noise():
  """E |f(x + a noise, a) - f(x + b noise, b)|^2 of a linear f, by level."""
  with jax.enable_x64(True):
    found = loss_of(exact_f, 6)
    sigma = paper.level(jnp.arange(6.0), 6.0, 80.0)
    r = ratio(sigma)
    each = np.asarray(STD**2 * jnp.diff(r) ** 2 + jnp.diff(sigma * r) ** 2)
  np.testing.assert_allclose(found, each.mean(), rtol=0.1)


def test_schedules_of_the_paper():
  schedule = paper.progressive(1000, first=2, last=150, decay=0.9)
  at = lambda k: (schedule.num_levels(jnp.int32(k)), schedule.decay(jnp.int32(k)))
  np.testing.assert_allclose(at(0), (2, 0.9), rtol=1e-6)
  np.testing.assert_allclose(at(1000), (151, 0.9 ** (2 / 151)), rtol=1e-6)
  np.testing.assert_allclose(at(5000), at(1000))
  middle = np.ceil(np.sqrt(0.5 * (151**2 - 4) + 4) - 1) + 1
  np.testing.assert_allclose(at(500)[0], middle)
  assert paper.constant(18, 0.5).decay(jnp.int32(3)) == 0.5


@pytest.mark.parametrize("levels", [(), (2.0,), (10.0, 2.0, 0.5)])
def test_samples_of_the_exact_function(levels):
  method = consistency(network_of(exact_f), tx=optax.sgd(1.0), **EXACT, levels=levels)
  batch = {"image": jnp.zeros((512, 8, 8, 1))}
  x = jax.jit(method.sample)(of(method), batch, random.key(0))["samples"]
  # One step starts from N(0, 80^2), and not around MEAN: of no weight.
  np.testing.assert_allclose(x.mean(), MEAN, atol=0.01)
  np.testing.assert_allclose(x.std(), STD, rtol=0.02)


def test_target_is_an_average_without_gradient():
  schedule, lr = paper.constant(4, 0.75), 0.1
  teacher = {"teacher": {"w": np.float32(0.3)}, "denoise": exact}
  method = consistency(Scale(), tx=optax.sgd(lr), **teacher, schedule=schedule)
  batch, key = {"image": images(64, 2)}, random.key(1)
  state = jax.jit(method.init)(random.key(0), batch)
  state = state.replace(ema={"net": {"w": jnp.float32(0.1)}})
  step = jax.jit(method.train_step)
  after, metrics = step(state, batch, key)
  new = after.params["net"]["w"]
  np.testing.assert_allclose(abs(new - 0.3), lr * metrics["grad_norm"], rtol=1e-4)
  np.testing.assert_allclose(after.ema["net"]["w"], 0.75 * 0.1 + 0.25 * new, rtol=1e-6)
  # The gradient at w = 0.3 of the loss with the target's w held.
  of_w = lambda w: state.replace(params={**state.params, "net": {"w": jnp.float32(w)}})
  loss = lambda w: step(of_w(w), batch, key)[1]["loss"]
  slope = (loss(0.31) - loss(0.29)) / 0.02
  np.testing.assert_allclose(new, 0.3 - lr * slope, rtol=1e-2)


def test_labels_are_those_of_the_batch():
  def method(f):
    return consistency(
      network_of(f),
      tx=optax.sgd(1.0),
      conditional=True,
      **EXACT,
      schedule=paper.constant(160),
      sigma_max=20.0,
      levels=(0.5,),
    )

  batch = {"image": jnp.zeros((512, 2, 2, 1)), "label": jnp.arange(512) % 2}
  x = jax.jit(method(exact_f).sample)(of(method(exact_f)), batch, random.key(0))
  means = [x["samples"][i::2].mean() for i in (0, 1)]
  np.testing.assert_allclose(means, (MEAN, MEAN + 0.3), atol=0.02)

  def loss(f):
    found = jax.jit(method(f).eval_step)(of(method(f)), batch, random.key(1))
    return np.asarray(found["loss"]).mean()

  assert loss(lambda x, sigma, label: exact_f(x, sigma, 1 - label)) > 100 * loss(
    exact_f
  )


def test_it_begins_with_the_weights_of_the_teacher():
  """Its loss at N = 2, where f(x, EPSILON) = x, is that of a step written out here."""
  w, batch, key = np.float32(0.7), {"image": images(64, 2)}, random.key(1)
  options = dict(tx=optax.sgd(1.0), schedule=paper.constant(2), sigma_max=2.0)
  method = consistency(Scale(), teacher={"w": w}, **options)
  state = jax.jit(method.init)(random.key(0), batch)
  found = (state.params["net"], state.params["teacher"], state.ema["net"])
  assert all(part["w"] == w for part in found)
  other = {"w": np.float32(0.2)}  # The student moves on, the teacher does not.
  state = state.replace(params=state.params | {"net": other})

  def losses(state, batch, key):
    _, noise_key, _ = random.split(key, 3)
    x = batch["image"] + 2.0 * random.normal(noise_key, batch["image"].shape)
    high, low = (jnp.full(len(x), sigma) for sigma in (2.0, EPSILON))
    denoise = lambda x, sigma: preconditioned.denoise(Scale(), {"w": w}, x, sigma, 0.5)
    first = (x - denoise(x, high)) / 2.0
    guess = x + (EPSILON - 2.0) * first
    second = (guess - denoise(guess, low)) / EPSILON
    goal = x + (EPSILON - 2.0) * (first + second) / 2
    f = paper.consistency_function(Scale(), other, x, high, 0.5)
    return ((f - goal) ** 2).mean(axis=(1, 2, 3))

  losses_of_method = jax.jit(method.eval_step)(state, batch, key)["loss"]
  np.testing.assert_allclose(
    losses_of_method, jax.jit(losses)(state, batch, key), rtol=1e-3
  )
  for wrong in ({"w": np.zeros(2)}, {"v": w}):
    method = consistency(Scale(), teacher=wrong, **options)
    with pytest.raises(ValueError, match="expected parameters of this network"):
      method.init(random.key(0), batch)


def test_bad_input_is_refused():
  with pytest.raises(ValueError, match="expected a teacher, or a schedule"):
    consistency(Scale(), tx=optax.sgd(1.0))
  with pytest.raises(ValueError, match=r"levels=\(90.0,\): expected them in"):
    consistency(Scale(), tx=optax.sgd(1.0), **EXACT, levels=(90.0,))
  with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
    progressive_distillation(Scale(), tx=optax.sgd(1.0), num_steps=0)


# --- progressive distillation -------------------------------------------------


def cosine_denoiser(x_t, t):
  """E[x | x_t] of the Gaussian under alpha = cos, sigma = sin; t [] or [B]."""
  t = jnp.reshape(t, (-1, *(1,) * (x_t.ndim - 1)))
  alpha, sigma = jnp.cos(np.pi * t / 2), jnp.sin(np.pi * t / 2)
  gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
  return MEAN + gain * (x_t - alpha * MEAN)


def velocity(x_t, told):
  t = told / 1000.0
  x = cosine_denoiser(x_t, t.reshape(-1))
  return (jnp.cos(np.pi * t / 2) * x_t - x) / jnp.sin(np.pi * t / 2)


def test_one_step_is_two_ddim_steps_of_the_teacher():
  def compare(x_t, times):
    now, then = jnp.full(3, times[0]), jnp.full(3, times[2])
    x = halving.two_steps(cosine_denoiser, x_t, now, 4)
    both = stochastic_samplers.ddim(cosine_denoiser, halving.PROCESS, x_t, times).x
    moved = x - cosine_denoiser(x_t, now)
    return halving.ddim_step(x, x_t, now, then), both, moved

  with jax.enable_x64(True):
    compiled, x_t = jax.jit(compare), np.random.default_rng(0).normal(size=(3, 2, 2, 1))
    for i in (4, 2, 1):  # The last one ends in the data.
      times = np.array([i / 4, (i - 0.5) / 4, (i - 1) / 4])
      found, both, moved = compiled(x_t, times)
      np.testing.assert_allclose(found, both, rtol=1e-9)
      assert np.abs(moved).max() > 1e-4


def test_loss_is_that_of_x_and_falls_to_nothing_for_a_student_that_knows():
  """A student that returns `two_steps` has none, the teacher itself has some."""
  batch, key = {"image": images(64, 2)}, random.key(0)
  of_x = lambda x_t, t: halving.two_steps(cosine_denoiser, x_t, t.reshape(-1), 4)

  class Both(nn.Module):
    @nn.compact
    def __call__(self, x_t, told, train):
      knows = self.param("knows", nn.initializers.ones, ())
      told = told.reshape(-1, 1, 1, 1)
      t = told / 1000
      alpha, sigma = jnp.cos(np.pi * t / 2), jnp.sin(np.pi * t / 2)
      better = (alpha * x_t - of_x(x_t, t)) / sigma
      return jnp.where(knows > 0, better, velocity(x_t, told))

  with jax.enable_x64(True):
    method = progressive_distillation(Both(), tx=optax.sgd(1.0), num_steps=4)
    evaluate = jax.jit(method.eval_step)

    def loss(knows):
      params = {"net": {"knows": knows}, "teacher": {"knows": 0.0}}
      state = TrainState(jnp.zeros((), jnp.int32), params, {}, {}, {})
      return evaluate(state, batch, key)["loss"]

    np.testing.assert_allclose(loss(1.0), 0, atol=1e-12)
    assert loss(0.0).mean() > 1e-3


def test_loss_of_the_teacher_is_that_of_x():
  """max(SNR, 1) Var[x | x_t], at the exact v."""
  method = halving.teacher(Known(velocity), tx=optax.sgd(1.0), num_steps=4)
  batch = {"image": images(2048)}
  loss = jax.jit(method.eval_step)(of(method), batch, random.key(0))["loss"]
  t = (np.arange(4096) + 0.5) / 4096
  snr = np.tan(np.pi * t / 2) ** -2.0
  expected = np.mean(np.maximum(snr, 1) * STD**2 / (1 + snr * STD**2))
  np.testing.assert_allclose(loss.mean(), expected, rtol=0.01)


def test_samples_and_what_a_round_begins_with():
  teacher = halving.teacher(Known(velocity), tx=optax.sgd(1.0), num_steps=256)
  batch = {"image": jnp.zeros((256, 8, 8, 1))}
  x = jax.jit(teacher.sample)(of(teacher), batch, random.key(0))["samples"]
  np.testing.assert_allclose(x.std(), STD, rtol=0.04)
  method = progressive_distillation(Scale(), tx=optax.sgd(1.0), num_steps=2)
  fresh = jax.jit(method.init)(random.key(0), batch)
  last = fresh.replace(ema={"net": {"w": jnp.float32(0.7)}})
  begun = halving.distil(last, fresh)
  found = (begun.params["net"], begun.params["teacher"], begun.ema["net"])
  assert all(part["w"] == jnp.float32(0.7) for part in found)
