"""DDPM: Denoising Diffusion Probabilistic Models.

Jonathan Ho, Ajay Jain, Pieter Abbeel, 2020. https://arxiv.org/abs/2006.11239.
The simple loss (Algorithm 1), ancestral sampling (Algorithm 2) with either of the two
variances of Section 3.2, the bound on the likelihood, progressive generation (Section
4.3) and interpolation (Section 4.4), with the choices of the authors' code. The network
is `jaxgen.nn.unet.UNet`; learning rate, warm-up and clipping belong to `tx`.

The model and its bound are those of Jascha Sohl-Dickstein, Eric A. Weiss, Niru
Maheswaranathan, Surya Ganguli, "Deep Unsupervised Learning using Nonequilibrium
Thermodynamics" (2015), https://arxiv.org/abs/1503.03585; new here are what the network
predicts, the weights of the loss and the network.

Equation numbers are those of the paper of 2020. The network counts time steps from 0:
its index t is the step t + 1.

Where this differs from the paper:
  - Predicted images are clipped to [-1, 1] while sampling, as in the authors' code
    but not in Algorithm 2.
  - The decoder of the bound uses the Gaussian CDF (Eq. 13); the authors' code, a
    tanh approximation of it.
  - Interpolation diffuses for T / 4 steps. The paper shows T / 2, after which an
    image of 256x256 pixels can still be recognised, but one of 8x8 can not.
  - The average's decay rises with the steps, see `update_ema`; theirs is constant.
  - A clipped gradient is that of the whole batch; theirs clips on each TPU core.
"""

from collections.abc import Callable, Sequence

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.diffusion import bound, editing, stochastic_samplers
from jaxgen.diffusion.noise_prediction import training
from jaxgen.diffusion.process import clipped, diffuse, discrete
from jaxgen.diffusion.sampling import (
  Levels,
  Sampled,
  large_variance,
  levels,
  posterior_mean,
  reported,
)
from jaxgen.diffusion.schedules import linear_betas as linear_betas
from jaxgen.method import Array, Batch, Method, PyTree, TrainState, per_example

NUM_FRAMES = 20  # of "chain"; fewer if the process has fewer steps
NUM_MIXTURES = 9  # of "interpolate"


def ddpm(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  betas: np.ndarray | Sequence[float],
  ema_decay: float = 0.9999,
  variance: Callable[[Levels, Levels], Array] = large_variance,
) -> Method:
  """Diffusion that predicts the noise, trained with the simple loss.

  Metrics: "loss", the squared error of the noise averaged over pixels (Eq. 14), at
  a random time step per image; "grad_norm" before clipping.

  `sample` draws len(betas) times from the network. Tools, on batch["image"]:
    chain: `sample`, and what led to it. {"chain": x_t, "predictions": the x that
      the network saw in it}, each f32 [B, K, H, W, C], from noise to image.
    interpolate: From image i to image i + 1 (cyclically): both diffused for a quarter
      of the steps, mixed, denoised. {"interpolations": f32 [B, K, H, W, C]}; the ends
      are reconstructions.
    bits_per_dim: Upper bound on -log2 p(x) per pixel and channel, for images of
      256 levels, and its parts "rate" (L_1 + ... + L_T) and "distortion" (L_0).
      {"bits_per_dim", "rate", "distortion"}, each f32 [B]. One call of the network
      per step.
    inpaint, img2img, colourise: See `editing.tools`.

  Args:
    net: Predicts the noise. (x f32 [B, H, W, C], t i32 or f32 [B], train) ->
      [B, H, W, C]. It has no variables but its parameters.
    tx: Optimiser of `net`.
    betas: Forward-process variances, [T] in (0, 1).
    ema_decay: Decay per step of the averaged weights used to sample.
    variance: Of p(x_{t-1} | x_t): `sampling.large_variance` (beta_t, "fixedlarge" of
      the authors' code) or `sampling.small_variance` (beta tilde_t, "fixedsmall").

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; `sample` returns
    as `sampling.reported`, samples in [-1, 1]. The network is "net".
  """
  process, num_steps = discrete(betas), len(betas)
  parts = training(
    net, tx=tx, process=process, num_steps=num_steps, ema_decay=ema_decay
  )
  variance = bound.with_decoder(variance, process, num_steps)

  def reverse(params: PyTree) -> bound.Reverse:
    """p(x_{t-1} | x_t)."""
    denoise = clipped(parts.denoise(params))

    def step(x_t: Array, now: Levels, then: Levels) -> tuple[Array, Array]:
      mean = posterior_mean(x_t, denoise(x_t, now.t), now, then)
      return mean, variance(now, then)

    return step

  def decode(params: PyTree, x_t: Array, key: Array, steps: int) -> Sampled:
    """A draw from p(x | x_t), where x_t has been diffused for `steps` steps."""
    times = np.arange(steps, -1, -1)
    return stochastic_samplers.chain(reverse(params), process, x_t, times, key)

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    prior_key, steps_key = random.split(key)
    x_t = per_example(random.normal(prior_key, batch["image"].shape))
    found = decode(state.params["net"], x_t, steps_key, num_steps)
    return reported(found, found.x)

  def chain(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    prior_key, steps_key = random.split(key)
    x_t = per_example(random.normal(prior_key, batch["image"].shape))
    num_frames = min(NUM_FRAMES, num_steps)
    denoise = clipped(parts.denoise(state.params["net"]))
    frames = jnp.zeros((2, num_frames, *x_t.shape))

    def body(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
      x_t, frames = carry
      t = num_steps - i.astype(jnp.float32)
      now, then = levels(process, t), levels(process, t - 1.0)
      x = denoise(x_t, t)
      mean = posterior_mean(x_t, x, now, then)
      key = random.fold_in(steps_key, i)
      x_t = stochastic_samplers.draw(mean, variance(now, then), then, key)
      # The last of the steps that share a frame is the one that stays.
      frame = num_frames - 1 - (num_steps - 1 - i) * num_frames // num_steps
      return (x_t, frames.at[:, frame].set(jnp.stack([x_t, x]))), None

    (_, frames), _ = jax.lax.scan(body, (x_t, frames), jnp.arange(num_steps))
    noisy, clean = jnp.moveaxis(frames, 1, 2)
    return {"chain": noisy, "predictions": clean}

  def interpolate(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    encode_key, decode_key = random.split(key)
    x, steps = batch["image"], max(num_steps // 4, 1)
    x_t = diffuse(process, x, jnp.float32(steps), random.normal(encode_key, x.shape))
    other = jnp.roll(x_t, -1, axis=0)

    def mixture(weight: Array) -> Array:  # The same noise for every weight.
      mixed = (1.0 - weight) * x_t + weight * other
      return decode(state.params["net"], mixed, decode_key, steps).x

    weights = jnp.linspace(0.0, 1.0, NUM_MIXTURES)
    return {"interpolations": jax.vmap(mixture, out_axes=1)(weights)}

  def bits_per_dim(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    step = reverse(state.params["net"])
    return bound.bits_per_dim(step, process, num_steps, batch["image"], key)

  edits = editing.tools(
    lambda state, batch: (clipped(parts.denoise(state.params["net"])), process),
    np.arange(num_steps, -1, -1),
    variance=variance,
  )
  own = {"chain": chain, "interpolate": interpolate, "bits_per_dim": bits_per_dim}
  tools = edits | own  # The paper's way between two images, not `editing`'s.
  return Method(parts.init, parts.train_step, parts.eval_step, sample, tools)
