"""SR3: what is given, and that it is what samples are drawn for."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image
import pytest

from jaxgen import data
from jaxgen.diffusion.process import discrete
from jaxgen.diffusion.schedules import linear_betas
from jaxgen.diffusion.sr3 import Network, enlarged, shrunk, sr3
from jaxgen.method import TrainState
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
  again = jax.jit(lambda image: enlarged(shrunk(image, 2), 2))
  flat = np.full((2, 8, 12, 3), 0.3, np.float32)
  np.testing.assert_allclose(again(flat), flat, atol=1e-6)
  image = np.asarray(jax.random.uniform(KEY, flat.shape))
  low = image.reshape(2, 4, 2, 6, 2, 3).mean((2, 4))
  expected = jax.image.resize(low, image.shape, "cubic")  # The same but at the border.
  found = again(image)
  assert found.shape == image.shape
  np.testing.assert_allclose(found[:, 3:5, 3:9], expected[:, 3:5, 3:9], atol=0.1)
  same = image + np.tile([0.1, -0.1], 4).reshape(1, 8, 1, 1)  # The same means.
  np.testing.assert_allclose(again(same.astype("f")), found, atol=1e-6)
  with pytest.raises(ValueError, match="8x12 pixels: expected sides that 5 divides"):
    shrunk(image, 5)


def test_samples_are_drawn_for_the_small_image():
  method = sr3(Exact(), tx=optax.sgd(0.0), betas=BETAS, factor=4, ema_decay=0.5)
  image = 0.5 * jax.random.uniform(KEY, (64, 8, 8, 1), minval=-1.0)
  batch = {"image": image}
  state = jax.jit(method.init)(KEY, batch)
  out = jax.jit(method.tools["upscale"])(state, batch, KEY)
  low = np.asarray(enlarged(shrunk(image, 4), 4))
  error = np.asarray(out["samples"]) - low
  np.testing.assert_allclose(out["given"], low, atol=1e-6)
  np.testing.assert_allclose(error.mean(), 0.0, atol=0.01)
  # The smaller variance, on 100 steps, is too small for data as narrow as these.
  np.testing.assert_allclose(error.var(), VARIANCE, rtol=0.3)


def test_small_images_are_read_from_files_and_enlarged(tmp_path):
  """As they are: 3x2 pixels where the training images have 8x8."""
  pixels = np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3)
  Image.fromarray(pixels).save(tmp_path / "small.png")
  spec = {"image": np.zeros((4, 8, 8, 1), np.uint8)}
  small = str(tmp_path / "small.png")
  given, num = data.given_images(spec, None, None, None, low=small)
  assert num == 1
  np.testing.assert_array_equal(given["low"], pixels[None, ..., None])
  method = sr3(Exact(), tx=None, betas=BETAS, factor=4)
  params = {"net": {"one": np.float32(1.0)}}
  state = TrainState(np.int32(0), params, {}, {}, {})
  low = given["low"] / np.float32(127.5) - 1
  out = jax.jit(method.tools["upscale"])(state, {"low": low}, KEY)
  expected = np.asarray(enlarged(low, 4)).clip(-1, 1)
  assert {name: x.shape for name, x in out.items()} == {
    "samples": (1, 8, 12, 1),
    "given": (1, 8, 12, 1),
    "num_evaluations": (1,),
  }
  np.testing.assert_allclose(out["given"], expected, atol=1e-5)
  error = np.asarray(out["samples"] - expected)
  np.testing.assert_allclose(np.abs(error).mean(), 0.0, atol=3 * VARIANCE**0.5)


def test_the_loss_is_that_of_the_small_image():
  """Of flat images, which are their own: the noise is shrunk by a known factor."""
  method = sr3(Exact(), tx=optax.sgd(0.0), betas=BETAS, factor=4, ema_decay=0.5)
  flat = jnp.linspace(-1.0, 1.0, 4_000)[:, None, None, None]
  batch = {"image": jnp.broadcast_to(flat, (4_000, 8, 8, 1))}
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
