"""Training of a network of continuous time to predict one thing about x_t.

What flow matching, score matching and v-prediction share: they differ in the process,
in what is predicted (`process.Prediction`) and in the weights of the loss.
"""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.diffusion.noise_prediction import mean, spread
from jaxgen.diffusion.process import Prediction, Process, diffuse
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

TIME_SCALE = 1000.0  # Networks are told 1000 t: sinusoids for the steps of DDPM


class Training(NamedTuple):
  """Parts of a method. Its network is "net".

  Attributes:
    init: As in `Method`, over batch["image"].
    train_step: As in `Method`: "loss", "grad_norm" before what `tx` does.
    eval_step: As in `Method`: "loss".
    predict: (params, x_t, t f32 []) -> prediction, without dropout.
  """

  init: Callable
  train_step: Callable
  eval_step: Callable
  predict: Callable[[PyTree, Array, Array], Array]


def training(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  process: Process,
  prediction: Prediction,
  ema_decay: float,
  first_time: float = 0.0,
  weight: Callable[[Array], Array] = jnp.ones_like,
  observe: Callable[[Array, Array], Array] = lambda image, key: image,
  couple: Callable[[Array, Array], tuple[Array, Array]] = lambda x, noise: (x, noise),
) -> Training:
  """E[weight(t) |net(x_t, 1000 t) - target|^2], a mean over values, t uniform.

  Args:
    net: (x_t f32 [B, H, W, C], 1000 t f32 [B], train) -> [B, H, W, C]. It has no
      variables but its parameters.
    tx: Its optimiser.
    process: Of x_t.
    prediction: What the target is.
    ema_decay: Decay per step of the averaged weights.
    first_time: t is from here to process.end.
    weight: Of the squared error, elementwise in t.
    observe: (image, key) -> x.
    couple: (x, noise), independent -> other pairs, or other values.
  """

  def init(key: Array, batch: Batch) -> TrainState:
    x = jnp.zeros_like(batch["image"])
    variables = net.init(key, x, jnp.zeros(len(x)), train=False)
    return create_state({"net": variables}, {"net": tx}, ema=("net",))

  def losses(
    params: PyTree, image: Array, share: Array, key: Array, dropout_key: Array | None
  ) -> Array:
    """f32 [B]; share [B] in [0, 1] is where t is."""
    observe_key, noise_key = random.split(key)
    x = observe(image, observe_key)
    x, noise = couple(x, random.normal(noise_key, x.shape, x.dtype))
    t = first_time + (process.end - first_time) * share
    train = dropout_key is not None
    rngs = {"dropout": dropout_key} if train else {}
    x_t = diffuse(process, x, t, noise)
    predicted = net.apply(
      {"params": params}, x_t, TIME_SCALE * t, train=train, rngs=rngs
    )
    return weight(t) * mean((predicted - prediction.target(process, x, noise, t)) ** 2)

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    image = batch["image"]
    t_key, noise_key, dropout_key = random.split(key, 3)
    share = random.uniform(t_key, (len(image),))
    loss_fn = lambda p: losses(p, image, share, noise_key, dropout_key).mean()
    loss, grads = jax.value_and_grad(loss_fn)(state.params["net"])
    state = apply_gradients(state, "net", grads, tx)
    state = update_ema(state, ema_decay)
    return state, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    image = batch["image"]
    t_key, noise_key = random.split(key)
    share = spread(*random.split(t_key), len(image))
    return {"loss": losses(state.params["net"], image, share, noise_key, None)}

  def predict(params: PyTree, x_t: Array, t: Array) -> Array:
    told = jnp.full(len(x_t), TIME_SCALE * t)
    return net.apply({"params": params}, x_t, told, train=False)

  return Training(init, train_step, eval_step, predict)
