"""The VAE: its bound, its estimates, its shapes."""

import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.losses import bernoulli, gaussian
from jaxgen.vae.likelihoods import (
  bernoulli_pixels,
  gaussian_pixels,
  logistic_pixels,
)
from jaxgen.vae.networks import Convolutional, FullyConnected
from jaxgen.vae.vae import vae
from jaxgen.vae.variational import elbo

BITS = bernoulli_pixels().log_prob
SHAPE = (2, 2, 1)
KEY = jax.random.key(3)


NET = FullyConnected(SHAPE, hidden_dims=(8,), latent_dim=2)


@pytest.fixture(scope="module")
def small():
  """On 2x2 images, half black, half white: method, random state, batch, step."""
  method = vae(NET, tx=optax.adam(0.03))
  image = jnp.repeat(jnp.array([-1.0, 1.0]), 16).reshape(32, 1, 1, 1)
  batch = {"image": jnp.broadcast_to(image, (32, *SHAPE))}
  state = jax.jit(method.init)(jax.random.key(0), batch)
  rng = np.random.default_rng(0)
  draw = lambda p: 0.4 * rng.standard_normal(p.shape).astype(np.float32)
  state = state.replace(params=jax.tree.map(draw, state.params))
  return method, state, batch, jax.jit(method.train_step)


def test_parameter_count_of_the_published_model():
  net = FullyConnected((28, 28, 1))
  variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
  assert sum(x.size for x in jax.tree.leaves(variables)) == 425_284


def test_elbo_of_a_linear_gaussian_model_is_log_p():
  """x = A z + b + s * noise has a Gaussian posterior and log p(x) in closed form."""
  rng = np.random.default_rng(0)
  a, b = rng.standard_normal((5, 3)), rng.standard_normal(5)
  a, _ = np.linalg.qr(a)  # orthogonal columns: the posterior is a diagonal Gaussian
  a, noise_var = a * np.array([0.5, 1.0, 2.0]), 0.3
  x = rng.standard_normal(5)
  covariance = a @ a.T + noise_var * np.eye(5)
  _, log_det = np.linalg.slogdet(2 * np.pi * covariance)
  log_p = -0.5 * ((x - b) @ np.linalg.solve(covariance, x - b) + log_det)

  @jax.jit
  def bound(mean, log_var):
    """E log p(x|z) - KL, over 100,000 draws of z."""
    tile = lambda v: jnp.tile(v, (100_000, 1))
    z = gaussian.sample(tile(mean), tile(log_var), KEY)
    decoded = z @ jnp.asarray(a.T, jnp.float32) + jnp.asarray(b, jnp.float32)[None]
    log_var_x = jnp.full((1, 5), np.log(noise_var))
    reconstruction = gaussian.log_prob(jnp.asarray(x)[None], decoded, log_var_x)
    return reconstruction.mean() - gaussian.kl_to_standard(mean, log_var)

  var = 1 / (1 + (a**2).sum(0) / noise_var)
  mean, log_var = jnp.asarray(var * (a.T @ (x - b)) / noise_var), jnp.log(var)
  np.testing.assert_allclose(bound(mean, log_var), log_p, atol=0.02)
  # Any other q loses KL(q || posterior): for a shift by d, sum d^2 / (2 var).
  loss = log_p - bound(mean + 0.5, log_var)
  np.testing.assert_allclose(loss, np.sum(0.5**2 / (2 * var)), atol=0.02)


class Independent(nn.Module):
  """p(x|z) that does not use z, q(z|x) = prior: the bound is exact."""

  latent_dim: int = 2

  @nn.compact
  def __call__(self, x):
    return self.param("logits", lambda _: jnp.array([0.4, -1.0, 2.0, 0.1]))

  def encode(self, x):
    zeros = jnp.zeros((len(x), self.latent_dim))
    return zeros, zeros

  @nn.nowrap
  def decode(self, z):
    logits = self.variables["params"]["logits"]
    return jnp.tile(logits.reshape(1, *SHAPE), (len(z), 1, 1, 1))


