"""DiT as a method against closed forms: learned variances, hybrid loss, guidance."""

import itertools

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxgen.diffusion import learned_variance, process
from jaxgen.diffusion.dit import dit
from jaxgen.diffusion.schedules import linear_betas
from jaxgen.method import TrainState

MEAN, STD = 0.1, 0.2
FEW = (0.01, 0.1, 0.3, 0.5)


class GaussianNet(nn.Module):
  """E[noise | x_t] for x ~ N(MEAN, STD^2), and the same v everywhere.

  Labels other than 0 move the mean: to MEAN * (1 + label).
  """

  betas: tuple
  v: float

  def __call__(self, x_t, t, label, train):
    alpha_bars = np.cumprod(1 - np.asarray(self.betas))
    alpha_bar = jnp.interp(t * 1.0, np.arange(len(alpha_bars)), alpha_bars)
    alpha_bar = alpha_bar[:, None, None, None]
    mean = (MEAN * (1 + label))[:, None, None, None]
    variance = alpha_bar * STD**2 + 1 - alpha_bar
    noise = jnp.sqrt(1 - alpha_bar) * (x_t - jnp.sqrt(alpha_bar) * mean) / variance
    return jnp.concatenate([noise, jnp.full_like(x_t, self.v)], axis=-1)


class TwoNumbers(nn.Module):
  """The noise is w x_t; v is b."""

  @nn.compact
  def __call__(self, x_t, t, label, train):
    w = self.param("w", nn.initializers.constant(0.3), ())
    b = self.param("b", nn.initializers.constant(0.2), ())
    return jnp.concatenate([w * x_t, jnp.full_like(x_t, 1.0) * b], axis=-1)


def batch_of(shape, label=0):
  return {"image": jnp.zeros(shape), "label": jnp.full(shape[0], label, jnp.int32)}


def without_params(net, betas, **kwargs):
  method = dit(net, tx=optax.sgd(1.0), betas=betas, **kwargs)
  return method, TrainState(jnp.zeros((), jnp.int32), {"net": {}}, {}, {}, {})


def variances(t):
  """beta_t, and that of the posterior, of step t = 1, ..., 4."""
  alpha_bars = np.append(1.0, np.cumprod(1 - np.asarray(FEW)))
  beta = FEW[t - 1]
  return beta, beta * (1 - alpha_bars[t - 1]) / (1 - alpha_bars[t])


def test_bound_is_zero_for_the_posterior_and_a_kl_for_other_variances():
  chain = process.discrete(FEW)
  x = jnp.asarray(np.array([[0.2], [-1.0], [1.0]]), jnp.float32)
  noise = random.normal(random.key(0), x.shape)
  for t in (2, 3, 4):
    times = jnp.full(3, float(t))
    x_t = process.diffuse(chain, x, times, noise)
    term = lambda v: learned_variance.bound_term(
      chain, x, x_t, times, noise, jnp.full(x.shape, v)
    )
    large, small = variances(t)
    np.testing.assert_allclose(term(0.0), 0, atol=1e-5)
    ratio = small / large
    expected = 0.5 * (ratio - 1 - np.log(ratio))
    np.testing.assert_allclose(term(1.0), expected, atol=2e-5)
    ratio = (small / large) ** 0.25
    expected = 0.5 * (ratio - 1 - np.log(ratio))
    np.testing.assert_allclose(term(0.25), expected, atol=2e-5)


def test_first_step_is_the_probability_of_a_level():
  chain, x = process.discrete(FEW), jnp.array([[3 / 255]])
  t, noise = jnp.ones(1), jnp.array([[0.3]])
  x_t = process.diffuse(chain, x, t, noise)
  for v, variance in ((0.0, variances(2)[1]), (1.0, FEW[0])):
    found = learned_variance.bound_term(chain, x, x_t, t, noise, jnp.full((1, 1), v))
    model = stats.norm(3 / 255, np.sqrt(variance))
    expected = -np.log(model.cdf(4 / 255) - model.cdf(2 / 255))
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-4)


def test_the_bound_trains_the_variance_and_nothing_else():
  method = dit(TwoNumbers(), tx=optax.sgd(1.0), betas=FEW, num_sampling_steps=4)
  x = MEAN + STD * random.normal(random.key(9), (512, 4, 4, 1))
  batch = {**batch_of(x.shape), "image": x}
  state = jax.jit(method.init)(random.key(0), batch)
  after, metrics = jax.jit(method.train_step)(state, batch, random.key(1))
  # The simple loss alone: d/dw E (noise - w x_t)^2, with w = 0.3.
  alpha_bars = np.cumprod(1 - np.asarray(FEW))
  squares = alpha_bars * (MEAN**2 + STD**2) + 1 - alpha_bars
  gradient = 2 * np.mean(0.3 * squares - np.sqrt(1 - alpha_bars))
  params = after.params["net"]
  np.testing.assert_allclose(0.3 - params["w"], gradient, rtol=0.05)
  assert abs(params["b"] - 0.2) > 1e-3
  np.testing.assert_allclose(
    metrics["loss"], metrics["mse"] + metrics["vlb"], rtol=1e-5
  )


