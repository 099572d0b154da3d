"""Several seeds at once: each is the run that it would be alone."""

import functools
import json
from pathlib import Path
import re

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rows import IMAGES as SPEC
from test_methods import METHODS
from test_parallel import collectives
import toy

from jaxgen import data, evaluate, parallel, run
from jaxgen.gan.adversarial import two_player
from jaxgen.losses.adversarial import hinge
from jaxgen.method import TrainState, averaged
from jaxgen.seeds import (
  bench_seeds,
  experiment_over_seeds,
  over_seeds,
  save_seeds,
  seed_state,
)
from jaxgen.train import finite_metrics, fit

SEEDS = (3, 0, 11)
# One row for each thing that methods do in a step: turns of two players, labels and
# statistics, a schedule and an average, what the first batch sets, loops.
REPRESENTATIVES = (
  "gan/sngan (labels)",
  "diffusion/consistency_training",
  "flow/glow",
  "flow/residual_flow",
)


def make_backend(devices=1, fsdp=1, pmap=False):
  some = jax.devices()[:devices]
  if pmap:
    return parallel.pmap_backend(some)
  return parallel.jit_backend(some, fsdp=fsdp)


def make_toy():
  return toy.toy(toy.Net(), tx=optax.adam(0.01))


def batch(i):
  return next(data.synthetic(SPEC, seed=i)(0))


def train(method, backend, seed=0, steps=3, spec=SPEC, batches=batch, step=None):
  """(state, metrics of every step, compiled step), with the keys that `fit` uses."""
  keys = jax.random.split(jax.random.key(seed), 4)
  state = backend.init(method.init, jax.random.fold_in(keys[0], 0), spec)
  step, history = step or backend.compile_train(method.train_step), []
  for i in range(steps):
    state, metrics = step(state, backend.put_batch(batches(i)), keys[1])
    history.append({k: float(v) for k, v in jax.device_get(metrics).items()})
  return jax.device_get(backend.get_state(state)), history, step


def toy_batch(i):
  return next(toy.Numbers()(i))


train_toy = functools.partial(train, spec=toy.Numbers.spec, batches=toy_batch)


def toy_config(num_steps=12, **changes):
  config = toy.get_config()
  config.update({"num_steps": num_steps, "save": 5, **changes})
  return config


def fit_toy(workdir, seeds, *, single=False, **changes):
  """A run as `jaxgen train` would make it: of one seed, or of several at once."""
  built, seed = toy.build(toy_config(**changes)), seeds[0]
  if not single:
    built = experiment_over_seeds(built, seeds)
  recorded = seed if single else list(seeds)
  start = lambda: run.record(workdir, Path(toy.__file__), toy_config(), recorded)
  state = fit(
    **built, workdir=workdir, seed=seed, backend=make_backend(2), on_start=start
  )
  return jax.device_get(state)


def lines(workdir):
  return [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]


def differ(a, b):
  return not np.allclose(jax.tree.leaves(a.params)[-1], jax.tree.leaves(b.params)[-1])


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
  """(workdir, state) of all seeds in one run."""
  workdir = tmp_path_factory.mktemp("at_once")
  state = fit_toy(workdir, SEEDS)
  return workdir, state, save_seeds(workdir, state, SEEDS)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """[(workdir, state)] of runs of their own."""
  workdirs = [tmp_path_factory.mktemp(f"alone_{s}") for s in SEEDS]
  return [
    (w, fit_toy(w, (s,), single=True)) for w, s in zip(workdirs, SEEDS, strict=True)
  ]


# --- the same training ------------------------------------------------------------


@pytest.mark.smoke
def test_each_slice_is_the_run_of_its_seed(at_once, alone):
  _, state, _ = at_once
  assert state.step.shape == ()
  for i, (_, own) in enumerate(alone):
    chex.assert_trees_all_close(seed_state(state, i), own, atol=2e-5)
    chex.assert_trees_all_equal_shapes_and_dtypes(seed_state(state, i), own)
    others = [j for j in range(len(SEEDS)) if j != i]
    assert all(differ(seed_state(state, j), own) for j in others)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_each_slice_of_any_method_is_the_run_of_its_seed(name):
  method, backend = METHODS[name].make(), make_backend(2)
  state, history, step = train(over_seeds(method, (5, 2)), backend)
  assert step._cache_size() == 1
  step = None
  for i, seed in enumerate((5, 2)):
    own, own_history, step = train(method, backend, seed, step=step)
    # A penalty's second derivatives lose digits; other seeds differ in the first.
    chex.assert_trees_all_close(seed_state(state, i), own, rtol=1e-3, atol=2e-5)
    for at_once, alone in zip(history, own_history, strict=True):
      for metric, value in alone.items():
        np.testing.assert_allclose(
          at_once[f"{metric}/seed_{seed}"], value, rtol=1e-4, atol=1e-5
        )


