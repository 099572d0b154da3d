"""Editing images with a trained denoiser: inpainting, variations, colours.

  - Meng et al., 2021, SDEdit, arXiv 2108.01073: `sdedit`.
  - Lugmayr et al., 2022, RePaint, arXiv 2201.09865: `repaint`.
  - Song et al., 2021, arXiv 2011.13456, Appendix I: colours as what is unknown in an
    orthonormal basis whose first vector is grey: `in_basis`.

`tools` makes tools of a method of them.

Where `repaint` differs from the paper: it goes back by `jump` steps in one draw, which
has the same distribution; and every stretch of `jump` steps is repeated, the last one
(into the data) too.
"""

from collections.abc import Callable
import math

import jax
from jax import random
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion import sampling, stochastic_samplers
from jaxgen.diffusion.process import Denoiser, Process, diffuse
from jaxgen.diffusion.sampling import (
  Levels,
  large_variance,
  levels,
  posterior_mean,
  small_variance,
)
from jaxgen.method import Array, Batch, TrainState, per_example

JUMP = 10  # steps; RePaint's
NUM_RESAMPLINGS = 10  # RePaint's
NUM_MIXTURES = 9  # of "interpolate"


def sdedit(
  sampler: Callable,
  denoise: Denoiser,
  process: Process,
  image: Array,
  times: np.ndarray,
  key: Array,
  *,
  strength: float,
) -> Array:
  """Images like `image`: noise is added to it, and taken away again (Algorithm 1).

  Args:
    sampler: See `sampling`.
    denoise: The denoiser.
    process: Of x_t.
    image: f32 [B, ...].
    times: [N + 1], falling; see `schedules`.
    key: Of all noise.
    strength: In (0, 1]: the share of the N steps that are taken; 1 leaves nothing of
      the image where the process ends in pure noise.

  Returns:
    f32 [B, ...].

  Raises:
    ValueError: for another strength.
  """
  if not 0.0 < strength <= 1.0:
    raise ValueError(f"strength={strength}: expected in (0, 1]")
  num_steps = max(1, round(strength * (len(times) - 1)))
  times = times[-num_steps - 1 :]
  noise_key, sample_key = random.split(key)
  noise = per_example(random.normal(noise_key, image.shape, image.dtype))
  x = diffuse(process, image, jnp.asarray(times[0], image.dtype), noise)
  return sampler(denoise, process, x, times, sample_key).x


