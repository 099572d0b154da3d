"""Editing with the exact denoiser of a Gaussian, whose conditionals are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from jaxgen import cli, run
from jaxgen.checkpoint import Checkpoints
from jaxgen.diffusion import editing, likelihood, ode_samplers, schedules
from jaxgen.diffusion.process import vp_linear

KEY = jax.random.key(0)
QUICK_KEY = jax.random.key(0, impl="rbg")  # Draws take half the time.
PROCESS = vp_linear()
TIMES = schedules.uniform(160, 1.0)


def exact(covariance):
  """E[x | x_t] of x ~ N(0, covariance), over the last axis."""
  values, vectors = np.linalg.eigh(np.asarray(covariance))
  values, vectors = jnp.float32(values), jnp.float32(vectors)

  def denoise(x, t):
    alpha, sigma = PROCESS.alpha(t), PROCESS.sigma(t)
    shrink = alpha * values / (alpha**2 * values + sigma**2)
    return x @ (vectors * shrink[None] @ vectors.T)

  return denoise


@functools.cache
def inpainted(num_resamplings):
  """b of N(0, [[1, 0.8], [0.8, 1]]) where a = 1.5 is known; and a."""
  given = jnp.broadcast_to(jnp.array([1.5, 9.0]), (4096, 2))
  mask = jnp.array([[1.0, 0.0]])
  run = jax.jit(
    lambda key: editing.repaint(
      *(exact([[1.0, 0.8], [0.8, 1.0]]), PROCESS, given, mask, TIMES, key),
      jump=8,
      num_resamplings=num_resamplings,
    )
  )
  return np.asarray(run(QUICK_KEY)).T


def test_repaint_draws_from_the_conditional():
  a, b = inpainted(10)
  np.testing.assert_array_equal(a, 1.5)
  # Resampling 30 times gives 1.17; the variance of 160 steps is a tenth too small.
  np.testing.assert_allclose(b.mean(), 0.8 * 1.5, atol=0.1)
  np.testing.assert_allclose(b.var(), 1 - 0.8**2, atol=0.06)


def test_without_resampling_the_parts_do_not_agree():
  """Why the paper resamples."""
  _, b = inpainted(1)
  assert abs(b.mean() - 0.8 * 1.5) > 0.4


def test_nothing_known_is_a_draw_and_everything_known_is_the_image():
  covariance = [[1.0, 0.8], [0.8, 1.0]]
  given = jax.random.normal(KEY, (4096, 2)) * 3.0
  run = jax.jit(
    lambda mask: editing.repaint(
      exact(covariance),
      PROCESS,
      given,
      mask,
      TIMES,
      QUICK_KEY,
      jump=8,
      num_resamplings=2,
    )
  )
  np.testing.assert_allclose(np.cov(run(jnp.zeros((1, 2))).T), covariance, atol=0.12)
  np.testing.assert_array_equal(run(jnp.ones((1, 2))), given)


@pytest.mark.parametrize("strength", [0.25, 0.6, 1.0])
def test_sdedit_keeps_of_the_image_what_its_noise_leaves(strength):
  """Of unit variance, the flow is the identity: corr(image, result) is alpha."""
  # So few steps that one more or less shows.
  image, times = jax.random.normal(KEY, (16_384, 1)), schedules.uniform(20, 1.0)
  run = jax.jit(
    lambda image: editing.sdedit(
      *(ode_samplers.heun, exact([[1.0]]), PROCESS, image, times, jax.random.key(1)),
      strength=strength,
    )
  )
  result = np.asarray(run(image))
  alpha = PROCESS.alpha(jnp.float32(strength))
  found = np.corrcoef(image[:, 0], result[:, 0])[0, 1]
  np.testing.assert_allclose(found, alpha, atol=0.03)
  np.testing.assert_allclose(result.var(), 1.0, atol=0.05)


def test_interpolations_are_of_mixtures_with_the_same_noise():
  """Of unit variance, where the flow is the identity: they lie on straight lines."""
  times = schedules.uniform(20, 1.0)
  model = exact([[1.0]]), PROCESS
  tools = editing.tools(
    lambda state, batch: model, times, sampler=ode_samplers.heun, restore=lambda x: x
  )
  image = jax.random.normal(KEY, (5, 2, 2, 1))
  run = jax.jit(functools.partial(tools["interpolate"], None))
  found = np.asarray(run({"image": image}, KEY)["interpolations"])
  assert found.shape == (5, 9, 2, 2, 1)
  moved = PROCESS.alpha(jnp.float32(0.5)) * (np.roll(image, -1, axis=0) - image)
  share = np.linspace(0, 1, 9).reshape(1, 9, 1, 1, 1)
  expected = share * np.asarray(moved)[:, None]
  np.testing.assert_allclose(found - found[:, :1], expected, atol=0.05)
  assert np.abs(found[:, 0] - image).max() > 0.5  # Half of the noise.


def test_colours_are_drawn_around_the_grey_that_is_known():
  basis = editing.grey_basis(3)
  np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
  np.testing.assert_allclose(basis[:, 0], 3**-0.5)
  np.testing.assert_array_equal(editing.grey_basis(1), [[1.0]])
  covariance = np.array([[0.3, 0.2, 0.1], [0.2, 0.3, 0.2], [0.1, 0.2, 0.3]]) / 8
  tools = editing.tools(lambda state, batch: (exact(covariance), PROCESS), TIMES)
  image = 0.2 * jax.random.normal(KEY, (4, 8, 8, 3))
  out = jax.jit(functools.partial(tools["colourise"], None))({"image": image}, KEY)
  samples = np.asarray(out["samples"])
  np.testing.assert_allclose(samples.mean(-1), image.mean(-1), atol=1e-5)
  np.testing.assert_allclose(out["given"][..., 1], image.mean(-1), atol=1e-6)
  # Given the grey g = mean of channels, colours have the covariance of the conditional.
  q = covariance.sum(0) / 3
  expected = covariance - np.outer(q, q) / q.mean()
  mean = np.asarray(image.mean(-1, keepdims=True)) * q / q.mean()
  spread = (samples - mean).reshape(-1, 3)
  np.testing.assert_allclose(np.cov(spread.T), expected, atol=0.01)


def test_tools_take_a_mask_or_know_the_upper_half():
  model = exact(0.1 * np.eye(1)), PROCESS
  tools = editing.tools(lambda state, batch: model, TIMES)
  image = 0.2 * jax.random.normal(KEY, (4, 8, 8, 1))
  run = jax.jit(functools.partial(tools["inpaint"], None))
  out = run({"image": image}, KEY)
  np.testing.assert_allclose(out["samples"][:, :4], image[:, :4], atol=1e-6)
  assert np.abs(out["samples"] - image)[:, 4:].max() > 0.1
  np.testing.assert_allclose(out["given"][:, 4:], -1.0)
  mask = jnp.broadcast_to(jnp.arange(8) % 2, (4, 8, 8))[..., None].astype(jnp.float32)
  out = run({"image": image, "mask": mask}, KEY)
  np.testing.assert_allclose(out["samples"][:, :, 1::2], image[:, :, 1::2], atol=1e-6)
  assert np.abs(out["samples"] - image)[:, :, ::2].max() > 0.1


def test_bad_arguments_are_named():
  x, denoise = jnp.zeros((1, 1)), exact([[1.0]])
  with pytest.raises(ValueError, match=r"jump=7 must divide .*, 160"):
    editing.repaint(denoise, PROCESS, x, x, TIMES, KEY, jump=7)
  with pytest.raises(ValueError, match="strength=0: expected in"):
    editing.sdedit(ode_samplers.heun, denoise, PROCESS, x, TIMES, KEY, strength=0)


@pytest.mark.parametrize("num_levels", [256, 32])
def test_images_of_levels_come_back_from_continuous_values(num_levels):
  """As what is known of an image does, in methods whose data are such values."""
  level = np.arange(256)
  image = (level / 127.5 - 1).reshape(1, 16, 16, 1).astype(np.float32)
  ways = likelihood.ways(num_levels)
  both = jax.jit(lambda image: (x := ways["observe"](image), ways["restore"](x)))
  x, again = both(image)
  merged = level // (256 // num_levels)
  np.testing.assert_allclose(x.ravel(), (2 * merged + 1) / num_levels - 1, atol=1e-6)
  expected = 2 * merged / (num_levels - 1) - 1
  np.testing.assert_allclose(again.ravel(), expected, atol=1e-6)


EXPERIMENT = """
from flax import linen as nn
from ml_collections import ConfigDict
import numpy as np
import optax

