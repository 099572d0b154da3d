"""Latent tools on generators that are linear, where every answer is known."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import parallel
from jaxgen.gan.latents import latent_inversion, latent_tools, multiscale_distance
from jaxgen.gan.style_tools import latents_of_styles
from jaxgen.method import TrainState
from jaxgen.ops.paths import NUM_POINTS, slerp

KEY = jax.random.key(0)
LATENT, W_DIM, NUM_WS, SIDE, ROWS = 3, 4, 2, 4, 6
NOISE = jax.random.fold_in(KEY, 1)  # the key of what a generator draws
RNG = np.random.default_rng(0)
TARGET = RNG.uniform(-1, 1, (ROWS, SIDE, SIDE, 1)).astype(np.float32)
BATCH = {"image": jnp.asarray(TARGET), "label": jnp.arange(ROWS) % 3}


class Linear(nn.Module):
  """w = M z + embedding of the label; pixels = sum over layers of A ws + noise."""

  noise: float = 0.0
  clip: float = np.inf  # outside of training

  @property
  def num_ws(self):
    return NUM_WS

  def setup(self):
    normal = nn.initializers.normal(1.0)
    self.matrix = self.param("matrix", normal, (LATENT, W_DIM))
    self.classes = self.param("classes", normal, (3, W_DIM))
    self.layers = self.param("layers", normal, (NUM_WS, W_DIM, SIDE * SIDE))
    self.average = self.variable("w_average", "value", jnp.zeros, (W_DIM,))

  def __call__(self, z, label=None, train=False):
    return self.synthesize(jnp.repeat(self.map(z, label)[:, None], NUM_WS, axis=1))

  def map(self, z, label=None, train=False):
    return z @ self.matrix + self.classes[label]

  def synthesize(self, ws, train=False):
    x = jnp.einsum("bld,ldp->bp", ws, self.layers)
    x += self.noise * jax.random.normal(self.make_rng("noise"), x.shape)
    bound = np.inf if train else self.clip
    return x.reshape(-1, SIDE, SIDE, 1).clip(-bound, bound)


@functools.cache
def world(noise=0.0, clip=np.inf):
  """(generator, state, its parameters, the average w) with an average of its own."""
  gen = Linear(noise, clip)
  rngs = {"params": KEY, "noise": KEY}
  params = jax.jit(gen.init)(rngs, jnp.zeros((1, LATENT)), jnp.zeros((1,), int))[
    "params"
  ]
  average = jnp.arange(1.0, 1.0 + W_DIM)
  stats = {"averaged_gen": {"w_average": {"value": average}}, "gen": {}}
  state = TrainState(jnp.zeros((), jnp.int32), {"gen": params}, {}, stats, {})
  return gen, state, jax.tree.map(np.asarray, params), np.asarray(average)


def tools(*settings, **kwargs):
  """The tools of a `world`, compiled."""
  gen = world(*settings)[0]
  made = latents_of_styles(gen, "averaged_gen", latent_dim=LATENT, **kwargs)
  return {name: jax.jit(fn) for name, fn in made.items()}


def w_of(key, params):
  """What the mapping makes of the latents drawn with `key`."""
  z = np.asarray(jax.random.normal(key, (ROWS, LATENT)))
  return z @ params["matrix"] + params["classes"][np.asarray(BATCH["label"])]


def image(ws, params, noise=0.0):
  """Images of ws [B, L, D] or of w [B, D]."""
  ws = np.repeat(ws[:, None], NUM_WS, axis=1) if ws.ndim == 2 else ws
  x = np.einsum("bld,ldp->bp", ws, params["layers"])
  if noise:
    gen, state, *_ = world(noise)
    apply = functools.partial(gen.apply, method="synthesize", rngs={"noise": NOISE})
    variables = {"params": jax.tree.map(jnp.zeros_like, state.params["gen"])}
    variables |= state.stats["averaged_gen"]
    x = x + np.asarray(apply(variables, jnp.asarray(ws))).reshape(len(x), -1)
  return x.reshape(-1, SIDE, SIDE, 1)


close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


def test_truncation_goes_from_the_average_to_w_with_one_noise():
  _, state, params, average = world(0.5)
  row = tools(0.5, psi=0.3)["truncation"](state, BATCH, KEY)["truncated"]
  assert row.shape == (ROWS, NUM_POINTS, SIDE, SIDE, 1)
  w = w_of(KEY, params)
  for k in range(NUM_POINTS):
    style = average + k / (NUM_POINTS - 1) * (w - average)
    close(row[:, k], image(style, params, 0.5))


def test_mixing_takes_coarse_styles_of_the_other_first():
  _, state, params, average = world()
  psi = 0.7
  row = tools(psi=psi)["mixing"](state, BATCH, KEY)["mixed"]
  assert row.shape == (ROWS, NUM_WS + 1, SIDE, SIDE, 1)
  first, second = (
    average + psi * (w_of(key, params) - average) for key in jax.random.split(KEY)
  )
  close(row[:, 0], image(first, params))
  close(row[:, 1], image(np.stack([second, first], axis=1), params))
  close(row[:, 2], image(second, params))


def test_interpolation_is_straight_in_w_and_an_arc_in_z():
  _, state, params, average = world()
  rows = tools()["interpolate"](state, BATCH, KEY)
  keys = jax.random.split(KEY)
  first, second = (w_of(key, params) for key in keys)
  z = [jax.random.normal(key, (ROWS, LATENT)) for key in keys]
  t = np.linspace(0, 1, NUM_POINTS, dtype=np.float32)
  arc = np.asarray(slerp(*z, jnp.asarray(t)))
  for k in range(NUM_POINTS):
    close(rows["w"][:, k], image(first + t[k] * (second - first), params))
    w = arc[:, k] @ params["matrix"] + params["classes"][np.asarray(BATCH["label"])]
    close(rows["z"][:, k], image(w, params))
  close(rows["w"][:, -1], rows["z"][:, -1])
  shorter = tools(psi=0.0)["interpolate"](state, BATCH, KEY)
  close(shorter["z"][:, 3], image(np.tile(average, (ROWS, 1)), params))


def pools():
  """The averages that `multiscale_distance` compares, as one weighted matrix."""
  eye, rows = np.eye(SIDE * SIDE), []
  for side in (4, 2, 1):
    x = eye.reshape(SIDE * SIDE, side, SIDE // side, side, SIDE // side)
    pooled = x.mean(axis=(2, 4)).reshape(SIDE * SIDE, -1)
    rows.append(pooled / np.sqrt(pooled.shape[1] * 3))
  return np.concatenate(rows, axis=1)  # [pixels, features]


def test_multiscale_distance():
  x, y = RNG.standard_normal((2, 5, SIDE, SIDE, 1)).astype(np.float32)
  expected = (((x - y).reshape(5, -1) @ pools()) ** 2).sum(axis=1)
  close(multiscale_distance(x, y), expected)
  odd = RNG.standard_normal((2, 6, 10, 3)).astype(np.float32)  # halves once
  halves = odd.reshape(2, 3, 2, 5, 2, 3).mean(axis=(2, 4))
  both = [(level**2).mean(axis=(1, 2, 3)) for level in (odd, halves)]
  close(multiscale_distance(odd, 0 * odd), np.mean(both, axis=0))


def least_squares(matrix, target):
  """Rows x that minimise |x matrix - target|^2 under the multiscale distance."""
  return np.linalg.lstsq((matrix @ pools()).T, (target @ pools()).T, rcond=None)[0].T


@pytest.mark.parametrize("name", ["invert", "invert_plus"])
def test_inversion_of_linear_synthesis_is_least_squares(name):
  noise, clip = 0.5, 0.3
  _, state, params, _ = world(noise, clip)
  out = tools(noise, clip, num_steps=600, rate=0.2)[name](state, BATCH, KEY)
  zero = np.zeros((ROWS, W_DIM), np.float32)
  target = (TARGET - image(zero, params, noise)).reshape(ROWS, -1)
  if name == "invert":
    w = least_squares(params["layers"].sum(axis=0), target)
    expected = np.repeat(w[:, None], NUM_WS, axis=1)
  else:
    ws = least_squares(params["layers"].reshape(NUM_WS * W_DIM, -1), target)
    expected = ws.reshape(ROWS, NUM_WS, W_DIM)
  np.testing.assert_allclose(out["ws"], expected, atol=2e-3)  # clipped or not
  pair = np.asarray(out["reconstruction"])
  assert pair.shape == (ROWS, 2, SIDE, SIDE, 1)
  np.testing.assert_array_equal(pair[:, 0], TARGET)
  close(pair[:, 1], image(np.asarray(out["ws"]), params, noise).clip(-clip, clip))
  close(out["error"], ((pair[:, 0] - pair[:, 1]) ** 2).mean(axis=(1, 2, 3)))


def test_inversion_starts_at_the_average_and_rows_do_not_matter_to_each_other():
  _, state, _, average = world()
  out = tools(num_steps=1, rate=0.1)["invert"](state, BATCH, KEY)
  moved = np.abs(np.asarray(out["ws"]) - average)
  np.testing.assert_allclose(moved, 0.1, rtol=1e-3)  # Adam's first step
  other = {**BATCH, "image": BATCH["image"].at[1:].multiply(-3.0)}
  again = tools(num_steps=20)["invert"]
  close(again(state, BATCH, KEY)["ws"][0], again(state, other, KEY)["ws"][0])


def test_inversion_in_z_is_least_squares_too():
  gen, state, params, _ = world()
  invert = latent_inversion(
    gen, "averaged_gen", latent_dim=LATENT, num_steps=600, rate=0.2
  )
  out = jax.jit(invert)(state, BATCH, KEY)
  layer = params["layers"].sum(axis=0)
  bias = (params["classes"] @ layer)[np.asarray(BATCH["label"])]
  z = least_squares(params["matrix"] @ layer, TARGET.reshape(ROWS, -1) - bias)
  np.testing.assert_allclose(out["z"], z, atol=2e-3)
  close(
    out["reconstruction"][:, 1].reshape(ROWS, -1), z @ params["matrix"] @ layer + bias
  )
  np.testing.assert_array_equal(out["reconstruction"][:, 0], TARGET)


def test_what_a_generator_draws_does_not_change_along_an_interpolation():
  gen, state, _, _ = world(0.5)
  _, interpolate = latent_tools(gen, "averaged_gen", latent_dim=LATENT)
  still = jax.tree.map(jnp.zeros_like, state.params)
  row = np.asarray(
    jax.jit(interpolate)(state.replace(params=still), BATCH, KEY)["linear"]
  )
  np.testing.assert_array_equal(row, np.repeat(row[:, :1], NUM_POINTS, axis=1))
  assert row[:, 0].std() > 0.2


@pytest.mark.parametrize("pmap", [False, True])
def test_tools_run_on_two_devices(pmap):
  _, state, *_ = world()
  make = parallel.pmap_backend if pmap else parallel.jit_backend
  backend = make(jax.devices()[:2])
  made = latents_of_styles(world()[0], "averaged_gen", latent_dim=LATENT, num_steps=9)
  for name, fn in made.items():
    placed = backend.put_batch(jax.tree.map(np.asarray, BATCH))
    out = backend.compile_eval(fn)(backend.put_state(state), placed, KEY)
    expected = jax.jit(fn)(state, BATCH, KEY)
    assert {k: v.shape for k, v in out.items()} == {
      k: v.shape for k, v in expected.items()
    }
    if not pmap or name.startswith("invert"):  # under pmap devices draw by themselves
      jax.tree.map(close, dict(out), expected)