def test_bound_is_exact_where_z_is_not_used():
  net = Independent()
  x = jnp.array(list(itertools.product([0.0, 1.0], repeat=4))).reshape(16, *SHAPE)
  params = jax.jit(net.init)(jax.random.key(0), x)["params"]
  bound, _, kl = jax.jit(lambda p: elbo(net.bind({"params": p}), BITS, x, KEY))(params)
  np.testing.assert_allclose(np.exp(bound).sum(), 1.0, rtol=1e-6)
  np.testing.assert_array_equal(kl, np.zeros(16))


def test_bound_falls_short_of_log_p_by_the_kl_to_the_posterior(small):
  """log p(x) of every binary image by integrating over a grid of z."""
  _, state, _, _ = small
  params = state.params["net"]
  x = jnp.array(list(itertools.product([0.0, 1.0], repeat=4))).reshape(16, *SHAPE)
  line, dz = np.linspace(-10, 10, 101, retstep=True)
  z = jnp.asarray(np.stack(np.meshgrid(line, line), -1).reshape(-1, 2), jnp.float32)
  zeros = jnp.zeros_like(z)

  @jax.jit
  def densities(z):
    """log p(x|z) [16, N], log q(z|x) [16, N], log p(z) [N]."""
    logits = NET.apply({"params": params}, z, method="decode").reshape(1, -1, 4)
    mean, log_var = NET.apply({"params": params}, x, method="encode")
    return (
      bernoulli.log_prob(x.reshape(16, 1, 4), logits),
      gaussian.log_prob(z[None], mean[:, None], log_var[:, None]),
      gaussian.log_prob(z, zeros, zeros),
    )

  log_likelihood, log_q, log_prior = (np.asarray(v, float) for v in densities(z))
  joint = log_likelihood + log_prior[None]
  log_p = np.log(np.exp(joint).sum(1) * dz**2)
  np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, rtol=1e-4)

  bound_net = NET.bind({"params": params})
  many = jax.jit(jax.vmap(lambda key: elbo(bound_net, BITS, x, key)))
  bound, reconstruction, kl = many(jax.random.split(KEY, 50_000))
  np.testing.assert_allclose(bound, reconstruction - kl, rtol=1e-6)
  log_posterior = joint - log_p[:, None]
  shortfall = (np.exp(log_q) * (log_q - log_posterior)).sum(1) * dz**2
  assert shortfall.min() > 0.03
  np.testing.assert_allclose(log_p - np.mean(bound, 0), shortfall, atol=0.02)


def test_binarize_draws_each_pixel_with_its_own_probability(small):
  _, state, _, _ = small
  grey = jnp.array([-1.0, -0.5, 0.5, 1.0])  # probabilities 0, 1/4, 3/4, 1
  batch = {"image": jnp.broadcast_to(grey.reshape(1, *SHAPE), (4000, *SHAPE))}

  def observed(binarize):
    method = vae(NET, tx=optax.sgd(0.1), binarize=binarize)
    outputs = jax.jit(method.tools["reconstruct"])(state, batch, KEY)
    return outputs["observed"].reshape(-1, 4)

  bits = observed(binarize=True)
  assert set(np.unique(bits)) == {-1.0, 1.0}
  np.testing.assert_allclose(bits.mean(0), grey, atol=0.05)
  greys = observed(binarize=False)
  np.testing.assert_allclose(greys, batch["image"].reshape(-1, 4), atol=1e-6)


def test_eval_is_per_example_and_agrees_with_training(small):
  method, state, batch, step = small
  values = jax.jit(method.eval_step)(state, batch, KEY)
  _, metrics = step(state, batch, KEY)
  assert {k: v.shape for k, v in values.items()} == {
    k: (32,) for k in ("elbo", "reconstruction", "kl")
  }
  for name, v in values.items():
    np.testing.assert_allclose(v.mean(), metrics[name], rtol=1e-5)
  np.testing.assert_allclose(metrics["loss"], -metrics["elbo"])


def test_training_raises_the_bound_towards_that_of_the_data(small):
  """The best model of two equally likely images has log p = -log 2."""
  _, state, batch, step = small
  bounds = []
  for key in jax.random.split(KEY, 400):
    state, metrics = step(state, batch, key)
    bounds.append(metrics["elbo"])
  assert bounds[0] < -2.5  # 4 log 2 = 2.77 before anything is learnt
  assert -1.3 < np.mean(bounds[-100:]) < -np.log(2)


