"""Vector quantisation by hand and against references; the VQ-VAE around it."""

from golden import vq_vae_inputs as inputs
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vq_parity import DECODER, ENCODER, check_parity, coder_names, golden

from jaxgen import parallel
from jaxgen.method import TrainState
from jaxgen.nn.strided_residual import Encoder
from jaxgen.nn.vector_quantizer import (
  STATISTICS,
  VectorQuantizer,
  nearest,
  perplexity,
  straight_through,
)
from jaxgen.vae import quantized
from jaxgen.vae.likelihoods import logistic_pixels
from jaxgen.vae.vq_vae import Network, vq_vae

KEY = jax.random.key(3)


# --- the quantiser ------------------------------------------------------------------


def test_nearest_by_hand():
  embeddings = jnp.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
  z = jnp.array([[[0.9, 0.1], [1.1, 0.1]], [[0.4, 1.3], [5.0, -9.0]]])
  codes = nearest(z, embeddings)
  assert codes.dtype == jnp.int32
  # The second and the fourth embedding are one: the lower index counts.
  np.testing.assert_array_equal(codes, [[0, 1], [2, 1]])
  rng = np.random.default_rng(0)
  z, embeddings = rng.standard_normal((50, 3)), rng.standard_normal((9, 3))
  far = np.linalg.norm(z[:, None] - embeddings[None], axis=-1)
  np.testing.assert_array_equal(nearest(z, embeddings), far.argmin(axis=1))
  np.testing.assert_array_equal(nearest(embeddings, embeddings), np.arange(9))


def test_perplexity_counts_codes():
  shares = jnp.array([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])
  np.testing.assert_allclose(perplexity(shares), [4.0, 1.0, 2.0], rtol=1e-6)


def test_straight_through_is_the_vector_forwards_and_the_identity_backwards():
  z, v, w = jax.random.normal(KEY, (3, 5, 4))
  value, pull_back = jax.vjp(straight_through, z, v)
  np.testing.assert_array_equal(value, v)
  to_z, to_v = pull_back(w)
  np.testing.assert_array_equal(to_z, w)
  np.testing.assert_array_equal(to_v, np.zeros_like(v))


def quantizer(num_codes=6, dim=3, **settings):
  """A quantiser and its variables with random usage."""
  book = VectorQuantizer(num_codes, dim, **settings)
  variables = book.init(KEY, jnp.zeros((1, dim)), False)
  usage = jax.random.uniform(KEY, (num_codes,), minval=0.5) / num_codes
  stats = {**variables[STATISTICS], "usage": usage}
  return book, {**variables, STATISTICS: stats}


def call(book, variables, z, key=KEY):
  """(Quantized, variables afterwards) of a call in training."""
  q, changed = book.apply(
    variables, z, True, mutable=[STATISTICS], rngs={STATISTICS: key}
  )
  return q, {**variables, **changed}


@pytest.mark.parametrize("learned", [True, False])
def test_gradients_reach_what_they_must(learned):
  """Eq. 3: means over D of squares; each term moves embeddings or z, never both."""
  book, variables = quantizer(learned=learned)
  z = jax.random.normal(KEY, (2, 7, 3))
  params = variables.get("params", {})
  e = book.apply(variables, method="codebook")
  codes = np.asarray(nearest(z, e))

  def gradient(of):
    term = lambda params, z: of(book.apply({**variables, "params": params}, z, False))
    return jax.grad(term, argnums=(0, 1))(params, z)

  difference = np.asarray(z) - np.asarray(e)[codes]
  to_book, to_z = gradient(lambda q: q.commitment.sum())
  np.testing.assert_allclose(to_z, 2 * difference / 3, rtol=1e-5)
  assert not any(np.any(g) for g in jax.tree.leaves(to_book))
  to_book, to_z = gradient(lambda q: q.codebook_loss.sum())
  assert not np.any(to_z)
  if learned:
    by_hand = np.zeros((6, 3))
    np.add.at(by_hand, codes, -2 * difference / 3)
    np.testing.assert_allclose(to_book["embeddings"], by_hand, rtol=1e-5, atol=1e-6)
  else:
    assert not to_book
  w = jax.random.normal(jax.random.key(9), z.shape)
  to_book, to_z = gradient(lambda q: (w * q.vectors).sum())
  np.testing.assert_array_equal(to_z, w)
  assert not any(np.any(g) for g in jax.tree.leaves(to_book))
  q = book.apply(variables, z, False)
  np.testing.assert_array_equal(q.vectors, e[codes])
  np.testing.assert_allclose(q.commitment, (difference**2).mean(-1), rtol=1e-5)
  np.testing.assert_allclose(q.shares, np.bincount(codes.ravel(), minlength=6) / 14)