def test_devices_and_sharding_change_nothing(monkeypatch):
  monkeypatch.setattr(parallel, "MIN_SHARDED_SIZE", 8)
  method = over_seeds(make_toy(), SEEDS)
  one, history, _ = train_toy(method, make_backend())
  for kwargs in ({"devices": 2}, {"devices": 2, "fsdp": 2}):
    other, other_history, _ = train_toy(method, make_backend(**kwargs))
    chex.assert_trees_all_close(other, one, atol=2e-5)
    chex.assert_trees_all_close(other_history, history, rtol=1e-4, atol=1e-5)


def test_devices_change_nothing_for_convolutions():
  method = over_seeds(METHODS["gan/dcgan"].make(), (5, 2))
  one, _, _ = train(method, make_backend())
  other, _, _ = train(method, make_backend(2))
  chex.assert_trees_all_close(other, one, atol=2e-5)


def test_under_pmap_too_each_slice_is_the_run_of_its_seed():
  """Where every device draws its own noise and gradients meet inside of `vmap`."""
  backend = make_backend(2, pmap=True)
  state, _, _ = train_toy(over_seeds(make_toy(), SEEDS), backend)
  under_jit, _, _ = train_toy(over_seeds(make_toy(), SEEDS), make_backend(2))
  assert differ(state, under_jit)
  for i, seed in enumerate(SEEDS):
    own, _, _ = train_toy(make_toy(), backend, seed)
    chex.assert_trees_all_close(seed_state(state, i), own, atol=2e-5)


class DenseGen(nn.Module):
  @nn.compact
  def __call__(self, z, label, train):
    h = nn.relu(nn.BatchNorm(not train)(nn.Dense(16)(z)))
    return nn.tanh(nn.Dense(64)(h)).reshape(-1, 8, 8, 1)


class DenseDisc(nn.Module):
  @nn.compact
  def __call__(self, x, label, train):
    h = nn.leaky_relu(nn.Dense(16)(x.reshape(len(x), -1)))
    return nn.Dense(1)(h)[:, 0]


def make_dense_gan():
  """Its latents are split by `per_example`, which stands inside of `vmap` here."""
  tx = optax.adam(1e-3)
  return two_player(
    DenseGen(), DenseDisc(), loss=hinge, gen_tx=tx, disc_tx=tx, latent_dim=4
  )


def compile_step(method, backend):
  """(state, (kind, bytes) of every collective, FLOPs per device) of a train step."""
  state = backend.init(method.init, jax.random.key(0), SPEC)
  step = backend.compile_train(method.train_step)
  placed = backend.put_batch(batch(0))
  compiled = step.lower(state, placed, jax.random.key(0)).compile()
  flops = compiled.cost_analysis()["flops"]
  return state, collectives(compiled.as_text()), flops


@pytest.mark.parametrize("factory", [METHODS["vae/vae"].make, make_dense_gan])
def test_devices_share_the_work_of_dense_networks_as_for_one_seed(factory):
  """Nothing but the gradients (see test_methods) is communicated or done twice."""
  _, one, one_flops = compile_step(factory(), make_backend(2))
  _, several, flops = compile_step(over_seeds(factory(), (0, 1, 2)), make_backend(2))
  assert {kind for kind, _ in several} == {"all-reduce"}
  extra = sum(n for _, n in several) - 3 * sum(n for _, n in one)
  assert abs(extra) <= 64, (one, several)  # The compiler may merge some scalars.
  np.testing.assert_allclose(flops, 3 * one_flops, rtol=0.02)


def test_devices_share_the_work_of_convolutions_under_pmap():
  several = over_seeds(METHODS["gan/dcgan"].make(), (0, 1))
  backend = make_backend(2, pmap=True)
  state, found, _ = compile_step(several, backend)
  assert {kind for kind, _ in found} == {"all-reduce"}
  state = backend.get_state(state)
  communicated = jax.tree.leaves([state.params, state.stats])
  total = sum(n for _, n in found)
  assert 0 <= total - sum(x.nbytes for x in communicated) <= 2 * 64, found


def test_a_branch_on_the_step_stays_a_branch():
  """`lax.cond` on a step per seed would compute both branches, always."""

  def train_step(state, batch, key):
    del batch, key
    often = (state.step + 1) % 5 == 0
    w = jax.lax.cond(often, lambda w: w @ w, lambda w: w, state.params["net"])
    return state.replace(params={"net": w}), {}

  inner = make_toy()._replace(train_step=train_step)
  method = over_seeds(inner, (0, 1))
  w = jnp.stack([jnp.eye(3), 2.0 * jnp.eye(3)])
  state = method.init(None, {"image": jnp.zeros((8, 4, 4, 1))})
  state = state.replace(params={"net": w}, step=jnp.int32(4))
  text = str(jax.make_jaxpr(method.train_step)(state, {}, jax.random.key(0)))
  assert " cond[" in text
  moved, _ = method.train_step(state, {}, jax.random.key(0))
  np.testing.assert_array_equal(moved.params["net"][1], 4.0 * np.eye(3))


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, at_once):
  fit_toy(tmp_path, SEEDS, num_steps=7)
  chex.assert_trees_all_equal(fit_toy(tmp_path, SEEDS), at_once[1])


