"""The contract between a generative method and everything around it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp
import optax

from jaxgen import parallel

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Array]
Metrics = dict[str, Array]


class TrainState(struct.PyTreeNode):
  """Everything that changes during training, and nothing else.

  Only arrays live here (no functions, no optimisers), so a state can be
  donated, sharded and written by Orbax as it is. Every dict is keyed by network
  name: {"net": ...} for most methods, {"gen": ..., "critic": ...} for a GAN.

  Attributes:
    step: int32 []. Completed calls of `train_step`; advanced by the runner.
    params: Trained parameters.
    opt: Optimiser states, for the networks that have an optimiser.
    stats: Untrained variables: flax collections such as batch_stats, code-book
      counts, running means. Averaged over devices after every step.
    ema: Moving averages of some of `params`; {} if the method keeps none.
  """

  step: Array
  params: dict[str, PyTree]
  opt: dict[str, PyTree]
  stats: dict[str, PyTree]
  ema: dict[str, PyTree]


class Method(NamedTuple):
  """A generative method as a value: pure functions of (state, batch, key).

  Attributes:
    init: (key, batch) -> state. Only shapes and dtypes of `batch` are read.
    train_step: (state, batch, key) -> (state, scalar metrics).
    eval_step: (state, batch, key) -> per-example metrics, each f32 [B].
    sample: (state, batch, key) -> named outputs. `batch` gives the number and
      shape of what to draw, and any conditioning.
    tools: Further functions of the same signature as `sample`, by name (encode,
      interpolate, inpaint, ...); `jaxgen sample --mode=NAME` runs them. One that
      measures says in its attribute `settings`, in words, what its numbers are of and
      depend on, so that others are not compared with them.
  """

  init: Callable[[Array, Batch], TrainState]
  train_step: Callable[[TrainState, Batch, Array], tuple[TrainState, Metrics]]
  eval_step: Callable[[TrainState, Batch, Array], Metrics] | None = None
  sample: Callable[[TrainState, Batch, Array], dict[str, Array]] | None = None
  tools: Mapping[str, Callable[[TrainState, Batch, Array], dict[str, Array]]] = {}


# The two words of a step that are about devices.
per_example = parallel.per_example
every = parallel.every


def create_state(
  variables: Mapping[str, PyTree],
  optimizers: Mapping[str, optax.GradientTransformation],
  ema: tuple[str, ...] = (),
) -> TrainState:
  """Builds the state at step 0 from {network: flax variables}."""
  params = {name: v["params"] for name, v in variables.items()}
  stats = {
    name: {k: c for k, c in v.items() if k != "params"} for name, v in variables.items()
  }
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt={name: tx.init(params[name]) for name, tx in optimizers.items()},
    stats=stats,
    ema={name: jax.tree.map(jnp.copy, params[name]) for name in ema},
  )


def apply_gradients(
  state: TrainState,
  network: str,
  grads: PyTree,
  tx: optax.GradientTransformation,
) -> TrainState:
  """One optimiser update of one network, averaging `grads` over devices."""
  grads = parallel.pmean(grads)
  params = state.params[network]
  updates, opt = tx.update(grads, state.opt[network], params)
  return state.replace(
    params={**state.params, network: optax.apply_updates(params, updates)},
    opt={**state.opt, network: opt},
  )


def update_ema(state: TrainState, decay: float | Array) -> TrainState:
  """Moves every average in `state.ema` towards the current parameters.

  At step t the decay is at most (1 + t) / (10 + t), as in the code of Song et al.
  (2021; from memory). While that is what holds, step s weighs about 9 s^8 / t^9: the
  start of a short run is forgotten.
  """
  t = state.step.astype(jnp.float32)
  return move_ema(state, jnp.minimum(decay, (1.0 + t) / (10.0 + t)))


def move_ema(state: TrainState, decay: float | Array) -> TrainState:
  """`update_ema` by exactly this decay."""
  ema = {
    name: optax.incremental_update(state.params[name], average, 1.0 - decay)
    for name, average in state.ema.items()
  }
  return state.replace(ema=ema)


def averaged(state: TrainState) -> TrainState:
  """The state to evaluate and sample with: averages in place of parameters."""
  return state.replace(params={**state.params, **state.ema})