def test_moving_averages_are_the_recursion_by_hand():
  """Appendix A.1 in counts: N and m, Laplace smoothing, e = m / N."""
  decay, n, epsilon = 0.7, 10, 0.3
  book, variables = quantizer(decay=decay, epsilon=epsilon / n, dead_below=0.0)
  stats = variables[STATISTICS]
  size, sums = n * np.asarray(stats["usage"]), n * np.asarray(stats["sums"])
  for i in range(3):
    total = size.sum()
    smooth = (size + epsilon) / (total + 6 * epsilon) * total
    e = sums / smooth[:, None]
    np.testing.assert_allclose(book.apply(variables, method="codebook"), e, rtol=1e-5)
    z = np.random.default_rng(i).standard_normal((2, 5, 3)).astype(np.float32)
    q, variables = call(book, variables, z)
    codes = ((z[..., None, :] - e) ** 2).sum(-1).argmin(-1)
    np.testing.assert_array_equal(q.codes, codes)
    np.testing.assert_array_equal(q.vectors.shape, z.shape)
    one_hot = np.eye(6)[codes.ravel()]
    size = decay * size + (1 - decay) * one_hot.sum(0)
    sums = decay * sums + (1 - decay) * one_hot.T @ z.reshape(-1, 3)
  frequencies = book.apply(variables, method="frequencies")
  expected = (size + epsilon) / (size + epsilon).sum()
  np.testing.assert_allclose(frequencies, expected, rtol=1e-5)


@pytest.mark.parametrize("learned", [True, False])
def test_restarts_replace_dead_codes_and_only_those(learned):
  settings = dict(learned=learned, dead_below=0.1, restart_probability=1.0, decay=0.9)
  book, variables = quantizer(**settings)
  stats = variables[STATISTICS]
  usage = jnp.array([0.02, 0.3, 0.2, 0.01, 0.28, 0.2])  # Dead below 0.1 / 6.
  e = 5 + jax.random.normal(KEY, (6, 3))
  if learned:
    stats = {**stats, "shift": e - variables["params"]["embeddings"]}
  else:
    stats = {**stats, "sums": e * usage[:, None]}
  variables = {**variables, STATISTICS: {**stats, "usage": usage}}
  # All are nearest to one code; those of 0.02 and 0.01 lose 0.1 of their usage.
  z = e[1].reshape(1, 1, 3) + 0.01 * jax.random.normal(KEY, (4, 4, 3))
  _, after = call(book, variables, z)
  claims = after[STATISTICS]["claims"]
  np.testing.assert_array_equal(claims, [0, 0, 0, 1, 0, 0])
  book_then = np.asarray(book.apply(after, method="codebook"))
  _, end = call(book, after, z, jax.random.key(1))
  codebook = np.asarray(book.apply(end, method="codebook"))
  drawn = after[STATISTICS]["claimed"][3]
  assert any(np.array_equal(drawn, row) for row in np.asarray(z).reshape(-1, 3))
  np.testing.assert_allclose(codebook[3], drawn, rtol=0.01 if learned else 0.02)
  assert np.abs(book_then[3] - np.asarray(e)[3]).max() < 1e-5  # Until then as it was.
  others = np.array([0, 2, 4, 5])
  np.testing.assert_allclose(codebook[others], e[others], rtol=1e-5)
  # The restarted one starts at the mean usage: it is not claimed again.
  assert end[STATISTICS]["usage"][3] >= 0.9 / 6
  assert end[STATISTICS]["claims"][3] == 0
  # Claims that devices averaged: half of a claim, by one of two, is its draw all the
  # same; two claims of one code are the mean of both.
  shared = {"claims": jnp.array([0.5, 0, 1, 0, 0, 0])}
  shared["claimed"] = jnp.zeros((6, 3)).at[0].set(z[0, 0] / 2)
  shared["claimed"] = shared["claimed"].at[2].set((z[1, 1] + z[2, 2]) / 2)
  joint = {**variables, STATISTICS: {**variables[STATISTICS], **shared}}
  codebook = book.apply(
    joint, mutable=[STATISTICS], method=lambda m: (m._restart(), m.codebook())[1]
  )[0]
  np.testing.assert_allclose(codebook[0], z[0, 0], rtol=1e-5)
  np.testing.assert_allclose(codebook[2], (z[1, 1] + z[2, 2]) / 2, rtol=1e-5)
  np.testing.assert_allclose(codebook[3], e[3], rtol=1e-5)


