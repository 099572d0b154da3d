"""The U-Net: published sizes, parity with diffusers, precision, errors."""

from pathlib import Path

from flax import traverse_util
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nn.embed import timestep_embedding
from jaxgen.nn.unet import UNet

GOLDEN = Path(__file__).parent / "golden" / "unet_diffusers.npz"
TINY = UNet(4, (1, 2), num_res_blocks=1, attention_resolutions=(4,), num_groups=2)


def variables_of(net, shape):
  init = lambda: net.init(random.key(0), jnp.zeros(shape), jnp.zeros(shape[:1], int))
  return jax.eval_shape(init)


def random_params(net, shape, scale=0.3):
  """Parameters with no zeros among them, so that every layer matters."""
  leaves, treedef = jax.tree.flatten(variables_of(net, shape)["params"])
  rng = np.random.default_rng(0)
  draw = lambda p: jnp.asarray(scale * rng.standard_normal(p.shape), jnp.float32)
  return treedef.unflatten([draw(p) for p in leaves])


@pytest.mark.parametrize(
  ("net", "size", "count"),
  [
    (UNet(), 32, 35_746_307),  # CIFAR-10
    (UNet(channel_mults=(1, 1, 2, 2, 4, 4)), 256, 113_673_219),  # LSUN, CelebA-HQ
  ],
)
def test_published_parameter_counts(net, size, count):
  leaves = jax.tree.leaves(variables_of(net, (1, size, size, 3)))
  assert sum(leaf.size for leaf in leaves) == count
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


@pytest.mark.smoke
def test_equals_diffusers_in_float64():
  golden = np.load(GOLDEN)
  tree = lambda prefix: traverse_util.unflatten_dict(
    {
      name.removeprefix(prefix): golden[name].astype(np.float64)
      for name in golden.files
      if name.startswith(prefix)
    },
    sep="/",
  )
  with jax.enable_x64(True):
    net = UNet(4, (1, 2, 2), 1, (4,), num_groups=2, dtype=jnp.float64)
    x = golden["x"].astype(np.float64)

    @jax.jit
    def output_and_gradient(params):
      def half_square(params):
        y = net.apply({"params": params}, x, golden["t"], train=False)
        return jnp.sum(y**2) / 2, y

      return jax.grad(half_square, has_aux=True)(params)

    grads, y = jax.device_get(output_and_gradient(tree("params/")))
  np.testing.assert_allclose(y, golden["y"], rtol=0, atol=1e-12 * np.abs(y).max())
  ours, theirs = (
    traverse_util.flatten_dict(g, sep="/") for g in (grads, tree("grads/"))
  )
  assert ours.keys() == theirs.keys()
  for name, grad in theirs.items():
    atol = 1e-10 * np.abs(grad).max()
    np.testing.assert_allclose(ours[name], grad, rtol=0, atol=atol, err_msg=name)


def test_timestep_embedding_formula():
  embedding = timestep_embedding(jnp.array([0, 1, 999]), 6)
  expected = [
    [f(t * w) for f in (np.sin, np.cos) for w in (1.0, 0.01, 0.0001)]
    for t in (0, 1, 999)
  ]
  np.testing.assert_allclose(embedding, expected, atol=1e-4)
  assert embedding.dtype == jnp.float32
  for dim in (2, 7):
    with pytest.raises(ValueError, match=f"even and at least 4, got {dim}"):
      timestep_embedding(jnp.zeros(1), dim)


def test_starts_at_zero_and_dropout_acts_in_training_only():
  shape = (2, 8, 8, 1)
  x, t = random.normal(random.key(1), shape), jnp.array([0, 500])
  fresh = jax.jit(TINY.init)(random.key(0), x, t)
  assert not np.any(TINY.apply(fresh, x, t))

  params = {"params": random_params(TINY, shape)}
  apply = jax.jit(TINY.apply, static_argnames="train")
  rngs = lambda i: {"dropout": random.key(i)}
  still = apply(params, x, t, train=False)
  noisy = [apply(params, x, t, train=True, rngs=rngs(i)) for i in (0, 1)]
  assert still.shape == shape
  assert np.all(still == apply(params, x, t, train=False))
  assert np.any(noisy[0] != noisy[1])
  assert np.any(noisy[0] != still)


def test_every_input_matters_to_every_pixel():
  """The receptive field is the image, and both images and times stay apart."""
  shape = (2, 8, 8, 1)
  params = {"params": random_params(TINY, shape)}
  x, t = random.normal(random.key(1), shape), jnp.array([3, 500])

  @jax.jit
  def one_pixel(x, t):
    return TINY.apply(params, x, t)[0, 0, 0, 0]

  by_pixel = jax.grad(one_pixel)(x, t)
  assert np.all(by_pixel[0] != 0)
  assert np.all(by_pixel[1] == 0)
  assert one_pixel(x, t) != one_pixel(x, t.at[0].set(4))
  assert one_pixel(x, t) == one_pixel(x, t.at[1].set(4))


def test_bfloat16_computes_close_to_float32():
  shape = (2, 8, 8, 1)
  params = random_params(TINY, shape)
  x, t = random.normal(random.key(1), shape), jnp.array([3, 500])
  half = TINY.clone(dtype=jnp.bfloat16)
  y = jax.jit(TINY.apply)({"params": params}, x, t)
  y_half = jax.jit(half.apply)({"params": params}, x, t)
  assert y_half.dtype == jnp.float32
  assert {p.dtype for p in jax.tree.leaves(variables_of(half, shape))} == {
    jnp.dtype("float32")
  }
  error = np.abs(y_half - y).max() / np.abs(y).max()
  assert 0 < error < 0.05


def test_sizes_that_halve_are_accepted_and_others_explained():
  net = UNet(4, (1, 2, 2), 1, attention_resolutions=(7,), num_groups=2)
  y = jax.eval_shape(
    net.apply, variables_of(net, (1, 28, 28, 1)), jnp.zeros((3, 28, 28, 1)),
    jnp.zeros(3, int),
  )  # fmt: skip
  assert y.shape == (3, 28, 28, 1)
  with pytest.raises(ValueError, match="divisible by 4, got 30x28"):
    variables_of(net, (1, 30, 28, 1))
  with pytest.raises(ValueError, match=r"\[32, 16, 8\], got \(7,\)"):
    variables_of(net, (1, 32, 32, 1))
  with pytest.raises(ValueError, match=r"\[4, 8, 8\], got 3"):
    variables_of(net.clone(num_groups=3), (1, 28, 28, 1))