def repaint(
  denoise: Denoiser,
  process: Process,
  given: Array,
  mask: Array,
  times: np.ndarray,
  key: Array,
  *,
  jump: int = JUMP,
  num_resamplings: int = NUM_RESAMPLINGS,
  variance: Callable[[Levels, Levels], Array] = small_variance,
) -> Array:
  """Draws what is unknown of images, given the rest (Algorithm 1).

  Args:
    denoise: The denoiser.
    process: Of x_t.
    given: f32 [B, ...]; its known part is what counts.
    mask: 1 known, 0 unknown; of as many axes as `given`.
    times: [N + 1], falling to the data; see `schedules`.
    key: Of all noise.
    jump: Steps that are repeated together; divides N.
    num_resamplings: How often they are taken. More bring the parts into agreement, at
      so many times the evaluations: N num_resamplings.
    variance: Of the reverse steps; see `stochastic_samplers.ancestral`.

  Returns:
    f32 [B, ...]; the known part is that of `given`.

  Raises:
    ValueError: if `jump` does not divide N.
  """
  num_steps = len(times) - 1
  if jump < 1 or num_steps % jump:
    raise ValueError(f"jump={jump} must divide the number of steps, {num_steps}")
  normal = lambda key: per_example(random.normal(key, given.shape, given.dtype))
  now, then = _stretches(levels(process, jnp.asarray(times, given.dtype)), jump)

  def step(x: Array, now: Levels, then: Levels, key: Array) -> Array:
    known_key, draw_key = random.split(key)
    known = then.alpha * given + then.sigma * normal(known_key)
    mean = posterior_mean(x, denoise(x, now.t), now, then)
    drawn = stochastic_samplers.draw(mean, variance(now, then), then, draw_key)
    return mask * known + (1.0 - mask) * drawn

  def resampled(x: Array, now: Levels, then: Levels, key: Array) -> Array:
    def body(x: Array, i: Array) -> tuple[Array, None]:
      steps_key, back_key = random.split(random.fold_in(key, i))
      keys = random.split(steps_key, jump)
      x, _ = jax.lax.scan(lambda x, at: (step(x, *at), None), x, (now, then, keys))
      start, end = (Levels(*(a[k] for a in g)) for g, k in ((now, 0), (then, -1)))
      back = start.alpha / end.alpha * x
      back += jnp.sqrt(large_variance(start, end)) * normal(back_key)
      return jnp.where(i + 1 < num_resamplings, back, x), None

    return jax.lax.scan(body, x, jnp.arange(num_resamplings))[0]

  prior_key, key = random.split(key)
  x = sampling.prior(process, prior_key, given, times[0])
  keys = random.split(key, num_steps // jump)
  body = lambda x, at: (resampled(x, *at), None)
  x = jax.lax.scan(body, x, (now, then, keys))[0]
  return mask * given + (1.0 - mask) * x  # Some processes have noise at their end.


def _stretches(grid: Levels, jump: int) -> tuple[Levels, Levels]:
  """Where each step of a grid starts and ends, [N / jump, jump]."""
  cut = lambda a, part: a[part].reshape(-1, jump)
  now = Levels(*(cut(a, slice(-1)) for a in grid))
  return now, Levels(*(cut(a, slice(1, None)) for a in grid))


def in_basis(denoise: Denoiser, basis: Array) -> Denoiser:
  """The denoiser of x_t @ basis, for an orthonormal basis [C, C] of the last axis."""
  return lambda y, t: denoise(y @ basis.T, t) @ basis


def grey_basis(channels: int) -> np.ndarray:
  """Orthonormal f64 [C, C], whose first column is grey: all channels the same."""
  columns = np.eye(channels)
  columns[:, 0] = 1.0
  basis, _ = np.linalg.qr(columns)
  return basis * np.sign(basis[0, 0])


def tools(
  model: Callable[[TrainState, Batch], tuple[Denoiser, Process]],
  times: np.ndarray,
  *,
  sampler: Callable = stochastic_samplers.ancestral,
  variance: Callable[[Levels, Levels], Array] = small_variance,
  strength: float = 0.5,
  observe: Callable[[Array], Array] = lambda image: image,
  restore: Callable[[Array], Array] = lambda x: jnp.clip(x, -1.0, 1.0),
) -> dict[str, Callable]:
  """Tools of a method over batch["image"], f32 [B, H, W, C] in [-1, 1].

    inpaint: Draws where batch["mask"], f32 [B, H, W, 1], is 0; without a mask, the
      lower half. {"samples", "given": the image, black where it is unknown}.
    img2img: Images like those given (`sdedit`). {"samples"}.
    interpolate: From image i to image i + 1 (cyclically), under the label of i:
      mixtures of both, made likely as img2img does, all by the same noise.
      {"interpolations": [B, 9, H, W, C]}.
    colourise: Draws colours for the means over channels. {"samples", "given": grey}.

  All are f32 [B, H, W, C] in [-1, 1].

  Args:
    model: (state, batch) -> the denoiser, for the labels of the batch, say, and the
      process of x_t.
    times: [N + 1], falling to the data. `repaint` jumps by 10 steps where that divides
      N, else by what 10 and N have in common.
    sampler: Of img2img and interpolate.
    variance: Of the reverse steps of inpaint and colourise.
    strength: Of the same; see `sdedit`.
    observe: An image -> the x that is diffused.
    restore: Back, into [-1, 1].
  """
  jump = math.gcd(JUMP, len(times) - 1)
  options = dict(jump=jump, variance=variance)

  def inpaint(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    image = batch["image"]
    height = image.shape[1]
    upper = (jnp.arange(height) < height // 2).astype(image.dtype)
    mask = batch.get("mask", upper[None, :, None, None])
    x = repaint(*model(state, batch), observe(image), mask, times, key, **options)
    return {"samples": restore(x), "given": mask * (image + 1.0) - 1.0}

  def img2img(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    x = observe(batch["image"])
    x = sdedit(sampler, *model(state, batch), x, times, key, strength=strength)
    return {"samples": restore(x)}

  def interpolate(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    x = observe(batch["image"])
    other, sides = jnp.roll(x, -1, axis=0), model(state, batch)

    def between(weight: Array) -> Array:
      mixed = (1.0 - weight) * x + weight * other
      return sdedit(sampler, *sides, mixed, times, key, strength=strength)

    weights = jnp.linspace(0.0, 1.0, NUM_MIXTURES)
    return {"interpolations": restore(jax.vmap(between, out_axes=1)(weights))}

  def colourise(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    image = batch["image"]
    channels = image.shape[-1]
    if channels == 1:
      return {"samples": image, "given": image}  # There is no colour to draw.
    basis = jnp.asarray(grey_basis(channels), image.dtype)
    known = (jnp.arange(channels) == 0).astype(image.dtype)[None, None, None]
    denoise, process = model(state, batch)
    denoise, y = in_basis(denoise, basis), observe(image) @ basis
    y = repaint(denoise, process, y, known, times, key, **options)
    grey = jnp.broadcast_to(image.mean(axis=-1, keepdims=True), image.shape)
    return {"samples": restore(y @ basis.T), "given": grey}

  return {
    "inpaint": inpaint,
    "img2img": img2img,
    "interpolate": interpolate,
    "colourise": colourise,
  }