def test_claims_have_their_probability_and_rows_are_drawn_from_all():
  book, variables = quantizer(400, restart_probability=0.25, dead_below=2.0)
  z = jnp.arange(24.0).reshape(8, 3)
  stats = call(book, variables, z)[1][STATISTICS]
  claims = np.asarray(stats["claims"]) > 0
  assert 0.18 < claims.mean() < 0.32
  rows = np.asarray(stats["claimed"])[claims]
  assert set(rows[:, 0]) == set(range(0, 24, 3))
  assert not np.any(np.asarray(stats["claimed"])[~claims])
  again = call(book, variables, z)[1][STATISTICS]
  np.testing.assert_array_equal(again["claimed"], stats["claimed"])
  other = call(book, variables, z, jax.random.key(4))[1][STATISTICS]
  assert not np.array_equal(other["claims"], stats["claims"])


def test_restarts_are_the_same_on_devices_and_replicas():
  """One device and two of jit restart alike; replicas of pmap are one another's."""
  settings = dict(dead_below=0.9, decay=0.5, learned=False)
  z = np.random.default_rng(0).standard_normal((16, 3)).astype(np.float32)

  def steps(backend, probability):
    book, variables = quantizer(32, restart_probability=probability, **settings)

    def train_step(state, batch, key):
      stats = {STATISTICS: state.stats["net"]}
      _, changed = call(book, stats, batch["image"], key)
      return state.replace(stats={"net": changed[STATISTICS]}), {}

    state = TrainState(jnp.int32(0), {}, {}, {"net": variables[STATISTICS]}, {})
    step, state = backend.compile_train(train_step), backend.put_state(state)
    for _ in range(2):
      state, _ = step(state, backend.put_batch({"image": z}), KEY)
    return jax.device_get(state).stats["net"]

  one = steps(parallel.jit_backend(jax.devices()[:1]), 1.0)
  two = steps(parallel.jit_backend(jax.devices()[:2]), 1.0)
  assert one["claims"].sum() > 5
  for name, array in one.items():
    np.testing.assert_allclose(two[name], array, atol=1e-6)
  found = steps(parallel.pmap_backend(jax.devices()[:2]), 0.2)
  for array in found.values():
    np.testing.assert_array_equal(array[0], array[1])
  claims, claimed = found["claims"][0], found["claimed"][0]
  assert set(claims) <= {0.0, 0.5, 1.0} and np.sum(claims == 0.5) > 2
  for k in np.flatnonzero(claims == 0.5):  # One device's row, all of it.
    assert np.abs(z - claimed[k] / 0.5).max(axis=1).min() < 1e-6


# --- parity -------------------------------------------------------------------------


