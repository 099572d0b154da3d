"""VQ-VAE-2: its parity with PyTorch, its two levels, what conditions what."""

from flax import linen as nn
from golden import vq_vae_inputs as inputs
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vq_parity import DECODER, ENCODER, KEY, check_parity, coder_names, golden

from jaxgen.method import create_state
from jaxgen.nn.vector_quantizer import STATISTICS, VectorQuantizer
from jaxgen.vae import quantized
from jaxgen.vae.vq_vae_2 import Network, vq_vae_2

SHORT = {"Conv_0": 0, "Conv_1": 2}  # An encoder of one halving, and its decoder.


def test_equals_pytorch():
  """VQVAE of rosinality/vq-vae-2-pytorch: outputs, codes, gradients, averages."""
  names = {
    "to_top": "quantize_conv_t",
    "to_bottom": "quantize_conv_b",
    "upsample_top": "upsample_t",
    **coder_names("bottom_encoder", "enc_b", ENCODER, 5),
    **coder_names("top_encoder", "enc_t", SHORT, 3),
    **coder_names("top_decoder", "dec_t", {"Conv_0": 0, "ConvTranspose_0": 4}, 1),
    **coder_names("decoder", "dec", DECODER, 1),
  }
  book = lambda: VectorQuantizer(
    inputs.CODES, inputs.DIM, decay=inputs.DECAY, dead_below=0.0
  )
  strided = (inputs.WIDTH // 2, inputs.WIDTH)
  sizes = (strided, inputs.WIDTH, inputs.INSIDE, inputs.BLOCKS)
  net = Network(book(), book(), inputs.CHANNELS, *sizes)
  n = inputs.BATCH * (inputs.SIDE // 4) ** 2
  check_parity(net, names, {"top": (0, n // 4), "bottom": (1, n)}, "two")


def test_parameters_at_full_size():
  """Those of the reference's default configuration, code books not counted."""
  net = Network(VectorQuantizer(512, 64), VectorQuantizer(512, 64), 3)
  init = lambda: net.init(KEY, jnp.zeros((1, 256, 256, 3)), False)
  variables = jax.eval_shape(init)
  count = sum(x.size for x in jax.tree.leaves(variables["params"]))
  assert count == int(golden()["two/parameters"]) == 1_388_867
  encode = lambda variables: net.apply(
    variables, jnp.zeros((1, 256, 256, 3)), method="encode"
  )
  codes = jax.eval_shape(encode, variables)
  assert codes["top"].shape == (1, 32, 32)  # Section 3.1.
  assert codes["bottom"].shape == (1, 64, 64)


NET = Network(VectorQuantizer(8, 4), VectorQuantizer(6, 4), 1, (4,), 4, 4, 1)


@pytest.fixture(scope="module")
def method():
  """(compiled method, state, batch); books of the encoders' outputs."""
  method = vq_vae_2(NET, tx=optax.sgd(0.1))
  batch = {"image": jax.random.uniform(KEY, (5, 8, 8, 1), minval=-1, maxval=1)}
  state = jax.jit(method.init)(KEY, batch)
  stats = state.stats["net"][STATISTICS]

  @jax.jit
  def vectors(stats):
    def outputs(m):
      features = m.bottom_encoder(batch["image"])
      z = m.to_top(m.top_encoder(features))
      given = m.top_decoder(m.top(z, False).vectors)
      return z, m.to_bottom(jnp.concatenate([given, features], axis=-1))

    variables = {"params": state.params["net"], STATISTICS: stats}
    return NET.apply(variables, method=outputs)

  for i, (name, num) in enumerate((("top", 8), ("bottom", 6))):
    rows = vectors(stats)[i].reshape(-1, 4)
    e = rows[:: len(rows) // num][:num]
    usage = jnp.arange(1.0, num + 1)
    usage = usage / usage.sum()
    book = {**stats[name], "usage": usage, "sums": e * usage[:, None]}
    stats = {**stats, name: book}
  fns = {k: jax.jit(getattr(method, k)) for k in ("train_step", "eval_step", "sample")}
  tools = {name: jax.jit(tool) for name, tool in method.tools.items()}
  state = state.replace(stats={"net": {STATISTICS: stats}})
  return method._replace(**fns, tools=tools), state, batch


DECODE = jax.jit(
  lambda state, codes: quantized.decode_codes(
    NET, quantized.SQUARED_ERROR, state, codes
  )
)


def test_codes_decode_to_the_reconstruction(method):
  method, state, batch = method
  codes = jax.jit(method.tools["encode"])(state, batch, KEY)
  assert {k: v.shape for k, v in codes.items()} == {
    "top": (5, 2, 2),
    "bottom": (5, 4, 4),
  }
  assert all(len(np.unique(c)) > 2 for c in codes.values())
  images = DECODE(state, codes)
  found = jax.jit(method.tools["reconstruct"])(state, batch, KEY)
  np.testing.assert_allclose(found["reconstructions"], images, atol=1e-6)
  np.testing.assert_array_equal(found["observed"], batch["image"])
  outputs = jax.jit(lambda v: NET.apply(v, batch["image"], False)[0])
  outputs = outputs(quantized.variables(state)).clip(-1, 1)
  np.testing.assert_allclose(outputs, images, atol=1e-6)
  for name, num in (("top", 8), ("bottom", 6)):  # Both levels count.
    other = DECODE(state, {**codes, name: (codes[name] + 1) % num})
    assert np.abs(other - images).max() > 1e-3
  tool = method.tools["decode_codes"]
  drawn = {"top": codes["top"], "bottom": (codes["bottom"] + 1) % 6}
  np.testing.assert_allclose(tool(state, drawn, KEY)["images"], other, atol=1e-6)
  samples = jax.jit(method.sample)(state, batch, KEY)["samples"]
  drawn = quantized.draw_codes(NET, state, batch["image"], KEY)
  np.testing.assert_allclose(samples, DECODE(state, drawn), atol=1e-6)


class Levels(nn.Module):
  """Two levels of eight codes, all as frequent."""

  @nn.nowrap
  def encode(self, x):
    codes = lambda *shape: jnp.zeros((len(x), *shape), jnp.int32)
    return {"top": codes(2, 2), "bottom": codes(4, 4)}

  @nn.nowrap
  def frequencies(self):
    return {"top": jnp.full(8, 1 / 8), "bottom": jnp.full(8, 1 / 8)}


def test_levels_are_drawn_with_keys_of_their_own():
  state = create_state({"net": {"params": {}}}, {})
  drawn = quantized.draw_codes(Levels(), state, jnp.zeros((50, 8, 8, 1)), KEY)
  first = drawn["bottom"].ravel()[:200]
  assert np.mean(drawn["top"].ravel() == first) < 0.25


def test_bottom_codes_are_encoded_given_the_top_ones(method):
  """Algorithm 1: other top vectors give other bottom codes, and never the reverse."""
  _, state, batch = method

  @jax.jit
  def encode(scales):
    stats = state.stats["net"][STATISTICS]
    stats = {k: {**v, "sums": scales[k] * v["sums"]} for k, v in stats.items()}
    variables = {"params": state.params["net"], STATISTICS: stats}
    return NET.apply(variables, batch["image"], False)[1]

  before = encode({"top": 1.0, "bottom": 1.0})
  top, bottom = (
    encode({"top": -3.0, "bottom": 1.0}),
    encode({"top": 1.0, "bottom": 9.0}),
  )
  assert np.any(before["bottom"].commitment != top["bottom"].commitment)
  np.testing.assert_array_equal(before["top"].codes, bottom["top"].codes)
  np.testing.assert_array_equal(before["top"].commitment, bottom["top"].commitment)


def test_loss_and_bound_sum_over_levels(method):
  method, state, batch = method
  _, metrics = jax.jit(method.train_step)(state, batch, KEY)
  latent = metrics["top_commitment"] + metrics["bottom_commitment"]
  expected = metrics["nats_per_dim"] + 0.25 * latent
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-6)
  nats = metrics["mse"] + np.log(np.pi) / 2  # No output lies outside of [-1, 1].
  np.testing.assert_allclose(metrics["nats_per_dim"], nats, rtol=1e-5)
  found = jax.jit(method.eval_step)(state, batch, KEY)
  kl = 4 * np.log(8) + 16 * np.log(6)
  np.testing.assert_allclose(found["elbo"], found["reconstruction"] - kl, rtol=1e-6)
  codes = jax.jit(method.tools["encode"])(state, batch, KEY)
  for name, num in (("top", 8), ("bottom", 6)):
    log_frequency = np.log(np.arange(1, num + 1) / (num * (num + 1) / 2))
    by_image = -log_frequency[np.asarray(codes[name])].mean((1, 2))
    np.testing.assert_allclose(found[f"{name}_nats"], by_image, rtol=1e-5)


def test_a_step_moves_both_books(method):
  """And the reconstruction's gradient passes both, to either encoder."""
  method, state, batch = method
  after, _ = jax.jit(method.train_step)(state, batch, KEY)
  for name in ("top", "bottom"):
    stats = (s.stats["net"][STATISTICS][name] for s in (state, after))
    before, moved = stats
    codes = np.asarray(jax.jit(method.tools["encode"])(state, batch, KEY)[name])
    num = len(before["usage"])
    shares = np.bincount(codes.ravel(), minlength=num) / codes.size
    expected = 0.99 * before["usage"] + 0.01 * shares
    np.testing.assert_allclose(moved["usage"], expected, rtol=1e-5)

  @jax.jit
  def gradient(params):
    def error(params):
      variables = {**quantized.variables(state), "params": params}
      return jnp.mean(NET.apply(variables, batch["image"], False)[0] ** 2)

    return jax.grad(error)(params)

  for part, grads in gradient(state.params["net"]).items():
    assert any(np.any(g) for g in jax.tree.leaves(grads)), part


def test_books_of_two_lengths_are_an_error():
  net = Network(VectorQuantizer(8, 4), VectorQuantizer(8, 5), 1, (4,), 4, 4, 1)
  with pytest.raises(ValueError, match=r"dim 4 \(top\) and 5 \(bottom\)"):
    net.init(KEY, jnp.zeros((1, 8, 8, 1)), False)
