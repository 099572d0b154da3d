"""SR3: Image Super-Resolution via Iterative Refinement.

Chitwan Saharia, Jonathan Ho, William Chan, Tim Salimans, David J. Fleet, Mohammad
Norouzi, 2021. https://arxiv.org/abs/2104.07636.
A diffusion model of images given small versions of them: the network sees the noisy
image beside the small one, enlarged by bicubic interpolation. Networks, rates and
dropout belong to the experiment.

Where this differs from the paper (whose text was not at hand):
  - The network is told the time step, not the noise level, which theirs draws between
    two steps of a chain; so it samples on the steps that it knows.
  - The average's decay rises with the steps, see `update_ema`.
  - The loss is the squared error; theirs is a power p of the error, 1 or 2.
  - The network is DDPM's, without what theirs takes from BigGAN.
  - Small images are means of blocks of pixels; theirs are made by bicubic resizing.
"""

from collections.abc import Sequence

from flax import linen as nn
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.diffusion import sampling, stochastic_samplers
from jaxgen.diffusion.noise_prediction import training
from jaxgen.diffusion.process import clipped, discrete
from jaxgen.method import Array, Batch, Method, TrainState
from jaxgen.ops.resize import resize_pil


class Network(nn.Module):
  """A U-Net over the noisy image and the enlarged one, side by side.

  Attributes:
    net: (f32 [B, H, W, 2 C], t [B], train) -> f32 [B, H, W, C].
  """

  net: nn.Module

  @nn.compact
  def __call__(self, x_t: Array, t: Array, low: Array, train: bool = False) -> Array:
    """The noise; all images f32 [B, H, W, C]."""
    return self.net(jnp.concatenate([low, x_t], axis=-1), t, train=train)


def shrunk(image: Array, factor: int) -> Array:
  """Means of factor x factor pixels; f32 [B, H, W, C] -> [B, H / f, W / f, C].

  Raises:
    ValueError: if `factor` does not divide height and width.
  """
  b, height, width, c = image.shape
  if height % factor or width % factor:
    raise ValueError(
      f"images of {height}x{width} pixels: expected sides that {factor} divides"
    )
  blocks = image.reshape(b, height // factor, factor, width // factor, factor, c)
  return blocks.mean(axis=(2, 4))


def enlarged(low: Array, factor: int) -> Array:
  """Bicubic; f32 [B, H, W, C] -> [B, f H, f W, C]."""
  height, width = low.shape[1:3]
  return resize_pil(low, (factor * height, factor * width), "bicubic")


def sr3(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  betas: np.ndarray | Sequence[float],
  factor: int,
  ema_decay: float = 0.9999,
) -> Method:
  """Images `factor` times as high and wide as those given.

  Metrics: "loss", the squared error of the noise averaged over pixels; "grad_norm"
  before clipping.

  `sample` makes batch["image"] small and draws what it may have been, in len(betas)
  steps. Tool:
    upscale: The same, beside what was given: {"samples", "given", "image"}. Or of
      batch["low"], f32 [B, h, w, C], small images of any size that the network takes:
      {"samples", "given"}, each `factor` times as high and wide.

  Args:
    net: `Network`. It has no variables but its parameters.
    tx: Its optimiser.
    betas: Forward-process variances, [T] in (0, 1).
    factor: Of height and width.
    ema_decay: Decay per step of the averaged weights used to sample.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; `sample` returns
    as `sampling.reported`, samples in [-1, 1]. The network is "net".
  """
  process, times = discrete(betas), np.arange(len(betas), -1, -1)
  given = lambda batch: enlarged(shrunk(batch["image"], factor), factor)
  parts = training(
    net,
    tx=tx,
    process=process,
    num_steps=len(betas),
    ema_decay=ema_decay,
    conditions=lambda batch: (given(batch),),
  )

  def draw(state: TrainState, low: Array, key: Array) -> dict[str, Array]:
    prior_key, steps_key = random.split(key)
    denoise = clipped(parts.denoise(state.params["net"], low))
    x = sampling.prior(process, prior_key, low, times[0])
    found = stochastic_samplers.ancestral(denoise, process, x, times, steps_key)
    return sampling.reported(found, jnp.clip(found.x, -1.0, 1.0))

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    return draw(state, given(batch), key)

  def upscale(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    if "low" in batch:
      low, shown = enlarged(batch["low"], factor), {}
    else:
      low, shown = given(batch), {"image": batch["image"]}
    return {**draw(state, low, key), "given": jnp.clip(low, -1.0, 1.0), **shown}

  return Method(
    parts.init, parts.train_step, parts.eval_step, sample, {"upscale": upscale}
  )