def test_equals_vector_quantize_pytorch():
  """float32: three calls with moving averages; gradients of a learned book."""
  calls, direction = inputs.vectors()
  found, n = golden(), calls[0][..., 0].size
  start = jnp.asarray(inputs.book(0), jnp.float32)
  shape = (inputs.CODES, inputs.DIM)
  book = VectorQuantizer(*shape, decay=inputs.DECAY, epsilon=1e-5 / n, dead_below=0.0)
  nothing = {"claims": jnp.zeros(shape[:1]), "claimed": jnp.zeros(shape)}
  stats = {"usage": jnp.full(shape[:1], 1 / n), "sums": start / n, **nothing}
  variables = {STATISTICS: stats}
  for i, z in enumerate(calls):
    q, variables = call(book, variables, z)
    np.testing.assert_array_equal(q.codes, found[f"ema/codes/{i}"])
    np.testing.assert_allclose(q.commitment.mean(), found[f"ema/loss/{i}"], rtol=2e-5)
  np.testing.assert_allclose(
    n * variables[STATISTICS]["usage"], found["ema/size"], rtol=1e-5
  )
  codebook = book.apply(variables, method="codebook")
  np.testing.assert_allclose(codebook, found["ema/book"], rtol=1e-4, atol=1e-5)

  book = VectorQuantizer(*shape, learned=True)
  variables = book.init(KEY, calls[0], False)

  def loss(e, z):
    q = book.apply({**variables, "params": {"embeddings": e}}, z, False)
    latent = quantized.latent_loss({"codes": q}, 1.0)
    return (q.vectors * direction).sum() + latent, latent

  grads, latent = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(start, calls[0])
  # Theirs is one term whose gradient reaches both sides: counted once there.
  np.testing.assert_allclose(latent, 2 * found["learned/loss"], rtol=1e-5)
  np.testing.assert_allclose(grads[0], found["learned/book_grad"], atol=1e-6)
  np.testing.assert_allclose(grads[1], found["learned/z_grad"], atol=1e-5)


