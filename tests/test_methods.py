"""The generic table: what every method must do. A new method is a row in `rows/`.

A row shares its compiled steps among the tests.
"""

import functools
import re

import chex
import jax
import numpy as np
import pytest
import rows.autoregressive
import rows.diffusion
import rows.flow
import rows.gan
import rows.vae
from test_parallel import collectives
import varying

from jaxgen import data, parallel
from jaxgen.method import averaged

METHODS = {
  **rows.vae.ROWS,
  **rows.gan.ROWS,
  **rows.flow.ROWS,
  **rows.diffusion.ROWS,
  **rows.autoregressive.ROWS,
}
rows = pytest.mark.parametrize("name", METHODS)
# FSDP and pmap are the same for all methods; these rows, one of a kind, run under them.
KINDS = {
  "vae/vae": "one network",
  "vae/vq_vae": "statistics that the method counts",
  "gan/dcgan": "two networks, batch norms",
  "gan/wgan_gp": "a branch on the step",
  "gan/sngan (labels)": "power iterations",
  "flow/glow": "a start that depends on data",
  "diffusion/ddpm": "an average of the weights",
  "diffusion/progressive_distillation": "a network without an optimiser",
  "autoregressive/gpt": "a scan over layers",
  "autoregressive/linear_ar": "no gradient",
}
kinds = pytest.mark.parametrize("name", KINDS)


@pytest.fixture(autouse=True)
def no_key_is_used_twice():
  """JAX raises where one key is drawn from twice (`random.clone` says it is meant)."""
  with jax.debug_key_reuse(True):
    yield


def batch(name, i):
  return next(data.synthetic(METHODS[name].spec, seed=i)(0))


@functools.cache
def compiled(name, devices=2, fsdp=1, pmap=False):
  """(method, backend, train step), compiled once for all tests of a row.

  That one device trains as two do is tested once, in `test_parallel.py`.
  """
  method = METHODS[name].make()
  some = jax.devices()[:devices]
  backend = (
    parallel.pmap_backend(some) if pmap else parallel.jit_backend(some, fsdp=fsdp)
  )
  return method, backend, backend.compile_train(method.train_step)


@functools.cache
def lowered_init(name):
  """`init`'s program, compiled once for all tests of a row."""
  method, spec = compiled(name)[0], METHODS[name].spec
  return jax.jit(method.init).lower(jax.random.key(0), parallel.zeros(spec))


@functools.cache
def initial(name):
  """The state before training, in host memory."""
  zeros = parallel.zeros(METHODS[name].spec)
  return jax.device_get(lowered_init(name).compile()(jax.random.key(0), zeros))


def train(name, steps=3, fixed=False, **kwargs):
  """(state before, state after, metrics of every step)."""
  _, backend, step = compiled(name, **kwargs)
  before, history = initial(name), []
  state = backend.put_state(before)
  placed = backend.put_batch(batch(name, 0))
  for i in range(steps):
    if i and not fixed:
      placed = backend.put_batch(batch(name, i))
    state, metrics = step(state, placed, jax.random.key(7))
    history.append({k: float(v) for k, v in jax.device_get(metrics).items()})
  return before, state, history


@pytest.mark.smoke
@rows
def test_state_holds_arrays_by_network(name):
  state = initial(name)
  assert all(isinstance(x, np.ndarray | np.generic) for x in jax.tree.leaves(state))
  assert state.step.dtype == np.int32
  assert state.step == 0
  assert set(state.opt) <= set(state.params)
  assert set(state.ema) <= set(state.params)
  for name_ in state.ema:
    chex.assert_trees_all_equal(state.ema[name_], state.params[name_])


@rows
def test_three_steps_change_every_network_with_an_optimiser(name):
  before, state, history = train(name)
  after = jax.device_get(state)
  assert after.step == 3
  for network, params in before.params.items():
    moved = jax.tree.map(
      lambda a, b: bool((a != b).any()), params, after.params[network]
    )
    if network in after.opt:
      assert jax.tree.all(moved), (network, moved)
    else:
      chex.assert_trees_all_equal(params, after.params[network])
  for network, average in before.ema.items():
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), average, after.ema[network])
    assert jax.tree.all(moved)
  for metrics in history:
    assert metrics
    assert all(np.isfinite(v) for v in metrics.values()), metrics


@kinds
def test_devices_and_sharding_change_nothing(name, monkeypatch):
  monkeypatch.setattr(parallel, "MIN_SHARDED_SIZE", 8)
  _, replicated, history = train(name)
  _, sharded, other_history = train(name, devices=4, fsdp=2)
  sharded, replicated = jax.device_get((sharded, replicated))
  chex.assert_trees_all_close(sharded, replicated, atol=METHODS[name].atol)
  chex.assert_trees_all_close(other_history, history, rtol=1e-4, atol=1e-5)


@rows
def test_pmap_keeps_replicas_identical(name):
  """By proof, for any step and data: what differs between devices is averaged."""
  parted = varying.apart(compiled(name)[0], initial(name), METHODS[name].spec)
  assert not parted


@kinds
def test_pmap_runs_and_replicas_are_identical(name):
  _, state, history = train(name, pmap=True)
  a, b = (jax.tree.map(lambda x: x[i], jax.device_get(state)) for i in (0, 1))
  chex.assert_trees_all_equal(a, b)
  assert all(np.isfinite(v) for v in history[-1].values())


