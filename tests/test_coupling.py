"""Layers of flows: inverses, determinants, masks, first batches."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nn import bijection, coupling, multi_scale

SHAPE = (2, 4, 2)  # H, W, C of the images here


class Conditioner(nn.Module):
  """Every shift and log_scale depends on every entry that it sees."""

  is_affine: bool = True

  @nn.compact
  def __call__(self, x, train):
    flat = x.reshape(len(x), -1)
    raw = nn.tanh(nn.Dense(2 * flat.shape[1])(flat))
    shift, log_scale = jnp.split(raw.reshape(len(x), *x.shape[1:-1], -1), 2, axis=-1)
    return shift, log_scale if self.is_affine else None


LAYERS = {
  "checkerboard": coupling.MaskedCoupling(Conditioner(), coupling.checkerboard(2, 4)),
  "channel": coupling.MaskedCoupling(Conditioner(), coupling.channel_mask(2)),
  "split": coupling.SplitCoupling(Conditioner()),
  "split, flipped": coupling.SplitCoupling(Conditioner(), flip=True),
  "additive": coupling.SplitCoupling(Conditioner(is_affine=False)),
  "actnorm": bijection.ActNorm(2),
  "batch norm": bijection.FlowBatchNorm(2),
  "1x1": bijection.Invertible1x1(2, lu=False),
  "1x1 LU": bijection.Invertible1x1(2),
  "squeeze": multi_scale.Squeeze(),
  "scales": multi_scale.MultiScale(
    [[bijection.ActNorm(2)], [multi_scale.Squeeze()]],
    SHAPE,
    [Conditioner(), Conditioner()],
  ),
}


def random_variables(layer, x, seed=0):
  """float64; everything that starts at 0 or 1 moved off it."""
  rng = np.random.default_rng(seed)
  move = lambda v: v if v.dtype == jnp.int32 else v * 1.0 + 0.3 * rng.random(v.shape)
  variables = jax.jit(layer.init)(jax.random.key(seed), x)
  fixed = variables.pop("fixed", {})
  to64 = lambda v: v if jnp.issubdtype(v.dtype, jnp.integer) else v.astype(jnp.float64)
  return {**jax.tree.map(move, variables), "fixed": jax.tree.map(to64, fixed)}


@pytest.mark.parametrize("name", LAYERS)
def test_inverse_and_determinant(name):
  layer = LAYERS[name]
  with jax.enable_x64(True):
    x = jax.random.normal(jax.random.key(1), (3, *SHAPE), jnp.float64)
    variables = random_variables(layer, x)
    z, log_det = jax.jit(layer.apply)(variables, x)
    back, inverse_log_det = layer.apply(variables, z, method="inverse")
    np.testing.assert_allclose(back, x, atol=1e-10)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-10)
    one = lambda v: layer.apply(variables, v.reshape(1, *SHAPE))[0].ravel()
    jacobian = jax.jit(jax.vmap(jax.jacfwd(one)))(x.reshape(3, -1))
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, atol=1e-10)
    if name not in ("additive", "squeeze"):
      assert np.abs(log_det).min() > 1e-3


@pytest.mark.parametrize(
  ("make", "args"), [(coupling.checkerboard, (4, 3)), (coupling.channel_mask, (6,))]
)
def test_masks_are_complementary(make, args):
  mask, other = make(*args), make(*args, flip=True)
  assert mask.dtype == bool
  assert mask.ndim == 4
  np.testing.assert_array_equal(mask, ~other)
  assert mask.sum() == mask.size // 2


def test_neighbours_differ_on_a_checkerboard():
  mask = coupling.checkerboard(4, 5)[0, :, :, 0]
  assert not mask[0, 0]
  assert (mask[1:] != mask[:-1]).all()
  assert (mask[:, 1:] != mask[:, :-1]).all()


@pytest.mark.parametrize("name", ["checkerboard", "channel", "split", "split, flipped"])
def test_half_passes_and_is_all_that_the_other_half_depends_on(name):
  layer = LAYERS[name]
  x = jax.random.normal(jax.random.key(1), (1, *SHAPE))
  variables = jax.jit(layer.init)(jax.random.key(0), x)
  first = np.broadcast_to(coupling.channel_mask(2), x.shape)
  masks = {"checkerboard": coupling.checkerboard(2, 4), "split, flipped": ~first}
  passes = np.broadcast_to(masks.get(name, first), x.shape).ravel()
  one = lambda v: layer.apply(variables, v.reshape(1, *SHAPE))[0].ravel()
  jacobian = jax.jacfwd(one)(x.ravel())
  np.testing.assert_array_equal(jacobian[passes], np.eye(16)[passes])
  off = np.array(jacobian[~passes][:, ~passes])
  np.testing.assert_array_equal(off, np.diag(np.diag(off)))
  assert (np.diag(off) > 0).all()
  assert np.abs(jacobian[~passes][:, passes]).min() > 0


def test_actnorm_leaves_the_first_batch_standardised():
  layer = bijection.ActNorm(2)
  x = 3 + jnp.array([2.0, 0.1])[None, None, None] * jax.random.normal(
    jax.random.key(1), (5, *SHAPE)
  )
  variables = jax.jit(layer.init)(jax.random.key(0), x)
  np.testing.assert_array_equal(layer.apply(variables, x)[0], x)  # init reads shapes
  (z, log_det), first = layer.apply(variables, x, mutable=[bijection.FIRST_BATCH])
  np.testing.assert_allclose(z.mean((0, 1, 2)), np.zeros(2), atol=1e-5)
  np.testing.assert_allclose(z.var((0, 1, 2)), np.ones(2), rtol=1e-4)
  again, same = jax.jit(layer.apply)({**variables, **first}, x)
  np.testing.assert_allclose(again, z, atol=1e-6)
  np.testing.assert_allclose(same, log_det, rtol=1e-6)
  other = jax.jit(layer.apply)({**variables, **first}, x + 1)[0]
  assert other.mean() > 0.5  # not of this batch


def test_flow_batch_norm_standardises_every_batch_and_keeps_averages():
  layer = bijection.FlowBatchNorm(2, momentum=0.75)
  x = 3 + 2 * jax.random.normal(jax.random.key(1), (5, *SHAPE))
  variables = jax.jit(layer.init)(jax.random.key(0), x)
  (z, _), moved = layer.apply(variables, x, train=True, mutable=["batch_stats"])
  np.testing.assert_allclose(z.mean((0, 1, 2)), np.zeros(2), atol=1e-5)
  np.testing.assert_allclose(z.var((0, 1, 2)), np.ones(2), rtol=1e-4)
  stats = moved["batch_stats"]
  np.testing.assert_allclose(stats["mean"], 0.25 * x.mean((0, 1, 2)), rtol=1e-5)
  np.testing.assert_allclose(stats["var"], 0.75 + 0.25 * x.var((0, 1, 2)), rtol=1e-5)


def test_1x1_starts_as_a_rotation_and_has_the_determinant_of_its_diagonal():
  x = jax.random.normal(jax.random.key(1), (2, *SHAPE[:2], 5))
  for lu in (True, False):
    layer = bijection.Invertible1x1(5, lu)
    variables = jax.jit(layer.init)(jax.random.key(3), x)
    z, log_det = jax.jit(layer.apply)(variables, x)
    np.testing.assert_allclose((z**2).sum(-1), (x**2).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(log_det, np.zeros(2), atol=1e-4)
  # By hand: W = P L (U + D), one exchange of rows, 8 pixels.
  params = {
    "lower": jnp.array([[9.0, 9.0], [0.5, 9.0]]),  # 9: has no effect
    "upper": jnp.array([[9.0, 2.0], [9.0, 9.0]]),
    "log_s": jnp.log(jnp.array([3.0, 0.25])),
  }
  fixed = {"order": jnp.array([1, 0]), "sign": jnp.array([1.0, -1.0])}
  layer = bijection.Invertible1x1(2)
  x = jax.random.normal(jax.random.key(1), (1, *SHAPE))
  z, log_det = jax.jit(layer.apply)({"params": params, "fixed": fixed}, x)
  w = np.array([[1.5, 0.75], [3.0, 2.0]])  # rows of [[3, 2], [1.5, 1 - 0.25]] exchanged
  np.testing.assert_allclose(z, x @ w.T, rtol=1e-5)
  np.testing.assert_allclose(log_det, [8 * np.log(0.75)], rtol=1e-5)


def test_squeeze_keeps_the_squares_together():
  x = jnp.arange(16).reshape(1, 4, 4, 1).astype(jnp.float32)
  z, _ = multi_scale.Squeeze().apply({}, x)
  np.testing.assert_array_equal(z[0, 0, 1], [2, 3, 6, 7])
  two = jnp.concatenate([x, x + 100], axis=-1)
  z, _ = multi_scale.Squeeze().apply({}, two)
  np.testing.assert_array_equal(z[0, 1, 0], [8, 9, 12, 13, 108, 109, 112, 113])


def test_a_split_prior_is_a_gaussian_of_what_leaves():
  """log N(0, 1) of z + log_det = log N(mean, std) of what leaves, by what stays."""
  net = LAYERS["scales"]
  with jax.enable_x64(True):
    x = jax.random.normal(jax.random.key(1), (3, *SHAPE), jnp.float64)
    variables = random_variables(net, x)
    no_prior = net.copy(priors=())
    plain, plain_det = no_prior.apply(variables, x)
    z, log_det = jax.jit(net.apply)(variables, x)
    log_p = lambda v, *args: jax.scipy.stats.norm.logpdf(v, *args).sum(-1)
    norm, _ = bijection.ActNorm(2).apply(
      {
        k: variables[k].get("levels_0_0", {}) for k in ("params", bijection.FIRST_BATCH)
      },
      x,
    )
    kept, left = jnp.split(norm, 2, axis=-1)
    expected = plain_det
    last = multi_scale.Squeeze().apply({}, kept)[0]
    for i, (seen, out) in enumerate([(kept, left), (jnp.zeros_like(last), last)]):
      says = {"params": variables["params"][f"priors_{i}"]}
      mean, log_std = Conditioner().apply(says, seen, False)
      args = (mean.reshape(3, -1), jnp.exp(log_std).reshape(3, -1))
      expected += log_p(out.reshape(3, -1), *args)
    np.testing.assert_allclose(log_p(z) + log_det, expected, rtol=1e-10)
    assert plain.shape == (3, 16)
