"""Consistency Models.

Yang Song, Prafulla Dhariwal, Mark Chen, Ilya Sutskever, 2023.
https://arxiv.org/abs/2303.01469. A function f(x, sigma) that takes every point of a
solution of the probability-flow ODE to its start, learned from a trained denoiser
(consistency distillation, Algorithm 2) or from images alone (consistency training,
Algorithm 3), and sampled in one or a few evaluations (Algorithm 1).

Networks, noise levels and the teacher are those of `edm`; the student begins with the
teacher's weights. Numbers of equations, algorithms and tables are the paper's, from
memory.

Where this differs from the paper:
  - The distance is the mean of squares over values by default. (Paper: also l1, and
    LPIPS for its best results; pass it as `distance`.)
  - The target network is also what samples are drawn by. (Code: a second, slower
    average.)
  - F is told log sigma / 4 and scaled as in EDM, with c_skip and c_out shifted to hold
    f(x, EPSILON) = x (Eq. 5). (Code: 1000 times that, for networks that expect steps.)
  - Schedules of `progressive` count steps of the run; in phases, from its start.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.diffusion import ode_samplers, preconditioned, sampling
from jaxgen.diffusion.noise_prediction import mean
from jaxgen.diffusion.process import diffuse, edm
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  create_state,
  move_ema,
  per_example,
)

EPSILON = 0.002
RHO = 7.0
PROCESS = edm()


class Schedule(NamedTuple):
  """What changes in training; functions of the step, i32 [].

  Attributes:
    num_levels: N, the number of noise levels, f32 [].
    decay: mu, of the target network, f32 [].
  """

  num_levels: Callable[[Array], Array]
  decay: Callable[[Array], Array]


def constant(num_levels: int = 18, decay: float = 0.0) -> Schedule:
  """N and mu as they are: those of distillation on CIFAR-10 (Table 3)."""
  return Schedule(lambda step: jnp.float32(num_levels), lambda step: jnp.float32(decay))


def progressive(
  num_steps: int, first: int = 2, last: int = 150, decay: float = 0.9
) -> Schedule:
  """N(k) and mu(k) of consistency training (Appendix C).

  Args:
    num_steps: K.
    first: s_0.
    last: s_1; N is at most last + 1.
    decay: mu_0, of the start.
  """

  def num_levels(step: Array) -> Array:
    share = jnp.minimum(step / num_steps, 1.0)
    squares = share * ((last + 1.0) ** 2 - first**2) + first**2
    return jnp.ceil(jnp.sqrt(squares) - 1.0) + 1.0

  log_decay = lambda step: first * math.log(decay) / num_levels(step)
  return Schedule(num_levels, lambda step: jnp.exp(log_decay(step)))


def level(i: Array, num_levels: Array, sigma_max: float) -> Array:
  """Noise level i + 1 of N, i in 0, ..., N - 1, rising (Section 2)."""
  low, high = EPSILON ** (1 / RHO), sigma_max ** (1 / RHO)
  return (low + i / (num_levels - 1.0) * (high - low)) ** RHO


def consistency_function(
  net: nn.Module,
  params: PyTree,
  x: Array,
  sigma: Array,
  sigma_data: float,
  label: Array | None = None,
  **options: Any,
) -> Array:
  """f(x, sigma), which is x at sigma = EPSILON (Eq. 5).

  Args:
    net: F, see `consistency`.
    params: Its parameters.
    x: f32 [B, H, W, C].
    sigma: f32 [B].
    sigma_data: Standard deviation of the images.
    label: int32 [B], of a conditional network.
    **options: Of net.apply.
  """
  above = sigma - EPSILON
  c = preconditioned.preconditioning(sigma, sigma_data)._replace(
    skip=sigma_data**2 / (above**2 + sigma_data**2),
    out=sigma_data * above / jnp.sqrt(sigma**2 + sigma_data**2),
  )
  return preconditioned.apply(net, params, x, c, label, **options)


def square(a: Array, b: Array) -> Array:
  """The mean over values of (a - b)^2; [B]."""
  return mean((a - b) ** 2)


def consistency(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  conditional: bool = False,
  teacher: PyTree | None = None,
  denoise: Callable[..., Array] = preconditioned.denoise,
  schedule: Schedule | None = None,
  distance: Callable[[Array, Array], Array] = square,
  sigma_data: float = 0.5,
  sigma_max: float = 80.0,
  levels: Sequence[float] = (),
) -> Method:
  """Consistency distillation from a teacher, or consistency training without one.

  Metrics: "loss", the distance of f at neighbouring noise levels (weight 1);
  "grad_norm" before what `tx` does; "num_levels", N. The test loss is that of
  distillation or training at the same N, against the target network.

  Args:
    net: F, as in `edm`. (x f32 [B, H, W, C], log sigma / 4 f32 [B], label int32 [B] or
      None, train) -> [B, H, W, C]. It has no variables but its parameters.
    tx: Optimiser of `net`.
    conditional: Whether `net` and the teacher are told batch["label"].
    teacher: Parameters of `net`, trained as an EDM up to sigma_max; None: no teacher.
    denoise: What the teacher makes of them; see `preconditioned.denoise`.
    schedule: Default `constant()` with a teacher; needed without one.
    distance: Of images, f32 [B, H, W, C] each -> [B].
    sigma_data: Standard deviation of the images.
    sigma_max: The largest noise level, where sampling starts.
    levels: Falling noise levels at which a sample is made noisy and mapped again: k of
      them make samples of k + 1 evaluations. See `level`.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1], and batch["label"] if it
    is conditional; `sample` returns as `sampling.reported`, samples in [-1, 1]. The
    network is "net", its average the target network. The network "teacher" is not
    trained, and stands where there is one.

  Raises:
    ValueError: without teacher and schedule, for levels that are not between EPSILON
      and sigma_max, or (in `init`) if the teacher's parameters are not those of `net`.
  """
  if schedule is None and teacher is None:
    raise ValueError("expected a teacher, or a schedule such as progressive(num_steps)")
  if not all(EPSILON < sigma < sigma_max for sigma in levels):
    raise ValueError(f"levels={levels}: expected them in ({EPSILON}, {sigma_max})")
  schedule = schedule or constant()

  def f(
    params: PyTree, x: Array, sigma: Array, label: Array | None, **options: Any
  ) -> Array:
    return consistency_function(net, params, x, sigma, sigma_data, label, **options)

  def label_of(batch: Batch) -> Array | None:
    return batch["label"] if conditional else None

  def init(key: Array, batch: Batch) -> TrainState:
    x = jnp.zeros_like(batch["image"])
    label = jnp.zeros_like(batch["label"]) if conditional else None
    variables = net.init(key, x, jnp.zeros(len(x)), label, train=False)
    if teacher is None:
      return create_state({"net": variables}, {"net": tx}, ema=("net",))
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    if shapes(teacher) != shapes(variables.get("params", {})):
      raise ValueError("teacher: expected parameters of this network, not of another")
    copy = lambda: {"params": jax.tree.map(jnp.array, teacher)}
    return create_state({"net": copy(), "teacher": copy()}, {"net": tx}, ema=("net",))

  def losses(
    params: PyTree,
    target: PyTree,
    state: TrainState,
    batch: Batch,
    key: Array,
    train: bool,
  ) -> Array:
    x, label = batch["image"], label_of(batch)
    level_key, noise_key, dropout_key = random.split(key, 3)
    num_levels = schedule.num_levels(state.step)
    share = random.uniform(level_key, (len(x),))
    i = jnp.minimum(jnp.floor(share * (num_levels - 1.0)), num_levels - 2.0)
    below, above = (level(i + k, num_levels, sigma_max) for k in (0.0, 1.0))
    noise = random.normal(noise_key, x.shape)
    x_t = diffuse(PROCESS, x, above, noise)
    if teacher is not None:
      known = state.params["teacher"]
      of_teacher = lambda x, s: denoise(net, known, x, s.ravel(), sigma_data, label)
      wide = lambda s: sampling.levels(PROCESS, s[:, None, None, None])
      now, then = wide(above), wide(below)
      first = sampling.x_and_noise(of_teacher, PROCESS, x_t, now)
      lower = ode_samplers.trapezoid(of_teacher, PROCESS, x_t, first, now, then)
    else:  # The same noise takes the place of the solver (Eq. 10).
      lower = diffuse(PROCESS, x, below, noise)
    # The same dropout for both networks (Appendix C).
    options = dict(train=train, rngs={"dropout": dropout_key} if train else {})
    goal = jax.lax.stop_gradient(f(target, lower, below, label, **options))
    return distance(f(params, x_t, above, label, **options), goal)

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    target = state.ema["net"]
    loss_fn = lambda p: losses(p, target, state, batch, key, True).mean()
    loss, grads = jax.value_and_grad(loss_fn)(state.params["net"])
    state = apply_gradients(state, "net", grads, tx)
    state = move_ema(state, schedule.decay(state.step))
    norm, num_levels = optax.tree.norm(grads), schedule.num_levels(state.step)
    return state, {"loss": loss, "grad_norm": norm, "num_levels": num_levels}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    params = state.params["net"]
    return {"loss": losses(params, params, state, batch, key, False)}

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    params, label = state.params["net"], label_of(batch)
    prior_key, *keys = random.split(key, 1 + len(levels))
    x = sampling.prior(PROCESS, prior_key, batch["image"], sigma_max)
    x = f(params, x, jnp.full(len(x), sigma_max), label, train=False)
    for sigma, noise_key in zip(levels, keys, strict=True):  # Algorithm 1
      noise = per_example(random.normal(noise_key, x.shape))
      x = x + (sigma**2 - EPSILON**2) ** 0.5 * noise
      x = f(params, x, jnp.full(len(x), sigma), label, train=False)
    number = jnp.asarray(1 + len(levels), jnp.int32)
    return sampling.reported(sampling.Sampled(x, number), jnp.clip(x, -1.0, 1.0))

  return Method(init, train_step, eval_step, sample)
