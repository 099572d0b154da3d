"""The runner: resume, phases, logs, evaluation, stops."""

import itertools
import json
import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from jaxgen import evaluate, parallel, run
from jaxgen.method import Method, TrainState
from jaxgen.train import Every, fit


def backend(num=2):
  return parallel.jit_backend(jax.devices()[:num])


def toy_fit(workdir, num_steps=12, devices=2, **changes):
  config = toy.get_config()
  config.num_steps, config.save = num_steps, changes.pop("save", 5)
  config.second = changes.pop("second", 0)
  kwargs = toy.build(config) | {"backend": backend(devices)} | changes
  return jax.device_get(fit(**kwargs, workdir=workdir))


def files(workdir):
  """Everything that must be the same bytes in every run."""
  paths = [workdir / "metrics.jsonl", *sorted((workdir / "samples").iterdir())]
  return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("uninterrupted")
  return toy_fit(workdir), files(workdir)


@pytest.mark.smoke
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, uninterrupted):
  toy_fit(tmp_path, num_steps=7)
  # The shorter run logged its last step too; what it logs again must not differ.
  state = toy_fit(tmp_path)
  chex.assert_trees_all_equal(state, uninterrupted[0])
  lines = [json.loads(x) for x in files(tmp_path)["metrics.jsonl"].splitlines()]
  expected = [json.loads(x) for x in uninterrupted[1]["metrics.jsonl"].splitlines()]
  assert [x for x in lines if x["step"] != 7] == expected
  png = "step_00000012.png"
  assert files(tmp_path)[png] == uninterrupted[1][png]


def test_lines_that_are_not_ours_are_dropped_from_the_log(tmp_path, uninterrupted):
  toy_fit(tmp_path, num_steps=10)
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"note": "mine"}\nno json\n{"step": 1')  # The last was cut by a kill.
  with pytest.warns(UserWarning, match="dropped a line that is none of ours") as caught:
    toy_fit(tmp_path)
  assert len([w for w in caught if "none of ours" in str(w.message)]) == 2
  lines = files(tmp_path)["metrics.jsonl"].splitlines()
  assert set(uninterrupted[1]["metrics.jsonl"].splitlines()) <= set(lines)
  assert {json.loads(line)["step"] for line in lines} == {3, 6, 9, 10, 12}


def test_files_of_a_run(tmp_path, uninterrupted):
  toy_fit(tmp_path)
  assert sorted(uninterrupted[1]) == [
    "metrics.jsonl", "step_00000010.png", "step_00000012.png",
  ]  # fmt: skip
  assert files(tmp_path) == uninterrupted[1]
  steps = [json.loads(x)["step"] for x in (tmp_path / "metrics.jsonl").open()]
  assert steps == [3, 6, 9, 10, 12, 12]
  assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
    "10",
    "12",
    "5",
  ]
  assert list((tmp_path / "tensorboard").iterdir())


def test_steps_per_call_changes_nothing(tmp_path):
  """Not a bit of the state, the logs and the samples, where steps run in a loop."""
  loop = lambda: parallel.jit_backend(jax.devices()[:2], loop=True)
  one = toy_fit(tmp_path / "one", backend=loop())
  four = toy_fit(tmp_path / "four", backend=loop(), steps_per_call=4)
  chex.assert_trees_all_equal(four, one)
  assert files(tmp_path / "four") == files(tmp_path / "one")


def test_pmap_fit_resumes(tmp_path):
  make = lambda: parallel.pmap_backend(jax.devices()[:2])
  toy_fit(tmp_path / "a", num_steps=5, backend=make())
  a = toy_fit(tmp_path / "a", backend=make())
  b = toy_fit(tmp_path / "b", backend=make())
  chex.assert_trees_all_equal(a, b)


def test_phases_carry_the_state_and_resume(tmp_path):
  whole = toy_fit(tmp_path / "a", num_steps=6, second=6)
  assert int(whole.step) == 12
  for stop in (6, 9):  # At the boundary, and inside the second phase.
    workdir = tmp_path / str(stop)
    toy_fit(workdir, num_steps=6, second=stop - 6)
    resumed = toy_fit(workdir, num_steps=6, second=6)
    chex.assert_trees_all_equal(resumed, whole)
  one_phase = toy_fit(tmp_path / "b", num_steps=12)
  assert not np.array_equal(
    jax.tree.leaves(one_phase.params)[0], jax.tree.leaves(whole.params)[0]
  )  # The second phase began from the averages, with a fresh optimiser.


