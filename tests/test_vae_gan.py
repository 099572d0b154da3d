"""VAE/GAN: Algorithm 1 by hand, which loss reaches which network, sizes."""

import importlib.util
import itertools
from pathlib import Path

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.losses import gaussian
from jaxgen.losses.adversarial import minimax, non_saturating
from jaxgen.vae.players import interleave, separate
from jaxgen.vae.vae_gan import (
  accuracies,
  attribute_shift,
  feature_error,
  gan_loss,
  vae_gan,
)
from jaxgen.vae.vae_gan_networks import Decoder, Discriminator, Encoder

KEY = jax.random.key(3)
EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments" / "vae"
GAMMA = 0.3
NETWORKS = ("encoder", "decoder", "disc")


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


# --- the parts ------------------------------------------------------------------------


def test_feature_error_is_a_likelihood_less_its_constant():
  rng = np.random.default_rng(0)
  a, b = rng.standard_normal((2, 4, 7)).astype(np.float32)
  exact = -gaussian.log_prob(a, b, jnp.zeros_like(b)) - 3.5 * np.log(2 * np.pi)
  np.testing.assert_allclose(feature_error(a, b), exact, rtol=1e-5)


def test_gan_loss_has_three_terms_of_one_weight():
  zeros = jnp.zeros(4)
  np.testing.assert_allclose(gan_loss(zeros, zeros, zeros), 3 * np.log(2), rtol=1e-6)
  # On three places of a discrete world the optimum is Dis = p / (p + q + r).
  p, q, r = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.1, 0.7, 0.2]])
  draws = lambda share: np.repeat(np.arange(3), np.round(10 * share).astype(int))
  loss = lambda score: gan_loss(*(score[draws(share)] for share in (p, q, r)))
  best = jnp.log(jnp.asarray(p / (q + r), jnp.float32))
  np.testing.assert_allclose(jax.grad(loss)(best), np.zeros(3), atol=1e-6)
  assert np.abs(jax.grad(loss)(best + 0.1)).min() > 1e-3


def test_interleaved_rows_lie_side_by_side():
  a, b, c = jnp.arange(24.0).reshape(3, 4, 2)
  rows = interleave(a, b, c)
  np.testing.assert_array_equal(rows[:4], [a[0], b[0], c[0], a[1]])
  for before, after in zip((a, b, c), separate(rows, 3), strict=True):
    np.testing.assert_array_equal(before, after)


def test_attributes_are_means_of_latents_with_a_label():
  z = jnp.array([[0.0, 1.0], [4.0, 0.0], [2.0, 3.0]])
  shifted = attribute_shift(z, jnp.array([5, 9, 5]))
  # Means: [1, 2] of label 5, [4, 0] of label 9. Next of 0 is 1, of 1 is 2, of 2 is 0.
  np.testing.assert_allclose(shifted, [[3, -1], [1, 2], [2, 3]], atol=1e-6)


def test_accuracies_are_shares_on_the_right_side():
  found = accuracies(*jnp.array([[1.0, 2, -1], [1.0, -1, -1], [-2.0, -1, 3]]))
  expected = {"real": [1, 1, 0], "rebuilt": [0, 1, 1], "drawn": [1, 1, 0]}
  for name, value in expected.items():
    np.testing.assert_array_equal(found[f"disc_accuracy_{name}"], value)


# --- Algorithm 1 ----------------------------------------------------------------------


class LinearEncoder(nn.Module):
  latent_dim: int = 2

  @nn.compact
  def __call__(self, x, train):
    flat = x.reshape(len(x), -1)
    return nn.Dense(2, name="mean")(flat), nn.Dense(2, name="log_var")(flat)


class LinearDecoder(nn.Module):
  @nn.compact
  def __call__(self, z, train):
    return nn.Dense(4)(z).reshape(-1, 2, 2, 1)


class QuadraticDiscriminator(nn.Module):
  @nn.compact
  def __call__(self, x, train):
    features = nn.Dense(3, name="features")(x.reshape(len(x), -1)) ** 2
    return nn.Dense(1, name="score")(features)[:, 0], features


def make(gamma=GAMMA, gen_loss=minimax.gen, disc=None):
  tx = optax.sgd(1.0)  # Old less new parameters are gradients.
  return vae_gan(
    *(LinearEncoder(), LinearDecoder(), disc or QuadraticDiscriminator()),
    encoder_tx=tx,
    decoder_tx=tx,
    disc_tx=tx,
    gamma=gamma,
    gen_loss=gen_loss,
  )


def affine(of, x):
  return x @ of["kernel"] + of["bias"][None]


