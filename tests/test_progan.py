"""Growing keeps what was learned; fading, the reals and the penalty by hand."""

import functools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import data, parallel
from jaxgen.gan.progan import Generator, grow, progan, real_images
from jaxgen.method import averaged
from jaxgen.nn.progressive import Discriminator
from jaxgen.run import Phase
from jaxgen.train import Every, fit

KEY = jax.random.key(0)
SPEC = {"image": np.broadcast_to(np.zeros((), np.uint8), (4, 8, 8, 1))}
BATCH = {"image": jax.random.uniform(KEY, (4, 8, 8, 1), minval=-1.0)}
SMALL = {"channel_base": 16, "channel_max": 4}


def players(resolution):
  gen = Generator(resolution, channels=1, **SMALL)
  return gen, Discriminator(resolution, fades=resolution > 4, **SMALL)


def make(resolution, **kwargs):
  tx = optax.adam(1e-2, b1=0.0, b2=0.99)
  return progan(
    *players(resolution),
    gen_tx=tx,
    critic_tx=tx,
    latent_dim=3,
    ema_decay=0.5,
    **kwargs,
  )


def run(method, state, num_steps):
  step, history = jax.jit(method.train_step), []
  for _ in range(num_steps):
    state, metrics = step(state, BATCH, jax.random.fold_in(KEY, state.step))
    state = state.replace(step=state.step + 1)  # as the runner does
    history.append(metrics)
  return state, history


@functools.cache
def grown():
  """(method at 4x4, its state after 3 steps, method at 8x8, its first state)."""
  low, high = make(4), make(8, first_step=3, num_fade_steps=4)
  old, _ = run(low, jax.jit(low.init)(KEY, BATCH), 3)
  new = grow(old, jax.jit(high.init)(jax.random.key(1), BATCH))
  return low, old, high, new.replace(step=old.step)


def test_parameters_at_1024_pixels_are_those_of_the_paper():
  """Table 2: 23.1 M each."""
  z, image = jnp.zeros((1, 512)), jnp.zeros((1, 1024, 1024, 3))

  def count(net, *inputs):
    shapes = jax.eval_shape(lambda: net.init(KEY, *inputs, None, train=True))
    return sum(x.size for x in jax.tree.leaves(shapes["params"]))

  old_to_rgb = 32 * 3 + 3
  assert count(Generator(), z) - old_to_rgb == 23_071_507
  assert count(Discriminator(), image) == 23_077_137


def test_a_new_resolution_begins_with_the_images_of_the_old_one():
  low, old, high, new = grown()
  draw = lambda method, state: np.asarray(
    jax.jit(method.sample)(averaged(state), BATCH, KEY)["samples"]
  )
  before, after = draw(low, old), draw(high, new)
  assert before.shape == after.shape == (4, 8, 8, 1)  # the full size
  np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(before[:, ::2, ::2], before[:, 1::2, 1::2])
  assert (np.abs(before) < 1).mean() > 0.3
  loud = old.replace(ema=jax.tree.map(lambda w: 10.0 * w, old.ema))
  assert np.abs(draw(low, loud)).max() == 1  # clipped
  later = draw(high, new.replace(step=new.step + 2))  # alpha 1/2
  assert np.abs(later - before).max() > 0.05
  between = jax.jit(high.tools["interpolate"])(averaged(new), BATCH, KEY)
  assert between["linear"].shape == (4, 8, 8, 8, 1)


def test_a_new_resolution_begins_with_the_scores_of_the_old_one():
  _, old, _, new = grown()
  faded = {"fade": {"alpha": jnp.zeros(())}}
  variables = {"params": new.params["critic"], "fade": faded}
  image = BATCH["image"]
  after = players(8)[1].apply(variables, image, train=True)
  low = image.reshape(4, 4, 2, 4, 2, 1).mean((2, 4))
  before = players(4)[1].apply({"params": old.params["critic"]}, low, train=True)
  np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_faded_in_the_old_branch_is_ignored(alpha):
  gen, critic = players(8)
  z = jax.random.normal(KEY, (4, 3))
  for net, branch, x in (
    (gen, "to_rgb_4", z),
    (critic, "from_rgb_4", BATCH["image"]),
  ):
    params = jax.jit(net.init, static_argnames="train")(KEY, x, train=True)["params"]
    other = {**params, branch: jax.tree.map(lambda w: w + 1.0, params[branch])}
    run_ = lambda p, x=x, net=net: np.asarray(
      net.apply(
        {"params": p, "fade": {"fade": {"alpha": jnp.float32(alpha)}}}, x, train=True
      )
    )
    same = np.array_equal(run_(params), run_(other))
    assert same == (alpha == 1.0), branch