def moments(betas, steps, v):
  """Mean and variance of samples with GaussianNet, on some of the steps."""
  alpha_bars = np.append(1.0, np.cumprod(1 - np.asarray(betas)))
  mean, var = 0.0, 1.0
  for now, then in itertools.pairwise(steps):
    a, b = alpha_bars[now], alpha_bars[then]
    beta = 1 - a / b
    slope = np.sqrt(a) * STD**2 / (a * STD**2 + 1 - a)  # of E[x | x_t]
    shift = MEAN - slope * np.sqrt(a) * MEAN
    of_x, of_x_t = (
      np.sqrt(b) * beta / (1 - a),
      np.sqrt(a / b) * (1 - b) / (1 - a),
    )
    scale = of_x * slope + of_x_t
    mean, var = scale * mean + of_x * shift, scale**2 * var
    if then:
      small = beta * (1 - b) / (1 - a)
      var += beta**v * small ** (1 - v)
  return mean, var


@pytest.mark.parametrize(("v", "num"), [(-1.0, 100), (1.0, 100), (0.0, 20)])
def test_samples_of_the_exact_denoiser_are_gaussian(v, num):
  betas = tuple(linear_betas(100, 1e-3, 0.2))
  net = GaussianNet(betas, v)
  method, state = without_params(net, betas, num_sampling_steps=num)
  batch = batch_of((1024, 8, 8, 1))
  samples = jax.jit(method.sample)(state, batch, random.key(0))["samples"]
  steps = np.append(np.round(np.linspace(100, 1, num)), 0).astype(int)
  mean, variance = moments(betas, steps, (v + 1) / 2)
  np.testing.assert_allclose(samples.mean(), mean, atol=4 * STD / 256)
  np.testing.assert_allclose(samples.var(), variance, rtol=4 * np.sqrt(2) / 256)
  np.testing.assert_allclose((mean, np.sqrt(variance)), (MEAN, STD), rtol=0.15)


def test_guidance_goes_beyond_the_label():
  betas = tuple(linear_betas(50, 2e-3, 0.4))
  net = GaussianNet(betas, -1.0)
  # No label, -1, has mean 0, and label 1 has 2 MEAN: scale 2 is 4 MEAN in every score.
  method, state = without_params(net, betas, guidance=2.0, num_sampling_steps=50)
  batch = batch_of((256, 8, 8, 1), label=1)
  for sample, expected in ((method.sample, 4), (method.tools["unguided"], 2)):
    samples = jax.jit(sample)(state, batch, random.key(0))["samples"]
    np.testing.assert_allclose(samples.mean(), expected * MEAN, atol=0.01)


def test_latents_are_what_the_network_sees():
  seen = []

  class Seen(TwoNumbers):
    def __call__(self, x_t, t, label, train):
      seen.append(x_t.shape)
      return super().__call__(x_t, t, label, train)

  encode = lambda x, key: x.reshape(len(x), 4, 4, 4)
  decode = lambda z: z.reshape(len(z), 8, 8, 1)
  method = dit(Seen(), tx=optax.sgd(0.1), betas=FEW, encode=encode, decode=decode,
               num_sampling_steps=2)  # fmt: skip
  batch = batch_of((3, 8, 8, 1))
  state = jax.jit(method.init)(random.key(0), batch)
  jax.eval_shape(method.train_step, state, batch, random.key(0))
  samples = jax.eval_shape(method.sample, state, batch, random.key(0))["samples"]
  assert samples.shape == (3, 8, 8, 1)
  assert set(seen) == {(3, 4, 4, 4)}


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    (dict(encode=lambda x, key: x), "expected both or neither"),
    (dict(label_dropout=-0.1), r"label_dropout must be in \[0, 1\], got -0.1"),
    (dict(num_sampling_steps=5), "from 1 to 4, got 5"),
  ],
)
def test_what_makes_no_sense_is_refused(kwargs, message):
  with pytest.raises(ValueError, match=message):
    dit(TwoNumbers(), tx=optax.sgd(1.0), betas=FEW, **kwargs)
