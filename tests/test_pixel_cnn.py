"""PixelCNN: what sees what, sums over all images, drawing from what is known."""

import functools

from causality import check_causal, check_sums_to_one, far_from_zero
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.autoregressive import pixels
from jaxgen.autoregressive.pixel_cnn import Network, pixel_cnn
from jaxgen.losses import categorical
from jaxgen.nn.causal_conv import group_mask

KEY = jax.random.key(0)
KINDS = {
  "grey": (pixels.binary(), dict(channels=1, num_outputs=1)),
  "colour": (pixels.levels(3, 2), dict(channels=3, num_outputs=2, num_classes=3)),
}
both = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def made(kind):
  """(method, network, state, batch)."""
  family, shape = KINDS[kind]
  has_label = "num_classes" in shape
  # Wide enough for colours that not all units of a group are dead.
  width, scale = (36, 0.3) if has_label else (12, 0.5)
  net = Network(width=width, num_layers=3, first_size=5, size=3, head_width=48, **shape)
  method = pixel_cnn(net, tx=optax.adam(1e-2), pixels=family, is_conditional=has_label)
  batch = {"image": jnp.zeros((6, 4, 4, net.channels))}
  if has_label:
    batch["label"] = jnp.arange(6) % 3
  return method, net, far_from_zero(method, batch, scale), batch


@both
def test_a_value_depends_on_all_values_before_it_and_no_other(kind):
  _, net, state, batch = made(kind)
  label = batch["label"][:1] if "label" in batch else None

  def predict(x):
    out = net.apply(
      {"params": state.params["net"]}, x.reshape(1, 4, 4, net.channels), label
    )
    return out.reshape(len(x), -1)

  x = jax.random.uniform(KEY, (16 * net.channels, 1), minval=-1.0)
  check_causal(predict, x)


@both
def test_probabilities_of_all_images_sum_to_one(kind):
  method, _, state, _ = made(kind)
  shape = (2, 2, 1) if kind == "grey" else (2, 1, 3)

  def log_prob(x):
    image = 2.0 * x.reshape(-1, *shape) - 1.0
    known = {"image": image, "label": jnp.full(len(x), 1)}
    return jax.jit(method.tools["log_prob"])(state, known, KEY)["log_prob"]

  check_sums_to_one(log_prob, 2, np.prod(shape))


def test_frequencies_of_samples_are_probabilities():
  method, _, state, _ = made("grey")
  batch = {"image": jnp.zeros((8192, 2, 2, 1))}
  drawn = np.asarray(jax.jit(method.sample)(state, batch, KEY)["samples"])
  index = (drawn.reshape(-1, 4) > 0) @ 2 ** np.arange(4)
  images = 2.0 * ((np.arange(16)[:, None] >> np.arange(4)) & 1) - 1.0
  every = {"image": jnp.asarray(images, jnp.float32).reshape(16, 2, 2, 1)}
  p = np.exp(jax.jit(method.tools["log_prob"])(state, every, KEY)["log_prob"])
  found = np.bincount(index, minlength=16) / 8192
  np.testing.assert_allclose(found, p, atol=4 * 0.5 / np.sqrt(8192))
  assert p.max() < 0.95


@both
def test_the_cache_changes_no_sample(kind):
  method, _, state, batch = made(kind)
  fast = jax.jit(method.sample)(state, batch, KEY)["samples"]
  slow = jax.jit(method.tools["sample_uncached"])(state, batch, KEY)["samples"]
  np.testing.assert_array_equal(fast, slow)
  assert set(np.unique(fast)) == {-1.0, 1.0}
  if kind == "grey":
    return
  done = jax.jit(method.tools["complete"])(state, {**batch, "image": fast}, KEY)
  done = done["completions"]
  np.testing.assert_array_equal(done[:, 0], fast)
  np.testing.assert_array_equal(done[:, 1, :2], fast[:, :2])
  assert np.any(done[:, 1, 2:] != fast[:, 2:])


def test_labels_change_the_distribution():
  method, _, state, batch = made("colour")
  values = jax.jit(method.tools["log_prob"])(state, batch, KEY)["log_prob"]
  np.testing.assert_allclose(values[:3], values[3:], rtol=1e-6)
  assert len(np.unique(np.round(values[:3], 4))) == 3


def test_a_uniform_network_costs_the_bits_of_its_levels():
  method, _, state, batch = made("colour")
  head = jax.tree.map(jnp.zeros_like, state.params["net"]["head"])
  flat = state.replace(params={"net": {**state.params["net"], "head": head}})
  found = jax.jit(method.eval_step)(flat, batch, KEY)
  np.testing.assert_allclose(found["bits_per_dim"], 1.0, rtol=1e-6)
  np.testing.assert_allclose(found["nll"], 48 * np.log(2), rtol=1e-6)


def test_draws_by_one_uniform_number_invert_the_distribution_function():
  rng = np.random.default_rng(0)
  for num in (1, 2, 7, 256):
    logits = rng.standard_normal((64, num)).astype(np.float32) * 2
    u = rng.random(64).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    below = np.cumsum(p / p.sum(1, keepdims=True), axis=1)
    expected = np.minimum((below <= u[:, None]).sum(1), num - 1)
    np.testing.assert_array_equal(jax.jit(categorical.quantile)(logits, u), expected)
  edge = jnp.array([[0.0, -jnp.inf]])
  last = jnp.nextafter(jnp.ones(1), jnp.zeros(1))
  assert categorical.quantile(edge, last)[0] == 0


@pytest.mark.parametrize("name", ["train_step", "sample"])
def test_programs_do_not_grow_with_the_depth(name):
  def length(num_layers):
    net = Network(1, 1, 4, num_layers, first_size=3, head_width=4)
    method = pixel_cnn(net, tx=optax.sgd(1.0), pixels=pixels.binary())
    batch = {"image": jnp.zeros((2, 4, 4, 1))}
    state = jax.eval_shape(method.init, KEY, batch)
    lowered = jax.jit(getattr(method, name)).lower(state, batch, KEY)
    return lowered.as_text().count("\n")

  assert length(3) == length(6)


def test_masks_and_sizes_that_do_not_fit_are_refused():
  np.testing.assert_array_equal(
    group_mask(3, 6, 3, strict=True),
    [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]],
  )
  with pytest.raises(ValueError, match="3 and 4 channels: expected multiples of 3"):
    group_mask(3, 4, 3, strict=False)
  with pytest.raises(ValueError, match="size=4"):
    Network(1, 1, 8, 2, size=4).init(KEY, jnp.zeros((1, 4, 4, 1)), None)
