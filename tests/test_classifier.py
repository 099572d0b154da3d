"""The classifier trained in place: accuracy, outputs, files, data order, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxgen.metrics import classifier as C
from jaxgen.metrics import classifier_training as T
from jaxgen.metrics.frechet import frechet_distance, moments

SMALL = {"num_classes": 10, "num_steps": 3, "batch_size": 16}


@pytest.fixture(scope="module")
def digits():
  """Real 8x8 digits, shuffled: (1,437 images, labels), (360 images, labels)."""
  values, labels = load_digits(return_X_y=True)
  images = np.round(values * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
  order = np.random.default_rng(0).permutation(len(images))
  images, labels = images[order], labels[order]
  return (images[:1437], labels[:1437]), (images[1437:], labels[1437:])


@pytest.fixture(scope="module")
def trained(digits):
  train, test = digits
  return T.train_classifier(
    *train, num_classes=10, num_steps=300, batch_size=64, max_shift=1, test=test
  )


def test_it_learns_digits(trained, digits):
  train, test = digits
  assert trained.test_accuracy >= 0.97
  assert trained.accuracy(*test) == trained.test_accuracy
  assert trained.accuracy(*train) >= 0.98
  predicted = trained.predict(test[0])["logits"].argmax(-1)
  wrong = np.mean(predicted != test[1])
  assert trained.test_accuracy == pytest.approx(1 - wrong)


def test_outputs_of_a_batch(trained, digits):
  images = digits[1][0][:5]
  x = jnp.asarray(images / 127.5 - 1, jnp.float32)
  outputs = trained.apply(x)
  assert outputs["logits"].shape == (5, 10)
  assert outputs["features"].shape == (5, C.FEATURE_DIM)
  assert np.all(outputs["features"] >= 0)
  np.testing.assert_array_equal(trained.logits(x), outputs["logits"])
  np.testing.assert_array_equal(trained.features(x), outputs["features"])
  last = trained.params["Dense_1"]  # the features are what the logits are made of
  logits = np.asarray(outputs["features"]) @ last["kernel"] + last["bias"][None]
  np.testing.assert_allclose(outputs["logits"], logits, rtol=1e-4, atol=1e-4)
  gradient = jax.jit(jax.grad(lambda x: jnp.sum(trained.features(x))))(x)
  assert np.all(np.isfinite(gradient))
  assert np.all(np.abs(gradient).max((1, 2, 3)) > 0)


def test_any_number_of_images_in_batches_of_one_size(trained, digits):
  images = digits[1][0][:7]
  outputs = trained.predict(images, batch_size=3)
  x = (images / np.float32(127.5) - 1).astype(np.float32)
  for name, value in trained.apply(jnp.asarray(x)).items():
    np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-5)
  as_floats = trained.predict(x, batch_size=3)
  np.testing.assert_array_equal(outputs["logits"], as_floats["logits"])


def test_features_tell_digits_from_other_images(trained, digits):
  (train, _), (test, _) = digits
  noise = np.random.default_rng(1).integers(0, 256, test.shape, np.uint8)
  with jax.enable_x64(True):
    a, b, c, d = (
      moments(trained.predict(images)["features"].astype(np.float64))
      for images in (train, test, test[:, ::-1], noise)
    )
    near, flipped, far = (float(frechet_distance(a, other)) for other in (b, c, d))
  assert 5 * near < flipped < far


def test_it_is_a_function_of_its_arguments(digits):
  (images, labels), _ = digits
  make = lambda **kw: T.train_classifier(images, labels, **{**SMALL, **kw}).fingerprint
  first = make(seed=3)
  assert first == make(seed=3)
  others = [make(seed=4), make(seed=3, max_shift=1), make(seed=3, num_steps=4)]
  assert len({first, *others}) == 4
  assert len(first) == 64


def test_the_recipe_changes_with_whatever_makes_another_classifier(monkeypatch):
  recipe = lambda **kw: T.training_recipe(
    **{"image_shape": (8, 8, 1), "num_classes": 10, "num_steps": 5} | kw
  )
  first = recipe()
  assert first == recipe(batch_size=128)  # The default.
  for other in (
    dict(image_shape=(8, 10, 1)), dict(num_classes=9), dict(num_steps=6),
    dict(seed=1), dict(batch_size=64), dict(learning_rate=1e-3), dict(max_shift=1),
  ):  # fmt: skip
    assert recipe(**other) != first, other
  monkeypatch.setattr(T.optax, "adam", T.optax.adamw)
  assert recipe() != first
  monkeypatch.undo()
  monkeypatch.setattr(C, "FEATURE_DIM", 64)
  assert recipe() != first
  with pytest.raises(TypeError, match="lr"):
    recipe(lr=1)


def test_a_saved_classifier_comes_back(trained, digits, tmp_path):
  path = tmp_path / "digits.npz"
  trained.save(path)
  loaded = C.load(path)
  assert loaded.fingerprint == trained.fingerprint
  assert loaded.test_accuracy == trained.test_accuracy
  assert loaded.image_shape == (8, 8, 1)
  assert loaded.num_classes == 10
  x = digits[1][0][:4]
  for name, value in loaded.predict(x).items():
    np.testing.assert_array_equal(value, trained.predict(x)[name])
  untested = C.Classifier(trained.params, (8, 8, 1), 10)
  untested.save(str(path))
  assert C.load(str(path)).test_accuracy is None


def test_bad_files_are_explained(trained, tmp_path):
  path = tmp_path / "c.npz"
  with pytest.raises(FileNotFoundError, match="no file .*c.npz"):
    C.load(path)
  path.write_bytes(b"text")
  with pytest.raises(ValueError, match="c.npz: not a saved classifier"):
    C.load(path)
  np.savez(path, a=1)
  with pytest.raises(ValueError, match="not a saved classifier.*test_accuracy"):
    C.load(path)
  trained.save(path)
  changed = dict(np.load(path))
  changed["params/Dense_1/bias"] = changed["params/Dense_1/bias"] + 1
  np.savez(path, **changed)
  with pytest.raises(ValueError, match=f"fingerprint .*expected {trained.fingerprint}"):
    C.load(path)
  with pytest.raises(ValueError, match=r"ends in .npz, got .*c.bin"):
    trained.save(tmp_path / "c.bin")


def test_accuracy_score_of_synthetic_images_with_right_and_wrong_labels(digits):
  (images, labels), (test_images, test_labels) = digits
  options = {"num_classes": 10, "num_steps": 60, "batch_size": 64}
  score = lambda labels: T.classification_accuracy_score(
    images, labels, test_images, test_labels, **options
  )
  assert score(labels) >= 0.94
  assert score((labels + 1) % 10) <= 0.03


def test_every_epoch_takes_every_image_once():
  images = np.zeros((7, 5, 5, 1), np.uint8)
  images[:, 0, 0, 0] = labels = np.arange(7)
  batches = T._batches(images, labels, 3, 0, seed=0)
  orders = []
  for _ in range(4):  # 7 images give 2 batches of 3; one image waits
    epoch = [next(batches) for _ in range(2)]
    for x, y in epoch:
      assert x.dtype == np.float32
      np.testing.assert_array_equal(np.round((x[:, 0, 0, 0] + 1) * 127.5), y)
      assert np.all(x[:, 1:] == -1)
    orders.append(tuple(np.concatenate([y for _, y in epoch])))
    assert len(set(orders[-1])) == 6
  assert len(set(orders)) == 4
  x, y = next(T._batches(images, labels, 16, 0, seed=0))  # fewer images than a batch
  assert x.shape == (16, 5, 5, 1)
  assert np.bincount(y).min() == 2


def test_shifts_reach_every_offset_and_repeat_the_border():
  image = np.zeros((1, 7, 7, 1), np.float32)
  image[0, 3, 3] = 1.0
  image[0, 0] = -1.0  # the top line
  batch, _ = next(T._batches(image, np.zeros(1, int), 300, 2, seed=0))
  offsets = set()
  for x in batch[..., 0]:
    (row,), (column,) = np.where(x == 1.0)
    offsets.add((row - 3, column - 3))
    lines = max(row - 3 + 1, 0)  # shifted down, the top line is repeated
    np.testing.assert_array_equal(x[:lines], np.full((lines, 7), -1.0))
    assert np.all(x[lines:] >= 0)
  assert offsets == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (9, 16, 3)])
def test_sizes(shape):
  images = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
  options = {"num_classes": 3, "num_steps": 1, "batch_size": 4}
  classifier = T.train_classifier(images, np.array([0, 1, 2, 2]), **options)
  outputs = classifier.predict(images)
  assert outputs["features"].shape == (4, 128)
  assert np.all(np.isfinite(outputs["logits"]))
  assert np.ptp(outputs["logits"], axis=0).min() > 0  # it looks at the image


@pytest.mark.parametrize(
  ("change", "error", "text"),
  [
    ({"images": np.zeros((2, 8, 8), np.uint8)}, ValueError, r"got shape \(2, 8, 8\)"),
    ({"images": np.zeros((2, 4, 8, 1), np.uint8)}, ValueError, "5 to 64 pixels"),
    ({"images": np.zeros((2, 8, 8, 1))}, TypeError, "got float64"),
    (
      {"images": np.full((2, 8, 8, 1), 255, np.float32)},
      ValueError,
      r"values in \[255.0, 255.0\]",
    ),
    ({"images": np.full((2, 8, 8, 1), np.nan, np.float32)}, ValueError, "nan"),
    ({"labels": np.array([0, 10])}, ValueError, r"0\.\.9, got 0\.\.10"),
    ({"labels": np.array([-1, 3])}, ValueError, r"got -1\.\.3"),
    ({"labels": np.array([0.0, 1.0])}, TypeError, "got float64"),
    ({"labels": np.array([0])}, ValueError, r"shape \(1,\) for 2 images"),
    ({"num_steps": 0}, ValueError, "num_steps=0"),
    ({"max_shift": -1}, ValueError, "max_shift=-1"),
  ],
)
def test_unfit_arguments_are_explained(change, error, text):
  good = {"images": np.zeros((2, 8, 8, 1), np.uint8), "labels": np.array([0, 1])}
  with pytest.raises(error, match=text):
    T.train_classifier(**{**good, **SMALL, **change})


def test_unfit_inputs_are_explained(trained):
  with pytest.raises(ValueError, match=r"\[B, 8, 8, 1\], got shape \(2, 8, 8, 3\)"):
    trained.apply(jnp.zeros((2, 8, 8, 3)))
  with pytest.raises(ValueError, match=r"\[B, 8, 8, 1\], got shape \(2, 9, 8, 1\)"):
    trained.predict(np.zeros((2, 9, 8, 1), np.uint8))
  with pytest.raises(TypeError, match="got uint8"):
    trained.features(jnp.zeros((2, 8, 8, 1), jnp.uint8))
  with pytest.raises(ValueError, match=r"N > 0, got shape \(0, 8, 8, 1\)"):
    trained.predict(np.zeros((0, 8, 8, 1), np.uint8))
