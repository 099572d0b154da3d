"""`jaxgen evaluate` and `jaxgen reproduce`: one ruler, and what its numbers say."""

import contextlib
import functools
import io
import json
from pathlib import Path
import re

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
import tiny_vae

from jaxgen import cli, commands, data, listing, parallel, run
from jaxgen.metrics import frechet
from jaxgen.metrics.bootstrap import mean_interval
from jaxgen.metrics.features import FeatureNetwork
from jaxgen.metrics.frechet import chunks, moments_of
from jaxgen.metrics.prdc import prdc
from jaxgen.metrics.ssim import ms_ssim
from jaxgen.ops.color import rgb_to_y
from jaxgen.ops.resize import resize_pil
from jaxgen.reproduce import measure_of, part_of, results_table, summary, verdict
from jaxgen.score import (
  cache,
  images,
  networks,
  of_features,
  of_images,
  pairs,
  results,
  scores,
  tables,
)
from jaxgen.score import task as tasks
from jaxgen.score.cache import classifier_network
from jaxgen.score.results import Result
from jaxgen.score.task import Ruler, Score

TINY = Path(tiny_vae.__file__)


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
  patch = pytest.MonkeyPatch()
  patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
  for user in (cache, of_images):
    patch.setattr(user, "CLASSIFIER_STEPS", 60)
  training = cache.classifier_training
  recipe = functools.cache(training.training_recipe)  # Of what is used twice.
  patch.setattr(training, "training_recipe", recipe)
  # Every evaluation loads its run anew, and compiles the same programs.
  values = {
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_min_compile_time_secs": 0.05,
  }
  before = {name: getattr(jax.config, name) for name in values}

  def use(values):
    for name, value in values.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()  # Whether there is one is asked once.

  use(values)
  yield
  use(before)
  patch.undo()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  cli.main(["train", str(TINY), f"--workdir={workdir}"])
  return workdir


def some_images(num=30, seed=0, channels=1):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (num, 8, 8, channels), dtype=np.uint8)


def image_set(array, **more):
  source = data.arrays({"image": array, **more}, batch_size=8)
  return images.of_source(source, "some")


def mean_and_spread(weights, x):
  flat = x.reshape(len(x), -1)
  return {"features": jnp.stack([flat.mean(1), flat.std(1)], 1) * weights[None]}


def network(fingerprint="two-numbers"):
  apply = jax.tree_util.Partial(mean_and_spread, jnp.ones(2))
  return FeatureNetwork("two", fingerprint, "none", apply)


# --- sets of images ---------------------------------------------------------------


def test_a_set_is_read_in_order_and_its_subsets_are_spread_and_the_same():
  array = some_images(30)
  found = image_set(array, label=np.arange(30))
  assert found.count == 30
  everything = found.some(100)
  np.testing.assert_array_equal(everything["image"], array)
  np.testing.assert_array_equal(everything["label"], np.arange(30))
  chosen = found.some(10, seed=3)["label"]
  assert len(chosen) == 10
  assert (np.diff(chosen) > 0).all()
  assert chosen[-1] > 10  # Not the first ten.
  np.testing.assert_array_equal(chosen, found.some(10, seed=3)["label"])


def test_the_digest_is_of_the_content():
  array = some_images(30)
  changed = array.copy()
  changed[17, 3, 3, 0] ^= 1
  other_batches = data.arrays({"image": array}, batch_size=7)
  other_batches = images.of_source(other_batches, "the same")
  assert image_set(array).digest() == other_batches.digest()
  assert image_set(array).digest() != image_set(array.reshape(30, 4, 16, 1)).digest()
  assert image_set(array).digest() != image_set(changed).digest()
  assert image_set(array).digest() != image_set(array[::-1].copy()).digest()


def test_a_digest_is_read_once(monkeypatch):
  found, read = image_set(some_images(30), label=np.arange(30)), []
  count = lambda: read.append(1) or batches()
  batches, again = found.batches, images.Images("again", 30, count)
  for labels in (False, True, False, True):
    assert again.digest(labels=labels) == found.digest(labels=labels)
  assert len(read) == 2
  assert again.digest() != again.digest(labels=True)


def test_a_folder_that_another_process_finished_first_is_kept(tmp_path):
  made = [tmp_path / "first", tmp_path / "second"]
  for folder in made:
    folder.mkdir()
    (folder / "image.npy").write_text(folder.name)
  for folder in made:
    images.put_in_place(folder, tmp_path / "kept")
  assert (tmp_path / "kept" / "image.npy").read_text() == "first"
  assert [path.name for path in tmp_path.iterdir()] == ["kept"]
  with pytest.raises(FileNotFoundError):
    images.put_in_place(made[0], tmp_path / "none")
  for _ in range(2):
    cache._write_features(
      image_set(some_images(8)), network(), parallel.jit_backend(), tmp_path / "kept"
    )


def test_folders_and_files_are_sets(tmp_path):
  array = some_images(3)
  for i, image in enumerate(array):
    Image.fromarray(image[..., 0]).save(tmp_path / f"{i}.png")
  np.testing.assert_array_equal(images.of_path(tmp_path).some(9)["image"], array)
  floats = np.asarray(parallel.as_float(jnp.asarray(array)))
  np.savez(tmp_path / "x.npz", samples=floats)
  of_npz = images.of_path(tmp_path / "x.npz")
  np.testing.assert_array_equal(of_npz.some(9)["image"], array)
  (tmp_path / "empty").mkdir()
  with pytest.raises(FileNotFoundError, match="no images ending in"):
    images.of_path(tmp_path / "empty")


# --- features ---------------------------------------------------------------------


def test_features_do_not_depend_on_chunks_and_devices_and_are_kept(monkeypatch):
  array = some_images(30)
  expected = mean_and_spread(jnp.ones(2), array.astype(np.float32))["features"]
  for chunk, devices in ((500, 1), (7, 2), (8, 8)):
    monkeypatch.setattr(cache, "BATCH", chunk)
    backend = parallel.jit_backend(jax.devices()[:devices])
    of = network(f"by-{chunk}")
    found = cache.features(image_set(array), of, backend)["features"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
  kept = cache.cache_dir() / "features"
  before = len(list(kept.iterdir()))
  monkeypatch.setattr(cache, "_write_features", None)  # Would raise if called.
  again = cache.features(image_set(array), of)["features"]
  np.testing.assert_array_equal(again, found)
  assert len(list(kept.iterdir())) == before


def test_moments_of_a_memory_map_are_those_of_all_rows():
  rows = np.random.default_rng(0).normal(5, 2, (9000, 3)).astype(np.float32)
  found = moments_of(chunks(rows))
  assert found.scatter.dtype == jnp.float64
  exact = rows.astype(np.float64)
  np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-12)
  expected = np.cov(exact.T) * (len(rows) - 1)
  np.testing.assert_allclose(found.scatter, expected, rtol=1e-9)


