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
TINY = UNet(4, (1, 2), num_res_blocks=1, attention_resolutions=(), num_groups=2)
SHAPE = (2, 8, 8, 1)


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
    # The gradient of a key's bias is zero: softmax takes no notice of a shift.
    atol = 1e-10 * max(np.abs(grad).max(), 1e-3)
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


@pytest.fixture(scope="module")
def tiny():
  """A compiled network with its parameters, two images and their time steps."""
  params = {"params": random_params(TINY, SHAPE)}
  apply = jax.jit(TINY.apply, static_argnames="train")
  return apply, params, random.normal(random.key(1), SHAPE), jnp.array([3, 500])


def test_dropout_acts_in_training_only(tiny):
  apply, params, x, t = tiny
  still = apply(params, x, t, train=False)
  noisy = [
    apply(params, x, t, train=True, rngs={"dropout": random.key(i)}) for i in (0, 1)
  ]
  assert still.shape == SHAPE
  assert np.all(still == apply(params, x, t, train=False))
  assert np.any(noisy[0] != noisy[1])
  assert np.any(noisy[0] != still)


def test_every_pixel_sees_its_own_image_and_time_only(tiny):
  apply, params, x, t = tiny
  y = apply(params, x, t, train=False)
  corner = apply(params, x.at[0, 7, 7].add(1.0), t, train=False)
  assert np.all(corner[0] != y[0])
  np.testing.assert_array_equal(corner[1], y[1])
  later = apply(params, x, t.at[0].set(4), train=False)
  assert np.all(later[0] != y[0])
  np.testing.assert_array_equal(later[1], y[1])


def test_bfloat16_computes_close_to_float32(tiny):
  apply, params, x, t = tiny
  half = TINY.clone(dtype=jnp.bfloat16)
  y = apply(params, x, t, train=False)
  y_half = jax.jit(half.apply)(params, x, t)
  assert y_half.dtype == jnp.float32
  leaves = jax.tree.leaves(variables_of(half, SHAPE))
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
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
