"""Improved DDPM: Improved Denoising Diffusion Probabilistic Models.

Alex Nichol, Prafulla Dhariwal, 2021. https://arxiv.org/abs/2102.09672.
DDPM with learned variances (Eq. 15), trained with the simple loss and a little of the
bound (Eq. 16), or with the bound alone at time steps drawn by importance (Eq. 18);
sampling on a subset of the steps (Section 4). The cosine schedule (Eq. 17) is
`schedules.cosine_betas`.

Equation numbers are the paper's, from memory. The network counts time steps from 0.

Where this differs from the paper:
  - Importance sampling keeps moving averages of the squares of L_t, of the weight of 10
    values, in place of the last 10 values; they can be summed over devices.
  - The decoder of the bound uses the Gaussian CDF; the authors' code, a tanh
    approximation of it.
  - Predicted images are clipped to [-1, 1], but in training, as in the authors' code.
  - The average's decay rises with the steps, see `update_ema`.
  - The network is DDPM's, with two outputs per value, and not theirs (Section 3 and
    Appendix A: more heads of attention, scale and shift by time).
"""

from collections.abc import Sequence
import functools
from typing import NamedTuple

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.diffusion import (
  bound,
  editing,
  learned_variance,
  sampling,
  stochastic_samplers,
)
from jaxgen.diffusion.noise_prediction import early_steps, mean
from jaxgen.diffusion.process import (
  NOISE,
  Denoiser,
  Process,
  clipped,
  denoiser,
  diffuse,
  discrete,
)
from jaxgen.diffusion.sampling import Levels, posterior_mean, reported
from jaxgen.diffusion.schedules import even_steps
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  create_state,
  per_example,
  update_ema,
)

NUM_VALUES = 10  # of each L_t, before steps are drawn by importance


class Objective(NamedTuple):
  """A loss: simple_weight L_simple + bound_weight L_vlb.

  Attributes:
    simple_weight: Of the squared error of the noise, averaged over pixels.
    bound_weight: Of the bound, in bits per dimension.
    bound_moves_mean: Whether the bound has a gradient in means, or in variances only.
    by_importance: Whether steps are drawn by the size of their L_t, or evenly.
  """

  simple_weight: float
  bound_weight: float
  bound_moves_mean: bool
  by_importance: bool


HYBRID = Objective(1.0, 1e-3, bound_moves_mean=False, by_importance=False)  # Eq. 16
VLB = Objective(0.0, 1.0, bound_moves_mean=True, by_importance=True)  # Section 3.3