def test_weights_moments_and_averages_are_carried():
  _, old, _, new = grown()
  fresh = jax.jit(make(8).init)(jax.random.key(1), BATCH)
  for name in ("gen", "critic"):
    carried = 0
    for kind in ("params", "ema"):
      if name not in getattr(old, kind):
        continue
      a, b = getattr(old, kind)[name], getattr(new, kind)[name]
      assert set(a) < set(b)
      chex.assert_trees_all_equal({k: b[k] for k in a}, a)
      rest = {k: v for k, v in b.items() if k not in a}
      chex.assert_trees_all_equal(
        rest, {k: getattr(fresh, kind)[name][k] for k in rest}
      )
      carried += 1
    assert carried == (2 if name == "gen" else 1)
    moments, last = new.opt[name][0], old.opt[name][0]
    assert float(optax.tree.norm(last.nu)) > 0
    chex.assert_trees_all_equal({k: moments.nu[k] for k in last.nu}, last.nu)
    rest = {k: v for k, v in moments.nu.items() if k not in last.nu}
    assert rest
    assert float(optax.tree.norm(rest)) == 0
    assert (int(last.count), int(moments.count)) == (3, 0)


def test_networks_of_other_widths_cannot_be_carried():
  _, old, high, _ = grown()
  widened = jax.tree.map(lambda x: x, old)
  widened.params["gen"]["conv_4"]["bias"] = jnp.zeros(5)
  with pytest.raises(ValueError, match=r"conv_4.*shape \(5,\) .* and \(4,\) at"):
    grow(widened, jax.eval_shape(high.init, KEY, BATCH))


def test_alpha_is_a_line_from_the_first_step_of_the_phase():
  _, _, high, new = grown()
  state, history = run(high, new, 6)
  alphas = [float(m["alpha"]) for m in history]
  np.testing.assert_allclose(alphas, [0, 0.25, 0.5, 0.75, 1, 1])
  moved = jax.tree.map(
    lambda a, b: bool((a != b).any()), new.params["gen"], state.params["gen"]
  )
  assert jax.tree.all(moved)


def test_images_are_inverted_at_the_resolution_of_the_phase():
  """The pairs have the data's size, and the error is that of the pixels shown."""
  low, old, *_ = grown()
  found = jax.jit(low.tools["invert"])(averaged(old), BATCH, KEY)
  target, made = np.moveaxis(found["reconstruction"], 1, 0)
  means = np.reshape(BATCH["image"], (4, 4, 2, 4, 2, 1)).mean((2, 4))
  np.testing.assert_allclose(target, means.repeat(2, 1).repeat(2, 2), atol=1e-6)
  error = ((target - made) ** 2).mean((1, 2, 3))
  np.testing.assert_allclose(found["error"], error, rtol=1e-5)
  assert found["z"].shape == (4, 3)


def test_real_images_by_hand():
  x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
  half = x.reshape(2, 4, 2, 4, 2, 3).mean((2, 4))
  quarter = half.reshape(2, 2, 2, 2, 2, 3).mean((2, 4)).repeat(2, 1).repeat(2, 2)
  np.testing.assert_allclose(real_images(x, 4), half, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(real_images(x, 8), x)
  faded = real_images(x, 4, jnp.float32(0.25))
  np.testing.assert_allclose(faded, 0.75 * quarter + 0.25 * half, rtol=1e-5, atol=1e-6)
  with pytest.raises(ValueError, match="6x6 pixels; expected 4x4"):
    Discriminator(4).init(KEY, real_images(np.zeros((4, 6, 6, 1)), 4), train=True)
  with pytest.raises(ValueError, match="9x9 pixels; expected multiples of 2"):
    real_images(np.zeros((1, 9, 9, 1)), 4)


class Line(nn.Module):
  """Critic <v, x>, of norm |v| = sqrt(16) / 2 = 2."""

  @nn.compact
  def __call__(self, x, label, train):
    return x.reshape(len(x), -1) @ self.param("v", lambda _: jnp.full((16,), 0.5))


def test_penalty_and_drift_of_a_linear_critic():
  tx = optax.sgd(0.0)
  method = progan(
    players(4)[0], Line(), gen_tx=tx, critic_tx=tx, latent_dim=3, drift_weight=0.3
  )
  _, (metrics,) = run(method, method.init(KEY, BATCH), 1)
  scores = 0.5 * np.asarray(BATCH["image"]).reshape(4, 4, 2, 4, 2).mean((2, 4))
  drift = (scores.sum((1, 2)) ** 2).mean()
  expected = 10.0 * (2.0 - 1.0) ** 2 + 0.3 * drift
  np.testing.assert_allclose(metrics["penalty"], expected, rtol=1e-5)


def test_there_is_nothing_to_fade_from_at_4x4():
  with pytest.raises(ValueError, match="num_fade_steps=5: expected 0 at 4x4"):
    make(4, num_fade_steps=5)
  with pytest.raises(ValueError, match="resolution=12: expected a power of two"):
    Discriminator(12).init(KEY, jnp.zeros((1, 12, 12, 1)), train=True)


def test_a_run_stopped_while_fading_goes_on_as_if_it_was_not(tmp_path):
  images = data.synthetic(SPEC)

  def train(workdir, length):
    high = make(8, first_step=2, num_fade_steps=3)
    return fit(
      make(4),
      images,
      num_steps=2,
      then=[Phase(high, images, length, grow)],
      workdir=workdir,
      every=Every(log=1, save=1),
      num_samples=4,
      backend=parallel.jit_backend(jax.devices()[:1]),
    )

  stopped = train(tmp_path / "a", 1)
  assert int(stopped.step) == 3
  chex.assert_trees_all_equal(train(tmp_path / "a", 4), train(tmp_path / "b", 4))
