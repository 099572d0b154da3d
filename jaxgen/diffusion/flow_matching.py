"""Flow Matching for Generative Modeling, with optimal transport and rectified flow.

Yaron Lipman, Ricky T. Q. Chen, Heli Ben-Hamu, Maximilian Nickel, Matt Le, 2022.
https://arxiv.org/abs/2210.02747. A network regresses the velocity of the paths between
noise and data on which images move straight (the "optimal transport" conditional
paths, Eq. 20 to 23), samples are solutions of its ODE, and so are exact likelihoods.

Two papers pair noise with images before the same regression (`couple`):
  - `optimal_transport`: Alexander Tong et al., "Improving and Generalizing Flow-Based
    Generative Models with Minibatch Optimal Transport" (2023),
    https://arxiv.org/abs/2302.00482 (OT-CFM).
  - `reflow`: Xingchao Liu, Chengyue Gong, Qiang Liu, "Flow Straight and Fast: Learning
    to Generate and Transfer Data with Rectified Flow" (2022),
    https://arxiv.org/abs/2209.03003. Noise with what a trained flow makes of it; stage
    one of rectified flow is flow matching without pairing.

Numbers of equations, algorithms, sections and tables are from memory.

Where this differs from the papers:
  - Time: data at t = 0, noise at t = 1, as in the rest of this family. (Papers: the
    reverse. The velocity has the other sign.)
  - The average's decay rises with the steps, see `update_ema`.
  - Images have uniform noise of a level in training, as where likelihoods are computed.
    Samples are rounded to the levels.
  - Samples by Heun's method on an even grid. (Lipman et al. and Tong et al.: adaptive
    Dormand-Prince for their main results, and fixed-step solvers.)
  - Pairs of `optimal_transport`: the optimal plan between two sets of B points with
    equal weights is a permutation, and noise is permuted by it. (Tong et al. draw B
    pairs from the plan with replacement.)
  - Pairs of `reflow` are drawn anew in every step, at the cost of the ODE. (Liu et al.
    store a set of them once.)

Devices: under jit the plan is that of the whole batch, whose images and noise every
device gathers; it does the same assignment as the others, O(B^3) in a loop. Under pmap
every device pairs its own rows.
"""

from collections.abc import Callable

from flax import linen as nn
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.diffusion import (
  continuous,
  editing,
  likelihood,
  ode_samplers,
  sampling,
  schedules,
)
from jaxgen.diffusion.process import VELOCITY, Denoiser, Process
from jaxgen.diffusion.process import denoiser as as_denoiser
from jaxgen.method import Array, Batch, Method, Metrics, PyTree, TrainState
from jaxgen.ops.ode import Tolerance

Couple = Callable[[Array, Array], tuple[Array, Array]]  # (x, noise) -> (x, noise)
NUM_STEPS = 50


def straight(sigma_min: float = 0.0) -> Process:
  """alpha = 1 - t, sigma = t + (1 - t) sigma_min (Lipman et al., Eq. 20, reversed).

  With 0 it is `process.straight`.
  """
  return Process(
    alpha=lambda t: 1.0 - t,
    sigma=lambda t: t + (1.0 - t) * sigma_min,
    time=lambda level: 1.0 / (1.0 + 1.0 / (level - sigma_min)),
    end=1.0,
  )


def independent(x: Array, noise: Array) -> tuple[Array, Array]:
  """Pairs as they are."""
  return x, noise


def optimal_transport(x: Array, noise: Array) -> tuple[Array, Array]:
  """Permutes the noise so that the sum of |x - noise|^2 is the least, exactly.

  Args:
    x: f32 [B, ...].
    noise: f32 [B, ...].

  Returns:
    x as it is; the noise in another order.
  """
  rows, others = x.reshape(len(x), -1), noise.reshape(len(x), -1)
  # |x|^2 and |noise|^2 are the same for all permutations.
  of_x, of_noise = optax.assignment.hungarian_algorithm(-rows @ others.T)
  order = jnp.zeros(len(x), jnp.int32).at[of_x].set(of_noise.astype(jnp.int32))
  return x, noise[order]


