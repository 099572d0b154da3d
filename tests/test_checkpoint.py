"""Checkpoints: what is read back is what was saved, or an error says why not."""

import os
import shutil
import threading
import warnings

import chex
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from jaxgen import checkpoint, run
from jaxgen.checkpoint import Checkpoints, device_digest, on_host, start_digest
from jaxgen.method import TrainState


def make_state(step, width=3000):
  net = {"a": jnp.arange(width, dtype=jnp.float32) + step, "b": jnp.ones((3, 4))}
  opt = {"net": (jnp.int32(step), {"mu": jnp.zeros(width)})}
  return TrainState(jnp.int32(step), {"net": net}, opt, {"net": {}}, {})


def template(step, width=3000):
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
    make_state(0, width),
  )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("saved")
  with Checkpoints(workdir) as checkpoints:
    for step in (10, 20, 30):
      checkpoints.save(step, make_state(step))
  return workdir


@pytest.fixture
def workdir(saved, tmp_path):
  shutil.copytree(saved, tmp_path / "run")
  return tmp_path / "run"


def largest_file(folder):
  return max((p for p in folder.rglob("*") if p.is_file()), key=os.path.getsize)


def truncate(folder):
  os.truncate(largest_file(folder), 100)


def flip_a_bit(folder):
  data = bytearray(largest_file(folder).read_bytes())
  data[len(data) // 3] ^= 1
  largest_file(folder).write_bytes(data)


def delete_a_file(folder):
  largest_file(folder).unlink()


def empty_metadata(folder):
  for path in folder.rglob("_METADATA"):
    path.write_text("")


def empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()


@pytest.mark.smoke
def test_round_trip(workdir):
  with Checkpoints(workdir) as checkpoints:
    chex.assert_trees_all_equal(checkpoints.restore(template), make_state(30))
    chex.assert_trees_all_equal(checkpoints.restore(template, 10), make_state(10))
    assert isinstance(checkpoints.restore(template), TrainState)


def test_only_the_newest_three_are_kept(workdir):
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save(40, make_state(40))
  names = sorted(p.name for p in (workdir / "checkpoints").iterdir())
  assert names == ["20", "30", "40"]


@pytest.mark.parametrize(
  "damage", [truncate, flip_a_bit, delete_a_file, empty_metadata, empty]
)
def test_a_corrupt_newest_checkpoint_is_named_and_the_one_before_used(workdir, damage):
  damage(workdir / "checkpoints" / "30")
  with Checkpoints(workdir) as checkpoints:
    with pytest.warns(UserWarning, match=r"checkpoints/30 is corrupt \(.+\); used"):
      state = checkpoints.restore(template)
    chex.assert_trees_all_equal(state, make_state(20))
    checkpoints.save(30, make_state(30))  # Its place is free again.
  with Checkpoints(workdir) as checkpoints, warnings.catch_warnings():
    warnings.simplefilter("error")
    chex.assert_trees_all_equal(checkpoints.restore(template), make_state(30))


def test_reading_only_moves_nothing(workdir):
  truncate(workdir / "checkpoints" / "30")
  with Checkpoints(workdir, read_only=True) as checkpoints:
    with pytest.warns(UserWarning, match="30 is corrupt"):
      state = checkpoints.restore(template)
  chex.assert_trees_all_equal(state, make_state(20))
  assert (workdir / "checkpoints" / "30").exists()


def test_no_intact_checkpoint_is_an_error_not_a_fresh_start(workdir):
  for step in (10, 20, 30):
    truncate(workdir / "checkpoints" / str(step))
  with (
    Checkpoints(workdir) as checkpoints,
    pytest.raises(OSError, match="no intact checkpoint.*nothing was changed"),
  ):
    checkpoints.restore(template)
  assert len(list((workdir / "checkpoints").iterdir())) == 3


def test_a_checkpoint_that_does_not_fit_lists_the_paths(workdir):
  with Checkpoints(workdir) as checkpoints, pytest.raises(ValueError) as caught:
    checkpoints.restore(lambda step: template(step, width=2999))
  text = str(caught.value)
  assert "does not fit the method (2 differences)" in text
  assert "params/net/a: saved float32[3000], method has float32[2999]" in text
  assert "opt/net/1/mu: saved float32[3000]" in text


def test_a_missing_network_is_listed(workdir):
  def other(step):
    return template(step).replace(ema={"net": template(step).params["net"]})

  with (
    Checkpoints(workdir) as checkpoints,
    pytest.raises(ValueError, match="ema/net/b: saved nothing, method has float32"),
  ):
    checkpoints.restore(other)


def test_an_unknown_step_is_an_error(workdir):
  with Checkpoints(workdir) as checkpoints:
    with pytest.raises(FileNotFoundError, match=r"step 15, only of \[10, 20, 30\]"):
      checkpoints.restore(template, 15)


def of_host(tree):
  return start_digest(on_host(tree))()


def of_device(tree):
  finite, checksum = device_digest(jax.tree.leaves(tree))
  return bool(finite), int(checksum)


@pytest.mark.parametrize("digest", [of_host, of_device])
def test_digest_sees_every_bit_and_no_layout(digest):
  x = np.random.default_rng(0).normal(size=(5, 16, 320)).astype(np.float32)
  finite, whole = digest({"x": x})
  assert finite
  assert of_host({"x": jnp.asarray(x)}) == of_device({"x": x}) == (True, whole)
  mesh = Mesh(np.array(jax.devices()), ("d",))
  for spec in (P(None, "d"), P(None, None, "d")):
    placed = jax.device_put(x, NamedSharding(mesh, spec))
    assert digest({"x": placed})[1] == whole
  flipped = x.copy()
  flipped.view(np.uint32)[3, 4, 5] ^= 1 << 31
  assert digest({"x": flipped})[1] != whole
  swapped = x.copy()
  swapped[:, :, [0, 1]] = x[:, :, [1, 0]]
  assert digest({"x": swapped})[1] != whole
  swapped = x.copy()
  swapped[:, [0, 1]] = x[:, [1, 0]]
  assert digest({"x": swapped})[1] != whole
  assert not digest({"x": x, "y": jnp.float32("inf")})[0]
  both = {
    "a": jnp.uint8([1, 2]), "b": jnp.bool_([True]), "c": jnp.bfloat16([1.5]),
    "d": jnp.complex64([1 + 2j]), "e": jnp.zeros(()),
  }  # fmt: skip
  assert of_host(both) == of_device(both)
  for name, other in (("b", jnp.bool_([False])), ("d", jnp.complex64([2 + 1j]))):
    assert digest(both)[1] != digest({**both, name: other})[1]


def test_the_saved_state_may_be_donated_at_once(tmp_path):
  """The next step writes into the arrays of a state that is still being saved."""
  step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
  state, expected = make_state(1, 500_000), jax.device_get(make_state(1, 500_000))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, state)
    for _ in range(3):
      state = step(state)
    jax.block_until_ready(state)
    checkpoints.wait()
    found = checkpoints.restore(lambda step: template(step, 500_000))
    chex.assert_trees_all_equal(found, expected)