def test_a_distance_reads_a_few_rows_at_a_time(monkeypatch):
  class Rows:
    def __init__(self, rows):
      self.rows, self.most = rows, 0

    def __len__(self):
      return len(self.rows)

    def __getitem__(self, at):
      self.most = max(self.most, len(self.rows[at]))
      return self.rows[at]

  rows = np.random.default_rng(0).normal(5, 2, (60, 2)).astype(np.float32)
  with jax.enable_x64(True):
    real = moments_of([rows[::2] + 1])
    expected = of_features._distance(rows, real)
    monkeypatch.setattr(frechet, "CHUNK", 20)
    kept = Rows(rows)
    found = of_features._distance(kept, real)
  assert kept.most == 20
  np.testing.assert_allclose(found.value, expected.value, rtol=1e-12)
  np.testing.assert_allclose(found.interval, expected.interval, rtol=1e-10)


# --- scores -----------------------------------------------------------------------


def task(sample, reference, **more):
  kwargs = dict(train=None, test=None, network=network(), loaded=None, seed=0)
  backend = parallel.jit_backend(jax.devices()[:1])
  return scores.Task(sample, reference, **kwargs | more, backend=backend)


def test_equal_sets_are_at_distance_zero_and_others_are_not():
  a, b = image_set(some_images(400)), image_set(some_images(400, 1) // 2)
  names = ["frechet", "mmd", "prdc"]
  few = [image_set(x) for x in (some_images(50), some_images(50, 1) // 2)]
  same = scores.compute(task(a, a), names)
  same |= scores.compute(task(few[0], few[0]), ["swd"])
  assert same["frechet"].value == pytest.approx(0.0, abs=1e-9)
  assert all(same[n].value == 1.0 for n in ("precision", "recall", "coverage"))
  other = scores.compute(task(b, a), names)
  other |= scores.compute(task(few[1], few[0]), ["swd"])
  low, high = other["frechet"].interval
  assert 1000 < low <= other["frechet"].value <= high
  assert other["swd"].value > 5 * same["swd"].value > 0  # Other patches: not 0.
  assert other["precision"].value < 0.5


def test_every_score_has_an_interval_or_says_why_not():
  a, b = image_set(some_images(60)), image_set(some_images(60, 1))
  large = [image_set(some_images(30, s).repeat(2, 1).repeat(2, 2)) for s in (0, 1)]
  logits = lambda x: {"features": x.reshape(len(x), -1)[:, :9], "logits": x[:, 0, :, 0]}
  judge = network()._replace(apply=jax.tree_util.Partial(logits), fingerprint="l")
  names = ["frechet", "prdc", "class_score", "labels", "memorisation", "mmd"]
  sets = dict(train=b, test=image_set(some_images(60, 2)), network=judge)
  found = scores.compute(task(a, b, **sets), names)
  found |= scores.compute(task(*large), ["swd", "ms_ssim"])
  for name, (value, interval, how) in found.items():
    assert how, name
    if interval is not None:
      assert interval[0] <= value <= interval[1]
      assert interval[0] < interval[1]
    else:
      assert re.search("^no interval |^no interval:|of a fixed set|a spread", how)
  without = {name for name, score in found.items() if score.interval is None}
  assert without == {"mmd", "mmd_std", "class_score_std", "classes", "recall"} | {
    f"{name}_of_reference" for name in ("confidence", "label_entropy", "classes")
  }
  assert {"recall", "swd", "swd_16", "ms_ssim", "nearest_train_distance"} <= set(found)
  assert found["confidence"].how == "bootstrap of 200"
  shown = tables.table([result("x", 1.0)._replace(scores=found)])
  none = r"mmd  +\S+  \(no interval of fewer than two subsets of 60: pass --repeats\)"
  assert re.search(none, shown)


def test_sets_in_order_of_their_classes_are_scored_as_any(monkeypatch):
  """A part of a set is drawn at random, all of it is shuffled where order counts."""
  label = np.sort(np.arange(1000) % 10)
  rng = np.random.default_rng(0)
  logits = (50 * np.eye(10)[label]).astype(np.float32)
  real = (label[:, None] + 0.1 * rng.standard_normal((1000, 2))).astype(np.float32)
  fake = real[::10] + np.float32(0.01)
  sets = {n: images.Images(n, 1000, None) for n in ("fake", "real", "test")}
  found = {"fake": fake, "real": real, "test": real[::-1]}
  kept = lambda images, *_: {"features": found[images.name], "logits": logits}
  for user in (tasks, of_features):
    monkeypatch.setattr(user, "features", kept)
  asked = lambda **more: task(*(sets[n] for n in ("fake", "real")), **more)
  score = scores.compute(asked(), ["class_score"])["class_score"]
  assert 9 < score.value < 10
  assert score.interval[0] < 10
  distances = scores.compute(asked(test=sets["test"]), ["frechet"])
  assert distances["frechet_of_test"].value < 0.5  # Of a tenth of the classes: 40.
  assert scores.compute(asked(), ["prdc"])["precision"].value > 0.9
  found["fake"] = real  # As many: all of both.
  assert {s.value for s in scores.compute(asked(), ["prdc"]).values()} >= {1.0}
  found["fake"] = (label[:, None] + 0.1 * rng.standard_normal((1000, 2))).astype("f4")
  monkeypatch.setattr(of_features, "SUBSET", 100)
  assert scores.compute(asked(), ["mmd"])["mmd"].interval[0] < 0
  taken = []
  monkeypatch.setattr(of_images, "sliced_wasserstein", lambda *s, **_: taken.extend(s))
  grey = np.broadcast_to(label.astype(np.uint8)[:, None, None, None], (1000, 8, 8, 1))
  with pytest.raises(TypeError):  # Of the number that is none.
    scores.compute(task(image_set(grey[::100]), image_set(grey)), ["swd"])
  assert [len(x) for x in taken] == [10, 10]
  assert len(np.unique(taken[1])) > 3


def test_likeness_of_equal_images_is_one():
  one = np.repeat(some_images(1).repeat(4, 1).repeat(4, 2), 20, axis=0)
  varied = some_images(20).repeat(4, 1).repeat(4, 2)
  found = scores.compute(task(image_set(one), image_set(varied)), ["ms_ssim"])
  assert found["ms_ssim"].value == pytest.approx(1.0, abs=1e-5)
  assert found["ms_ssim_of_reference"].value < 0.5


def test_frechet_is_that_of_the_features():
  a, b = some_images(400), some_images(300, 1) // 2
  flat = lambda x: np.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], 1, dtype=np.float64)
  x, y = flat(a), flat(b)
  from scipy.linalg import sqrtm

  root = sqrtm(np.cov(x.T) @ np.cov(y.T)).real
  expected = ((x.mean(0) - y.mean(0)) ** 2).sum()
  expected += np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
  found = scores.compute(task(image_set(a), image_set(b)), ["frechet"])
  assert found["frechet"].value == pytest.approx(expected, rel=1e-5)


def test_copies_are_found():
  train, test = some_images(200), some_images(100, 1)
  samples = some_images(100, 2)
  samples[:30] = train[:30]
  sets = dict(train=image_set(train), test=image_set(test))
  found = scores.compute(task(image_set(samples), None, **sets), ["memorisation"])
  assert found["copied_rate"].value == pytest.approx(0.3)
  assert found["test_copied_rate"].value == 0.0


def test_copies_of_any_training_image_are_found_however_many_there_are():
  rng = np.random.default_rng(0)
  train = rng.integers(0, 256, (60_100, 3, 3, 1), dtype=np.uint8)
  left_out = np.random.default_rng(0).permutation(len(train))[60_000:]
  of = lambda array: images.Images("a", len(array), lambda: iter([{"image": array}]))
  sets = dict(train=of(train), test=of(some_images(50)[:, :3, :3]))
  found = scores.compute(task(of(train[left_out]), None, **sets), ["memorisation"])
  assert found["copied_rate"].value == 1.0
  assert found["nearest_train_distance"].value == 0.0
  assert found["test_copied_rate"].value < 0.3
  settings = scores.METRICS["memorisation"].settings(Ruler(), None)
  assert settings == "at most 10000 samples, all training images"


def test_levels_of_likeness_are_those_that_the_size_allows(monkeypatch):
  taken = []
  monkeypatch.setattr(
    of_images,
    "likeness",
    lambda *_, levels: taken.append(levels) or np.arange(9.0),
  )
  of = lambda side: image_set(np.zeros((9, side, 30, 1), np.uint8))
  for side, levels in ((20, 1), (21, 2)):
    scores.compute(task(of(side), of(side)), ["ms_ssim"])
    settings = scores.METRICS["ms_ssim"].settings(Ruler(), of(side))
    assert settings == f"1000 pairs, {levels} levels, seed 0"
  assert taken == [1, 1, 2, 2]


def test_modes_are_judged_by_a_classifier_of_digits(monkeypatch):
  class Judge:  # Reads the digit from the first pixel.
    num_classes, test_accuracy = 10, 0.99

    def predict(self, images):
      return {"logits": np.eye(10)[images[:, 0, 0, 0]]}

  monkeypatch.setattr(
    of_images.classifier, "load", lambda file: {"digits.npz": Judge()}[file]
  )
  triples = np.array([[1, 2, 3]] * 5 + [[9, 9, 9]] * 5, np.uint8)
  stacked = np.broadcast_to(triples[:, None, None], (10, 28, 28, 3)).copy()
  named = Ruler(("modes",), features="classifier", weights="digits.npz")
  network = FeatureNetwork("classifier", "", "none", None)
  asked = lambda ruler: task(image_set(stacked), None, network=network, ruler=ruler)
  found = scores.compute(asked(named), ["modes"])
  assert found["modes"].value == 2
  assert found["kl"].value == pytest.approx(np.log(500))
  assert found["judge_accuracy"].value == 0.99
  assert "kl_to_data" not in found
  real = np.concatenate([stacked[:1], stacked[5:8], 0 * stacked[:4]])  # 1, 3 and 4
  sets = image_set(stacked), image_set(real.repeat(5, axis=0))
  found = scores.compute(task(*sets, network=network, ruler=named), ["modes"])
  kinds = np.repeat([0, 1, 2], [5, 15, 20])  # of the 40, ten of which are the floor
  shares = np.bincount(kinds[np.random.default_rng(0).permutation(40)[:10]]) / 10
  assert found["modes_of_data"].value == 3
  expected = (shares * np.log(1000 * shares)).sum()
  assert found["kl_of_data"].value == pytest.approx(expected)
  expected = 0.5 * np.log(0.5 * 40 / 5) + 0.5 * np.log(0.5 * 40 / 15)
  assert found["kl_to_data"].value == pytest.approx(expected)
  for ruler in (named._replace(weights=None), named._replace(features="inception")):
    with pytest.raises(ValueError, match=r"modes needs .* --weights=FILE.*mnist_28"):
      scores.compute(asked(ruler), ["modes"])
  with pytest.raises(ValueError, match="modes needs --features"):
    scores.check(["modes"], None)


def test_a_name_must_be_earned():
  for name, other in (("fid", "frechet"), ("kid", "mmd"), ("is", "class_score")):
    with pytest.raises(ValueError, match=f"{name} is defined by Inception.*{other}"):
      scores.check([name], "classifier")
    scores.check([name, other], scores.INCEPTION)
  with pytest.raises(ValueError, match="no metric.*psnrr.*there are"):
    scores.check(["psnrr"], None)
  with pytest.raises(ValueError, match="frechet needs --features"):
    scores.check(["frechet"], None)
  with pytest.raises(ValueError, match="cas needs what is not there: test"):
    scores.compute(task(image_set(some_images()), None), ["cas"])


# --- runs -------------------------------------------------------------------------


def test_a_run_is_scored_written_down_and_drawn_once(workdir, capsys, monkeypatch):
  flags = ["--metrics=eval,frechet,labels", "--features=classifier"]
  cli.main(["evaluate", str(workdir), *flags, "--num_samples=300"])
  _, at, printed = capsys.readouterr().out.partition(str(workdir))
  monkeypatch.setattr(images, "_draw", None)  # Would raise if called.
  cli.main(["evaluate", str(workdir), *flags, "--num_samples=300"])
  assert capsys.readouterr().out == at + printed
  first, second = json.loads((workdir / "results.json").read_text())[-2:]
  assert first["scores"] == second["scores"]
  for key in (
    "elbo",
    "frechet",
    "frechet_of_297_test",
    "confidence",
    "label_entropy",
    "classes",
  ):
    value, interval = (first["scores"][key][k] for k in ("value", "interval"))
    assert f"{value:.5g}" in printed
    assert interval is None or interval[0] <= value <= interval[1]
  assert first["ruler"]["num_samples"] == 300
  assert first["ruler"]["features"].startswith("classifier-")
  assert "accuracy-0." in first["ruler"]["features"]
  assert first["ruler"]["reference"].startswith("1500 images ")
  assert first["provenance"]["step"] == 6
  assert first["provenance"]["versions"]["jax"] == jax.__version__
  assert first["provenance"]["samples"] == second["provenance"]["samples"]
  assert len(first["provenance"]["samples"][0]) == 16
  assert first["provenance"]["config"]["hidden"] == 8
  assert 0 < second["provenance"]["seconds"] < first["provenance"]["seconds"] + 60
  assert 10**8 < first["provenance"]["peak_host_bytes"] < 10**11
  assert first["scores"]["elbo"]["value"] == pytest.approx(logged(workdir, "eval_elbo"))


def test_foreign_images_are_told_from_those_of_the_test_set(workdir, tmp_path, capsys):
  np.savez(tmp_path / "noise.npz", image=some_images(40))
  flags = [f"--reference={tmp_path / 'noise.npz'}", "--num_samples=40"]
  cli.main(["evaluate", str(workdir), "--metrics=anomaly", *flags])
  shown = capsys.readouterr().out
  assert float(re.search(r"auroc +(\S+)", shown)[1]) > 0.9
  assert "anomaly: nll: of grey values" in shown


def test_a_run_is_scored_by_several_configs(workdir, tmp_path, monkeypatch):
  """Nothing is drawn again for entries that samples do not depend on."""
  drew, draw = [], images._draw
  count = lambda loaded, *rest: drew.append(loaded.config.lr) or draw(loaded, *rest)
  monkeypatch.setattr(images, "_draw", count)
  flags = ["--metrics=frechet,eval", "--features=classifier", "--num_samples=64"]
  changes = ["--config.lr=0.01", "--config.lr=0.02", "--config.num_steps=6"]
  out = tmp_path / "table.md"
  cli.main(["evaluate", str(workdir), *flags, *changes, f"--out={out}"])
  assert drew == [0.01]
  lines = out.read_text().splitlines()
  assert lines[0].startswith("    jaxgen evaluate ")
  assert lines[0].endswith(f"--config.num_steps=6 --out={out}")
  assert lines[2] == "| lr |"  # Nothing else differs: samples do not depend on it.
  assert lines[3:6] == ["| --- |", "| 0.01 |", "| 0.02 |"]
  assert lines[7:9] == [f"- run: {workdir}", "- num_steps: 6"]
  assert "- num_samples: 64" in lines
  assert any(line.startswith("- frechet: ") for line in lines)
  last = json.loads((workdir / "results.json").read_text())[-1]
  assert last["name"] == f"{workdir} lr=0.02 num_steps=6"
  assert last["provenance"]["sampler"]["overrides"] == {"lr": "0.02", "num_steps": "6"}


def test_samples_are_drawn_again_for_other_code_and_other_weights(workdir, monkeypatch):
  loaded = run.load(workdir)
  brighter = lambda by: (
    lambda state, batch, key: {
      "samples": loaded.method.sample(state, batch, key)["samples"] + by
    }
  )
  method = lambda by: loaded._replace(
    method=loaded.method._replace(sample=brighter(by))
  )
  more = lambda params: jax.tree.map(lambda x: x + 1, params)
  other = loaded.state.replace(params=more(loaded.state.params))
  data = lambda first: ({**b, "label": b["label"] * 0} for b in train(first))
  train = loaded.phase.train_data
  variants = [
    loaded,
    method(0.1),
    method(0.2),
    loaded._replace(state=other),
    loaded._replace(phase=loaded.phase._replace(train_data=data)),
  ]
  assert len({images._origin(v) for v in variants}) == 5
  assert images._origin(run.load(workdir)) == images._origin(loaded)
  assert images._origin(method(0.1)) == images._origin(variants[1])
  first, second = (images.drawn(v, 8, seed=5).digest() for v in variants[:2])
  assert first != second
  monkeypatch.setattr(images, "_draw", None)
  assert images.drawn(loaded, 8, seed=5).digest() == first


def test_a_classifier_is_trained_once_for_images_labels_and_settings(monkeypatch):
  made, train = [], cache.classifier_training.train_classifier

  @functools.wraps(train)
  def count(*args, **kwargs):
    made.append(1)
    return train(*args, **kwargs)

  monkeypatch.setattr(cache.classifier_training, "train_classifier", count)
  monkeypatch.setattr(cache, "CLASSIFIER_STEPS", 2)
  array, label = some_images(40, 9), np.arange(40) % 4
  of = lambda **more: image_set(array, **{"label": label} | more)
  first = cache.trained(of(), None)
  assert cache.trained(of(), None).fingerprint == first.fingerprint
  assert len(made) == 1
  other = cache.trained(of(label=(label + 1) % 4), None)
  assert other.fingerprint != first.fingerprint
  assert len(made) == 2
  assert cache.trained(of(), of()).test_accuracy is not None
  cache.trained(of(), of(label=(label + 1) % 4))  # Other accuracy, other fingerprint.
  assert len(made) == 4
  monkeypatch.setattr(cache, "CLASSIFIER_STEPS", 3)
  cache.trained(of(), None)
  assert len(made) == 5
  with pytest.raises(ValueError, match="some has no labels to train"):
    cache.trained(image_set(array), None)


def test_a_kept_classifier_is_a_ruler_anywhere(tmp_path, monkeypatch):
  monkeypatch.setattr(cache, "CLASSIFIER_STEPS", 2)
  train = image_set(some_images(40, 9), label=np.arange(40) % 4)
  judge = cache.trained(train, None)
  file = tmp_path / "judge.npz"
  judge.save(file)
  for name, seed in (("a", 1), ("b", 2)):
    np.savez(tmp_path / f"{name}.npz", image=some_images(60, seed))
  ruler = Ruler(("frechet",), features="classifier", reference=f"{tmp_path}/b.npz")
  with pytest.raises(ValueError, match="b.npz has no labels to train .* --weights"):
    results.evaluate_path(f"{tmp_path}/a.npz", ruler)
  with pytest.raises(FileNotFoundError, match="no file 'none.npz'"):
    results.evaluate_path(f"{tmp_path}/a.npz", ruler._replace(weights="none.npz"))
  found = results.evaluate_path(f"{tmp_path}/a.npz", ruler._replace(weights=str(file)))
  assert judge.fingerprint[:16] in found.ruler["features"]
  assert found.scores["frechet"].value > 0


def logged(workdir, name):
  entries = [
    json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  return [e[name] for e in entries if name in e][-1]


def test_samples_are_those_of_the_seed_and_have_labels_only_if_they_matter(
  workdir, monkeypatch
):
  loaded = run.load(workdir)
  draw = lambda seed, num=70: images.drawn(loaded, num, seed=seed).some(100)
  assert draw(0)["image"].shape == (70, 8, 8, 1)
  assert "label" not in draw(0)
  assert (draw(0)["image"] != draw(1)["image"]).any()
  np.testing.assert_array_equal(draw(0)["image"][:64], draw(0, 64)["image"])

  def by_label(state, batch, key):
    shape = batch["image"].shape
    label = batch["label"][:, None, None, None] / 10 * jnp.ones(shape)
    return {"samples": label + 0.01 * jax.random.normal(key, shape)}

  conditional = loaded._replace(method=loaded.method._replace(sample=by_label))
  found = images.drawn(conditional, 1000, seed=7).some(1000)
  np.testing.assert_allclose(
    found["image"].mean((1, 2, 3)) / 127.5 - 1, found["label"] / 10, atol=0.02
  )
  right = {"features": np.zeros((1000, 1)), "logits": np.eye(10)[found["label"]]}
  right["logits"][:250] = np.roll(right["logits"][:250], 1, axis=1)
  monkeypatch.setattr(tasks, "features", lambda *_: right)
  with monkeypatch.context() as patch:  # No image is kept for its label.
    patch.setattr(images.Images, "some", None)
    seen = scores.compute(task(found_as_set(found), found_as_set(found)), ["labels"])
  assert seen["label_accuracy"].value == 0.75
  test = images.of_source(loaded.built["eval_data"], "test")
  score = scores.compute(
    task(found_as_set(found), None, test=test, loaded=conditional), ["cas"]
  )["cas"]
  assert 0 <= score.interval[0] <= score.value <= score.interval[1] < 0.5


def found_as_set(found):
  return image_set(found["image"], label=found["label"])


def test_repeats_give_intervals_over_sets_of_samples(workdir):
  ruler = Ruler(("frechet",), 100, "classifier", repeats=2)
  found = results.evaluate_workdir(workdir, ruler).scores["frechet"]
  single = [
    results.evaluate_workdir(workdir, ruler._replace(repeats=1, seed=s)).scores
    for s in range(2)
  ]
  values = [s["frechet"].value for s in single]
  assert found.value == pytest.approx(np.mean(values))
  assert found.interval[0] < min(values)
  assert found.interval[1] > max(values)


def test_what_repeats_cannot_change_gets_no_interval_from_them():
  fixed = Score(2.0, None, "of a fixed set")
  found = [{"a": Score(v, (0, 9), "one"), "b": fixed} for v in (1.0, 2.0, 3.0)]
  over = results._over_repeats(found)
  assert over["b"] == fixed
  assert over["a"] == Score(2.0, mean_interval([1, 2, 3]), "t over 3 sets of samples")


def test_other_projects_images_are_scored_with_the_same_ruler(tmp_path, capsys):
  np.savez(tmp_path / "a.npz", image=some_images(300))
  np.savez(tmp_path / "b.npz", image=some_images(300, 1))
  sample, reference = (f"{tmp_path}/{n}.npz" for n in "ab")
  flags = [f"--samples={sample}", "--metrics=swd"]
  cli.main(["evaluate", *flags, f"--reference={reference}"])
  assert "swd" in capsys.readouterr().out
  for wrong, text in (
    (flags, "swd of --samples=.* needs --reference=FOLDER, or files in .npz"),
    ([flags[0], "--metrics=memorisation"], "needs --train=FOLDER and --test=FOLDER"),
    (flags[:1], "eval belongs to a run: pass a workdir"),
    (["some_workdir", f"--test={sample}"], "--train and --test go with --samples"),
    ([*flags, "some_workdir"], "pass workdirs, or --samples"),
    ([], "pass workdirs, or --samples"),
    ([f"--samples={sample}", "--metrics=fid", "--features=inception",
      f"--reference={reference}"], "needs --weights=FILE"),
    ([f"--samples={sample}", "--metrics=frechet", "--features=vgg",
      f"--reference={reference}"], "no features 'vgg'"),
  ):  # fmt: skip
    with pytest.raises(SystemExit, match=text):
      cli.main(["evaluate", *wrong])


def test_folders_have_training_and_test_images_of_their_own(tmp_path):
  train, test, sample = (some_images(40, seed) for seed in range(3))
  sample[:10] = train[:10]
  label = np.arange(40) % 4
  for name, array in (("a", sample), ("train", train), ("test", test)):
    np.savez(tmp_path / f"{name}.npz", image=array, label=label)
  place = lambda name: f"{tmp_path}/{name}.npz"
  flags = [f"--samples={place('a')}", f"--train={place('train')}"]
  flags += [f"--test={place('test')}", "--metrics=memorisation,cas", "--seed=0"]
  cli.main(["evaluate", *flags, f"--out={tmp_path}/scores.json"])
  (found,) = json.loads((tmp_path / "scores.json").read_text())
  assert found["scores"]["copied_rate"]["value"] == 0.25
  assert found["scores"]["test_copied_rate"]["value"] == 0.0
  assert 0 <= found["scores"]["cas"]["value"] <= 1
  digest = lambda name: images.of_path(place(name)).digest()
  assert found["ruler"]["trained_on"] == digest("train")
  assert found["ruler"]["evaluated_on"] == digest("test")
  assert found["ruler"]["reference"] == f"40 images {digest('train')}"
  assert "cas: 60 steps, at most 60000 images" in found["ruler"]["settings"]


def test_what_needs_no_reference_is_asked_for_none(tmp_path, monkeypatch):
  logits = lambda x: {"features": x[:, 0, :, 0], "logits": x[:, 0, :, 0]}
  judge = network("l")._replace(apply=jax.tree_util.Partial(logits))
  monkeypatch.setattr(results, "network_of", lambda *_: judge)
  np.savez(tmp_path / "a.npz", image=some_images(60))
  ruler = Ruler(("class_score",), features="mine")
  found = results.evaluate_path(tmp_path / "a.npz", ruler)
  assert found.scores["class_score"].value > 1
  assert found.ruler["reference"] is None


def test_files_of_several_sizes_are_resized_each_or_refused(tmp_path):
  rng = np.random.default_rng(0)
  shapes = [(10, 14), (20, 9, 3)]
  files = [rng.integers(0, 256, shape, np.uint8) for shape in shapes]
  for i, image in enumerate(files):
    Image.fromarray(image).save(tmp_path / f"{i}.png")
  found = images.of_path(tmp_path)
  flat = lambda x: {"features": x.reshape(len(x), -1)}
  clean = FeatureNetwork("c", "c", "pil-bicubic-6", jax.tree_util.Partial(flat))
  colours = lambda x: np.broadcast_to(np.atleast_3d(x), (*x.shape[:2], 3))
  expected = [
    resize_pil(jnp.asarray(colours(x), jnp.float32)[None], (6, 6)).clip(0, 255).ravel()
    for x in files
  ]
  kept = cache.features(found, clean)["features"]
  np.testing.assert_allclose(kept, expected, atol=1e-3)
  with pytest.raises(ValueError, match="several sizes, and two .none. resizes none"):
    cache.features(found, network())
  for score in (found.labels, found.digest):
    score()


def test_neighbours_are_those_asked_for(monkeypatch):
  rng = np.random.default_rng(0)
  fake, real = rng.standard_normal((2, 60, 9)).astype(np.float32)
  found = task(None, None, ruler=Ruler(neighbours=3))
  found.__dict__.update(
    sample_features={"features": fake}, reference_features={"features": real}
  )
  scored = of_features.prdc_scores(found)
  for name, value in prdc(real, fake, k=3).items():
    assert scored[name].value == pytest.approx(float(value))
  settings = scores.METRICS["prdc"].settings(found.ruler, None)
  assert settings.startswith("3 neighbours, ")


OWN = """
import jax.numpy as jnp
from jaxgen.metrics.features import FeatureNetwork

def make(path):
  mean = lambda x: {"features": jnp.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], 1)}
  return FeatureNetwork("inception-v3", f"weights-{path}", "none", mean)

def wrong(path):
  return make(path)._replace(apply=lambda x: {"features": x})

def nothing(path):
  return make(path)._replace(apply=lambda x: {"logits": x[:, 0, 0]})

def number(path):
  return 3
"""


def test_features_of_ones_own(tmp_path, monkeypatch):
  a, b = some_images(80), some_images(80, 1) // 2
  for name, array in (("a", a), ("b", b)):
    np.savez(tmp_path / f"{name}.npz", image=array)
  file = tmp_path / "own_features.py"
  file.write_text(OWN)
  ruler = Ruler(("frechet",), features=f"{file}:make", reference=f"{tmp_path}/b.npz")
  score = lambda **kw: results.evaluate_path(f"{tmp_path}/a.npz", ruler._replace(**kw))
  expected = scores.compute(task(image_set(a), image_set(b)), ["frechet"])["frechet"]
  found = score(weights="x")
  assert found.scores["frechet"].value == pytest.approx(expected.value, rel=1e-5)
  assert found.ruler["features"].startswith("own_features:make-weights-x-")
  file.write_text(OWN + "# changed")
  assert score(weights="x").ruler["features"] != found.ruler["features"]
  monkeypatch.syspath_prepend(tmp_path)
  again = score(features="own_features:make")
  assert again.scores == found.scores
  assert again.ruler == score().ruler
  for function, metric, text in (
    ("make", "fid", "fid is defined by Inception's features, and these are .*make's"),
    ("wrong", "frechet", r"wrong must give \[\d+, D\] of"),
    ("nothing", "frechet", r"nothing must give {\"features\": \[B, D\]}, got {'logits"),
    ("number", "frechet", "number must map the path .*FeatureNetwork, got int"),
    ("absent", "frechet", "own_features.py has no function 'absent'"),
  ):
    with pytest.raises((ValueError, TypeError), match=text):
      score(features=f"{file}:{function}", metrics=(metric,))
  with pytest.raises(FileNotFoundError, match="no file 'none.py'"):
    score(features="none.py:make")
  with pytest.raises(ValueError, match="no module 'none_such.x' is installed"):
    score(features="none_such.x:make")


def test_conventions_of_inception_have_names():
  asked = {
    name: maker.keywords["convention"]
    for name, maker in networks.MAKERS.items()
    if "-" in name
  }
  assert asked == {f"inception-{v}": v for v in ("clean-fid", "pytorch-fid")}
  with pytest.raises(ValueError, match="inception-clean-fid needs --weights=FILE"):
    networks.network_of(Ruler(features="inception-clean-fid"), None, None)


def test_pairs_are_scored_file_by_file(tmp_path, capsys):
  rng = np.random.default_rng(0)
  clean = rng.integers(20, 236, (6, 16, 16, 3), dtype=np.uint8)
  noisy = clean + rng.integers(-9, 10, clean.shape)
  for name, image in (("a", noisy.astype(np.uint8)), ("b", clean), ("c", clean[:5])):
    np.savez(tmp_path / f"{name}.npz", image=image)
  ruler = Ruler(("pairs",), reference=f"{tmp_path}/b.npz", crop=2)
  with pytest.warns(UserWarning, match="no MS-SSIM of 12x12 pixels.*161 a side"):
    found = results.evaluate_path(f"{tmp_path}/a.npz", ruler)
  inner = (slice(None), slice(2, -2), slice(2, -2))
  errors = ((noisy - clean.astype(float))[inner] ** 2).mean((1, 2, 3))
  expected = 10 * np.log10(255**2 / errors)
  value, interval, _ = found.scores["psnr"]
  np.testing.assert_allclose(value, expected.mean(), rtol=1e-12)
  np.testing.assert_allclose(interval, mean_interval(expected))
  assert set(found.scores) == {"psnr", "ssim", "psnr_y", "ssim_y"}
  assert found.scores["psnr_y"].value > value + 1  # Noise of three channels averages.
  assert 0 < found.scores["ssim"].value < found.scores["ssim_y"].value < 1
  assert found.ruler["settings"] == "pairs: crop 2"
  flags = ["evaluate", "--metrics=pairs", f"--reference={tmp_path}/b.npz"]
  with pytest.warns(UserWarning, match="no MS-SSIM"):
    cli.main([*flags, f"--samples={tmp_path}/a.npz", f"--samples={tmp_path}/b.npz"])
  assert "b.npz inf" in capsys.readouterr().out.split("psnr ")[-1].split(",")[0]
  for more, text in (
    ([f"--samples={tmp_path}/c.npz"], "as many images as references, got 5 and 6"),
    ([f"--samples={tmp_path}/a.npz", "--repeats=2"], "these samples are given"),
  ):
    with pytest.raises(SystemExit, match=text):
      cli.main([*flags, *more])


def test_large_pairs_have_five_scales_and_batches_change_nothing(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  clean = rng.integers(20, 236, (3, 163, 165, 3), dtype=np.uint8)
  noisy = (clean + rng.integers(-9, 10, clean.shape)).astype(np.uint8)
  for name, image in (("a", noisy), ("b", clean)):
    np.savez(tmp_path / f"{name}.npz", image=image)
  monkeypatch.setattr(pairs, "VALUES", 1)  # One pair at a time.
  ruler = Ruler(("pairs",), reference=f"{tmp_path}/b.npz", crop=1)
  found = results.evaluate_path(f"{tmp_path}/a.npz", ruler).scores
  a, b = (np.float64(x)[:, 1:-1, 1:-1] for x in (noisy, clean))
  score = jax.jit(functools.partial(ms_ssim, data_range=(0.0, 255.0)))
  of = lambda a, b: np.asarray(score(a, b))
  with jax.enable_x64(True):
    expected = of(a, b)
    luma = of(*(np.round(np.asarray(rgb_to_y(x))) for x in (a, b)))
  assert found["pairs_ms_ssim"].value == pytest.approx(expected.mean(), rel=1e-12)
  assert found["pairs_ms_ssim_y"].value == pytest.approx(luma.mean(), rel=1e-12)
  np.testing.assert_allclose(found["pairs_ms_ssim"].interval, mean_interval(expected))
  assert pairs.large((1, 161, 200, 1), 0)
  assert not pairs.large((1, 162, 200, 1), 1)


def test_pairs_of_files_of_other_sizes_and_kinds(tmp_path):
  rng = np.random.default_rng(0)
  psnrs, lumas, ssims = [], [], []
  for i, shape in enumerate([(170, 180, 3), (64, 40, 3), (33, 50)]):
    clean = rng.integers(20, 236, shape)
    noisy = clean + rng.integers(-9, 10, shape)
    for name, image in (("a", noisy), ("b", clean)):
      (tmp_path / name).mkdir(exist_ok=True)
      Image.fromarray(image.astype(np.uint8)).save(tmp_path / name / f"{i}.png")
    x, y = (v.reshape(1, *shape[:2], -1).astype(np.uint8) for v in (noisy, clean))
    one = pairs.pair_values(x, y)
    psnrs += [*one["psnr"]]
    lumas += [*one.get("psnr_y", one["psnr"])]
    ssims += [*one["ssim"]]
  ruler = Ruler(("pairs",), reference=f"{tmp_path}/b")
  with pytest.warns(UserWarning, match="no MS-SSIM of 33x50, 64x40 pixels"):
    found = results.evaluate_path(f"{tmp_path}/a", ruler)
  assert list(found.scores) == ["psnr", "psnr_y", "ssim", "ssim_y"]
  assert found.scores["psnr"].value == pytest.approx(np.mean(psnrs), rel=1e-12)
  assert found.scores["psnr_y"].value == pytest.approx(np.mean(lumas), rel=1e-12)
  assert found.scores["ssim"].value == pytest.approx(np.mean(ssims), rel=1e-12)
  assert found.ruler["reference"].startswith("3 images ")
  with pytest.raises(
    ValueError, match="its images have several sizes; bring them to one"
  ):
    results.evaluate_path(f"{tmp_path}/a", ruler._replace(metrics=("swd",)))
  for folder in ("a", "b"):
    (tmp_path / folder / "1.png").unlink()
    (tmp_path / folder / ".hidden.png").write_text("no image")
  (tmp_path / "a" / "0.png").unlink()
  with pytest.raises(ValueError, match="as many images as references, got 1 and 2"):
    results.evaluate_path(f"{tmp_path}/a", ruler)


def result(name, value, **ruler):
  fingerprint = {"num_samples": 100, "features": "a"} | ruler
  shown = {"frechet": Score(value), "precision": Score(1 / value)}
  return Result(name, shown, fingerprint, {"sampler": "same"})


def test_runs_are_ranked_where_the_ruler_is_the_same():
  text = tables.table([result("x", 3.0), result("y", 2.0), result("z", 4.0)])
  assert "frechet    y 2, x 3, z 4; mean of runs 3 [0.51586, 5.4841]" in text
  assert "precision  y 0.5, x 0.33333, z 0.25; mean of runs 0.36111" in text


def test_runs_that_agree_to_the_last_bit_bound_nothing():
  text = tables.table([result("x", 3.0), result("y", 3.0)])
  assert "mean of runs" not in text


def test_folders_are_no_seeds_of_one_run():
  found = [result(n, v)._replace(provenance={}) for n, v in (("x", 3.0), ("y", 2.0))]
  assert "mean of runs" not in tables.table(found)


def test_runs_are_not_ranked_where_the_rulers_differ():
  differ = [result("x", 3.0), result("y", 2.0, features="b")]
  with pytest.raises(ValueError, match="rulers of these results differ"):
    tables.markdown(differ, "command")
  text = tables.table(differ)
  assert "not comparable" in text
  assert "features: a (x)" in text
  assert "features: b (y)" in text
  assert "num_samples: 100 (x)" not in text
  assert "best to worst" not in text


def test_what_has_no_direction_is_not_ranked():
  found = [
    result(name, 1.0)._replace(
      scores={k: Score(v) for k in ("kl", "log_prob", "swd_8")}
    )
    for name, v in (("x", -3.0), ("y", -2.0))
  ]
  text = tables.table(found)
  assert "kl        x -3, y -2; no order" in text
  assert "log_prob  y -2, x -3;" in text
  assert "swd_8     x -3, y -2;" in text


# --- reproduce --------------------------------------------------------------------


NAME = f"{TINY.parent.name}/{TINY.stem}"


def reproduced(experiment, folder, *flags):
  """What was printed, and the result."""
  flags = [*flags, f"--runs={folder}/runs", f"--results={folder}/results"]
  with contextlib.redirect_stdout(io.StringIO()) as printed:
    cli.main(["reproduce", str(experiment), *flags])
  path = folder / "results" / experiment.parent.name / f"{experiment.stem}.json"
  return printed.getvalue(), json.loads(path.read_text())


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
  """Folder, what was printed, and the result of two seeds one after the other."""
  folder = tmp_path_factory.mktemp("apart")
  return folder, *reproduced(TINY, folder, "--seeds=2")


def test_reproduce_end_to_end(apart):
  tmp_path, printed, found = apart
  elbo = found["scores"]["elbo"]
  runs = [tmp_path / "runs" / NAME / f"seed_{s}" for s in (0, 1)]
  assert elbo["values"][0] == pytest.approx(logged(runs[0], "eval_elbo"))
  assert elbo["values"][1] == pytest.approx(logged(runs[1], "eval_elbo"), abs=0.5)
  assert elbo["values"][0] != elbo["values"][1]
  assert elbo["interval"][0] < elbo["mean"] < elbo["interval"][1]
  assert elbo["interval_from"] == "t over 2 training seeds"
  assert found["published"] == -1000.5
  assert found["verdict"] in ("inside", "outside")
  assert found["seeds"] == 2
  assert found["steps"] == 6
  assert len(found["training_seconds"]) == 2
  assert found["fingerprint"]["num_samples"] == 300
  assert "verdict: " in printed
  assert len(found["sample_digests"]) == 2

  found = reproduced(TINY, tmp_path, "--seeds=1", "--budget=small")[1]
  assert found["steps"] == 3
  assert found["verdict"] == "partial budget"
  assert found["command"].endswith("--seeds=1 --budget=small")
  assert found["dataset"] == "digits, as for the full budget."


def test_seeds_together_give_the_numbers_of_seeds_apart(apart, tmp_path):
  experiment = tmp_path / "vae" / "tiny.py"
  experiment.parent.mkdir()
  line = "Budget: partial (6 of 9 steps)\nMeasure:"
  experiment.write_text(TINY.read_text().replace("Measure:", line))
  _, together = reproduced(experiment, tmp_path, "--seeds=2", "--together")
  for name in ("elbo", "frechet"):
    values = [found["scores"][name]["values"] for found in (together, apart[2])]
    np.testing.assert_allclose(*values, rtol=1e-3)
  assert together["verdict"] == "partial budget"


def test_verdicts():
  assert verdict(3.0, (2.0, 4.0), False) == "inside"
  assert verdict(5.0, (2.0, 4.0), False) == "outside"
  assert verdict(3.0, (2.0, 4.0), True) == "partial budget"
  assert verdict(None, (2.0, 4.0), False) == "nothing published to compare with"
  assert verdict(3.0, None, False) == "no interval to compare with"


def test_a_part_of_the_published_training_is_told(tmp_path):
  path = tmp_path / "vae" / "x.py"
  path.parent.mkdir()
  path.write_text(TINY.read_text())
  assert part_of(path) == ""
  assert "Budget" not in listing.list_all(tmp_path, tmp_path)
  path.write_text(
    '"""X.\n\nBudget: partial (4 of\n  1,500 epochs)\nMeasure: fid\n"""\n'
  )
  assert part_of(path) == "(4 of 1,500 epochs)"
  listed = listing.list_all(tmp_path, tmp_path)
  assert "Budget: partial (4 of 1,500 epochs)" in listed
  path.write_text('"""X.\n\nBudget: small\n"""\n')
  with pytest.raises(ValueError, match="line like 'Budget: partial .*found 'small'"):
    part_of(path)


def test_results_of_a_part_of_the_training_say_so():
  for path in sorted(commands.experiments_dir().glob("*/*.py")):
    file = commands.experiments_dir() / "results" / path.parent.name / path.stem
    if part_of(path) and file.with_suffix(".json").exists():
      found = json.loads(file.with_suffix(".json").read_text())
      assert found["verdict"] == "partial budget", path


def test_what_is_measured_is_read_from_the_docstring(tmp_path):
  found = measure_of(TINY)
  assert (found.score, found.published) == ("elbo", -1000.5)
  assert found.ruler == Ruler(("eval", "frechet"), 300, "classifier")
  path = tmp_path / "x.py"
  path.write_text('"""X.\n\nMeasure: fid\nMeasure small: mmd --num_samples=9\n"""\n')
  assert measure_of(path).score == "fid"
  small = measure_of(path, "file", "small")
  assert (small.score, small.ruler) == ("mmd", Ruler(("mmd",), 9, weights="file"))
  path.write_text('"""X.\n\nMeasure: fid --weights=../rulers/a.npz\n"""\n')
  beside = tmp_path.parent / "rulers" / "a.npz"
  assert measure_of(path).ruler.weights == str(beside)
  assert measure_of(path, "b.npz").ruler.weights == "b.npz"
  for line, text in (
    ("Ours: 3", "expected a docstring line like 'Measure:"),
    ("Measure: fid --sampels=3", "unknown --sampels"),
  ):
    path.write_text(f'"""X.\n\n{line}\n"""\n')
    with pytest.raises(ValueError, match=text):
      measure_of(path)


def test_every_experiment_says_what_is_measured():
  for path in sorted(commands.experiments_dir().glob("*/*.py")):
    for budget in ("full", "small"):
      ruler = measure_of(path, budget=budget).ruler
      metrics = [m for m in ruler.metrics if not scores.METRICS[m].inception]
      scores.check(metrics, "any")
      assert ruler.weights is None or Path(ruler.weights).is_file(), path


def test_the_table_shows_the_files_and_nothing_else(tmp_path):
  (tmp_path / "vae").mkdir()
  for name in ("a", "b"):
    (tmp_path / "vae" / f"{name}.py").write_text(TINY.read_text())
  found = [result("x", 3.0)._replace(provenance={
    "sampler": "s", "step": 5, "time": "2026-01-01 00:00:00",
    "versions": {"devices": "1 x cpu", "host": "2 cores"}, "seconds": 1.5,
    "peak_host_bytes": 10**9, "samples": ["abcd"],
  })]  # fmt: skip
  measure = measure_of(TINY)._replace(score="frechet", published=None)
  (tmp_path / "results" / "vae").mkdir(parents=True)
  written = summary("vae/a", measure, found, False, [1.0])
  assert written["evaluation_seconds"] == [1.5]
  assert written["peak_host_bytes"] == [10**9]
  assert written["sample_digests"] == [["abcd"]]
  (tmp_path / "results" / "vae" / "a.json").write_text(json.dumps(written))
  table = results_table(tmp_path).splitlines()
  link = "([all](experiments/results/vae/a.json))"
  assert f"| **frechet 3** {link} | 1 |" in table[2]
  assert "| not measured |" in table[3]
  # Seeds that change nothing say nothing of an interval.
  again = summary("vae/a", measure, [*found, *found], False, [1.0, 1.0])
  for key in ("interval", "interval_from"):
    assert again["scores"]["frechet"][key] == written["scores"]["frechet"][key]
  written = summary("vae/a", measure._replace(published=2.5), found, False, [1.0])
  written["scores"]["frechet"]["interval"] = [2.0, 4.0]
  written["scores"]["frechet_of_test"] = {"mean": 1.25}
  written["verdict"] = verdict(2.5, (2.0, 4.0), False)
  (tmp_path / "results" / "vae" / "a.json").write_text(json.dumps(written))
  row = results_table(tmp_path).splitlines()[2]
  assert f"**frechet 3** [2, 4]; test images 1.25; inside {link} | 1 |" in row
  assert (
    "| digits. |" in row and "| digits. |" in results_table(tmp_path).split("\n")[3]
  )
  written["command"] += " --budget=small"
  (tmp_path / "results" / "vae" / "a.json").write_text(json.dumps(written))
  rows = results_table(tmp_path).splitlines()
  assert "| digits, as for the full budget. |" in rows[2]
  assert "| digits. |" in rows[3]  # Nothing measured.
  written |= {"published": 5.0, "verdict": verdict(5.0, (2.0, 4.0), False)}
  (tmp_path / "results" / "vae" / "a.json").write_text(json.dumps(written))
  row = results_table(tmp_path).splitlines()[2]
  assert f"test images 1.25; outside: 5 is above {link} | 1 |" in row
  # Of an experiment that is itself a part of the published training.
  text = TINY.read_text().replace(
    "Measure:", "Budget: partial (6 of\n  9 steps)\nMeasure:"
  )
  (tmp_path / "vae" / "a.py").write_text(text)
  partial = written | {"verdict": verdict(5.0, (2.0, 4.0), True)}
  partial["command"] = partial["command"].removesuffix(" --budget=small")
  (tmp_path / "results" / "vae" / "a.json").write_text(json.dumps(partial))
  row = results_table(tmp_path).splitlines()[2]
  assert f"test images 1.25; partial budget (6 of 9 steps) {link} | 1 |" in row
  (tmp_path / "results" / "vae" / "a.json").write_text(json.dumps(written))
  # The classifier that the experiment names, and that of the result.
  file = commands.experiments_dir() / "rulers" / "digits.npz"
  flag = "--features=classifier"
  text = TINY.read_text().replace(flag, f"{flag}\n  --weights={file}")
  (tmp_path / "vae" / "a.py").write_text(text)
  assert "outside: 5 is above; by another classifier" in results_table(tmp_path)
  written["fingerprint"]["features"] = classifier_network(None, None, file).fingerprint
  (tmp_path / "results" / "vae" / "a.json").write_text(json.dumps(written))
  assert "by another classifier" not in results_table(tmp_path)