def improved_ddpm(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  betas: np.ndarray | Sequence[float],
  objective: Objective = HYBRID,
  num_sample_steps: int | None = None,
  ema_decay: float = 0.9999,
) -> Method:
  """Diffusion that predicts the noise and the variances of the reverse steps.

  Metrics: "loss"; "simple", the squared error of the noise; "vlb", an estimate of the
  bound without L_T, in bits per dimension, from one step per image (in evaluation with
  the sampler's clipped predictions); of a step also "grad_norm" before clipping.

  Tools, on batch["image"]:
    nll: Upper bound on -log2 p(x) per pixel and channel, for images of 256
      levels, and its parts "rate" (L_1 + ... + L_T) and "distortion" (L_0):
      {"bits_per_dim", "rate", "distortion"}, each f32 [B]. One call of the network per
      step.
    inpaint, img2img, interpolate, colourise: See `editing.tools`; with the posterior's
      variances, not the learned ones.

  Args:
    net: (x f32 [B, H, W, C], t [B], train) -> [B, H, W, 2 C]: the noise, then for
      each value where its variance lies between the posterior's (-1) and beta (1), on a
      scale of logarithms. It has no variables but its parameters.
    tx: Optimiser of `net`.
    betas: Forward-process variances, [T] in (0, 1).
    objective: `HYBRID` (L_hybrid) or `VLB` (L_vlb with importance sampling).
    num_sample_steps: Of `sample`: so many of the T, evenly; default all.
    ema_decay: Decay per step of the averaged weights used to sample.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; `sample` returns
    as `sampling.reported`, samples in [-1, 1]. The network is "net"; the averages of
    L_t are stats["steps"].
  """
  process, num_steps = discrete(betas), len(betas)
  sample_steps = even_steps(num_steps, num_sample_steps or num_steps)

  def init(key: Array, batch: Batch) -> TrainState:
    x = jnp.zeros_like(batch["image"])
    variables = net.init(key, x, jnp.zeros(len(x), jnp.int32), train=False)
    state = create_state({"net": variables}, {"net": tx}, ema=("net",))
    if not objective.by_importance:
      return state
    history = {"squares": jnp.zeros(num_steps), "counts": jnp.zeros(num_steps)}
    return state.replace(stats={**state.stats, "steps": history})

  def gaussian_of(
    outputs: Array, x_t: Array, now: Levels, then: Levels, limit: float = 1.0
  ) -> tuple[Array, Array, Array]:
    """The noise, and mean and variance of p(x_then | x_now) (Eq. 15)."""
    noise, v = learned_variance.split(outputs)
    clean = jnp.clip((x_t - now.sigma * noise) / now.alpha, -limit, limit)
    extremes = learned_variance.extremes(process, now, then)
    variance = learned_variance.variance(v, *extremes)
    return noise, posterior_mean(x_t, clean, now, then), variance

  # Training.

  def losses(
    params: PyTree, x: Array, t: Array, noise_key: Array, dropout_key: Array | None
  ) -> tuple[Array, Array]:
    """L_simple, and T times L_t in bits per dimension: each [B]."""
    train = dropout_key is not None
    at = lambda t: sampling.levels(process, t.reshape(-1, *(1,) * (x.ndim - 1)))
    now, then = at(t + 1.0), at(t * 1.0)
    noise = random.normal(noise_key, x.shape)
    x_t = diffuse(process, x, t + 1.0, noise)
    rngs = {"dropout": dropout_key} if train else {}
    outputs = net.apply({"params": params}, x_t, t, train=train, rngs=rngs)
    # Clipped predictions have no gradient, but the bound is that of the sampler.
    limit = jnp.inf if train else 1.0
    predicted, mu, variance = gaussian_of(outputs, x_t, now, then, limit)
    if not objective.bound_moves_mean:
      mu = jax.lax.stop_gradient(mu)
    nats = mean(bound.term(x, x_t, mu, variance, now, then))
    return mean((noise - predicted) ** 2), nats * num_steps / jnp.log(2.0)

  def weighted(simple: Array, vlb: Array, weights: Array | float = 1.0) -> Metrics:
    loss = objective.simple_weight * simple + objective.bound_weight * vlb
    return {"loss": weights * loss, "simple": weights * simple, "vlb": weights * vlb}

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    x = batch["image"]
    t_key, noise_key, dropout_key = random.split(key, 3)
    if objective.by_importance:
      t, weights = important_steps(state.stats["steps"], t_key, len(x))
    else:
      t, weights = random.randint(t_key, (len(x),), 0, num_steps), 1.0

    def loss_fn(params: PyTree) -> tuple[Array, tuple[Metrics, Array]]:
      simple, vlb = losses(params, x, t, noise_key, dropout_key)
      metrics = {k: m.mean() for k, m in weighted(simple, vlb, weights).items()}
      return metrics["loss"], (metrics, vlb)

    of_params = jax.value_and_grad(loss_fn, has_aux=True)
    (_, (metrics, vlb)), grads = of_params(state.params["net"])
    state = apply_gradients(state, "net", grads, tx)
    state = update_ema(state, ema_decay)
    if objective.by_importance:
      history = updated_history(state.stats["steps"], t, vlb)
      state = state.replace(stats={**state.stats, "steps": history})
    return state, {**metrics, "grad_norm": optax.tree.norm(grads)}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    x = batch["image"]
    t_key, order_key, noise_key = random.split(key, 3)
    # L_0 is a quarter of the bound: of even steps, few batches would meet it.
    t, weights = early_steps(t_key, order_key, len(x), num_steps)
    return weighted(*losses(state.params["net"], x, t, noise_key, None), weights)

  # Sampling.

  def outputs_of(params: PyTree, x_t: Array, t: Array) -> Array:
    return net.apply({"params": params}, x_t, jnp.full(len(x_t), t - 1.0))

  def reverse(params: PyTree) -> bound.Reverse:
    def step(x_t: Array, now: Levels, then: Levels) -> tuple[Array, Array]:
      return gaussian_of(outputs_of(params, x_t, now.t), x_t, now, then)[1:]

    return step

  def model(state: TrainState, batch: Batch) -> tuple[Denoiser, Process]:
    outputs = functools.partial(outputs_of, state.params["net"])
    noise = lambda x_t, t: learned_variance.split(outputs(x_t, t))[0]
    return clipped(denoiser(noise, process, NOISE)), process

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    prior_key, steps_key = random.split(key)
    x = per_example(random.normal(prior_key, batch["image"].shape))
    step = reverse(state.params["net"])
    found = stochastic_samplers.chain(step, process, x, sample_steps, steps_key)
    return reported(found, jnp.clip(found.x, -1.0, 1.0))

  def nll(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    step = reverse(state.params["net"])
    return bound.bits_per_dim(step, process, num_steps, batch["image"], key)

  tools = {"nll": nll, **editing.tools(model, sample_steps)}
  return Method(init, train_step, eval_step, sample, tools)


def important_steps(
  history: dict[str, Array], key: Array, num: int
) -> tuple[Array, Array]:
  """Steps int32 [num] drawn with p_t ~ sqrt(E[L_t^2]), and weights 1 / (T p_t).

  (Eq. 18.) Evenly until every step has been drawn 10 times.
  """
  sizes, total = jnp.sqrt(history["squares"]), len(history["squares"])
  ready = history["counts"].min() >= NUM_VALUES
  p = jnp.where(ready, sizes / jnp.maximum(sizes.sum(), 1e-30), 1.0 / total)
  p = (1.0 - 1e-3) * p + 1e-3 / total  # None is left out for good, as in their code.
  t = random.categorical(key, jnp.log(p), shape=(num,))
  return t, 1.0 / (total * p[t])


def updated_history(
  history: dict[str, Array], t: Array, losses: Array
) -> dict[str, Array]:
  """`history` after the values `losses` [B] of the steps t [B]."""
  zeros = jnp.zeros_like(history["counts"])
  counts = zeros.at[t].add(1.0)
  sums = zeros.at[t].add(losses**2)
  seen = history["counts"] + counts
  # Plain means of the first values, then with a weight of 1 / 10 for each new one.
  rate = counts / jnp.maximum(jnp.minimum(seen, NUM_VALUES), counts)
  new = sums / jnp.maximum(counts, 1.0)
  squares = history["squares"] + jnp.where(counts > 0, rate, 0.0) * (
    new - history["squares"]
  )
  return {"squares": squares, "counts": seen}