def test_the_loop_does_not_wait_for_a_save(tmp_path, monkeypatch):
  go_on, state = threading.Event(), make_state(1)
  with Checkpoints(tmp_path) as checkpoints:
    write = checkpoints.manager.save
    late = lambda *args, **kwargs: go_on.wait(60) and write(*args, **kwargs)
    monkeypatch.setattr(checkpoints.manager, "save", late)
    checkpoints.save(1, state)  # Returns, although nothing can be written yet.
    assert not list(checkpoints.path.iterdir())
    go_on.set()
    checkpoints.wait()
    chex.assert_trees_all_equal(checkpoints.restore(template), state)


def test_a_state_that_is_not_finite_is_not_kept(workdir):
  bad = make_state(40)
  bad.params["net"]["b"] = bad.params["net"]["b"].at[1, 1].set(jnp.nan)
  text = "not finite after step 40; earlier checkpoints in .* step 30, is intact"
  with pytest.raises(FloatingPointError, match=text), Checkpoints(workdir) as saves:
    saves.save(40, bad)
  with Checkpoints(workdir) as checkpoints:
    chex.assert_trees_all_equal(checkpoints.restore(template), make_state(30))


def test_a_second_process_is_refused(tmp_path):
  with run.lock(tmp_path):
    with (
      pytest.raises(RuntimeError, match=f"in use by process {os.getpid()}"),
      run.lock(tmp_path),
    ):
      pass
  with run.lock(tmp_path):  # Free again.
    pass


def test_the_checksum_of_a_sharded_state_gathers_nothing():
  mesh = Mesh(np.array(jax.devices()[:4]), ("x",))
  w = jax.random.normal(jax.random.key(0), (64, 32))
  whole, sharded = (
    {"w": jax.device_put(w, NamedSharding(mesh, spec))} for spec in (P(), P(None, "x"))
  )
  assert of_device(sharded) == of_device(whole) == start_digest(sharded)()
  text = device_digest.lower(list(sharded.values())).compile().as_text()
  assert "all-reduce" in text
  assert "all-gather" not in text


def test_a_checksum_can_be_saved_at_once(tmp_path):
  handler = checkpoint.ChecksumHandler()
  handler.save(tmp_path, checkpoint.ChecksumSave(3, lambda: (True, 7)))
  assert handler.restore(tmp_path, checkpoint.ChecksumRestore()) == 7
  with pytest.raises(FloatingPointError, match="not finite after step 3"):
    handler.save(tmp_path, checkpoint.ChecksumSave(3, lambda: (False, 7)))