def test_other_seeds_do_not_resume_a_run(tmp_path):
  fit_toy(tmp_path, (0, 1), num_steps=1)
  with pytest.raises(ValueError, match=r"--seed=\[0, 1\], not \[0, 2\]"):
    fit_toy(tmp_path, (0, 2), num_steps=2)


def test_phases_begin_and_carry_by_seed(tmp_path):
  state = fit_toy(tmp_path / "at_once", (4, 1), num_steps=3, second=3)
  for i, seed in enumerate((4, 1)):
    own = fit_toy(tmp_path / f"{seed}", (seed,), single=True, num_steps=3, second=3)
    chex.assert_trees_all_close(seed_state(state, i), own, atol=2e-5)


def test_carry_sees_one_seed_at_a_time():
  def carry(last, fresh):
    assert last.step.shape == ()
    return fresh.replace(params={"w": last.params["w"] / jnp.max(last.params["w"])})

  phase = run.Phase(make_toy(), toy.Numbers(), 1, carry)
  built = {"method": make_toy(), "then": [phase]}
  made = experiment_over_seeds(built, (0, 1))["then"][0].carry
  state = TrainState(
    jnp.int32(3), {"w": jnp.array([[1.0, 2.0], [4.0, 3.0]])}, {}, {}, {}
  )
  np.testing.assert_array_equal(made(state, state).params["w"], [[0.5, 1], [1, 0.75]])


def test_a_phase_without_carry_starts_from_its_own_key():
  draw = lambda init, key: make_backend().init(init, key, toy.Numbers.spec)
  unused = jax.random.key(0)
  first, second = (
    draw(over_seeds(make_toy(), SEEDS, phase=p).init, unused) for p in (0, 1)
  )
  assert differ(first, second)
  root = jax.random.split(jax.random.key(SEEDS[1]), 4)[0]
  own = draw(make_toy().init, jax.random.fold_in(root, 1))
  chex.assert_trees_all_close(seed_state(second, 1), own, atol=1e-6)


# --- metrics, samples -------------------------------------------------------------


def test_metrics_are_means_and_of_every_seed(at_once, alone):
  logged = [lines(workdir) for workdir, _ in alone]
  for at_step, *own in zip(lines(at_once[0]), *logged, strict=True):
    names = own[0].keys() - {"step"}
    each = {f"{n}/seed_{s}" for n in names for s in SEEDS}
    assert at_step.keys() == each | own[0].keys()
    for name in names:
      mean = np.mean([line[name] for line in own])
      np.testing.assert_allclose(at_step[name], mean, rtol=1e-4, atol=1e-5)


def test_a_nan_names_its_seed():
  backend = make_backend()
  method = over_seeds(make_toy(), SEEDS)
  state, _, _ = train_toy(method, backend, steps=0)
  broken = jax.tree.map(lambda x: np.where([[0], [0], [1]], np.nan, x), {
    "x": state.params["net"]["Dense_1"]["bias"]
  })["x"]  # fmt: skip
  dense = state.params["net"]["Dense_1"] | {"bias": broken}
  state = state.replace(params={"net": state.params["net"] | {"Dense_1": dense}})
  step = backend.compile_train(method.train_step)
  placed = backend.put_batch(toy_batch(0))
  _, metrics = step(backend.put_state(state), placed, jax.random.key(0))
  with pytest.raises(FloatingPointError, match="^loss, loss/seed_11 not finite"):
    finite_metrics([(1, metrics)])


def test_evaluation_is_per_example_over_seeds():
  method, backend = METHODS["vae/vae"].make(), make_backend(2)
  several = over_seeds(method, (5, 2))
  state, _, _ = train(several, backend, steps=1)
  call = lambda fn, s: backend.compile_eval(fn)(
    backend.put_state(averaged(s)), backend.put_batch(batch(0)), jax.random.key(9)
  )
  own = [call(method.eval_step, seed_state(state, i)) for i in (0, 1)]
  values = call(several.eval_step, state)
  assert values.keys() == {
    f"{n}{s}" for n in own[0] for s in ("", "/seed_5", "/seed_2")
  }
  for name in own[0]:
    np.testing.assert_allclose(values[f"{name}/seed_2"], own[1][name], rtol=1e-5)
    mean = (own[0][name] + own[1][name]) / 2
    np.testing.assert_allclose(values[name], mean, rtol=1e-5)
    assert not np.allclose(own[0][name], own[1][name], rtol=1e-3)


