"""Devices live here: the same train step under jit over a mesh, or under pmap.

A `Backend` places states and batches and compiles functions of
(state, batch, key). Methods never see it: they call `pmean` only through
`method.apply_gradients`, and write mathematics for one batch.

Under jit every array is global: a batch is split over all devices, a state is
replicated or, with `fsdp > 1`, sharded by `state_spec`. Noise, data and results
do not depend on the number of devices. Under pmap each device has its own
replica, key and batch-norm statistics; averages make the replicas equal again.
"""

from collections.abc import Callable, Sequence
import contextvars
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

AXIS = "data"
FSDP_AXIS = "fsdp"
MIN_SHARDED_SIZE = 1024  # Smaller tensors are replicated: a gather costs more.
LOOK = 8  # Calls of `in_any_process` between two looks at the other processes.
PyTree = Any


def pmean(tree: PyTree) -> PyTree:
  """Mean over devices inside a mapped axis; the identity under plain jit.

  Integers, which a mean would turn into floats, become their maximum.
  """
  inexact = lambda x: jnp.issubdtype(jnp.result_type(x), jnp.inexact)
  mean = lambda x: (jax.lax.pmean if inexact(x) else jax.lax.pmax)(x, AXIS)
  try:
    return jax.tree.map(mean, tree)
  except NameError:  # AXIS is unbound: arrays are global, there is nothing to do.
    return tree


_split_rows = contextvars.ContextVar("split_rows", default=lambda x: x)


def per_example(x: jax.Array) -> jax.Array:
  """Splits [B, ...] over the devices under jit; the identity elsewhere.

  For what a method draws by itself, such as latents: nothing else tells the compiler
  that its rows belong to the examples, and every device would compute all of them.
  """
  return _split_rows.get()(x)


def every(interval: int, step: jax.Array, update: Callable, state: PyTree) -> PyTree:
  """update(state) on every `interval`-th step (the first is step 0), else `state`.

  On a CPU the update is computed on every step and its result kept or not: inside of a
  `lax.cond` XLA computes gradients of convolutions 25 times slower there.

  Args:
    interval: At least 1.
    step: i32 []; completed steps.
    update: state -> state of the same shapes and dtypes.
    state: Any tree of arrays.
  """
  if interval < 1:
    raise ValueError(f"interval must be at least 1, got {interval}")
  if interval == 1:
    return update(state)
  turn = (step + 1) % interval == 0

  def selected(state: PyTree) -> PyTree:
    return jax.tree.map(
      lambda new, old: jnp.where(turn, new, old), update(state), state
    )

  branch = lambda state: jax.lax.cond(turn, update, lambda state: state, state)
  return jax.lax.platform_dependent(state, cpu=selected, default=branch)


def in_any_process(asked: Callable[[], bool]) -> Callable[[], bool]:
  """() -> whether `asked()` held in any process, the same in all at the same call.

  All processes must call it equally often, from the thread that starts their steps.
  Every `LOOK` calls they look at each other and return what the look before found:
  that was done long ago, so nobody waits for the step under way. (JAX's own
  `reached_preemption_sync_point` counts steps, which several in one call jump over,
  and Orbax sets its count back from a thread when it has saved.)
  """
  if jax.process_count() == 1:
    return asked
  split = NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), P(AXIS))
  find = jax.jit(jnp.any, out_shardings=NamedSharding(split.mesh, P()))
  calls, looks = itertools.count(), [False]

  def answer() -> bool:
    if next(calls) % LOOK:
      return False
    mine = np.full(jax.local_device_count(), asked())
    looks.append(find(jax.make_array_from_process_local_data(split, mine)))
    return bool(looks.pop(0))

  return answer


def as_float(batch: PyTree) -> PyTree:
  """uint8 leaves (images as read) -> f32 in [-1, 1]; others pass unchanged.

  Runs inside the compiled step, so that a quarter of the bytes are transferred.
  """
  convert = lambda x: x / jnp.float32(127.5) - 1 if x.dtype == jnp.uint8 else x
  return jax.tree.map(convert, batch)


def state_spec(shape: tuple[int, ...], fsdp: int) -> P:
  """How an array of a state is laid out over `fsdp` devices.

  The largest axis that `fsdp` divides is split; arrays with no such axis or
  fewer than `MIN_SHARDED_SIZE` elements are replicated.
  """
  axes = [i for i, length in enumerate(shape) if length % fsdp == 0]
  if fsdp == 1 or not axes or np.prod(shape) < MIN_SHARDED_SIZE:
    return P()
  split = max(axes, key=lambda i: shape[i])
  return P(*(FSDP_AXIS if i == split else None for i in range(len(shape))))


