"""Variational dequantisation: bounds of distributions that are known exactly."""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
import numpy as np
import optax
import pytest

from jaxgen.flow import likelihood
from jaxgen.flow.dequantization import NoiseFlow
from jaxgen.flow.nice import Network, nice
from jaxgen.ops.dequantize import levels

KEY = jax.random.key(0)
NUM_LEVELS = 4
SHAPE = (1, 2, 1)


class Scaled(nn.Module):
  """z = x / 0.2 + 0.3: x is normal, and the mass of every level has a closed form."""

  @nn.compact
  def __call__(self, x, train=False):
    self.param("unused", nn.initializers.zeros, ())
    z = x.reshape(len(x), -1) / 0.2 + 0.3
    return z, jnp.full(len(x), -2 * np.log(0.2))

  def inverse(self, z):
    x = 0.2 * (z - 0.3)
    return x.reshape(-1, *SHAPE), jnp.full(len(x), 2 * np.log(0.2))


def edges(image):
  """Where the cells of the image's levels end, in z: two of its shape."""
  z_of = lambda y: (y - 0.5) / 0.2 + 0.3
  level = levels(image, NUM_LEVELS)
  return z_of(level / NUM_LEVELS), z_of((level + 1) / NUM_LEVELS)


class Exact(nn.Module):
  """q(u | image) = p(u | image): the normal, cut off at the edges of the cell."""

  @nn.compact
  def __call__(self, image, noise):
    self.param("unused", nn.initializers.zeros, ())
    low, high = edges(image)

    def v_of(noise, low, high):
      mass = norm.cdf(low) + jax.nn.sigmoid(noise) * (norm.cdf(high) - norm.cdf(low))
      u = (norm.ppf(mass) - low) / (high - low)
      return jnp.log(u) - jnp.log1p(-u)

    over = lambda fn: jnp.vectorize(fn)
    slope = over(jax.grad(v_of))(noise, low, high)
    return over(v_of)(noise, low, high), jnp.log(slope).reshape(len(noise), -1).sum(-1)


@pytest.fixture(scope="module")
def every():
  """All 16 images of two pixels with 4 levels, and log P of each."""
  pairs = np.stack(np.meshgrid(range(4), range(4)), -1).reshape(16, *SHAPE)
  image = jnp.asarray(pairs * (255 // 3) / 127.5 - 1, jnp.float32)
  low, high = edges(image)
  mass = np.asarray(norm.cdf(high) - norm.cdf(low), float)
  return image, np.log(mass).reshape(16, -1).sum(-1)


def bounds(dequantizer, image, num=400):
  """Draws of the bound on log P of each image, [num, 16]."""
  space = likelihood.space(Scaled(), num_levels=NUM_LEVELS, dequantizer=dequantizer)
  noise = None
  if dequantizer is not None:
    noise = jax.jit(dequantizer.init)(KEY, image, image)["params"]
  variables = Scaled().init(KEY, image)
  one = lambda key: space.encode(variables, image, key, noise)[1]
  return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, num)), float)


def test_the_bound_is_tight_where_q_is_exact(every):
  """Every single draw of the noise gives log P itself."""
  image, log_p = every
  found = bounds(Exact(), image)
  np.testing.assert_allclose(found, np.tile(log_p, (400, 1)), atol=2e-3)


def test_uniform_noise_and_the_first_flow_bound_it_alike(every):
  """exp of the bound is unbiased for P, its mean is below log P."""
  image, log_p = every
  for dequantizer in (None, NoiseFlow(4, 2)):
    found = bounds(dequantizer, image, 4_000)
    np.testing.assert_allclose(np.exp(found).mean(0), np.exp(log_p), rtol=0.1)
    shortfall = log_p - found.mean(0)
    assert shortfall.min() > 0
    assert shortfall.max() > 0.3


def test_noise_flow_knows_its_determinant():
  net, shape = NoiseFlow(4, 3), (2, 2, 3, 2)
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    image, noise = (jnp.asarray(rng.uniform(-1, 1, shape)) for _ in range(2))
    variables = jax.jit(net.init)(KEY, image, noise)
    move = lambda v: jnp.asarray(v + 0.2 * rng.standard_normal(v.shape))
    variables = jax.tree.map(move, variables)
    v, log_det = jax.jit(net.apply)(variables, image, noise)
    assert v.shape == shape

    def one(flat, image):
      return net.apply(variables, image[None], flat.reshape(1, *shape[1:]))[0].ravel()

    jacobians = jax.jit(jax.vmap(jax.jacobian(one)))(noise.reshape(2, -1), image)
    expected = np.linalg.slogdet(jacobians)[1]
    np.testing.assert_allclose(log_det, expected, rtol=1e-9)


def test_training_moves_both_networks_and_the_average_of_both():
  net = Network(SHAPE, (4,))
  method = nice(net, tx=optax.adam(1e-2), dequantizer=NoiseFlow(4, 1), ema_decay=0.5)
  batch = {"image": jnp.zeros((4, *SHAPE))}
  state = jax.jit(method.init)(KEY, batch)
  assert set(state.ema) == set(state.opt) == {"net", "noise"}
  after, _ = jax.jit(method.train_step)(state, batch, KEY)
  for part in (after.params, after.ema):
    for name in ("net", "noise"):
      before = jax.tree.leaves(state.params[name])
      moved = [
        not np.array_equal(a, b)
        for a, b in zip(before, jax.tree.leaves(part[name]), strict=True)
      ]
      assert any(moved), name
