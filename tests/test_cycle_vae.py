"""CycleVAE: both cycles by hand, which loss reaches which network, conditions."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.losses.adversarial import least_squares, non_saturating
from jaxgen.vae.cycle_vae import AUTHORS, Weights, cycle_vae, given, low_resolution
from jaxgen.vae.cycle_vae_networks import Discriminator, Encoder, Generator

KEY = jax.random.key(5)
NETWORKS = ("encoder", "gen", "disc_vae", "disc_lr")
A, B = (
  0.5 * jax.random.normal(key, (6, 2, 2, 1))
  for key in jax.random.split(jax.random.key(1))
)
BATCH = {"image": B, "edges": A}


class LinearEncoder(nn.Module):
  latent_dim: int = 2

  @nn.compact
  def __call__(self, b):
    flat = b.reshape(len(b), -1)
    return nn.Dense(2, name="mean")(flat), nn.Dense(2, name="log_var")(flat)


class LinearGenerator(nn.Module):
  @nn.compact
  def __call__(self, a, z):
    x = nn.Dense(4, name="of_a")(a.reshape(len(a), -1)) + nn.Dense(4, name="of_z")(z)
    return x.reshape(-1, 2, 2, 1)


class LinearDiscriminator(nn.Module):
  @nn.compact
  def __call__(self, a, b):
    pair = jnp.concatenate([a, b], axis=-1).reshape(len(a), -1)
    return nn.Dense(1, name="score")(pair)[:, 0]


def make(weights=AUTHORS, loss=least_squares):
  tx = optax.sgd(1.0)  # Old less new parameters are gradients.
  return cycle_vae(
    *(LinearEncoder(), LinearGenerator(), LinearDiscriminator()),
    tx=tx,
    disc_tx=tx,
    condition=given("edges"),
    weights=weights,
    loss=loss,
  )


def gradients(method):
  state = jax.jit(method.init)(KEY, BATCH)
  after, metrics = jax.jit(method.train_step)(state, BATCH, KEY)
  return state, jax.tree.map(jnp.subtract, state.params, after.params), metrics


def affine(of, x):
  return x.reshape(len(x), -1) @ of["kernel"] + of["bias"][None]


def by_hand(params):
  """Every loss of bicycle_gan_model.py, each network applied by itself."""
  z_key, prior_key = jax.random.split(KEY)
  mean, log_var = (affine(params["encoder"][n], B) for n in ("mean", "log_var"))
  z = mean + jnp.exp(log_var / 2) * jax.random.normal(z_key, (6, 2))
  drawn = jax.random.normal(prior_key, (6, 2))
  generate = lambda z: (
    affine(params["gen"]["of_a"], A) + affine(params["gen"]["of_z"], z)
  ).reshape(A.shape)
  score = lambda name, b: affine(
    params[name]["score"], jnp.concatenate([A, b], axis=-1)
  )[:, 0]
  rebuilt, varied = generate(z), generate(drawn)
  found = {
    "image": jnp.abs(B - rebuilt).mean(),
    "latent": jnp.abs(drawn - affine(params["encoder"]["mean"], varied)).mean(),
    "kl": 0.5 * (mean**2 + jnp.exp(log_var) - log_var - 1).sum(1).mean(),
  }
  for cycle, fake in (("vae", rebuilt), ("lr", varied)):
    real, fake = score(f"disc_{cycle}", B), score(f"disc_{cycle}", fake)
    found[f"disc_{cycle}"] = 0.5 * ((real - 1) ** 2).mean() + 0.5 * (fake**2).mean()
    found[f"fool_{cycle}"] = 0.5 * ((fake - 1) ** 2).mean()
  return found


SUMS = {
  "encoder": {"image": 10, "fool_vae": 1, "kl": 0.01},
  "gen": {"image": 10, "fool_vae": 1, "fool_lr": 1, "latent": 0.5},
  "disc_vae": {"disc_vae": 1},
  "disc_lr": {"disc_lr": 1},
}


def test_each_network_descends_on_its_own_sum():
  """The encoder's has no latent_l1, though that passes through the encoder."""
  state, found, metrics = gradients(make())

  @jax.jit
  def expected(params):
    def grad(name):
      def loss(own):
        parts = by_hand({**params, name: own})
        return sum(weight * parts[k] for k, weight in SUMS[name].items())

      return jax.value_and_grad(loss)(params[name])

    return {name: grad(name) for name in SUMS}, by_hand(params)

  grads, parts = expected(state.params)
  for name, (value, gradient) in grads.items():
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      found[name],
      gradient,
    )
    np.testing.assert_allclose(metrics[f"{name}_loss"], value, rtol=1e-5)
    norm = metrics[f"{name}_grad_norm"]
    np.testing.assert_allclose(norm, optax.tree.norm(gradient), rtol=1e-4)
  names = {"image_l1": "image", "latent_l1": "latent", "kl": "kl"}
  names |= {n: n for n in ("fool_vae", "fool_lr")}
  for metric, part in names.items():
    np.testing.assert_allclose(metrics[metric], parts[part], rtol=1e-5)


