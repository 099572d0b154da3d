"""Score-Based Generative Modeling through Stochastic Differential Equations.

Yang Song, Jascha Sohl-Dickstein, Diederik P. Kingma, Abhishek Kumar, Stefano Ermon, Ben
Poole, 2021. https://arxiv.org/abs/2011.13456. Denoising score matching in continuous
time under the VP, sub-VP or VE process (`process.vp_linear`, `sub_vp`, `ve`), samples
by predictor and corrector, and the probability-flow ODE: samples, exact likelihood. The
likelihood weighting is that of Yang Song, Conor Durkan, Iain Murray, Stefano Ermon,
"Maximum Likelihood Training of Score-Based Diffusion Models" (2021),
https://arxiv.org/abs/2101.09258.

Numbers of equations, algorithms, sections and tables are from memory.

Where this differs from the paper and the authors' code:
  - The network predicts the noise, for all processes: score = -noise / sigma. With
    weight sigma^2 it is the same loss. (Code: -noise, divided by sigma or not.)
  - It is told 1000 t. (Code: 999 t, or log sigma for VE, which is linear in t.)
  - The predictor is the exact posterior q(x_s | x_t, x) with the network's x, for all
    three. (Code: that for VP and VE, or discretised reverse-time equations.)
  - A sample ends in E[x | x_t] of the last time, in place of a step without noise.
  - The step of the corrector is that of each example: see `stochastic_samplers`.
  - The loss is a mean over values; the code has that too, and a sum.
  - Images have uniform noise of a level in training, as where likelihoods are computed.
    (Code: for likelihoods only.) Samples are rounded to the levels.
  - Likelihood weighting without importance sampling of t (2101.09258, Section 5.1).
"""

from collections.abc import Callable

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.diffusion import (
  continuous,
  editing,
  likelihood,
  ode_samplers,
  sampling,
  stochastic_samplers,
)
from jaxgen.diffusion.process import NOISE, Denoiser, Process, flow, vp_linear
from jaxgen.diffusion.process import denoiser as as_denoiser
from jaxgen.method import Array, Batch, Method, Metrics, PyTree, TrainState
from jaxgen.ops.ode import Tolerance

FIRST_TIME = 1e-5  # Of training and likelihoods: the score has no limit at the data.
LAST_TIME = 1e-3  # Of samples of VP and sub-VP processes (Appendix C)


def diffusion_rate(process: Process, t: Array) -> Array:
  """g(t)^2 of dx = f x dt + g dw: beta for VP, beta (1 - alpha^4) for sub-VP.

  It is d sigma^2 / dt - 2 sigma^2 d log alpha / dt; elementwise.
  """
  one = jnp.ones_like(t)
  variance, rise = jax.jvp(lambda t: process.sigma(t) ** 2, (t,), (one,))
  shrink = jax.jvp(lambda t: jnp.log(process.alpha(t)), (t,), (one,))[1]
  return rise - 2.0 * variance * shrink


def likelihood_weight(process: Process) -> Callable[[Array], Array]:
  """g^2 / sigma^2 of the error of the noise: g^2 of that of the score.

  With it the loss times half the number of values, plus a constant, bounds -log p in
  nats where t is in [0, 1] (2101.09258, Theorem 1).
  """
  return lambda t: diffusion_rate(process, t) / process.sigma(t) ** 2


def grid(process: Process, num_steps: int, last: float = LAST_TIME) -> np.ndarray:
  """Times evenly from process.end to `last`, then the data; [num_steps + 1]."""
  times = np.linspace(process.end, last, num_steps)
  return np.append(times, np.asarray(process.time(jnp.zeros(()))))


def denoiser(net: nn.Module, params: PyTree, process: Process) -> Denoiser:
  """E[x | x_t] by a trained network, for samplers and distillation."""

  def noise(x_t: Array, t: Array) -> Array:
    told = jnp.full(len(x_t), continuous.TIME_SCALE * t)
    return net.apply({"params": params}, x_t, told, train=False)

  return as_denoiser(noise, process, NOISE)


def score_sde(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  process: Process | None = None,
  weight: Callable[[Array], Array] = jnp.ones_like,
  ema_decay: float = 0.9999,
  num_levels: int = 256,
  sampler: Callable = stochastic_samplers.predictor_corrector,
  times: np.ndarray | None = None,
  tolerance: Tolerance = likelihood.LIKELIHOOD,
) -> Method:
  """Denoising score matching (Eq. 7), t uniform.

  Metrics: "loss", the weighted squared error of the noise averaged over values;
  "grad_norm" before what `tx` does.

  Tools, on batch["image"]:
    ode: Samples by Heun's method for the probability-flow ODE (Eq. 13) on the same
      times: {"samples": as `sample`}.
    nll: {"bits_per_dim", "nll" (nats per image), "evaluations"}, each f32 [B]: an
      unbiased estimate of a bound for images with uniform noise (`likelihood`), and
      what the solver needed. Needs the extra `ode`.
    inpaint, img2img, interpolate, colourise: See `editing.tools`; on the same times.

  Args:
    net: The noise. (x f32 [B, H, W, C], 1000 t f32 [B], train) -> [B, H, W, C]. It has
      no variables but its parameters.
    tx: Optimiser of `net`.
    process: Default `process.vp_linear()`.
    weight: Of the squared error of the noise: 1, or likelihood_weight(process).
    ema_decay: Decay per step of the averaged weights used to sample.
    num_levels: Of the images: see `likelihood`.
    sampler: See `sampling`; its options bound.
    times: Its grid; default grid(process, 1000).
    tolerance: Of the solver of "nll".

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; `sample` returns
    as `sampling.reported`, samples in [-1, 1]. The network is "net".
  """
  process = vp_linear() if process is None else process
  times = grid(process, 1000) if times is None else times
  parts = continuous.training(
    net,
    tx=tx,
    process=process,
    prediction=NOISE,
    ema_decay=ema_decay,
    first_time=FIRST_TIME,
    weight=weight,
    observe=lambda image, key: likelihood.observe(image, key, num_levels),
  )

  def sample_with(sampler: Callable) -> Callable:
    def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
      prior_key, steps_key = random.split(key)
      x_t = sampling.prior(process, prior_key, batch["image"], times[0])
      denoise = denoiser(net, state.params["net"], process)
      found = sampler(denoise, process, x_t, times, steps_key)
      return sampling.reported(found, likelihood.restore(found.x, num_levels))

    return sample

  def model(state: TrainState, batch: Batch) -> tuple[Denoiser, Process]:
    return denoiser(net, state.params["net"], process), process

  def velocity(params: PyTree, x_t: Array, t: Array) -> Array:
    return flow(denoiser(net, params, process), process)(x_t, t)

  def nll(state: TrainState, batch: Batch, key: Array) -> Metrics:
    return likelihood.bits_per_dim(
      velocity,
      state.params["net"],
      batch["image"],
      key,
      process=process,
      start=FIRST_TIME,
      num_levels=num_levels,
      tolerance=tolerance,
    )

  nll.settings = likelihood.settings(num_levels, tolerance)
  tools = {"ode": sample_with(ode_samplers.heun), "nll": nll}
  tools |= editing.tools(model, times, **likelihood.ways(num_levels))
  sample = sample_with(sampler)
  return Method(parts.init, parts.train_step, parts.eval_step, sample, tools)