def test_equals_pytorch():
  """Encoder, quantiser and decoder of rosinality/vq-vae-2-pytorch, one level."""
  names = {"to_codes": "to_codes"}
  names |= coder_names("encoder", "encoder", ENCODER, 5)
  names |= coder_names("decoder", "decoder", DECODER, 1)
  n = inputs.BATCH * (inputs.SIDE // 4) ** 2
  book = VectorQuantizer(inputs.CODES, inputs.DIM, decay=inputs.DECAY, dead_below=0.0)
  strided = (inputs.WIDTH // 2, inputs.WIDTH)
  net = Network(book, inputs.CHANNELS, strided, inputs.INSIDE, inputs.BLOCKS)
  check_parity(net, names, {"quantizer": (0, n)}, "one")


def test_parameters_at_the_size_of_the_authors_example():
  """662,723, and the book of 512 by 64 if it is learned."""
  image = jnp.zeros((1, 32, 32, 3))
  count = lambda net: sum(
    x.size
    for x in jax.tree.leaves(
      jax.eval_shape(lambda: net.init(KEY, image, False))["params"]
    )
  )
  expected = int(golden()["one/parameters"])
  assert count(Network(VectorQuantizer(512, 64), 3)) == expected == 662_723
  assert count(Network(VectorQuantizer(512, 64, True), 3)) == expected + 512 * 64


# --- the method ---------------------------------------------------------------------

BOOK = VectorQuantizer(8, 4, learned=True)
NET = Network(BOOK, 1, (4, 4), residual_width=4, num_blocks=1, num_maps=3)
FORWARD = jax.jit(lambda variables, image: NET.apply(variables, image, False))
DECODE = jax.jit(
  lambda state, codes: quantized.decode_codes(
    NET, quantized.SQUARED_ERROR, state, {"codes": codes}
  )
)


@pytest.fixture(scope="module")
def method():
  """(compiled method, state, batch); a book of encoder outputs, unevenly used."""
  method = vq_vae(NET, tx=optax.sgd(0.1))
  method = method._replace(
    train_step=jax.jit(method.train_step),
    eval_step=jax.jit(method.eval_step),
    sample=jax.jit(method.sample),
    tools={name: jax.jit(tool) for name, tool in method.tools.items()},
  )
  batch = {"image": jax.random.uniform(KEY, (5, 8, 8, 1), minval=-1, maxval=1)}
  state = jax.jit(method.init)(KEY, batch)
  usage = jnp.arange(1.0, 9.0) / 36
  stats = state.stats["net"][STATISTICS]["quantizer"]
  outputs = lambda m: m.to_codes(m.encoder(batch["image"]))
  z = jax.jit(lambda: NET.apply(quantized.variables(state), method=outputs))()
  shift = z.reshape(-1, 4)[:40:5] - state.params["net"]["quantizer"]["embeddings"]
  stats = {"quantizer": {**stats, "usage": usage, "shift": shift}}
  return method, state.replace(stats={"net": {STATISTICS: stats}}), batch


def test_codes_decode_to_the_reconstruction(method):
  method, state, batch = method
  codes = jax.jit(method.tools["encode"])(state, batch, KEY)["codes"]
  assert codes.shape == (5, 2, 2, 3) and codes.dtype == jnp.int32
  assert len(np.unique(codes)) > 2
  outputs, levels = FORWARD(quantized.variables(state), batch["image"])
  np.testing.assert_array_equal(levels["codes"].codes, codes)
  images = DECODE(state, codes)
  np.testing.assert_allclose(images, outputs.clip(-1, 1), atol=1e-6)
  found = jax.jit(method.tools["reconstruct"])(state, batch, KEY)
  np.testing.assert_array_equal(found["reconstructions"], images)
  np.testing.assert_array_equal(found["observed"], batch["image"])
  tool = method.tools["decode_codes"]
  np.testing.assert_allclose(tool(state, batch, KEY)["images"], images, atol=1e-6)
  other = DECODE(state, (codes + 1) % 8)
  drawn = {"codes": (codes + 1) % 8}  # As a second stage gives them.
  np.testing.assert_allclose(tool(state, drawn, KEY)["images"], other, atol=1e-6)
  assert np.abs(other - images).max() > 1e-3
  # One map: no fourth axis.
  one = Network(BOOK, 1, (4, 4), 4, 1)
  variables = jax.eval_shape(lambda: one.init(KEY, batch["image"], False))
  encode = lambda variables: one.apply(variables, batch["image"], method="encode")
  assert jax.eval_shape(encode, variables)["codes"].shape == (5, 2, 2)


def test_parts_of_the_loss_train_parts_of_the_network(method):
  """Section 3.2: decoder by the first term, book by the second, encoder by 1 and 3."""
  _, state, batch = method

  @jax.jit
  def pull_back(params):
    """Gradients of each term, by part of the network."""

    def terms(params):
      variables = {**quantized.variables(state), "params": params}
      outputs, levels = NET.apply(variables, batch["image"], False)
      q = levels["codes"]
      means = (outputs**2).mean(), q.codebook_loss.mean(), q.commitment.mean()
      return jnp.stack(means)

    return jax.jacrev(terms)(params)

  def trained(i):
    grads = jax.tree.map(lambda g: np.any(g[i]), pull_back(state.params["net"]))
    return {k for k, moved in grads.items() if jax.tree.reduce(np.logical_or, moved)}

  encoder = {"encoder", "to_codes"}
  assert trained(0) == encoder | {"decoder"}
  assert trained(1) == {"quantizer"}
  assert trained(2) == encoder


def test_loss_and_metrics_by_hand(method):
  method, state, batch = method
  _, metrics = jax.jit(method.train_step)(state, batch, KEY)
  outputs, levels = FORWARD(quantized.variables(state), batch["image"])
  q, image = levels["codes"], np.asarray(batch["image"])
  mse = np.mean((np.clip(outputs, -1, 1) - image) ** 2)
  np.testing.assert_allclose(metrics["mse"], mse, rtol=1e-5)
  nats = np.mean((outputs - image) ** 2) + np.log(np.pi) / 2
  np.testing.assert_allclose(metrics["nats_per_dim"], nats, rtol=1e-5)
  expected = nats + 1.25 * q.commitment.mean()  # The second term has the same value.
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
  counts = np.bincount(np.ravel(q.codes), minlength=8) / q.codes.size
  entropy = -sum(p * np.log(p) for p in counts if p > 0)
  np.testing.assert_allclose(metrics["codes_perplexity"], np.exp(entropy), rtol=1e-5)

  found = jax.jit(method.eval_step)(state, batch, KEY)
  per_image = ((np.clip(outputs, -1, 1) - image) ** 2).mean((1, 2, 3))
  np.testing.assert_allclose(found["mse"], per_image, rtol=1e-5)
  log_p = -((outputs - image) ** 2).sum((1, 2, 3)) - 64 * np.log(np.pi) / 2
  np.testing.assert_allclose(found["reconstruction"], log_p, rtol=1e-5)
  np.testing.assert_allclose(found["elbo"], log_p - 12 * np.log(8), rtol=1e-5)
  frequency = np.arange(1.0, 9.0) / 36
  by_image = -np.log(frequency)[np.asarray(q.codes)].mean((1, 2, 3))
  np.testing.assert_allclose(found["codes_nats"], by_image, rtol=1e-5)


def test_samples_are_drawn_by_frequency_position_by_position(method):
  method, state, batch = method
  many = {"image": jnp.zeros((2000, 8, 8, 1))}
  draw = jax.jit(lambda key: quantized.draw_codes(NET, state, many["image"], key))
  codes = np.asarray(draw(KEY)["codes"])
  assert codes.shape == (2000, 2, 2, 3)
  shares = np.bincount(codes.ravel(), minlength=8) / codes.size
  np.testing.assert_allclose(shares, np.arange(1.0, 9.0) / 36, atol=0.012)
  centred = codes.reshape(2000, -1) - codes.mean()
  correlation = np.corrcoef(centred.T) - np.eye(12)
  assert np.abs(correlation).max() < 0.1
  samples = jax.jit(method.sample)(state, batch, KEY)["samples"]
  codes = quantized.draw_codes(NET, state, batch["image"], KEY)["codes"]
  np.testing.assert_allclose(samples, DECODE(state, codes), atol=1e-6)


def test_restarts_keep_a_book_in_use():
  """Data of eight kinds, a book of which one code is near: the others move in."""
  z = 10 * jax.random.normal(KEY, (8, 4)) + 100
  z = z[jnp.arange(64) % 8]

  def used(**settings):
    book = VectorQuantizer(8, 4, decay=0.8, restart_probability=0.25, **settings)
    variables = book.init(KEY, z, False)

    @jax.jit
    def run(variables):
      def one(variables, key):
        q, variables = call(book, variables, z, key)
        return variables, perplexity(q.shares)

      return jax.lax.scan(one, variables, jax.random.split(KEY, 300))[1]

    return run(variables)[-1]

  assert used(dead_below=0.0) == 1.0
  assert used(dead_below=0.01) > 6.5


def test_likelihoods_and_sizes():
  likelihood = logistic_pixels()
  net = Network(BOOK, 1, (4,), 4, 1, num_outputs=likelihood.num_outputs)
  method = vq_vae(net, tx=optax.sgd(0.1), likelihood=likelihood)
  batch = {"image": jnp.zeros((2, 4, 4, 1)) - 1}
  state = jax.jit(method.init)(KEY, batch)
  draw = lambda: method.sample(state, batch, KEY)["samples"]
  assert jax.eval_shape(draw).shape == (2, 4, 4, 1)
  found = jax.jit(method.eval_step)(state, batch, KEY)
  # At most 0: probabilities of levels, not densities.
  assert np.all(found["reconstruction"] < 0) and np.all(found["elbo"] < -4 * np.log(8))
  with pytest.raises(ValueError, match=r"\(1, 6, 8, 3\).*that 4 divides"):
    jax.eval_shape(lambda: Encoder((2, 2), 2, 2).init(KEY, jnp.zeros((1, 6, 8, 3))))
