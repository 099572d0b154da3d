"""DDIM: Denoising Diffusion Implicit Models.

Jiaming Song, Chenlin Meng, Stefano Ermon, 2020. https://arxiv.org/abs/2010.02502.
A network trained as in DDPM, sampled in fewer steps: the family of generative processes
with any share `eta` of DDPM's noise (Eq. 12 and 16) on a subset of its steps (Section
4.2, Appendix D.2); images to latents and back by the same steps without noise (Section
5.4), and interpolation between latents (Section 5.3).

The sampler itself is `stochastic_samplers.ddim`, next to others for the same network.
Numbers of equations, sections and tables are from memory.

Where this differs from the paper:
  - Samples are clipped to [-1, 1] at the end (the authors' code: where they are saved).
  - Encoding asks for the noise in the image itself, which step 0 of the network's would
    be, at step 1. The paper does not say.
  - `sample` starts from N(0, I), as theirs does; the last step of a subset, from which
    it goes on, has a little less noise than step T.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.diffusion import editing, stochastic_samplers
from jaxgen.diffusion.noise_prediction import training
from jaxgen.diffusion.process import clipped, discrete
from jaxgen.diffusion.sampling import Levels, levels, reported
from jaxgen.method import Array, Batch, Method, PyTree, TrainState, per_example
from jaxgen.ops.paths import slerp

NUM_POINTS = 9  # of "interpolate"


def ddim(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  betas: np.ndarray | Sequence[float],
  steps: np.ndarray | Sequence[float],
  eta: float = 0.0,
  ema_decay: float = 0.9999,
) -> Method:
  """A network that predicts the noise, trained as DDPM's, sampled in few steps.

  Metrics: "loss", the squared error of the noise averaged over pixels, at a random time
  step per image; "grad_norm" before clipping.

  `sample` and the tools call the network once a step, S = len(steps) - 1 times. Tools,
  all without noise:
    encode: batch["image"] to latents. {"latents": f32 [B, H, W, C]}, about N(0, I).
    decode: Back. batch["latents"], as encode's .npz has them, to {"images": f32
      [B, H, W, C] in [-1, 1]}.
    reconstruct: The one and the other. {"reconstructions": f32 [B, H, W, C] in [-1, 1]}
      and {"error": f32 [B]}: the squared error per dimension for pixels in [0, 1], as
      in Table 2.
    interpolate: From image i to image i + 1 (cyclically): both encoded, and decoded
      between their latents at constant angular speed. {"interpolations": f32
      [B, 9, H, W, C]}; the ends are reconstructions.
    walk: The same between two latents that are drawn for each row, as in Figure 6.
    inpaint, img2img, colourise: See `editing.tools`; these draw noise.

  Args:
    net: Predicts the noise. (x f32 [B, H, W, C], t i32 or f32 [B], train) ->
      [B, H, W, C]. It has no variables but its parameters.
    tx: Optimiser of `net`.
    betas: Forward-process variances, [T] in (0, 1).
    steps: The subset to sample on: steps of 1, ..., T, falling, then 0;
      `schedules.linear_steps` or `quadratic_steps`.
    eta: Share of DDPM's noise (its smaller variance); 0 none, 1 all.
    ema_decay: Decay per step of the averaged weights used to sample.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; `sample` returns
    as `sampling.reported`, samples in [-1, 1]. The network is "net".

  Raises:
    ValueError: for steps that are not such a subset.
  """
  process, steps = discrete(betas), _checked(steps, len(betas))
  parts = training(
    net, tx=tx, process=process, num_steps=len(betas), ema_decay=ema_decay
  )

  def decoded(params: PyTree, latents: Array) -> Array:
    x = stochastic_samplers.ddim(parts.denoise(params), process, latents, steps).x
    return jnp.clip(x, -1.0, 1.0)

  def encoded(params: PyTree, x: Array) -> Array:
    def step(x: Array, at: tuple[Levels, Levels]) -> tuple[Array, None]:
      now, then = at
      noise = parts.predict(params, x, jnp.maximum(now.t, 1.0))
      clean = (x - now.sigma * noise) / now.alpha
      return then.alpha * clean + then.sigma * noise, None

    grid = levels(process, jnp.asarray(steps[::-1], x.dtype))
    now, then = (Levels(*(a[s] for a in grid)) for s in (slice(-1), slice(1, None)))
    return jax.lax.scan(step, x, (now, then))[0]

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    prior_key, steps_key = random.split(key)
    x = per_example(random.normal(prior_key, batch["image"].shape))
    denoise = parts.denoise(state.params["net"])
    found = stochastic_samplers.ddim(denoise, process, x, steps, steps_key, eta=eta)
    return reported(found, jnp.clip(found.x, -1.0, 1.0))

  def encode(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    del key
    return {"latents": encoded(state.params["net"], batch["image"])}

  def decode(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    del key
    if "latents" not in batch:
      raise ValueError("no latents: pass --input=FILE.npz of encode's --out=FILE.npz")
    return {"images": decoded(state.params["net"], batch["latents"])}

  def reconstruct(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    del key
    params, x = state.params["net"], batch["image"]
    found = decoded(params, encoded(params, x))
    error = jnp.mean(((found - x) / 2.0) ** 2, axis=(1, 2, 3))
    return {"reconstructions": found, "error": error}

  def between(params: PyTree, a: Array, b: Array) -> dict[str, Array]:
    flat = lambda z: per_example(z).reshape(len(z), -1)
    path = slerp(flat(a), flat(b), jnp.linspace(0.0, 1.0, NUM_POINTS))
    of_point = lambda z: decoded(params, z.reshape(a.shape))
    return {"interpolations": jax.vmap(of_point, 1, 1)(path)}

  def interpolate(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    del key
    latents = encoded(state.params["net"], batch["image"])
    return between(state.params["net"], latents, jnp.roll(latents, -1, axis=0))

  def walk(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    a, b = random.normal(key, (2, *batch["image"].shape))
    return between(state.params["net"], a, b)

  tools = {
    "encode": encode,
    "decode": decode,
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "walk": walk,
  }
  model = lambda state, batch: (clipped(parts.denoise(state.params["net"])), process)
  tools = editing.tools(model, steps) | tools
  return Method(parts.init, parts.train_step, parts.eval_step, sample, tools)


def _checked(steps: np.ndarray | Sequence[float], total: int) -> np.ndarray:
  """`steps` as an array, if they fall from at most `total` to 0."""
  steps = np.asarray(steps, np.float64)
  whole = steps.ndim == 1 and np.all(steps == np.round(steps))
  inside = whole and len(steps) > 1 and steps[0] <= total and steps[-1] == 0
  if not inside or np.any(np.diff(steps) >= 0):
    raise ValueError(
      f"steps must be whole numbers that fall from at most {total} to 0, got {steps}"
    )
  return steps