class Backend(NamedTuple):
  """How functions of (state, batch, key) are compiled, and where arrays live.

  Attributes:
    num_devices: Devices that share a global batch.
    loop: Whether a run should use `compile_loop`. Not on CPUs unless asked: none is
      bound by dispatch, and XLA computes the gradients of convolutions otherwise
      inside of loops there, 15 times slower (a U-Net on 8x8 images) and with other
      rounding.
    init: (method.init, key, spec) -> state on the devices. `spec` is a host
      batch of which only shapes and dtypes are read.
    template: (method.init, spec) -> the state as it is saved, as
      `jax.ShapeDtypeStruct`s with shardings; computes nothing.
    put_state: A state as it is saved -> the form that compiled steps take.
    get_state: The inverse of `put_state`.
    put_batch: Host batch of this process, numpy [B, ...] -> what compiled steps take.
    put_batches: A list of k host batches -> what a compiled loop takes.
    compile_train: method.train_step -> compiled (state, batch, key) -> (state, scalar
      metrics). Gives each step its own key, averages metrics (and stats under pmap),
      advances `state.step`, and donates the old state.
    compile_loop: The same for k steps in one call, bit for bit what k calls with one
      batch each give; metrics [k].
    compile_eval: eval_step, sample or a tool -> compiled; results [B, ...].
  """

  num_devices: int
  loop: bool
  init: Callable[[Callable, jax.Array, PyTree], PyTree]
  template: Callable[[Callable, PyTree], PyTree]
  put_state: Callable[[PyTree], PyTree]
  get_state: Callable[[PyTree], PyTree]
  put_batch: Callable[[PyTree], PyTree]
  put_batches: Callable[[Sequence[PyTree]], PyTree]
  compile_train: Callable[[Callable], Callable]
  compile_loop: Callable[[Callable], Callable]
  compile_eval: Callable[[Callable], Callable]


def zeros(spec: PyTree) -> PyTree:
  """A batch of zeros as a method sees it, for `init` inside a traced function."""
  return as_float(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), spec))


def abstract_state(init: Callable, spec: PyTree) -> PyTree:
  """Shapes and dtypes of `init`'s state, at any size, without computing it."""
  return jax.eval_shape(lambda key: init(key, zeros(spec)), jax.random.key(0))


def _stack(batches: Sequence[PyTree]) -> PyTree:
  return jax.tree.map(lambda *xs: np.stack(xs), *batches)


def _in_loop(one_step: Callable) -> Callable:
  """A train step -> the same over batches with a leading axis, as one program.

  The barriers keep the compiler from fusing a step with what stands around it, which
  depends on the number of steps: k steps in a call are k calls bit for bit.
  """
  barrier = jax.lax.optimization_barrier

  def steps(state: PyTree, batches: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
    body = lambda state, batch: barrier(one_step(*barrier((state, batch)), key))
    return jax.lax.scan(body, state, batches)

  return steps


def jit_backend(
  devices: Sequence[jax.Device] | None = None,
  *,
  fsdp: int = 1,
  loop: bool | None = None,
) -> Backend:
  """Global arrays over a mesh (data, fsdp), across any number of processes.

  Args:
    devices: Default all devices of all processes.
    fsdp: Devices over which each state is sharded; must divide their number.
      The batch is split over all devices either way.
    loop: Whether the steps of one call are one `lax.scan`; default all but on CPUs.
  """
  devices = list(devices or jax.devices())
  if fsdp < 1 or len(devices) % fsdp:
    raise ValueError(f"fsdp={fsdp} must divide the number of devices, {len(devices)}")
  on_cpu = devices[0].platform == "cpu"
  mesh = Mesh(np.array(devices).reshape(-1, fsdp), (AXIS, FSDP_AXIS))
  whole = NamedSharding(mesh, P())
  split = NamedSharding(mesh, P((AXIS, FSDP_AXIS)))
  split_steps = NamedSharding(mesh, P(None, (AXIS, FSDP_AXIS)))
  sharding = lambda x: NamedSharding(mesh, state_spec(x.shape, fsdp))
  constrain = lambda state: jax.lax.with_sharding_constraint(
    state, jax.tree.map(sharding, state)
  )

  def splitting(fn: Callable, *args: Any) -> Any:
    """fn(*args), traced with `per_example` splitting rows over this mesh."""
    token = _split_rows.set(lambda x: jax.lax.with_sharding_constraint(x, split))
    try:
      return fn(*args)
    finally:
      _split_rows.reset(token)

  def put(target: NamedSharding, batch: PyTree) -> PyTree:
    place = lambda x: jax.make_array_from_process_local_data(target, np.asarray(x))
    return jax.tree.map(place, batch)

  def train_fn(step_fn: Callable) -> Callable:
    def one_step(state, batch, key):  # noqa: ANN001, ANN202
      key = jax.random.fold_in(key, state.step)
      state, metrics = splitting(step_fn, state, as_float(batch), key)
      return constrain(state.replace(step=state.step + 1)), metrics

    return one_step

  def compile_eval(fn: Callable) -> Callable:
    run = lambda state, batch, key: splitting(fn, state, as_float(batch), key)
    return jax.jit(run, out_shardings=whole)

  def init(fn: Callable, key: jax.Array, spec: PyTree) -> PyTree:
    make = lambda key: constrain(fn(key, zeros(spec)))
    # Runs once: on a CPU, optimising its many draws would take most of the start.
    quick = {"xla_backend_optimization_level": 0} if on_cpu else None
    return jax.jit(make, in_shardings=whole, compiler_options=quick)(key)

  def template(fn: Callable, spec: PyTree) -> PyTree:
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding(x))
    return jax.tree.map(place, abstract_state(fn, spec))

  return Backend(
    num_devices=len(devices),
    loop=not on_cpu if loop is None else loop,
    init=init,
    template=template,
    put_state=lambda state: jax.device_put(state, jax.tree.map(sharding, state)),
    get_state=lambda state: state,
    put_batch=lambda batch: put(split, batch),
    put_batches=lambda batches: put(split_steps, _stack(batches)),
    compile_train=lambda step_fn: jax.jit(train_fn(step_fn), donate_argnums=0),
    compile_loop=lambda step_fn: jax.jit(_in_loop(train_fn(step_fn)), donate_argnums=0),
    compile_eval=compile_eval,
  )