from jaxgen import data
from jaxgen.diffusion.ddim import ddim
from jaxgen.diffusion.schedules import linear_betas, linear_steps


class Net(nn.Module):
  @nn.compact
  def __call__(self, x, t, train=False):
    return self.param("w", nn.initializers.constant(0.5), ()) * x


def get_config():
  return ConfigDict({"num_steps": 0})


def build(config):
  betas, steps = linear_betas(20, 1e-3, 0.1), linear_steps(20, 10)
  images = {"image": np.zeros((4, 4, 4, 1), np.uint8)}
  method = ddim(Net(), tx=optax.sgd(0.1), betas=betas, steps=steps)
  return dict(
    method=method, train_data=data.arrays(images, batch_size=4), num_steps=0
  )
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run of DDIM with a network of one number, as `jaxgen import` makes runs."""
  folder = tmp_path_factory.mktemp("tools")
  (folder / "tiny.py").write_text(EXPERIMENT)
  module = run.load_experiment(folder / "tiny.py")
  config, out = module.get_config(), folder / "run"
  batch = {"image": np.zeros((4, 4, 4, 1), np.float32)}
  state = jax.jit(module.build(config)["method"].init)(KEY, batch)
  run.record(out, folder / "tiny.py", config, seed=0)
  np.savez(out / "conditioning.npz", image=np.zeros((8, 4, 4, 1), np.uint8))
  with Checkpoints(out) as checkpoints:
    checkpoints.save(0, state)
  return out


@pytest.fixture(scope="module")
def pixels(workdir):
  """Two images in files 0.png and 1.png, uint8 [2, 4, 4]."""
  pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4), np.uint8)
  (workdir / "in").mkdir()
  for i, image in enumerate(pixels):
    Image.fromarray(image).save(workdir / "in" / f"{i}.png")
  return pixels


def sample(workdir, *arguments):
  cli.main(["sample", str(workdir), *arguments])


def test_inpainting_takes_image_files_and_writes_one(workdir, pixels):
  left = np.broadcast_to(np.uint8([255, 255, 0, 0]), (4, 4))
  Image.fromarray(left).save(workdir / "left.png")
  files = [f"--input={workdir}/in/1.png", f"--mask={workdir}/left.png"]
  sample(workdir, "--mode=inpaint", *files, f"--out={workdir}/out.png")
  found = np.asarray(Image.open(workdir / "out.png"))
  scale = len(found) // 4  # Small images are enlarged by a whole number.
  assert found.shape == (4 * scale, 4 * scale)
  np.testing.assert_array_equal(found[::scale, ::scale][:, :2], pixels[1, :, :2])
  assert not np.array_equal(found[::scale, ::scale][:, 2:], pixels[1, :, 2:])
  shown = np.asarray(Image.open(workdir / "out_given.png"))[::scale, ::scale]
  np.testing.assert_array_equal(shown, np.where(left > 0, pixels[1], 0))


def test_latents_of_a_file_are_decoded(workdir, pixels):
  latents, images = workdir / "z.npz", workdir / "x.npz"
  sample(workdir, "--mode=encode", f"--input={workdir}/in", f"--out={latents}")
  sample(workdir, "--mode=decode", f"--input={latents}", f"--out={images}")
  found = np.load(images)["images"]
  expected = pixels[..., None] / 127.5 - 1
  assert np.load(latents)["latents"].shape == found.shape == expected.shape
  # What the steps of DDIM lose of a network that finds half of x_t to be noise.
  np.testing.assert_allclose(found, expected, atol=0.2)
  with pytest.raises(SystemExit, match=r"no latents: pass --input=FILE\.npz"):
    sample(workdir, "--mode=decode", f"--out={images}")
  given = [f"--input={latents}", f"--low={workdir}/in/0.png"]
  with pytest.warns(UserWarning, match=r"encode does not read .* \['latents', 'low'\]"):
    sample(workdir, "--mode=encode", *given, f"--out={images}")