def test_carry_sees_the_last_state_of_the_phase_before(tmp_path):
  seen = {}

  def carry(last, fresh):
    seen.update(last=jax.device_get(last), fresh=jax.device_get(fresh))
    return toy.carry(last, fresh)

  method = toy.toy(toy.Net(), tx=optax.sgd(0.0))
  then = (run.Phase(method, toy.Numbers(), 2, carry),)
  end = toy_fit(tmp_path, num_steps=4, then=then)
  alone = toy_fit(tmp_path / "alone", num_steps=4)
  chex.assert_trees_all_equal(seen["last"], alone)
  chex.assert_trees_all_close(end.params, alone.ema, atol=0)  # sgd(0) moved nothing.
  kernels = [s.params["net"]["Dense_0"]["kernel"] for s in seen.values()]
  assert (kernels[0] != kernels[1]).all()  # Each phase is initialised by its own key.


def test_phase_at():
  phases = [run.Phase(None, None, n) for n in (5, 3, 2)]
  found = [run.phase_at(phases, step) for step in (0, 1, 5, 6, 8, 9, 10, 99)]
  assert found == [(0, 0), (0, 0), (0, 0), (1, 5), (1, 5), (2, 8), (2, 8), (2, 8)]


def test_nan_stops_at_its_step_and_keeps_good_checkpoints(tmp_path):
  config = toy.get_config()
  method = toy.build(config)["method"]

  def train_step(state, batch, key):
    state, metrics = method.train_step(state, batch, key)
    bad = state.step + 1 >= 8
    return state, {**metrics, "loss": jnp.where(bad, jnp.nan, metrics["loss"])}

  broken = method._replace(train_step=train_step)
  with pytest.raises(FloatingPointError, match="loss not finite at step 8"):
    toy_fit(tmp_path, method=broken, save=3)
  assert run.Checkpoints(tmp_path).manager.latest_step() == 6
  state = toy_fit(tmp_path, save=3)  # Repaired, it goes on from there.
  assert int(state.step) == 12


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
  method = toy.build(toy.get_config())["method"]

  def train_step(state, batch, key):
    state, metrics = method.train_step(state, batch, key)
    factor = jnp.where(state.step + 1 == 6, jnp.inf, 1.0)
    return state.replace(ema=jax.tree.map(lambda x: x * factor, state.ema)), metrics

  with pytest.raises(FloatingPointError, match="not finite after step 6"):
    toy_fit(tmp_path, method=method._replace(train_step=train_step), save=3)
  assert run.Checkpoints(tmp_path).manager.latest_step() == 3


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_evaluation_is_the_exact_mean_of_real_rows(devices, tmp_path):
  toy_fit(tmp_path, num_steps=10, devices=devices)
  line = [json.loads(x) for x in (tmp_path / "metrics.jsonl").open()][-1]
  images = toy.Numbers().images(12345, 10) / 127.5 - 1
  np.testing.assert_allclose(line["eval_mean"], images.mean(), atol=1e-6)


def test_evaluation_under_pmap_is_the_same():
  method = toy.build(toy.get_config())["method"]
  b = parallel.pmap_backend(jax.devices()[:4])
  state = b.init(method.init, jax.random.key(0), toy.Numbers.spec)
  step = b.compile_eval(evaluate.with_mask(method.eval_step))
  values = evaluate.evaluate(step, state, toy.Numbers().epoch(), jax.random.key(0), b)
  means = toy.Numbers().images(12345, 10).mean((1, 2, 3)) / 127.5 - 1
  expected = means.mean(), means.std() / np.sqrt(10)  # And its standard error.
  np.testing.assert_allclose(values["mean"], expected, atol=1e-6)


