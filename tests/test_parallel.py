"""Devices: any number of them, sharded or not, trains the same network."""

import os
import re
import subprocess
import sys

import chex
from conftest import FLAGS_FOR_PROCESSES
from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
import pytest
import toy

from jaxgen import parallel
from jaxgen.method import Method, apply_gradients, create_state, update_ema


def train(backend, chunks=(1,) * 6, method=None, seed=0):
  """States and every loss after some steps, in calls of the given lengths."""
  method = method or toy.toy(toy.Net(), tx=optax.adam(0.01))
  data = toy.Numbers()(0)
  state = backend.init(method.init, jax.random.key(seed), toy.Numbers.spec)
  compile_step = backend.compile_loop if backend.loop else backend.compile_train
  step, losses = compile_step(method.train_step), []
  for count in chunks:
    batches = [next(data) for _ in range(count)]
    put = backend.put_batches(batches) if backend.loop else backend.put_batch(*batches)
    state, metrics = step(state, put, jax.random.key(7))
    losses += list(np.atleast_1d(metrics["loss"]))
  return jax.device_get(backend.get_state(state)), losses


@pytest.fixture(scope="module")
def one_device():
  return train(parallel.jit_backend(jax.devices()[:1]))


@pytest.mark.smoke
@pytest.mark.parametrize("num", [2, 4, 8])
def test_jit_does_not_depend_on_the_number_of_devices(num, one_device):
  state, losses = train(parallel.jit_backend(jax.devices()[:num]))
  chex.assert_trees_all_close(state, one_device[0], atol=2e-5)
  np.testing.assert_allclose(losses, one_device[1], atol=2e-5)
  assert int(state.step) == 6


@pytest.mark.parametrize("fsdp", [2, 4])
def test_fsdp_equals_replicated(fsdp, one_device, monkeypatch):
  monkeypatch.setattr(parallel, "MIN_SHARDED_SIZE", 8)
  state, losses = train(parallel.jit_backend(jax.devices()[:4], fsdp=fsdp))
  chex.assert_trees_all_close(state, one_device[0], atol=2e-5)
  np.testing.assert_allclose(losses, one_device[1], atol=2e-5)