BATCH = {"image": 0.5 * jax.random.normal(jax.random.key(1), (6, 2, 2, 1))}


def gradients(method):
  state = jax.jit(method.init)(KEY, BATCH)
  after, metrics = jax.jit(method.train_step)(state, BATCH, KEY)
  return state, jax.tree.map(jnp.subtract, state.params, after.params), metrics


def by_hand(params, z_key, z_prior):
  """L_prior, L_llike and L_GAN of Algorithm 1, each network applied by itself."""
  x = BATCH["image"].reshape(6, 4)
  mean, log_var = (affine(params["encoder"][n], x) for n in ("mean", "log_var"))
  eps = jax.random.normal(z_key, mean.shape)
  z = mean + jnp.exp(log_var / 2) * eps
  decode = lambda z: affine(params["decoder"]["Dense_0"], z)
  features = lambda x: affine(params["disc"]["features"], x) ** 2
  prob = lambda x: jax.nn.sigmoid(affine(params["disc"]["score"], features(x))[:, 0])
  prior = 0.5 * (mean**2 + jnp.exp(log_var) - log_var - 1).sum(1).mean()
  llike = 0.5 * ((features(x) - features(decode(z))) ** 2).sum(1).mean()
  gan = -jnp.log(prob(x)).mean() - jnp.log(1 - prob(decode(z))).mean()
  return prior, llike, gan - jnp.log(1 - prob(decode(z_prior))).mean()


def test_each_network_descends_on_its_line_of_algorithm_1():
  state, found, metrics = gradients(make())
  z_key, prior_key = jax.random.split(KEY)
  z_prior = jax.random.normal(prior_key, (6, 2))

  def grad(name, weights):
    def loss(own):
      parts = by_hand({**state.params, name: own}, z_key, z_prior)
      return sum(w * part for w, part in zip(weights, parts, strict=True))

    return jax.jit(jax.grad(loss))(state.params[name])

  lines = {"encoder": (1, 1, 0), "decoder": (0, GAMMA, -1), "disc": (0, 0, 1)}
  for name, weights in lines.items():
    expected = grad(name, weights)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
      found[name],
      expected,
    )
    norm = metrics[f"{name}_grad_norm"]
    np.testing.assert_allclose(norm, optax.tree.norm(expected), rtol=1e-4)
  prior, llike, gan = by_hand(state.params, z_key, z_prior)
  got = [metrics[k] for k in ("kl", "feature_error", "disc_loss", "encoder_loss")]
  np.testing.assert_allclose(got, [prior, llike, gan, prior + llike], rtol=1e-4)
  decoder_loss = GAMMA * llike + metrics["gen_loss"]
  np.testing.assert_allclose(metrics["decoder_loss"], decoder_loss, rtol=1e-5)


@pytest.mark.parametrize(
  ("change", "reached"),
  [
    ({"gamma": 2 * GAMMA}, {"decoder"}),
    ({"gen_loss": non_saturating.gen}, {"decoder"}),
  ],
  ids=["gamma", "gen_loss"],
)
def test_what_the_decoder_minimises_reaches_no_other_network(change, reached):
  _, one, _ = gradients(make())
  _, other, _ = gradients(make(**change))
  for name in NETWORKS:
    same = jax.tree.map(lambda a, b: bool((a == b).all()), one[name], other[name])
    assert set(jax.tree.leaves(same)) == {name not in reached}, name


def test_losses_do_not_reach_the_networks_they_must_not():
  """With features and scores of networks of their own, exactly zero where none."""

  class Apart(QuadraticDiscriminator):
    @nn.compact
    def __call__(self, x, train):
      flat = x.reshape(len(x), -1)
      score = nn.Dense(1, name="score")(flat**3)[:, 0]
      return score, nn.Dense(3, name="features")(flat)

  method = make(disc=Apart())
  state, found, _ = gradients(method)
  assert optax.tree.norm(found["disc"]["features"]) == 0  # none of L_llike
  assert optax.tree.norm(found["disc"]["score"]) > 1e-3
  # The encoder's gradient has none of L_GAN: it does not depend on the score's weights.
  louder = jax.tree.map(jnp.copy, state.params)
  louder["disc"]["score"]["kernel"] *= 5
  after, _ = jax.jit(method.train_step)(state.replace(params=louder), BATCH, KEY)
  again = jax.tree.map(jnp.subtract, louder, after.params)
  jax.tree.map(np.testing.assert_array_equal, again["encoder"], found["encoder"])
  moved = optax.tree.norm(
    jax.tree.map(jnp.subtract, again["decoder"], found["decoder"])
  )
  assert moved > 1e-3