def reflow(
  teacher: Denoiser, *, num_steps: int = NUM_STEPS, sigma_min: float = 0.0
) -> Couple:
  """Pairs of the noise with what a trained flow makes of it; reads no image.

  Args:
    teacher: See `denoiser`; of a run, by `jaxgen.load`.
    num_steps: Of Heun's method.
    sigma_min: Of the teacher's process.
  """
  process, times = straight(sigma_min), schedules.uniform(num_steps, 1.0)

  def couple(x: Array, noise: Array) -> tuple[Array, Array]:
    del x
    return ode_samplers.heun(teacher, process, noise, times).x, noise

  return couple


def denoiser(net: nn.Module, params: PyTree, *, sigma_min: float = 0.0) -> Denoiser:
  """E[x | x_t] by a trained velocity, for samplers, `reflow` and distillation."""

  def velocity(x_t: Array, t: Array) -> Array:
    told = jnp.full(len(x_t), continuous.TIME_SCALE * t)
    return net.apply({"params": params}, x_t, told, train=False)

  return as_denoiser(velocity, straight(sigma_min), VELOCITY)


def flow_matching(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  couple: Couple = independent,
  sigma_min: float = 0.0,
  ema_decay: float = 0.9999,
  num_levels: int = 256,
  sampler: Callable = ode_samplers.heun,
  times: np.ndarray | None = None,
  tolerance: Tolerance = likelihood.LIKELIHOOD,
) -> Method:
  """Regression of the velocity dx_t / dt of straight paths.

  Metrics: "loss", the squared error of the velocity averaged over values (Lipman et
  al., Eq. 23), t uniform; "grad_norm" before what `tx` does.

  Tools, on batch["image"]:
    nll: {"bits_per_dim", "nll" (nats per image), "evaluations"}, each f32 [B]: an
      unbiased estimate of a bound for images with uniform noise (`likelihood`), and
      what the solver needed. Needs the extra `ode`.
    inpaint, img2img, interpolate, colourise: See `editing.tools`; on the same times.
      The first and the last of them draw noise in every step.

  Args:
    net: The velocity. (x f32 [B, H, W, C], 1000 t f32 [B], train) -> [B, H, W, C].
      It has no variables but its parameters.
    tx: Optimiser of `net`.
    couple: `independent`, `optimal_transport` or reflow(teacher).
    sigma_min: Standard deviation around an image at t = 0.
    ema_decay: Decay per step of the averaged weights used to sample.
    num_levels: Of the images: see `likelihood`.
    sampler: Of `ode_samplers`.
    times: Its grid, from 1 to 0; default 50 even steps.
    tolerance: Of the solver of "nll".

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; `sample` returns
    as `sampling.reported`, samples in [-1, 1]. The network is "net".
  """
  process = straight(sigma_min)
  times = schedules.uniform(NUM_STEPS, 1.0) if times is None else times
  parts = continuous.training(
    net,
    tx=tx,
    process=process,
    prediction=VELOCITY,
    ema_decay=ema_decay,
    observe=lambda image, key: likelihood.observe(image, key, num_levels),
    couple=couple,
  )

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    noise = sampling.prior(process, key, batch["image"], 1.0)
    denoise = denoiser(net, state.params["net"], sigma_min=sigma_min)
    found = sampler(denoise, process, noise, times)
    return sampling.reported(found, likelihood.restore(found.x, num_levels))

  def nll(state: TrainState, batch: Batch, key: Array) -> Metrics:
    return likelihood.bits_per_dim(
      parts.predict,
      state.params["net"],
      batch["image"],
      key,
      process=process,
      start=0.0,
      num_levels=num_levels,
      tolerance=tolerance,
    )

  nll.settings = likelihood.settings(num_levels, tolerance)

  def model(state: TrainState, batch: Batch) -> tuple[Denoiser, Process]:
    return denoiser(net, state.params["net"], sigma_min=sigma_min), process

  ways = dict(sampler=sampler, **likelihood.ways(num_levels))
  tools = {"nll": nll, **editing.tools(model, times, **ways)}
  return Method(parts.init, parts.train_step, parts.eval_step, sample, tools)
