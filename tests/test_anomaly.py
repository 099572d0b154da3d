"""Foreign images are told from those of the test set, by the area under the curve."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import roc_auc_score

from jaxgen import data, parallel
from jaxgen.method import Method, create_state
from jaxgen.metrics.roc import auroc, auroc_interval
from jaxgen.score import images
from jaxgen.score.anomaly import anomaly_scores, anomaly_settings
from jaxgen.score.task import Ruler, Task


def test_the_area_is_that_of_all_pairs_and_of_scikit_learn():
  rng = np.random.default_rng(0)
  negatives, positives = rng.integers(0, 6, 40), rng.integers(2, 9, 30)  # With ties.
  pairs = positives[:, None] - negatives
  want = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
  np.testing.assert_allclose(auroc(negatives, positives), want, rtol=1e-12)
  truth = np.repeat([0, 1], [40, 30])
  by_sklearn = roc_auc_score(truth, np.concatenate([negatives, positives]))
  np.testing.assert_allclose(auroc(negatives, positives), by_sklearn, rtol=1e-12)
  assert auroc(negatives, -positives - 1) == 0.0


def test_its_interval_holds_the_truth_as_often_as_it_says():
  """Of N(0, 1) and N(1, 1) the area is Phi(1 / sqrt 2) = 0.7602."""
  rng = np.random.default_rng(1)
  hits = 0
  for _ in range(400):
    low, high = auroc_interval(rng.normal(size=50), rng.normal(1.0, size=60))
    hits += low < 0.76025 < high
  assert 0.92 < hits / 400 < 0.98
  assert auroc_interval([1.0], [2.0, 3.0]) is None
  assert auroc_interval([1.0, 2.0], [3.0, 4.0]) == (1.0, 1.0)


@pytest.mark.parametrize("bad", [[], [np.nan, 1.0], [[1.0]]])
def test_scores_must_be_numbers(bad):
  with pytest.raises(ValueError, match="numbers in a vector"):
    auroc(np.array(bad), np.ones(3))


def image_set(levels, name):
  array = np.asarray(levels, np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1))
  source = data.arrays({"image": array.astype(np.uint8)}, batch_size=8)
  return images.of_source(source, name)


def brightness(state, batch, key):
  return {"nll": state.params["net"]["slope"] * batch["image"].mean(axis=(1, 2, 3))}


def task_of(method, reference, **ruler):
  """A model for which bright images are improbable; half its test set is dark."""
  variables = {"params": {"slope": jnp.float32(3.0)}}
  state = create_state({"net": variables}, {"net": optax.sgd(1.0)})
  train, test = image_set(range(50), "train"), image_set(np.arange(130), "test")
  loaded = SimpleNamespace(method=method, state=state)
  sets = (reference, train, test)
  backend = parallel.jit_backend()
  return Task(None, *sets, None, loaded, 0, backend, Ruler(**ruler))


def test_bright_images_are_foreign_to_a_model_of_dark_ones():
  method = Method(None, None, tools={"nll": brightness})
  found = anomaly_scores(task_of(method, image_set(range(100, 220), "bright")))
  # Of 120 x 130 pairs 30 x 30 are not in order, of which half and the 30 ties count.
  np.testing.assert_allclose(found["auroc"].value, 1 - 450 / (120 * 130), rtol=1e-6)
  np.testing.assert_allclose(
    found["nll_of_test"].value, 3.0 * (64.5 / 127.5 - 1), rtol=1e-5
  )
  fewer = task_of(method, image_set(range(100, 220), "bright"), num_samples=7)
  assert anomaly_scores(fewer)["auroc"].value * 49 % 0.5 == pytest.approx(0, abs=1e-9)
  assert anomaly_settings(method) == f"nll: {__name__}"
  apart = anomaly_scores(task_of(method, image_set(range(200, 220), "bright")))["auroc"]
  assert apart[:2] == (1.0, None)
  assert apart.how == "no interval where all images of a set rank alike"
  bits = lambda *args: {"bits_per_dim": brightness(*args)["nll"]}
  other = task_of(Method(None, None, bits), image_set(range(100, 220), "bright"))
  in_bits = anomaly_scores(other)
  assert in_bits["auroc"] == found["auroc"]
  assert "bits_per_dim_of_test" in in_bits


def test_what_cannot_be_scored_is_said():
  foreign = image_set(range(100, 120), "foreign")
  score = lambda method, reference=foreign: anomaly_scores(task_of(method, reference))
  with pytest.raises(ValueError, match="has no|has none"):
    score(Method(None, None))
  with pytest.raises(ValueError, match=r"one of .*'loss'"):
    score(Method(None, None, lambda state, batch, key: {"loss": jnp.zeros(100)}))
  with pytest.raises(ValueError, match="reads 'label' beside images"):
    score(Method(None, None, lambda state, batch, key: {"nll": batch["label"]}))
  own = Method(None, None, tools={"nll": brightness})
  with pytest.raises(ValueError, match="not the test set"):
    score(own, image_set(np.arange(130), "again"))
  with pytest.raises(ValueError, match="not the train set"):
    score(own, image_set(range(50), "again"))
  large = data.arrays({"image": np.zeros((8, 5, 5, 1), np.uint8)}, batch_size=8)
  with pytest.raises(ValueError, match=r"\(5, 5, 1\), the model \(4, 4, 1\)"):
    score(own, images.of_source(large, "large"))