@rows
def test_the_same_run_twice_is_the_same_and_compiles_once(name):
  _, first, _ = train(name)
  _, second, _ = train(name)
  chex.assert_trees_all_equal(jax.device_get(first), jax.device_get(second))
  assert compiled(name)[2]._cache_size() == 1


@rows
def test_only_gradients_and_statistics_are_communicated(name):
  """A data-parallel step reduces gradients, batch norms and scalars, no images."""
  _, backend, step = compiled(name)
  state = backend.put_state(initial(name))
  placed = backend.put_batch(batch(name, 0))
  found = collectives(step.lower(state, placed, jax.random.key(0)).compile().as_text())
  assert {kind for kind, _ in found} == {"all-reduce"}
  gradients = sum(
    x.nbytes for x in jax.tree.leaves({n: state.params[n] for n in state.opt})
  )
  statistics = sum(x.nbytes for x in jax.tree.leaves(state.stats))
  scalars = 4 * 16
  total = sum(size for _, size in found)
  passes = METHODS[name].passes
  least = gradients / 2 if METHODS[name].has_products else gradients
  # A batch norm reduces its sums forwards and backwards, for each pass it is in.
  assert least <= total <= passes * gradients + 12 * statistics + scalars, found


@rows
def test_loss_on_one_batch_falls(name):
  metric = METHODS[name].metric
  _, _, history = train(name, steps=60, fixed=True)
  values = [h[metric] for h in history]
  assert np.mean(values[-15:]) < 0.95 * np.mean(values[:5]), values


@rows
def test_sample_is_a_function_of_its_key_in_shape_and_range(name):
  method, backend, _ = compiled(name)
  _, state, _ = train(name)
  fn = backend.compile_eval(method.sample)
  draw = lambda seed: np.asarray(
    fn(averaged(state), backend.put_batch(batch(name, 0)), jax.random.key(seed))[
      "samples"
    ]
  )
  a, b, c = draw(0), draw(0), draw(1)
  row = METHODS[name]
  assert a.shape == row.spec[row.samples].shape
  if row.num_tokens:
    assert a.dtype == np.int32
    assert a.min() >= 0
    assert a.max() < row.num_tokens
  else:
    assert a.dtype == np.float32
    assert np.abs(a).max() <= 1.0
  np.testing.assert_array_equal(a, b)
  assert not np.array_equal(a, c)


def code(fn):
  """What a function does, whatever it closes over."""
  return getattr(getattr(fn, "func", fn), "__code__", fn)


@functools.cache
def computing_rows():
  """{the code of a tool: the first row that has it}; methods share most of them."""
  first = {}
  for name, row in METHODS.items():
    for tool in row.make().tools.values():
      first.setdefault(code(tool), name)
  return first


@rows
def test_evaluation_is_per_example_and_tools_return_finite_arrays(name):
  """As one program, which is sooner compiled than each on its own.

  A tool that an earlier row has too is only traced. (Diffusion in continuous time
  computes them all, beside DDPM in discrete time.)
  """
  method, backend, _ = compiled(name)
  everything = {"eval_step": method.eval_step, **method.tools}
  everything = {n: fn for n, fn in everything.items() if fn}
  if not everything:
    pytest.skip("has neither an evaluation step nor tools")
  first = {} if name == "diffusion/vdm" else computing_rows()
  elsewhere = lambda fn: first.get(code(fn), name) != name
  traced = {n: fn for n, fn in method.tools.items() if elsewhere(fn)}
  functions = {n: fn for n, fn in everything.items() if n not in traced}

  def compute(state, batch, key):
    keys = zip(functions, jax.random.split(key, len(functions)), strict=True)
    return {name: functions[name](state, batch, key) for name, key in keys}

  _, state, _ = train(name)
  placed = backend.put_batch(batch(name, 0))
  out = {}
  if functions:
    out = backend.compile_eval(compute)(averaged(state), placed, jax.random.key(0))
  for key, value in out.pop("eval_step", {}).items():
    assert value.shape == (8,), key
    assert value.dtype == np.float32, key
    assert np.isfinite(value).all(), key
  given = parallel.as_float(placed)
  for tool, fn in traced.items():
    arrays = jax.eval_shape(fn, averaged(state), given, jax.random.key(0))
    assert arrays, tool
    assert all(len(array.shape) and array.shape[0] == 8 for array in arrays.values())
  if "inpaint" in out and "diffusion" in name:  # It keeps the known upper half.
    found = np.asarray(out["inpaint"]["samples"])
    np.testing.assert_allclose(found[:, :4], given["image"][:, :4], atol=1e-5)
  for tool, arrays in out.items():
    assert arrays, tool
    for array in arrays.values():
      assert len(array) == 8, tool
      assert np.isfinite(array).all(), tool


@rows
def test_init_reads_only_shapes(name):
  """The program has no argument but the key: those that it does not use are dropped."""
  program = lowered_init(name).as_text()
  signature = re.search(r"@main\((.*?)\) ->", program, re.DOTALL)[1]
  assert set(re.findall(r"%arg\d+: tensor<(\w+)>", signature)) <= {"2xui32"}