def test_every_evaluation_batch_has_its_own_key():
  draw = lambda state, batch, key: {"x": jax.random.normal(key, (8,))}
  b, key = backend(1), jax.random.key(3)
  step = b.compile_eval(evaluate.with_mask(draw))
  values = evaluate.evaluate(step, {}, toy.Numbers().epoch(), key, b)
  draws = [jax.random.normal(jax.random.fold_in(key, i), (8,)) for i in (0, 1)]
  expected = np.concatenate([draws[0], draws[1][:2]]).mean()
  np.testing.assert_allclose(values["x"][0], expected, rtol=1e-5)


def test_evaluation_without_rows_is_an_error():
  with pytest.raises(ValueError, match="no rows"):
    evaluate.evaluate(None, None, iter(()), jax.random.key(0), backend())


def test_a_long_evaluation_has_a_bar(monkeypatch, capsys):
  """One of thirty seconds by its clock; a short one writes nothing."""
  b = backend()
  step = b.compile_eval(evaluate.with_mask(lambda *_: {"x": np.ones(8, np.float32)}))
  run = lambda: evaluate.evaluate(step, {}, toy.Numbers().epoch(), jax.random.key(0), b)
  run()
  assert capsys.readouterr().err == ""
  now = iter(range(0, 10_000, 30))
  monkeypatch.setattr("tqdm.std.time", lambda: next(now))
  run()
  assert "evaluating" in capsys.readouterr().err


def test_batch_size_must_fit_the_devices(tmp_path):
  class Seven(toy.Numbers):
    spec = {"image": np.zeros((7, 4, 4, 1), np.uint8)}

  with pytest.raises(ValueError, match=r"batch size \[7\] .* 2 devices"):
    toy_fit(tmp_path, train_data=Seven())


def test_data_that_ends_is_an_error(tmp_path):
  data = lambda first: itertools.islice(toy.Numbers()(first), 4 - first)
  with pytest.raises(ValueError, match="train_data ended after step 4"):
    toy_fit(tmp_path, train_data=data)


def test_a_plain_function_is_data_enough(tmp_path, uninterrupted):
  state = toy_fit(tmp_path, train_data=lambda first: toy.Numbers()(first))
  chex.assert_trees_all_equal(state, uninterrupted[0])


class _Awaited(np.ndarray):
  """A metric that notes when the loop waits for it."""

  def block_until_ready(self):
    self.log.append(self.step)


@pytest.mark.parametrize(
  "seconds, waits", [(0.0, [1, 2, 2, 3, 4, 5, 6, 7]), (1e9, [1, 2])]
)
def test_so_much_work_may_wait_on_the_device(seconds, waits, tmp_path, monkeypatch):
  """The first two calls are timed; then the loop runs `AHEAD` seconds ahead."""
  monkeypatch.setattr("jaxgen.train.AHEAD", seconds)
  real, log = backend(), []

  def compile_train(fn):
    compiled = real.compile_train(fn)

    def step(state, batch, key):
      state, metrics = compiled(state, batch, key)
      loss = np.asarray(metrics["loss"]).view(_Awaited)
      loss.log, loss.step = log, int(state.step)
      return state, {"loss": loss}

    return step

  fake = real._replace(compile_train=compile_train)
  toy_fit(tmp_path, 8, backend=fake, every=Every(log=0, save=0), num_samples=0)
  assert log == waits


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(number, tmp_path, uninterrupted):
  def data(first):
    for k, batch in zip(itertools.count(first), toy.Numbers()(first), strict=False):
      if k == 6 and first == 0:
        os.kill(os.getpid(), number)
      yield batch

  before = signal.getsignal(number)
  state = toy_fit(tmp_path, train_data=data)
  assert int(state.step) == 7
  assert signal.getsignal(number) is before
  state = toy_fit(tmp_path, train_data=data)
  chex.assert_trees_all_equal(state, uninterrupted[0])
  assert files(tmp_path) == uninterrupted[1]


def test_samples_have_the_same_latents_at_every_step(tmp_path):
  method = toy.build(toy.get_config())["method"]
  draw = lambda state, batch, key: {
    "samples": jnp.tanh(jax.random.normal(key, batch["image"].shape))
  }
  toy_fit(tmp_path, method=method._replace(sample=draw))
  a, b = [v for k, v in files(tmp_path).items() if k.endswith(".png")]
  assert a == b