def test_fsdp_really_shards():
  backend = parallel.jit_backend(jax.devices()[:4], fsdp=4)
  method = toy.toy(toy.Net(width=256), tx=optax.adam(0.01))
  state = backend.init(method.init, jax.random.key(0), toy.Numbers.spec)
  step = backend.compile_train(method.train_step)
  batch = backend.put_batch(next(toy.Numbers()(0)))
  for _ in range(2):  # The layout survives the step.
    for tree in (state.params, state.ema, state.opt):
      kernels = [x for x in jax.tree.leaves(tree) if x.size >= 4096]
      assert kernels
      for x in kernels:
        assert {s.data.nbytes for s in x.addressable_shards} == {x.nbytes // 4}
    state, _ = step(state, batch, jax.random.key(0))


def test_state_spec_splits_the_largest_divisible_axis():
  assert parallel.state_spec((3, 3, 256, 512), 4) == P(None, None, None, "fsdp")
  assert parallel.state_spec((1024, 6), 4) == P("fsdp", None)
  assert parallel.state_spec((1023, 7), 4) == P()
  assert parallel.state_spec((64,), 4) == P()
  assert parallel.state_spec((1024, 512), 1) == P()


def test_fsdp_must_divide_the_devices():
  with pytest.raises(ValueError, match="fsdp=3 must divide the number of devices, 8"):
    parallel.jit_backend(fsdp=3)


@pytest.mark.smoke
def test_pmap_keeps_replicas_identical():
  backend = parallel.pmap_backend(jax.devices()[:2])
  method = toy.toy(toy.Net(), tx=optax.adam(0.01))
  state = backend.init(method.init, jax.random.key(0), toy.Numbers.spec)
  step = backend.compile_train(method.train_step)
  for batch, _ in zip(toy.Numbers()(0), range(3), strict=False):
    state, metrics = step(state, backend.put_batch(batch), jax.random.key(7))
  first, second = (jax.tree.map(lambda x: x[i], jax.device_get(state)) for i in (0, 1))
  chex.assert_trees_all_equal(first, second)
  assert metrics["loss"].shape == ()


def test_pmap_devices_draw_different_noise_and_average_metrics():
  backend = parallel.pmap_backend(jax.devices()[:2])
  draw = lambda state, batch, key: {"x": jax.random.normal(key, batch["image"].shape)}
  state = backend.put_state({"w": np.zeros(1, np.float32)})
  batch = next(toy.Numbers()(0))
  out = backend.compile_eval(draw)(state, backend.put_batch(batch), jax.random.key(0))
  assert not np.allclose(out["x"][:4], out["x"][4:])

  method = toy.toy(toy.Net(), tx=optax.sgd(0.0))
  state = backend.init(method.init, jax.random.key(0), toy.Numbers.spec)
  step = backend.compile_train(method.train_step)
  _, metrics = step(state, backend.put_batch(batch), jax.random.key(7))
  pixels = batch["image"][[0, 4], 0, 0, 0] / 127.5 - 1  # The first row of each device.
  np.testing.assert_allclose(metrics["first"], pixels.mean(), rtol=1e-6)


def test_pmap_keeps_integer_statistics_integers_and_equal():
  method = toy.toy(toy.Net(), tx=optax.sgd(0.0))

  def init(key, batch):
    return method.init(key, batch).replace(stats={"net": {"count": jnp.int32(0)}})

  def train_step(state, batch, key):
    bright = (batch["image"] > 0).sum(dtype=jnp.int32)  # Not the same on all devices.
    return state.replace(stats={"net": {"count": bright}}), {"loss": jnp.float32(0)}

  backend = parallel.pmap_backend(jax.devices()[:2])
  state = backend.init(init, jax.random.key(0), toy.Numbers.spec)
  batch = next(toy.Numbers()(0))
  step = backend.compile_train(train_step)
  state, _ = step(state, backend.put_batch(batch), jax.random.key(0))
  halves = [(half > 127).sum() for half in np.split(batch["image"], 2)]
  assert halves[0] != halves[1]
  assert np.asarray(state.stats["net"]["count"]).tolist() == [max(halves)] * 2


def test_pmap_with_deterministic_gradients_equals_jit():
  """Without noise and batch norm, the mean of device gradients is the gradient."""

  def method():
    net, tx = nn.Dense(1), optax.sgd(0.1)

    def init(key, batch):
      return create_state({"net": net.init(key, batch["image"])}, {"net": tx})

    def train_step(state, batch, key):
      def loss_fn(params):
        return jnp.mean(net.apply({"params": params}, batch["image"]) ** 2)

      loss, grads = jax.value_and_grad(loss_fn)(state.params["net"])
      return apply_gradients(state, "net", grads, tx), {"loss": loss}

    return Method(init, train_step)

  a = train(parallel.pmap_backend(jax.devices()[:4]), method=method())
  b = train(parallel.jit_backend(jax.devices()[:1]), method=method())
  chex.assert_trees_all_close(a[0], b[0], atol=1e-6)
  np.testing.assert_allclose(a[1], b[1], rtol=1e-5)


@pytest.mark.skipif("FULL" not in os.environ, reason="run by the next test")
@pytest.mark.parametrize("make", [parallel.jit_backend, parallel.pmap_backend])
def test_steps_in_a_loop_are_the_same_bit_for_bit(make):
  """In programs as users have them; those of the tests are barely optimised.

  Without convolutions, which XLA compiles otherwise in loops on CPUs.
  """
  backend = make(jax.devices()[:2], loop=True)
  a, losses_a = train(backend, (1,) * 6)
  b, losses_b = train(backend, (3, 3))
  chex.assert_trees_all_equal(a, b)
  assert losses_a == losses_b


@pytest.mark.parametrize("make", [parallel.jit_backend, parallel.pmap_backend])
def test_steps_in_a_loop_are_those_of_single_calls(make):
  a, _ = train(make(jax.devices()[:2], loop=True), (3, 3))
  b, _ = train(make(jax.devices()[:2]))
  chex.assert_trees_all_close(a, b, atol=1e-5)


def test_steps_in_a_loop_are_the_same_in_fully_optimised_programs():
  same_tests = f"{__file__}::test_steps_in_a_loop_are_the_same_bit_for_bit"
  flags = {"XLA_FLAGS": FLAGS_FOR_PROCESSES, "FULL": "1"}
  done = subprocess.run(
    [sys.executable, "-m", "pytest", same_tests, "-p", "no:cacheprovider"],
    env={**os.environ, **flags},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout
  assert "2 passed" in done.stdout


def test_every_step_has_its_own_key():
  def train_step(state, batch, key):
    return state, {"loss": jax.random.normal(key)}

  method = toy.toy(toy.Net(), tx=optax.sgd(0.0))._replace(train_step=train_step)
  for chunks in ((1, 1, 1, 1), (4,)):
    for make in (parallel.jit_backend, parallel.pmap_backend):
      _, draws = train(make(jax.devices()[:2], loop=True), chunks, method)
      assert len(set(draws)) == 4


def test_keys_are_those_that_the_documentation_says():
  key = jax.random.key(7)

  def train_step(state, batch, key):
    return state, {"loss": jax.random.normal(key)}

  method = toy.toy(toy.Net(), tx=optax.sgd(0.0))._replace(train_step=train_step)
  at_step = [jax.random.fold_in(key, step) for step in range(3)]
  _, draws = train(parallel.jit_backend(jax.devices()[:2], loop=True), (1, 2), method)
  np.testing.assert_array_equal(draws, [jax.random.normal(k) for k in at_step])
  _, draws = train(parallel.pmap_backend(jax.devices()[:2], loop=True), (1, 2), method)
  per_device = [[jax.random.fold_in(k, i) for i in (0, 1)] for k in at_step]
  means = [np.mean([jax.random.normal(k) for k in keys]) for keys in per_device]
  np.testing.assert_allclose(draws, means, rtol=1e-6)


def collectives(text):
  """[(kind, bytes)] of the collectives in compiled HLO."""
  found = []
  for line in text.splitlines():
    match = re.search(
      r"= (.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)"
      r"(-start)?\(",
      line,
    )
    if match:
      shapes = re.findall(r"(f32|bf16|s32|u32|pred)\[([\d,]*)\]", match[1])
      size = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "pred": 1}
      dims = lambda s: np.prod([int(d) for d in s.split(",") if d], dtype=int)
      found.append((match[2], sum(size[t] * dims(s) for t, s in shapes)))
  return found


def two_networks():
  """Two networks, each with its optimiser; convolutions, dropout, group norm."""

  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = nn.GroupNorm(2)(nn.silu(nn.Conv(8, (3, 3))(x)))
      x = nn.Dropout(0.1, deterministic=False)(x)
      return nn.Dense(1)(x.mean((1, 2)))

  net, tx = Net(), optax.adam(1e-3)

  def init(key, batch):
    rngs = {"params": key, "dropout": key}
    variables = {n: net.init(rngs, batch["image"]) for n in ("a", "b")}
    return create_state(variables, {"a": tx, "b": tx}, ema=("a",))

  def train_step(state, batch, key):
    for name in ("a", "b"):

      def loss_fn(params):
        y = net.apply({"params": params}, batch["image"], rngs={"dropout": key})
        return jnp.mean((y - jax.random.normal(key, y.shape)) ** 2)

      grads = jax.grad(loss_fn)(state.params[name])
      state = apply_gradients(state, name, grads, tx)
    return update_ema(state, 0.9), {"loss": jnp.float32(0)}

  return Method(init, train_step)


def test_a_data_parallel_step_reduces_gradients_once_and_nothing_else():
  backend, method = parallel.jit_backend(jax.devices()[:2]), two_networks()
  state = backend.init(method.init, jax.random.key(0), toy.Numbers.spec)
  batch = backend.put_batch(next(toy.Numbers()(0)))
  step = backend.compile_train(method.train_step)
  compiled = step.lower(state, batch, jax.random.key(0)).compile()
  found = collectives(compiled.as_text())
  assert {kind for kind, _ in found} == {"all-reduce"}
  parameter_bytes = sum(x.nbytes for x in jax.tree.leaves(state.params))
  assert sum(size for _, size in found) == parameter_bytes
  assert len(found) <= 2  # One per network, or both in one.


def test_second_step_does_not_recompile():
  method = toy.toy(toy.Net(), tx=optax.adam(0.01))
  traced = chex.assert_max_traces(method.train_step, n=1)
  train(
    parallel.jit_backend(jax.devices()[:2]), method=method._replace(train_step=traced)
  )


def test_images_become_floats_on_the_device():
  x = parallel.as_float(
    {"image": jnp.array([0, 255, 51], jnp.uint8), "label": jnp.int32(3)}
  )
  np.testing.assert_allclose(x["image"], [-1.0, 1.0, -0.6], atol=1e-6)
  assert x["label"].dtype == jnp.int32


def test_bfloat16_computes_low_and_keeps_high():
  class Net(nn.Module):
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
      return nn.Dense(16, dtype=self.dtype)(x.reshape(len(x), -1))

  def method(dtype):
    net, tx = Net(dtype), optax.adam(0.01)

    def init(key, batch):
      return create_state({"net": net.init(key, batch["image"])}, {"net": tx}, ("net",))

    def train_step(state, batch, key):
      def loss_fn(params):
        y = net.apply({"params": params}, batch["image"])
        assert y.dtype == dtype
        return jnp.mean(y.astype(jnp.float32) ** 2)

      loss, grads = jax.value_and_grad(loss_fn)(state.params["net"])
      return update_ema(apply_gradients(state, "net", grads, tx), 0.9), {"loss": loss}

    return Method(init, train_step)

  backend = parallel.jit_backend(jax.devices()[:1])
  low, losses_low = train(backend, method=method(jnp.bfloat16))
  _, losses_high = train(backend, method=method(jnp.float32))
  for tree in (low.params, low.ema):
    assert {x.dtype for x in jax.tree.leaves(tree)} == {np.dtype(np.float32)}
  assert losses_low[0].dtype == np.float32
  np.testing.assert_allclose(losses_low, losses_high, rtol=0.02)
  assert losses_low != losses_high


def test_programs_that_call_python_are_never_taken_for_each_other():
  """Their texts are equal, whatever they call: `conftest` must not share them."""

  def plus(number):
    add = lambda x: np.asarray(x) + np.float32(number)
    return jax.jit(lambda x: jax.pure_callback(add, x, x))

  assert [plus(i)(jnp.float32(0)) for i in (1, 2)] == [1, 2]