def test_samples_and_tools_are_images(small):
  method, state, batch, _ = small
  samples = jax.jit(method.sample)(state, batch, KEY)["samples"]
  assert samples.shape == (32, *SHAPE)
  assert np.abs(samples).max() < 1
  z = jax.random.normal(KEY, (32, 2))
  logits = NET.apply({"params": state.params["net"]}, z, method="decode")
  np.testing.assert_allclose((samples + 1) / 2, jax.nn.sigmoid(logits), rtol=1e-5)

  @jax.jit
  def all_tools(state):
    return {name: tool(state, batch, KEY) for name, tool in method.tools.items()}

  outputs = all_tools(state)
  assert outputs["encode"]["mean"].shape == (32, 2)
  assert outputs["encode"]["log_var"].shape == (32, 2)
  path = outputs["interpolate"]["interpolations"]
  assert path.shape == (32, 8, *SHAPE)
  ends = outputs["reconstruct"]["reconstructions"]
  np.testing.assert_allclose(path[:, 0], ends, atol=1e-6)
  np.testing.assert_allclose(path[:, -1], jnp.roll(ends, -1, axis=0), atol=1e-6)
  corrupted = outputs["denoise"]["corrupted"]
  share = np.mean(
    corrupted != batch["image"]
  )  # A quarter is replaced, half of it seen.
  np.testing.assert_allclose(share, 0.25 / 2, atol=0.1)
  assert outputs["denoise"]["denoised"].shape == (32, *SHAPE)
  # More draws than one: the NLL lies below minus the bound.
  bound = jax.jit(jax.vmap(lambda k: method.eval_step(state, batch, k)["elbo"]))(
    jax.random.split(KEY, 200)
  )
  assert np.all(outputs["nll"]["nll"] < -bound.mean(0))


# --- other decoders -----------------------------------------------------------------


def test_networks_of_other_decoders_have_their_outputs():
  """Convolutions down from 128x128, and every likelihood's number of outputs."""
  net = Convolutional((128, 128, 1), 8, (4, 4, 4, 4, 4), 16, num_outputs=6)
  x = jnp.zeros((2, 128, 128, 1))
  variables = jax.eval_shape(net.init, KEY, x)
  rng = np.random.default_rng(0)
  draw = lambda v: (0.3 * rng.standard_normal(v.shape)).astype(np.float32)

  @jax.jit
  def run(variables, x):
    outputs = net.apply(variables, x)
    return outputs, logistic_pixels(num_mixtures=2).log_prob(x, outputs)

  x = jnp.broadcast_to(jnp.linspace(-1, 1, 128)[None, None, :, None], x.shape)
  outputs, log_prob = run(jax.tree.map(draw, variables), x)
  assert outputs.shape == (2, 128, 128, 6)
  assert outputs.std() > 1e-3
  assert log_prob.shape == (2,)
  assert np.all((log_prob < 0) & np.isfinite(log_prob))
  with pytest.raises(ValueError, match=r"\(20, 20, 1\): expected sides that 8 divides"):
    Convolutional((20, 20, 1), widths=(4, 4, 4)).init(KEY, jnp.zeros((1, 20, 20, 1)))


def test_gaussian_pixels_are_gaussian():
  rng = np.random.default_rng(0)
  x, mean = rng.uniform(-1, 1, (2, 3, *SHAPE)).astype(np.float32)
  raw = np.full_like(mean, 0.7)
  var = np.exp(-6 + np.log1p(np.exp(0.7 + 6)))  # The soft floor hardly moves it.
  np.testing.assert_allclose(var, np.exp(0.7), rtol=2e-3)
  expected = -0.5 * ((x - mean) ** 2 / var + np.log(2 * np.pi * var)).sum((1, 2, 3))
  # One channel: mean and log variance of a pixel stand side by side.
  outputs = np.concatenate([mean, raw], axis=-1)
  learned = gaussian_pixels()
  np.testing.assert_allclose(learned.log_prob(x, outputs), expected, rtol=1e-5)
  np.testing.assert_allclose(learned.mean(2 * outputs), (2 * mean).clip(-1, 1))
  outputs = np.concatenate([mean, raw - 100], axis=-1)
  floored = gaussian_pixels(log_var=-6.0).log_prob(x, mean)
  np.testing.assert_allclose(learned.log_prob(x, outputs), floored, rtol=1e-5)
  # Two channels: (mean, log variance) of the first, then of the second.
  x2, outputs = (
    np.zeros((1, 1, 1, 2)),
    np.array([1.0, 5.0, 2.0, 5.0]).reshape(1, 1, 1, 4),
  )
  ratio = learned.log_prob(x2, outputs) - learned.log_prob(x2, outputs * 0 + 5.0)
  floor5 = -6 + np.log1p(np.exp(11.0))
  np.testing.assert_allclose(ratio, 0.5 * (50 - 5) / np.exp(floor5), rtol=1e-3)