@pytest.mark.parametrize(
  ("change", "reached"),
  [
    ({"latent": 2.0}, {"gen"}),
    ({"image": 2.0}, {"encoder", "gen"}),
    ({"kl": 2.0}, {"encoder"}),
  ],
  ids=["latent", "image", "kl"],
)
def test_a_weight_reaches_its_networks_and_no_other(change, reached):
  _, one, _ = gradients(make())
  _, other, _ = gradients(make(weights=AUTHORS._replace(**change)))
  for name in NETWORKS:
    same = jax.tree.map(lambda a, b: bool((a == b).all()), one[name], other[name])
    assert set(jax.tree.leaves(same)) == {name not in reached}, name


def test_accuracies_use_the_boundary_of_the_loss():
  state, _, metrics = gradients(make())
  other = gradients(make(loss=non_saturating))[2]
  real = affine(state.params["disc_lr"]["score"], jnp.concatenate([A, B], -1))[:, 0]
  assert metrics["disc_lr_accuracy_real"] == (real > 0.5).mean()
  assert other["disc_lr_accuracy_real"] == (real > 0).mean()
  assert (real > 0).mean() != (real > 0.5).mean()


def test_defaults_are_the_authors():
  assert Weights() == AUTHORS == (10.0, 0.5, 0.01)


def test_low_resolution_is_of_means_of_blocks():
  image = jnp.arange(32.0).reshape(2, 4, 4, 1)
  a = low_resolution(2)({"image": image})
  np.testing.assert_array_equal(a[0, :2, :2, 0], np.full((2, 2), 2.5))  # 0, 1, 4, 5
  np.testing.assert_array_equal(a[0, 2:, :2, 0], np.full((2, 2), 10.5))
  np.testing.assert_array_equal(a[1], a[0] + 16)
  np.testing.assert_array_equal(low_resolution(1)({"image": image}), image)
  with pytest.raises(ValueError, match="images of 4x4 pixels: expected sides that 3"):
    low_resolution(3)({"image": image})


def test_samples_and_tools():
  method = make()
  state = jax.jit(method.init)(KEY, BATCH)
  gen, encoder = state.params["gen"], state.params["encoder"]
  generate = lambda a, z: (affine(gen["of_a"], a) + affine(gen["of_z"], z)).reshape(
    len(a), 2, 2, 1
  )
  mean = affine(encoder["mean"], B)
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)
  z = jax.random.normal(KEY, (6, 2))
  close(jax.jit(method.sample)(state, BATCH, KEY)["samples"], generate(A, z))
  out = {name: tool(state, BATCH, KEY) for name, tool in method.tools.items()}
  close(out["encode"]["mean"], mean)
  close(out["encode"]["log_var"], affine(encoder["log_var"], B))
  close(out["reconstruct"]["reconstructions"], generate(A, mean))
  close(out["transfer"]["transfers"][2], generate(A, jnp.roll(mean, -1, 0))[2])
  close(out["transfer"]["transfers"][5], generate(A[5:], mean[:1])[0])
  shown = out["variations"]["variations"]
  assert shown.shape == (6, 8, 2, 2, 1)
  keys = jax.random.split(KEY, 8)
  for i in (0, 7):
    close(shown[:, i], generate(A, jax.random.normal(keys[i], (6, 2))))

  found = jax.jit(method.eval_step)(state, BATCH, KEY)
  z_key, first, second = jax.random.split(KEY, 3)
  std = jnp.exp(0.5 * affine(encoder["log_var"], B))
  rebuilt = generate(A, mean + std * jax.random.normal(z_key, (6, 2)))
  drawn, other = (jax.random.normal(key, (6, 2)) for key in (first, second))
  close(found["image_l1"], jnp.abs(B - rebuilt).mean((1, 2, 3)))
  varied = generate(A, drawn)
  close(found["variety"], jnp.abs(varied - generate(A, other)).mean((1, 2, 3)))
  close(found["latent_l1"], jnp.abs(drawn - affine(encoder["mean"], varied)).mean(-1))


def test_a_discriminator_sees_the_condition_only_if_asked():
  for sees, size in ((False, 4), (True, 8)):
    net = Discriminator((3,), sees_condition=sees)
    variables = jax.jit(net.init)(KEY, A, B)
    assert variables["params"]["hidden_0"]["kernel"].shape == (size, 3)
    apply = jax.jit(net.apply)
    moved = apply(variables, 2 * A + 1, B) != apply(variables, A, B)
    assert moved.any() == sees


def test_the_generator_reads_both_inputs_and_the_encoder_the_image():
  net = Generator((2, 2, 1), (5,))
  z = jnp.ones((6, 3))
  variables = jax.jit(net.init)(KEY, A, z)
  one = jax.jit(net.apply)(variables, A, z)
  assert one.shape == B.shape
  assert (one != jax.jit(net.apply)(variables, A, 2 * z)).all()
  assert (one != jax.jit(net.apply)(variables, A.at[:, 0].add(1), z)).all()
  encoder = Encoder(3, (5,))
  mean, log_var = jax.jit(encoder.apply)(encoder.init(KEY, B), B)
  assert mean.shape == log_var.shape == (6, 3)
