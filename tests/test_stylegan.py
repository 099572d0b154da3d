"""StyleGAN's networks in NumPy, R1 of a linear discriminator, truncation."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.gan.stylegan import Synthesis, adaptive_instance_norm, generator, stylegan
from jaxgen.method import averaged
from jaxgen.nn.progressive import Discriminator

KEY = jax.random.key(0)
BATCH = {"image": jax.random.uniform(KEY, (4, 8, 8, 1), minval=-1.0)}
SMALL = {"channel_base": 32, "channel_max": 4}
lrelu = lambda x: np.where(x > 0, x, 0.2 * x)


def conv(x, layer, gain=2**0.5):
  """A 3x3 or 1x1 convolution with an equalised learning rate, zeros outside."""
  kernel = layer["kernel"]
  size, height, width = len(kernel), *x.shape[1:3]
  edge = size // 2
  x = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
  y = sum(
    x[:, i : i + height, j : j + width] @ kernel[i, j]
    for i in range(size)
    for j in range(size)
  )
  fan_in = size * size * kernel.shape[2]
  return y * gain / fan_in**0.5 + layer.get("bias", 0.0)


def dense(x, layer, gain=1.0):
  return x @ layer["kernel"] * gain / x.shape[1] ** 0.5 + layer["bias"]


def blurred(x):
  row = {"kernel": np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16.0}
  one = lambda c: conv(x[..., c : c + 1], {"kernel": row["kernel"][..., None, None]}, 3)
  return np.concatenate([one(c) for c in range(x.shape[-1])], axis=-1)


def random_params(net, seed, *inputs, **kwargs):
  """Parameters none of which is zero or one, in float64."""
  rngs = {"params": KEY, "noise": KEY}
  params = jax.eval_shape(lambda: net.init(rngs, *inputs, **kwargs))["params"]
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: rng.standard_normal(x.shape), params)


def styled(x, layer, w):
  """Without noise."""
  x = lrelu(x + layer["bias"])
  mean, deviation = x.mean((1, 2), keepdims=True), x.std((1, 2), keepdims=True)
  scale, shift = np.split(dense(w, layer["style"]), 2, axis=1)
  normal = (x - mean) / np.sqrt(deviation**2 + 1e-8)
  return normal * (1 + scale)[:, None, None] + shift[:, None, None]


def test_the_generator_has_as_many_parameters_as_the_paper_says():
  """Section 2: 26.2 M at 1024x1024."""
  rngs, z = {"params": KEY, "noise": KEY}, jnp.zeros((1, 512))
  net = generator(Synthesis())
  shapes = jax.eval_shape(lambda: net.init(rngs, z, None, train=True))
  assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == 26_212_019
  assert net.num_ws == 18


def test_synthesis_is_what_the_figure_shows():
  """Figure 1b at 8x8, in NumPy."""
  with jax.enable_x64(True):
    net = Synthesis(8, channels=2, **SMALL)
    ws = np.random.default_rng(0).standard_normal((3, 4, 5))
    params = random_params(net, 1, ws)
    for i in range(4):
      params[f"style_{i}"]["noise"]["strength"][:] = 0
    images = jax.jit(net.apply)({"params": params}, ws, rngs={"noise": KEY})
  assert net.num_ws == 4
  x = styled(np.repeat(params["const"], 3, axis=0), params["style_0"], ws[:, 0])
  x = styled(conv(x, params["conv_1"]), params["style_1"], ws[:, 1])
  x = blurred(conv(x.repeat(2, 1).repeat(2, 2), params["conv_2"]))
  x = styled(x, params["style_2"], ws[:, 2])
  x = styled(conv(x, params["conv_3"]), params["style_3"], ws[:, 3])
  np.testing.assert_allclose(images, conv(x, params["to_rgb"], 1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("blurs", [True, False])
def test_discriminator_in_numpy(blurs):
  with jax.enable_x64(True):
    net = Discriminator(8, num_classes=3, blurs=blurs, **SMALL)
    image = np.random.default_rng(0).standard_normal((4, 8, 8, 2))
    label = np.array([0, 2, 1, 2])
    params = random_params(net, 1, image, label, train=True)
    score = jax.jit(lambda p: net.apply({"params": p}, image, label, train=True))
    scores = score(params)
  x = lrelu(conv(image, params["from_rgb_8"]))
  x = lrelu(conv(x, params["conv_8_0"]))
  x = lrelu(conv(blurred(x) if blurs else x, params["conv_8_1"]))
  x = x.reshape(4, 4, 2, 4, 2, 4).mean((2, 4))
  deviation = np.sqrt(x.var(0) + 1e-8).mean()
  x = np.concatenate([x, np.full((4, 4, 4, 1), deviation)], axis=-1)
  x = lrelu(conv(x, params["conv_4"])).reshape(4, -1)
  x = dense(lrelu(dense(x, params["dense_0"], 2**0.5)), params["dense_1"])
  np.testing.assert_allclose(scores, x[np.arange(4), label], rtol=1e-6, atol=1e-8)
  with pytest.raises(ValueError, match="num_classes=3: expected labels"):
    net.apply({"params": params}, image, None, train=True)


def test_every_channel_gets_the_mean_and_deviation_of_its_style():
  x = 5.0 + 3.0 * jax.random.normal(KEY, (2, 6, 6, 3))
  scale = jnp.array([[1.0, -2.0, 0.5], [3.0, 1.0, 0.0]])
  shift = jnp.array([[0.0, 1.0, -1.0], [2.0, 0.0, 4.0]])
  normalise = jax.jit(adaptive_instance_norm)
  y = jax.device_get(normalise(x, scale, shift))
  np.testing.assert_allclose(y.mean((1, 2)), shift, atol=1e-4)
  np.testing.assert_allclose(y.std((1, 2)), np.abs(scale), atol=1e-4)
  again = normalise(100.0 * x + 7.0, scale, shift)
  np.testing.assert_allclose(again, y, atol=1e-3)


class Bowl(nn.Module):
  """Discriminator |x|^2 / 4, of slope |x| / 2."""

  @nn.compact
  def __call__(self, x, label, train):
    return self.param("v", lambda _: jnp.full((), 0.25)) * (x**2).sum((1, 2, 3))


def make(truncation_psi=1.0):
  synthesis = Synthesis(8, channels=1, **SMALL)
  net = generator(synthesis, w_dim=4, num_layers=2, truncation_psi=truncation_psi)
  return stylegan(
    *(net, Bowl()),
    gen_tx=optax.adam(1e-3, b1=0.0),
    disc_tx=optax.sgd(0.0),
    latent_dim=4,
    r1_gamma=3.0,
    ema_decay=0.5,
  )


@functools.cache
def trained():
  """(method, its state after 2 steps, metrics of the last)."""
  method = make()
  state, step = jax.jit(method.init)(KEY, BATCH), jax.jit(method.train_step)
  for i in range(2):
    state, metrics = step(state, BATCH, jax.random.fold_in(KEY, i))
  return method, state, metrics


def test_penalty_is_half_of_gamma_times_the_squared_slope():
  metrics = trained()[2]
  squared = (np.asarray(BATCH["image"]) ** 2).sum((1, 2, 3)) / 4  # of real images
  np.testing.assert_allclose(metrics["penalty"], 3.0 / 2 * squared.mean(), rtol=1e-5)
  assert {"disc_loss", "gen_loss", "disc_accuracy_real"} <= set(metrics)
  assert {"truncation", "mixing", "invert"} <= set(trained()[0].tools)


def test_averages_of_w_move_in_both_sets_of_untrained_variables():
  state = trained()[1]
  for name in ("gen", "averaged_gen"):
    assert float(jnp.abs(state.stats[name]["w_average"]["value"]).min()) > 0
  a, b = (state.stats[n]["w_average"]["value"] for n in ("gen", "averaged_gen"))
  assert float(jnp.abs(a - b).max()) > 0


def test_psi_of_zero_draws_one_image_but_for_the_noise():
  plain, state, _ = trained()
  state = averaged(state)
  still = jax.tree_util.tree_map_with_path(
    lambda path, x: 0 * x if "strength" in jax.tree_util.keystr(path) else x,
    state.params["gen"],
  )
  state = state.replace(params={**state.params, "gen": still})
  images = jax.jit(make(truncation_psi=0.0).sample)(state, BATCH, KEY)["samples"]
  np.testing.assert_allclose(images, np.repeat(images[:1], 4, axis=0), atol=1e-5)
  others = jax.jit(plain.sample)(state, BATCH, KEY)["samples"]
  assert np.abs(np.diff(others, axis=0)).max() > 0.01
