"""Progressive Distillation for Fast Sampling of Diffusion Models.

Tim Salimans, Jonathan Ho, 2022. https://arxiv.org/abs/2202.00512. A student learns to
do in one DDIM step what its teacher does in two (Algorithm 2); then it is the teacher.
Each round is a phase of `fit`, with half the number of steps:

  first = teacher(net, tx=tx, num_steps=32)
  then = [Phase(progressive_distillation(net, tx=tx, num_steps=n), data, steps, distil)
          for n in (16, 8, 4, 2, 1)]

The process is alpha = cos(pi t / 2), the network predicts v = alpha noise - sigma x
(Appendix D), the loss is the error of x weighted by max(SNR, 1) (Section 4).

Numbers of equations, algorithms, sections and tables are from memory.

Where this differs from the paper:
  - The teacher is the average of the parameters, as is the first student; the paper's
    Algorithm 2 says its parameters.
  - The loss is a mean over values.
  - Samples are clipped to [-1, 1] at their end only. (Code: x at every step too.)
"""

from collections.abc import Callable

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.diffusion import continuous, sampling, schedules, stochastic_samplers
from jaxgen.diffusion.noise_prediction import mean, spread
from jaxgen.diffusion.process import (
  Denoiser,
  Process,
  V,
  diffuse,
  log_snr,
  vp_cosine,
)
from jaxgen.diffusion.process import denoiser as as_denoiser
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  create_state,
  update_ema,
)

PROCESS = vp_cosine(0.0)


def denoiser(net: nn.Module, params: PyTree) -> Denoiser:
  """E[x | x_t] by a network that predicts v; t [] or [B]."""

  def v(x_t: Array, t: Array) -> Array:
    told = jnp.broadcast_to(continuous.TIME_SCALE * t, (len(x_t),))
    return net.apply({"params": params}, x_t, told, train=False)

  return as_denoiser(v, PROCESS, V)


def weight(process: Process, t: Array) -> Array:
  """max(SNR, 1), of the squared error of x."""
  return jnp.exp(jnp.maximum(log_snr(process, t), 0.0))


def two_steps(teacher: Denoiser, x_t: Array, t: Array, num_steps: int) -> Array:
  """The x for which one step from t to t - 1 / N ends where two of the teacher do.

  (Algorithm 2, and Appendix G for its last step.)

  Args:
    teacher: Of (x_t, t [B]).
    x_t: f32 [B, ...].
    t: f32 [B] in 1 / N, ..., 1.
    num_steps: N, of the student.
  """
  middle, end = t - 0.5 / num_steps, jnp.maximum(t - 1.0 / num_steps, 0.0)
  z = ddim_step(teacher(x_t, t), x_t, t, middle)
  z = ddim_step(teacher(z, middle), z, middle, end)
  at = lambda t: (_as(PROCESS.alpha(t), z), _as(PROCESS.sigma(t), z))
  (alpha, sigma), (alpha_end, sigma_end) = at(t), at(end)
  ratio = sigma_end / sigma
  return (z - ratio * x_t) / (alpha_end - ratio * alpha)


def ddim_step(x: Array, x_t: Array, now: Array, then: Array) -> Array:
  """x_t at time `then`, where x is what was noised and times are [B] (Eq. 8)."""
  alpha, sigma = _as(PROCESS.alpha(now), x), _as(PROCESS.sigma(now), x)
  noise = (x_t - alpha * x) / sigma
  return diffuse(PROCESS, x, then, noise)


def teacher(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  num_steps: int,
  ema_decay: float = 0.9999,
) -> Method:
  """The model to distil: v-prediction in continuous time.

  Its loss is max(SNR, 1) times the squared error of x: sigma^2 times that of v.

  Args:
    net: As there.
    tx: Optimiser of `net`.
    num_steps: Of DDIM, to sample.
    ema_decay: Decay per step of the averaged weights used to sample.
  """
  parts = continuous.training(
    net,
    tx=tx,
    process=PROCESS,
    prediction=V,
    ema_decay=ema_decay,
    weight=lambda t: jnp.maximum(PROCESS.alpha(t), PROCESS.sigma(t)) ** 2,
  )
  return Method(parts.init, parts.train_step, parts.eval_step, _sample(net, num_steps))


def progressive_distillation(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  num_steps: int,
  ema_decay: float = 0.9999,
) -> Method:
  """One round: a student of N steps from a teacher of 2 N.

  Metrics: "loss", max(SNR, 1) times the squared error of x averaged over values;
  "grad_norm" before what `tx` does.

  Args:
    net: v. (x f32 [B, H, W, C], 1000 t f32 [B], train) -> [B, H, W, C]. It has no
      variables but its parameters.
    tx: Optimiser of the student.
    num_steps: N.
    ema_decay: Decay per step of the averaged weights used to sample.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; `sample` returns
    as `sampling.reported`, samples in [-1, 1]. The networks are "net" and "teacher",
    which is not trained: `distil` puts it in place.
  """
  if num_steps < 1:
    raise ValueError(f"num_steps must be at least 1, got {num_steps}")

  def init(key: Array, batch: Batch) -> TrainState:
    x = jnp.zeros_like(batch["image"])
    variables = net.init(key, x, jnp.zeros(len(x)), train=False)
    both = {"net": variables, "teacher": jax.tree.map(jnp.copy, variables)}
    return create_state(both, {"net": tx}, ema=("net",))

  def losses(params: PyTree, teacher: PyTree, x: Array, i: Array, key: Array) -> Array:
    """f32 [B]; i [B] in 1, ..., N."""
    t = i / num_steps
    x_t = diffuse(PROCESS, x, t, random.normal(key, x.shape))
    goal = two_steps(denoiser(net, teacher), x_t, t, num_steps)
    error = denoiser(net, params)(x_t, t) - jax.lax.stop_gradient(goal)
    return weight(PROCESS, t) * mean(error**2)

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    x, goal = batch["image"], state.params["teacher"]
    step_key, noise_key = random.split(key)
    i = random.randint(step_key, (len(x),), 1, num_steps + 1)
    loss_fn = lambda p: losses(p, goal, x, i, noise_key).mean()
    loss, grads = jax.value_and_grad(loss_fn)(state.params["net"])
    state = apply_gradients(state, "net", grads, tx)
    state = update_ema(state, ema_decay)
    return state, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    step_key, noise_key = random.split(key)
    share = spread(*random.split(step_key), len(batch["image"]))
    i = jnp.minimum(jnp.floor(share * num_steps), num_steps - 1.0) + 1.0
    params, goal = state.params["net"], state.params["teacher"]
    return {"loss": losses(params, goal, batch["image"], i, noise_key)}

  return Method(init, train_step, eval_step, _sample(net, num_steps))


def distil(last: TrainState, fresh: TrainState) -> TrainState:
  """Begins a round: teacher and student are the average of the one before."""
  net = last.ema["net"]
  copy = lambda: jax.tree.map(jnp.copy, net)
  return fresh.replace(params={"net": copy(), "teacher": copy()}, ema={"net": copy()})


def _sample(net: nn.Module, num_steps: int) -> Callable:
  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    x = sampling.prior(PROCESS, key, batch["image"], 1.0)
    times = schedules.uniform(num_steps, 1.0)
    denoise = denoiser(net, state.params["net"])
    found = stochastic_samplers.ddim(denoise, PROCESS, x, times)
    return sampling.reported(found, jnp.clip(found.x, -1.0, 1.0))

  return sample


def _as(values: Array, x: Array) -> Array:
  """[B] with axes of length 1 to multiply x by."""
  return values.reshape(-1, *(1,) * (x.ndim - 1))