def test_evaluation_and_tools():
  method = make()
  state = jax.jit(method.init)(KEY, BATCH)
  values = jax.jit(method.eval_step)(state, BATCH, KEY)
  z_key, prior_key = jax.random.split(KEY)
  prior, llike, _ = by_hand(state.params, z_key, jax.random.normal(prior_key, (6, 2)))
  np.testing.assert_allclose(values["kl"].mean(), prior, rtol=1e-5)
  np.testing.assert_allclose(values["feature_error"].mean(), llike, rtol=1e-5)
  assert set(np.unique(values["disc_accuracy_drawn"])) <= {0, 1}
  x = BATCH["image"].reshape(6, 4)
  mean = affine(state.params["encoder"]["mean"], x)
  decode = lambda z: affine(state.params["decoder"]["Dense_0"], z).reshape(-1, 2, 2, 1)
  rebuilt = jax.jit(method.tools["reconstruct"])(state, BATCH, KEY)["reconstructions"]
  np.testing.assert_allclose(rebuilt, decode(mean).clip(-1, 1), atol=1e-5)
  label = jnp.array([0, 1, 0, 1, 2, 2])
  shown = jax.jit(method.tools["attributes"])(state, {**BATCH, "label": label}, KEY)[
    "attributes"
  ]
  np.testing.assert_allclose(shown[:, 0], decode(mean), atol=1e-5)
  shifted = decode(attribute_shift(mean, label))
  np.testing.assert_allclose(shown[:, 1], shifted, atol=1e-5)
  with pytest.raises(ValueError, match=r"need batch\['label'\], found \['image'\]"):
    method.tools["attributes"](state, BATCH, KEY)


# --- networks -------------------------------------------------------------------------


def test_sizes_of_the_authors_networks():
  spec = importlib.util.spec_from_file_location("x", EXPERIMENTS / "vae_gan_64.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  nets = Encoder(config.latent_dim), Decoder((64, 64, 3)), Discriminator()
  image, z = jnp.zeros((2, 64, 64, 3)), jnp.zeros((2, config.latent_dim))
  for net, x, expected in zip(
    nets, (image, z, image), (18_071_360, 4_693_155, 10_953_857), strict=True
  ):
    shapes = jax.eval_shape(lambda k, net=net, x=x: net.init(k, x, train=True), KEY)
    assert count(shapes["params"]) == expected
  variables = jax.eval_shape(lambda k: nets[2].init(k, image, train=True), KEY)
  run = lambda v: nets[2].apply(v, image, train=False)
  score, features = jax.eval_shape(run, variables)
  assert (score.shape, features.shape) == ((2,), (2, 8 * 8 * 256))


def test_features_are_the_outputs_of_the_named_layer_before_batch_norm():
  net = Discriminator(widths=(3,), hidden_dims=(5, 4), layer=1, first_width=2)
  x = jax.random.normal(KEY, (2, 4, 4, 1))
  variables = jax.jit(lambda key: net.init(key, x, train=True))(KEY)
  scale = lambda name: {
    **variables,
    "params": {
      **variables["params"],
      name: jax.tree.map(lambda w: 2 * w, variables["params"][name]),
    },
  }
  run = jax.jit(lambda v: net.apply(v, x, train=False))
  features = run(variables)[1]
  assert features.shape == (2, 5)
  assert features.min() < 0
  np.testing.assert_allclose(run(scale("layer_1"))[1], 2 * features, rtol=1e-5)
  for later in ("norm_1", "layer_2", "last"):
    np.testing.assert_array_equal(run(scale(later))[1], features)


def test_networks_without_convolutions_and_wrong_ones():
  net = Discriminator(widths=(), hidden_dims=(5, 4), layer=0)
  params = jax.jit(net.init, static_argnames="train")(
    KEY, jnp.zeros((2, 4, 4, 1)), train=True
  )["params"]
  dense = [a * b for a, b in itertools.pairwise((16, 5, 4))]
  assert count(params) == sum(dense) + 2 * (5 + 4) + 4 + 1
  with pytest.raises(ValueError, match="layer=2: expected one of 0 convolutions and 2"):
    Discriminator((), (5, 4), layer=2).init(KEY, jnp.zeros((2, 4, 4, 1)), train=True)
  with pytest.raises(
    ValueError, match=r"expected sides that 8 divides, for 3 doublings"
  ):
    Decoder((28, 28, 1)).init(KEY, jnp.zeros((2, 4)), train=True)