def test_draw_any_number_of_rows_on_any_number_of_devices():
  fn = lambda state, batch, key: {"x": batch["image"], "scalar": state["w"]}
  for b in (backend(1), backend(8), parallel.pmap_backend(jax.devices()[:2])):
    batch = {"image": toy.Numbers().images(0, 5)}
    if b.num_devices == 2:
      fn = lambda state, batch, key: {"x": batch["image"]}
    state = b.put_state({"w": np.zeros((), np.float32)})
    out = evaluate.draw(b.compile_eval(fn), state, batch, jax.random.key(0), b)
    np.testing.assert_allclose(out["x"], batch["image"] / 127.5 - 1, atol=1e-6)


def test_conditioning_is_sorted_by_label():
  data = lambda first: iter([{"image": np.arange(4), "label": np.array([2, 0, 1, 0])}])
  batch = evaluate.conditioning(data, 6)
  assert batch["label"].tolist() == [0, 0, 0, 1, 2, 2]
  assert batch["image"].tolist() == [1, 3, 1, 2, 0, 0]


def test_a_label_that_the_run_has_not_seen_is_said(tmp_path):
  np.savez(tmp_path / "conditioning.npz", label=np.arange(8) % 3)
  state = TrainState(jnp.zeros((), jnp.int32), {}, {}, {}, {})
  given = Method(None, None, sample=lambda state, batch, key: {"label": batch["label"]})
  data = lambda first: iter([{"label": np.arange(8) % 3}])
  phase = run.Phase(given, data, 0)
  loaded = run.Run(tmp_path, given, state, None, {}, phase)
  draw = lambda label: evaluate.sample(loaded, 8, label=label, backend=backend(1))
  np.testing.assert_array_equal(draw(2)["label"], 2)
  for label in (3, -2):
    with pytest.warns(UserWarning, match=rf"label {label} is not among .* 0\.\.2"):
      draw(label)
  np.testing.assert_array_equal(draw(-1)["label"], -1)  # None, which is no mistake.
  # Of one row, which has label 0, the others that are stored are known all the same.
  one = evaluate.sample(loaded, 1, label=2, backend=backend(1))
  np.testing.assert_array_equal(one["label"], 2)


def test_of_images_that_are_given_the_label_is_not_known(tmp_path):
  """Else they would have those of other images, which are stored."""
  stored = {"image": np.zeros((4, 2, 2, 1), np.uint8), "label": np.arange(4)}
  np.savez(tmp_path / "conditioning.npz", **stored)
  state = TrainState(jnp.zeros((), jnp.int32), {}, {}, {}, {})
  both = lambda state, batch, key: {"x": batch["image"], "label": batch["label"]}
  shape = lambda state, batch, key: {"x": jnp.zeros_like(batch["image"])}
  method = Method(None, None, sample=shape, tools={"both": both})
  phase = run.Phase(method, lambda first: iter([stored]), 0)
  loaded = run.Run(tmp_path, method, state, None, {}, phase)

  def draw(given, **kwargs):
    options = dict(given=given, backend=backend(1), **kwargs)
    return evaluate.sample(loaded, 2, **options)

  image = {"image": np.full((2, 2, 2, 1), 255, np.uint8)}
  with pytest.warns(UserWarning, match=r"labels of the images .* stored, 0, 2 \.\.\.:"):
    np.testing.assert_array_equal(draw(image, mode="both")["label"], [0, 2])
  for label in (3, -1):
    found = draw(image, mode="both", label=label)
    np.testing.assert_array_equal(found["label"], label)
    np.testing.assert_array_equal(found["x"], 1.0)
  labelled = {**image, "label": np.int32([1, 3])}
  np.testing.assert_array_equal(draw(labelled, mode="both")["label"], [1, 3])
  with pytest.warns(UserWarning, match=r"sample does not read .* \['image'\]"):
    draw(image, label=0)


def test_every_zero_acts_at_the_end_only(tmp_path):
  toy_fit(tmp_path, every=Every(log=0, eval=0, sample=0, save=0))
  lines = [json.loads(x)["step"] for x in (tmp_path / "metrics.jsonl").open()]
  assert lines == [12, 12]
  assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["12"]
