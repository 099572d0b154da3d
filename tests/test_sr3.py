"""SR3: what is given, and that it is what samples are drawn for."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.diffusion.process import discrete
from jaxgen.diffusion.schedules import linear_betas
from jaxgen.diffusion.sr3 import Network, enlarged, sr3
from jaxgen.nn.unet import UNet

KEY = jax.random.key(0)
BETAS = linear_betas(100, 1e-3, 0.2)
VARIANCE = 0.05


class Exact(nn.Module):
  """The noise in x_t, of x ~ N(low, VARIANCE)."""

  @nn.compact
  def __call__(self, x_t, t, low, train=False):
    process, one = discrete(BETAS), self.param("one", lambda _: jnp.ones(()))
    at = lambda f: one * f(t + 1.0)[:, None, None, None]
    alpha, sigma = at(process.alpha), at(process.sigma)
    gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
    clean = low + gain * (x_t - alpha * low)
    return (x_t - alpha * clean) / sigma


def test_enlarged_images_are_bicubic_of_means():
  flat = jnp.full((1, 8, 8, 1), 0.3)
  np.testing.assert_allclose(enlarged(flat, 4), flat, atol=1e-6)
  image = jax.random.uniform(KEY, (2, 8, 12, 3))
  low = image.reshape(2, 4, 2, 6, 2, 3).mean((2, 4))
  expected = jax.image.resize(low, image.shape, "cubic")  # The same but at the border.
  found = enlarged(image, 2)
  assert found.shape == image.shape
  np.testing.assert_allclose(found[:, 3:5, 3:9], expected[:, 3:5, 3:9], atol=0.1)
  same = image.at[:, ::2].add(0.1).at[:, 1::2].add(-0.1)  # The same means.
  np.testing.assert_allclose(enlarged(same, 2), found, atol=1e-6)
  with pytest.raises(ValueError, match="8x12 pixels: expected sides that 5 divides"):
    enlarged(image, 5)


def test_samples_are_drawn_for_the_small_image():
  method = sr3(Exact(), tx=optax.sgd(0.0), betas=BETAS, factor=4, ema_decay=0.5)
  image = 0.5 * jax.random.uniform(KEY, (64, 8, 8, 1), minval=-1.0)
  batch = {"image": image}
  state = jax.jit(method.init)(KEY, batch)
  out = jax.jit(method.tools["upscale"])(state, batch, KEY)
  low = np.asarray(enlarged(image, 4))
  error = np.asarray(out["samples"]) - low
  np.testing.assert_allclose(out["given"], low, atol=1e-6)
  np.testing.assert_allclose(error.mean(), 0.0, atol=0.01)
  # The smaller variance, on 100 steps, is too small for data as narrow as these.
  np.testing.assert_allclose(error.var(), VARIANCE, rtol=0.3)


def test_the_loss_is_that_of_the_small_image():
  """Of flat images, which are their own: the noise is shrunk by a known factor."""
  method = sr3(Exact(), tx=optax.sgd(0.0), betas=BETAS, factor=4, ema_decay=0.5)
  flat = jnp.linspace(-1.0, 1.0, 400)[:, None, None, None]
  batch = {"image": jnp.broadcast_to(flat, (400, 8, 8, 1))}
  state = jax.jit(method.init)(KEY, batch)
  loss = jax.jit(method.eval_step)(state, batch, KEY)["loss"].mean()
  process, t = discrete(BETAS), jnp.arange(1.0, 101.0)
  signal, noise = process.alpha(t) ** 2 * VARIANCE, process.sigma(t) ** 2
  expected = ((signal / (signal + noise)) ** 2).mean()
  np.testing.assert_allclose(loss, expected, rtol=0.05)


def test_the_network_is_given_both_images():
  net = Network(UNet(8, (1,), 1, (), num_groups=4, dropout_rate=0.0, out_channels=1))
  x, low = jax.random.normal(KEY, (2, 2, 8, 8, 1))
  t = jnp.zeros(2, jnp.int32)
  params = jax.jit(net.init)(KEY, x, t, low)["params"]
  params = jax.tree.map(lambda p: p + 0.1, params)
  run = jax.jit(lambda x, low: net.apply({"params": params}, x, t, low))
  out = run(x, low)
  assert out.shape == x.shape
  assert np.abs(out - run(x, low + 1.0)).max() > 1e-3
  assert np.abs(out - run(x + 1.0, low)).max() > 1e-3