def pmap_backend(
  devices: Sequence[jax.Device] | None = None, *, loop: bool | None = None
) -> Backend:
  """Per-device replicas with a leading device axis, on one host.

  Differs from jit in two documented ways: batch norm sees its device's rows
  only (running statistics are averaged), and each device draws its own noise.
  """
  if jax.process_count() > 1:
    raise ValueError(
      f"--backend=pmap runs in one process, found {jax.process_count()}; use jit"
    )
  devices = list(devices or jax.devices())
  n, single = len(devices), jit_backend(devices[:1], loop=loop)
  rows = lambda x, axis: np.reshape(x, (*x.shape[:axis], n, -1, *x.shape[axis + 1 :]))
  merge = lambda x: x.reshape((-1, *x.shape[2:]))
  compile_step = functools.partial(
    jax.pmap, axis_name=AXIS, out_axes=(0, None), devices=devices, donate_argnums=0
  )

  def train_fn(step_fn: Callable) -> Callable:
    def one_step(state, batch, key):  # noqa: ANN001, ANN202
      key = jax.random.fold_in(key, state.step)
      key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
      state, metrics = step_fn(state, as_float(batch), key)
      state = state.replace(step=state.step + 1, stats=pmean(state.stats))
      return state, pmean(metrics)

    return one_step

  def compile_eval(fn: Callable) -> Callable:
    def mapped_fn(state, batch, key):  # noqa: ANN001, ANN202
      key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
      return fn(state, as_float(batch), key)

    mapped = jax.pmap(mapped_fn, AXIS, in_axes=(0, 0, None), devices=devices)
    return lambda s, b, k: jax.tree.map(merge, mapped(s, b, k))

  def put_state(state: PyTree) -> PyTree:
    split = NamedSharding(Mesh(np.array(devices), (AXIS,)), P(AXIS))
    repeat = lambda x: np.broadcast_to(np.asarray(x), (n, *x.shape))
    return jax.device_put(jax.tree.map(repeat, state), split)

  return Backend(
    num_devices=n,
    loop=single.loop,
    init=lambda fn, key, spec: put_state(single.init(fn, key, spec)),
    template=single.template,
    put_state=put_state,
    get_state=lambda state: jax.tree.map(lambda x: x[0], state),
    put_batch=lambda batch: jax.tree.map(lambda x: rows(x, 0), batch),
    put_batches=lambda bs: jax.tree.map(lambda x: rows(x, 1), _stack(bs)),
    compile_train=lambda fn: compile_step(train_fn(fn), in_axes=(0, 0, None)),
    compile_loop=lambda fn: compile_step(_in_loop(train_fn(fn)), in_axes=(0, 1, None)),
    compile_eval=compile_eval,
  )
