"""The prior over codes: causality, normalisation, labels, and what it is given."""

import functools

from causality import check_causal, check_sums_to_one, far_from_zero
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import cli
from jaxgen.autoregressive import tokens as shared
from jaxgen.autoregressive.decoding import Sampler
from jaxgen.autoregressive.tokenizers import palette_tokenizer
from jaxgen.autoregressive.vq_prior import vq_prior
from jaxgen.nn.transformer import TokenTransformer, Transformer

LEVELS = np.linspace(-1, 1, 3, dtype=np.float32)[:, None]
NET = TokenTransformer(Transformer(2, 2), 3, 8, 4, tie_weights=False, num_inputs=3 + 2)
BATCH = {
  "image": random.randint(random.key(0), (64, 2, 2, 1), 0, 3).astype(jnp.float32) - 1,
  "label": jnp.arange(64) % 2,
}


def make(net=NET, num_classes=2, **kwargs):
  options = dict(tx=optax.sgd(0.0), tokenizer=palette_tokenizer(LEVELS))
  return vq_prior(net, num_classes=num_classes, **{**options, **kwargs})


@functools.cache
def random_state():
  return far_from_zero(make(), BATCH)


@functools.partial(jax.jit, static_argnums=1)
def log_prob(rest, label=1):
  first = jnp.full((len(rest), 1), 3 + label, jnp.int32)
  tokens = jnp.concatenate([first, rest], axis=1)
  return -shared.nats(NET, random_state().params["net"], tokens).sum(axis=1)


def test_codes_depend_on_earlier_codes_and_the_label():
  params = {"params": random_state().params["net"]}

  def predict(x):  # Entry i is of code i; x_0, ..., x_3 are the codes, embedded.
    label = NET.apply(params, jnp.array([4]), method="embed")
    x = jnp.concatenate([label, x[:-1]])
    return NET.apply(params, x[None], method="predict")[0]

  check_causal(predict, random.normal(random.key(2), (4, 8)))


def test_probabilities_sum_to_one_and_depend_on_the_label():
  check_sums_to_one(log_prob, num_values=3, length=4)
  codes = jnp.array([[0, 2, 1, 0]])
  assert abs(log_prob(codes, 0) - log_prob(codes, 1)) > 1e-3


def test_loss_is_the_likelihood_of_the_codes_given_the_label():
  out = jax.jit(make().eval_step)(random_state(), BATCH, random.key(0))
  codes = (BATCH["image"].reshape(64, 4) + 1).astype(jnp.int32)
  for label in (0, 1):
    rows = np.asarray(BATCH["label"]) == label
    expected = -log_prob(codes[rows], label) / 4
    np.testing.assert_allclose(out["nats_per_token"][rows], expected, rtol=1e-5)


def test_samples_follow_their_labels():
  """The most likely first code of each label, at a temperature near 0."""
  method = make(sampler=Sampler(temperature=1e-4))
  out = jax.jit(method.sample)(random_state(), BATCH, random.key(3))["samples"]
  params = {"params": random_state().params["net"]}
  logits = jax.jit(NET.apply)(params, BATCH["label"][:, None] + 3)[:, 0]
  first = np.asarray(out)[:, 0, 0, 0]
  np.testing.assert_array_equal(first, LEVELS[np.argmax(logits, axis=1), 0])


def test_the_cache_changes_no_sample():
  method = make()
  draw = lambda fn: jax.jit(fn)(random_state(), BATCH, random.key(4))["samples"]
  cached = draw(method.sample)
  np.testing.assert_array_equal(cached, draw(method.tools["sample_uncached"]))
  assert len(np.unique(np.asarray(cached).reshape(64, 4), axis=0)) > 8


def test_complete_keeps_the_first_half():
  method = make()
  out = jax.jit(method.tools["complete"])(random_state(), BATCH, random.key(3))
  found = np.asarray(out["completions"])
  np.testing.assert_array_equal(found[:, 0], BATCH["image"][:, 0])
  assert (found[:, 1] != BATCH["image"][:, 1]).any()


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="num_inputs=5: expected 3.* and 4, with no"):
    make(num_classes=0)
  with pytest.raises(ValueError, match="temperature=0"):
    make(sampler=Sampler(temperature=0))


@pytest.mark.parametrize("name", ["vq_prior_mnist", "maskgit_mnist"])
def test_a_missing_first_stage_is_said(name, tmp_path):
  path = f"autoregressive/{name}"
  flags = ["describe", path, f"--config.stage_one={tmp_path}"]
  with pytest.raises((SystemExit, FileNotFoundError), match="no first stage.*vq_vae"):
    cli.main(flags)