@pytest.mark.parametrize("num", [1, 3])
def test_logistic_pixels_are_probabilities_of_levels(num):
  """Over all 256 levels of one pixel they sum to 1, whatever the outputs."""
  likelihood = logistic_pixels(num_mixtures=num)
  outputs = 2 * jax.random.normal(KEY, (1, 1, 1, likelihood.num_outputs))
  levels = (jnp.arange(256) / 127.5 - 1).reshape(-1, 1, 1, 1)
  outputs = jnp.broadcast_to(outputs, (256, *outputs.shape[1:]))
  p = jnp.exp(likelihood.log_prob(levels, outputs))
  np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
  if num == 1:  # mean, log scale
    sharp = jnp.array([0.25, -6.0]).reshape(1, 1, 1, 2)
    np.testing.assert_allclose(likelihood.mean(sharp), 0.25)
    p = likelihood.log_prob(levels, jnp.broadcast_to(sharp, (256, 1, 1, 2)))
    np.testing.assert_allclose(levels[p.argmax()], 0.25, atol=1 / 255)
  else:  # logits, means, log scales
    outputs = jnp.array([9.0, 0, 0, -0.5, 1, 1, -5, 0, 0]).reshape(1, 1, 1, 9)
    np.testing.assert_allclose(likelihood.mean(outputs), -0.5, atol=1e-3)


@pytest.mark.parametrize("likelihood", [gaussian_pixels(), logistic_pixels()])
def test_training_with_other_decoders_finds_the_images(likelihood, small):
  _, _, batch, _ = small
  levels = jnp.where(batch["image"] > 0, 192, 64).astype(jnp.float32)
  batch = {"image": levels / 127.5 - 1}
  net = Convolutional(SHAPE, 2, (8,), 16, num_outputs=likelihood.num_outputs)
  method = vae(net, tx=optax.adam(0.02), likelihood=likelihood)
  state = jax.jit(method.init)(KEY, batch)

  @jax.jit
  def step(state, key):
    for one in jax.random.split(key, 5):
      state, metrics = method.train_step(state, batch, one)
    return state, metrics["elbo"]

  elbos = []
  for key in jax.random.split(KEY, 60):
    state, bound = step(state, key)
    elbos.append(float(bound))
  assert np.mean(elbos[-5:]) > elbos[0] + 5
  found = jax.jit(method.tools["reconstruct"])(state, batch, KEY)
  np.testing.assert_allclose(found["reconstructions"], batch["image"], atol=0.2)


@pytest.mark.parametrize(
  "net", [FullyConnected((8, 8, 1), (16,), 4), Convolutional((8, 8, 1), 4, (4, 4), 16)]
)
def test_bfloat16_is_inside_only(net):
  """Parameters, outputs, averages and the loss stay float32, and near those of it."""
  x = jax.random.uniform(KEY, (8, 8, 8, 1))
  variables = jax.jit(net.init)(KEY, x)
  half = net.clone(dtype=jnp.bfloat16)
  full, rounded = (jax.jit(n.apply)(variables, x) for n in (net, half))
  assert rounded.dtype == jnp.float32
  assert (full != rounded).any()
  np.testing.assert_allclose(rounded, full, atol=0.02)
  method = vae(half, tx=optax.adam(1e-3))
  state = jax.jit(method.init)(KEY, {"image": x})
  shapes = jax.eval_shape(method.train_step, state, {"image": x}, KEY)
  state, metrics = shapes
  for leaf in jax.tree.leaves((state.params, state.ema, metrics)):
    assert leaf.dtype == jnp.float32
