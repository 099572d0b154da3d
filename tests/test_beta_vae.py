"""beta-VAE: its weights, its capacity, its traversals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.vae.beta_vae import beta_vae
from jaxgen.vae.networks import FullyConnected
from jaxgen.vae.vae import vae

KEY = jax.random.key(2)
SHAPE = (2, 2, 1)
NET = FullyConnected(SHAPE, (8,), 3)
LABEL = np.arange(32) % 4
CORNERS = 2.0 * np.eye(4, dtype=np.float32)[LABEL].reshape(32, *SHAPE) - 1
BATCH = {"image": jnp.asarray(CORNERS)}  # Four images: log 4 = 1.39 nats.


def trained(method, steps=500):
  """(state, mean metrics of the last quarter)."""

  @jax.jit
  def run(state):
    def one(state, key):
      state, metrics = method.train_step(state, BATCH, key)
      return state.replace(step=state.step + 1), metrics

    return jax.lax.scan(one, state, jax.random.split(KEY, steps))

  state, metrics = run(jax.jit(method.init)(KEY, BATCH))
  return state, jax.tree.map(lambda v: v[-steps // 4 :].mean(), metrics)


def test_the_loss_is_that_of_the_papers():
  tx = optax.sgd(0.1)
  rising = beta_vae(NET, tx=tx, beta=7.0, capacity=5.0, capacity_steps=100)
  start = jax.jit(rising.init)(KEY, BATCH)

  def first(method):
    return jax.jit(lambda state: method.train_step(state, BATCH, KEY)[1])

  plain = first(vae(NET, tx=tx))(start)
  weighted = first(beta_vae(NET, tx=tx, beta=7.0))(start)
  expected = -plain["reconstruction"] + 7 * plain["kl"]
  np.testing.assert_allclose(weighted["loss"], expected, rtol=1e-6)
  np.testing.assert_allclose(weighted["elbo"], plain["elbo"], rtol=1e-6)
  at = first(rising)
  for step, risen in ((0, 0.0), (30, 1.5), (100, 5.0), (900, 5.0)):
    expected = -plain["reconstruction"] + 7 * abs(plain["kl"] - risen)
    np.testing.assert_allclose(
      at(start.replace(step=jnp.int32(step)))["loss"], expected, rtol=1e-5
    )
  with pytest.raises(ValueError, match="capacity_steps=0: expected at least 1"):
    beta_vae(NET, tx=tx, beta=1.0, capacity_steps=0)


def test_beta_presses_the_kl_down_and_capacity_holds_it():
  make = lambda **more: beta_vae(NET, tx=optax.adam(0.02), **more)
  _, free = trained(make(beta=0.2))
  _, strong = trained(make(beta=20.0))
  assert strong["kl"] < 0.02 < 1.0 < free["kl"]
  held, at = trained(make(beta=20.0, capacity=0.8, capacity_steps=200))
  np.testing.assert_allclose(at["kl"], 0.8, atol=0.1)
  assert strong["reconstruction"] < at["reconstruction"] < free["reconstruction"]
  assert held.step == 500


def test_a_traversal_moves_one_latent():
  """Of the plain VAE, too: it is a tool of all that have a vector of latents."""
  method = beta_vae(NET, tx=optax.sgd(0.1), beta=1.0)
  assert "traverse" in vae(NET, tx=optax.sgd(0.1)).tools
  state = jax.jit(method.init)(KEY, BATCH)

  @jax.jit
  def run(state):
    grids = method.tools["traverse"](state, BATCH, KEY)["traversals"]
    mean = method.tools["encode"](state, BATCH, KEY)["mean"]
    moved = [mean.at[:, i].set(v) for i in range(3) for v in (-3.0, 0.0, 3.0)]
    variables = {"params": state.params["net"]}
    logits = NET.apply(variables, jnp.concatenate(moved), method="decode")
    return grids, jax.nn.sigmoid(logits).reshape(3, 3, 32, *SHAPE)

  grids, p = run(state)
  assert grids.shape == (32, 3 * 2, 9 * 2, 1)
  cells = np.asarray(grids).reshape(32, 3, 2, 9, 2, 1)
  for i in range(3):
    for k, column in enumerate((0, 4, 8)):
      np.testing.assert_allclose(cells[:, i, :, column], 2 * p[i, k] - 1, atol=1e-5)
