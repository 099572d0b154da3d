"""Training of a network that predicts the noise at the steps of a chain: L_simple.

Ho et al., 2020, arXiv 2006.11239, Algorithm 1; shared by what samples such a network.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.diffusion.process import (
  NOISE,
  Denoiser,
  Process,
  denoiser,
  diffuse,
)
from jaxgen.method import (
  Array,
  Batch,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  create_state,
  update_ema,
)


class Training(NamedTuple):
  """Parts of a method. Its network is "net".

  Attributes:
    init: As in `Method`, over batch["image"].
    train_step: As in `Method`: "loss", "grad_norm" before clipping.
    eval_step: As in `Method`: "loss".
    predict: (params, x_t, t f32 [], *conditions) -> noise, without dropout.
    denoise: (params, *conditions) -> the denoiser.
  """

  init: Callable
  train_step: Callable
  eval_step: Callable
  predict: Callable[..., Array]
  denoise: Callable[..., Denoiser]


def training(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  process: Process,
  num_steps: int,
  ema_decay: float,
  conditions: Callable[[Batch], tuple[Array, ...]] = lambda batch: (),
) -> Training:
  """L_simple of `net`, (x_t, t [B] from 0, *conditions, train) -> noise.

  Args:
    net: It has no variables but its parameters. In training t is i32; samplers ask for
      f32, also between two steps, so that a table of steps must interpolate.
    tx: Its optimiser.
    process: `process.discrete`; its step t is called t - 1 by the network.
    num_steps: T.
    ema_decay: Decay per step of the averaged weights.
    conditions: batch -> what else the network is given.
  """

  def init(key: Array, batch: Batch) -> TrainState:
    x, *given = jax.tree.map(jnp.zeros_like, (batch["image"], *conditions(batch)))
    variables = net.init(key, x, jnp.zeros(len(x), jnp.int32), *given, train=False)
    return create_state({"net": variables}, {"net": tx}, ema=("net",))

  def losses(
    params: PyTree, batch: Batch, t: Array, noise_key: Array, dropout_key: Array | None
  ) -> Array:
    x = batch["image"]
    noise = random.normal(noise_key, x.shape)
    x_t = diffuse(process, x, t + 1.0, noise)
    train = dropout_key is not None
    inputs = {"params": params}, x_t, t, *conditions(batch)
    rngs = {"dropout": dropout_key} if train else {}
    predicted = net.apply(*inputs, train=train, rngs=rngs)
    return mean((noise - predicted) ** 2)  # Eq. 14

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    t_key, noise_key, dropout_key = random.split(key, 3)
    t = random.randint(t_key, (len(batch["image"]),), 0, num_steps)
    loss_fn = lambda p: losses(p, batch, t, noise_key, dropout_key).mean()
    loss, grads = jax.value_and_grad(loss_fn)(state.params["net"])
    state = apply_gradients(state, "net", grads, tx)
    state = update_ema(state, ema_decay)
    return state, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    t_key, order_key, noise_key = random.split(key, 3)
    t = spread_steps(t_key, order_key, len(batch["image"]), num_steps)
    return {"loss": losses(state.params["net"], batch, t, noise_key, None)}

  predict = functools.partial(predict_noise, net)
  denoise = lambda params, *given: noise_denoiser(net, params, process, *given)
  return Training(init, train_step, eval_step, predict, denoise)


def predict_noise(
  net: nn.Module, params: PyTree, x_t: Array, t: Array, *given: Array
) -> Array:
  """The noise in x_t [B, ...] by a network of `training`, without dropout; t f32 []."""
  told = jnp.full(len(x_t), t - 1.0)
  return net.apply({"params": params}, x_t, told, *given, train=False)


def noise_denoiser(
  net: nn.Module, params: PyTree, process: Process, *given: Array
) -> Denoiser:
  """E[x | x_t] by a network of `training`."""
  noise = lambda x_t, t: predict_noise(net, params, x_t, t, *given)
  return denoiser(noise, process, NOISE)


def spread_steps(t_key: Array, order_key: Array, num: int, num_steps: int) -> Array:
  """int32 [num] in 0, ..., num_steps - 1, one in each of `num` equal strata, shuffled.

  Of the variance of independent ones, little is left.
  """
  steps = spread(t_key, order_key, num) * num_steps
  return jnp.minimum(steps.astype(jnp.int32), num_steps - 1)


def early_steps(
  t_key: Array, order_key: Array, num: int, num_steps: int
) -> tuple[Array, Array]:
  """Steps int32 [num] with p_t ~ log(1 + 1 / (t + 1)), and weights 1 / (T p_t).

  For means over steps of what falls about like 1 / (t + 1), as terms of the bound do:
  the mean of weights * values is that of values over even steps. In strata of the
  distribution's own, shuffled.
  """
  t = jnp.floor((num_steps + 1.0) ** spread(t_key, order_key, num)) - 1.0
  t = jnp.clip(t, 0.0, num_steps - 1.0)
  p = jnp.log1p(1.0 / (t + 1.0)) / jnp.log(num_steps + 1.0)
  return t.astype(jnp.int32), 1.0 / (num_steps * p)


def spread(offset_key: Array, order_key: Array, num: int) -> Array:
  """f32 [num] in [0, 1), one in each of `num` equal strata, shuffled."""
  strata = random.permutation(order_key, jnp.arange(num))
  return (strata + random.uniform(offset_key)) / num


def mean(x: Array) -> Array:
  """Mean over all axes but the first."""
  return x.reshape(len(x), -1).mean(axis=1)