def test_samples_and_tools_are_of_the_first_seed():
  method, backend = METHODS["vae/vae"].make(), make_backend(2)
  several = over_seeds(method, (5, 2))
  state, _, _ = train(several, backend, steps=1)
  call = lambda fn, s: backend.compile_eval(fn)(
    backend.put_state(s), backend.put_batch(batch(0)), jax.random.key(9)
  )
  assert several.tools.keys() == method.tools.keys()
  for name, fn in {"sample": method.sample, **method.tools}.items():
    out = call({"sample": several.sample, **several.tools}[name], state)
    chex.assert_trees_all_close(out, call(fn, seed_state(state, 0)), atol=1e-6)
    other = call(fn, seed_state(state, 1))
    given = {"observed", "corrupted"}  # These do not depend on the state.
    assert all(not np.allclose(out[k], other[k]) for k in out.keys() - given)


def test_what_a_method_lacks_stays_lacking():
  bare = make_toy()._replace(eval_step=None, sample=None)
  several = over_seeds(bare, SEEDS)
  assert (several.eval_step, several.sample) == (None, None)


@pytest.mark.parametrize("seeds", [(), (1, 2, 1)])
def test_seeds_must_be_different(seeds):
  with pytest.raises(ValueError, match=re.escape(f"seeds {seeds} must be")):
    over_seeds(make_toy(), seeds)


def test_generators_that_draw_otherwise_under_vmap_are_refused():
  with jax.default_prng_impl("rbg"):
    with pytest.raises(ValueError, match="'rbg' draw otherwise"):
      over_seeds(make_toy(), SEEDS)


# --- workdirs ---------------------------------------------------------------------


def test_saved_seeds_are_runs_of_their_own(at_once, alone):
  workdir, state, folders = at_once
  assert folders == [workdir / f"seed_{s}" for s in SEEDS]
  for i, (folder, (own_workdir, _)) in enumerate(zip(folders, alone, strict=True)):
    loaded, own = run.load(folder), run.load(own_workdir)
    chex.assert_trees_all_equal(jax.device_get(loaded.state), seed_state(state, i))
    samples, own_samples = (evaluate.sample(r, 5, seed=1) for r in (loaded, own))
    chex.assert_trees_all_close(samples, own_samples, atol=2e-5)
    scores, own_scores = (evaluate.evaluate_run(r) for r in (loaded, own))
    assert scores == own_scores  # The toy's evaluation reads no parameters.
    for name in ("config.json", "experiment.py", "conditioning.npz"):
      assert (folder / name).read_bytes() == (own_workdir / name).read_bytes(), name
    record = json.loads((folder / "run.json").read_text())
    assert record["seed"] == SEEDS[i]
    assert len(record["starts"]) == 1
    for line, own_line in zip(lines(folder), lines(own_workdir), strict=True):
      chex.assert_trees_all_close(line, own_line, rtol=1e-4, atol=1e-5)


def test_a_saved_seed_trains_on(tmp_path):
  state = fit_toy(tmp_path, (4, 1), num_steps=6)
  folder = save_seeds(tmp_path, state, (4, 1))[1]
  with pytest.raises(ValueError, match="was started with --seed=1, not 4"):
    fit_toy(folder, (4,), single=True)
  resumed = fit_toy(folder, (1,), single=True)
  own = fit_toy(tmp_path / "own", (1,), single=True)
  chex.assert_trees_all_close(resumed, own, atol=2e-5)
  # Saved again, the seed that went on is left alone; the other has nothing new.
  before = lines(folder)
  save_seeds(tmp_path, state, (4, 1))
  assert int(run.load(folder).state.step) == 12
  assert lines(folder) == before
  longer = fit_toy(tmp_path, (4, 1), num_steps=8)
  save_seeds(tmp_path, longer, (4, 1))
  assert int(run.load(tmp_path / "seed_4").state.step) == 8
  assert int(run.load(folder).state.step) == 12


def test_saving_needs_the_seeds_of_the_state(tmp_path, at_once):
  with pytest.raises(ValueError, match=r"2 seeds, \(0, 1\), but a state with .*3"):
    save_seeds(tmp_path, at_once[1], (0, 1))


def test_bench_compares_the_same_work():
  built = toy.build(toy_config())
  text = bench_seeds(built, make_backend(), 3, num_steps=2, num_rounds=1)
  one, several, gain = (
    float(re.search(rf"{name}: +([\d.]+)", text)[1])
    for name in ("one by one", "at once", "gain")
  )
  least, greatest = map(float, re.search(r"\(([\d.]+) to ([\d.]+)\)", text).groups())
  assert 0.0 < least == gain == greatest
  np.testing.assert_allclose(several / one, gain, rtol=0.02)
