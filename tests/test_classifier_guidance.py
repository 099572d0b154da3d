"""A classifier of two Gaussians guides the denoiser of both; the pooling classifier."""

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_guidance import PROCESS, STD, logits, of_all

from jaxgen.diffusion import process, schedules
from jaxgen.diffusion.classifier_guidance import TIME_SCALE, classifier_guidance
from jaxgen.diffusion.guidance import classifier_guided
from jaxgen.diffusion.sampling import levels, posterior_mean
from jaxgen.nn.adm_classifier import AdmClassifier, AttentionPool
from jaxgen.nn.adm_unet import adm_style

NUM = 2048


class Exact(nn.Module):
  """log p(class | x_t) of images of one value, times a factor to be trained."""

  factor: float = 1.0

  @nn.compact
  def __call__(self, x, t):
    factor = self.param("factor", nn.initializers.constant(self.factor), ())
    one = lambda x, t: logits(x, PROCESS.end * t / TIME_SCALE)[0, 0, 0]
    return factor * jax.vmap(one)(x, t)


def guidance(factor=1.0, **kwargs):
  options = dict(tx=optax.adam(0.05), denoise=of_all, process=PROCESS)
  return classifier_guidance(Exact(factor), **options, **kwargs)


def images(seed=0):
  """Of both classes, and their labels."""
  rng = np.random.default_rng(seed)
  label = np.arange(NUM, dtype=np.int32) % 2
  x = np.array([-1.0, 2.0])[label] + STD * rng.normal(size=NUM)
  return {"image": x.reshape(-1, 1, 1, 1).astype(np.float32), "label": label}


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_samples_have_the_distribution_of_their_label(scale, monkeypatch):
  # Images of these classes are not in [-1, 1], into which samples are clipped.
  monkeypatch.setattr(jnp, "clip", lambda x, *ends: x)
  method = guidance(scale=scale, times=schedules.uniform(100, 1.0))
  batch = images()
  batch["label"] = np.repeat(np.array([0, 1, -1, -1], np.int32), NUM // 4)
  state = method.init(jax.random.key(0), batch)
  x = jax.jit(method.sample)(state, batch, jax.random.key(1))["samples"]
  first, second, *both = np.asarray(x).reshape(4, -1)
  others = [both] if scale else [first, second, both]
  for rows in others:  # A mixture of both halves: mean 1/2, variance STD^2 + 9/4.
    np.testing.assert_allclose(np.mean(rows), 0.5, atol=0.2)
    np.testing.assert_allclose(np.std(rows), np.sqrt(STD**2 + 2.25), atol=0.1)
  for rows, mean in ((first, -1.0), (second, 2.0)) if scale else ():
    np.testing.assert_allclose(rows.mean(), mean, atol=0.07)
    np.testing.assert_allclose(rows.std(), STD, atol=0.07)


def test_training_finds_the_exact_classifier():
  """Its cross-entropy is the least, at every time: half or twice the logits lose."""
  method, batch = guidance(factor=0.3), images()
  step, evaluate = jax.jit(method.train_step), jax.jit(method.eval_step)
  state = method.init(jax.random.key(0), batch)
  for i in range(60):
    state, metrics = step(state, batch, jax.random.key(i))
  factor = float(state.params["classifier"]["factor"])
  np.testing.assert_allclose(factor, 1.0, atol=0.1)
  assert set(metrics) == {"loss", "accuracy", "grad_norm"}

  def loss(factor):
    params = {"classifier": {"factor": jnp.float32(factor)}}
    found = evaluate(state.replace(params=params), batch, jax.random.key(9))
    chex.assert_shape(list(found.values()), (NUM,))
    return {name: float(values.mean()) for name, values in found.items()}

  assert loss(1.0)["loss"] < min(loss(0.5)["loss"], loss(2.0)["loss"])
  np.testing.assert_allclose(loss(0.0)["loss"], np.log(2), rtol=1e-6)
  assert 0.5 < loss(1.0)["accuracy"] < 1.0


def test_without_noise_it_classifies_images():
  method, batch = guidance(), images()
  state = method.init(jax.random.key(0), batch)
  found = method.tools["classify"](state, batch, jax.random.key(0))["log_prob"]
  want = jax.nn.log_softmax(logits(batch["image"], 0.0)[:, 0, 0, 0])
  np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_a_step_moves_by_what_the_docstring_says():
  """beta / sqrt(1 - beta) times the gradient, in ancestral sampling."""
  betas = np.array([0.1, 0.2, 0.3])
  chain = process.discrete(betas)
  denoise, slope = lambda x_t, t: 0.5 * x_t, 0.7
  toward = classifier_guided(denoise, chain, lambda x, t: slope * x.sum(axis=1), 2.0)
  x = jnp.ones((1, 1))
  for t in (2.0, 3.0):
    now, then = levels(chain, jnp.float32(t)), levels(chain, jnp.float32(t - 1))
    moved = posterior_mean(x, toward(x, now.t), now, then)
    plain = posterior_mean(x, denoise(x, now.t), now, then)
    beta = betas[int(t) - 1]
    want = 2.0 * slope * beta / np.sqrt(1 - beta)
    np.testing.assert_allclose(moved - plain, want, rtol=1e-5)


def test_the_pool_is_attention_of_the_mean():
  pool = AttentionPool(adm_style(4, 0.0, jnp.float32))
  x = jax.random.normal(jax.random.key(0), (2, 2, 3, 8))
  found, variables = jax.jit(pool.init_with_output)(jax.random.key(1), x)
  p = jax.tree.map(np.asarray, variables["params"])
  rows = np.asarray(x).reshape(2, 6, 8)
  rows = np.concatenate([rows.mean(axis=1, keepdims=True), rows], 1) + p["positions"]
  layer = lambda name, rows: rows @ p[name]["kernel"] + p[name]["bias"]
  query = layer("query", rows[:, 0])
  key, value = layer("key", rows), layer("value", rows)
  for head in (slice(0, 4), slice(4, 8)):
    scores = np.einsum("bd,btd->bt", query[:, head], key[..., head]) / 2.0
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    want = np.einsum("bt,btd->bd", weights, value[..., head])
    np.testing.assert_allclose(found[:, head], want, rtol=1e-4, atol=1e-5)


def test_the_network_sees_image_and_time():
  net = AdmClassifier(3, 8, (1, 2), 1, (2,), head_dim=4)
  x, t = jax.random.normal(jax.random.key(0), (2, 4, 4, 1)), jnp.array([10.0, 10.0])
  variables = jax.jit(net.init)(jax.random.key(1), x, t)
  apply = jax.jit(net.apply)
  np.testing.assert_array_equal(apply(variables, x, t), np.zeros((2, 3)))
  moved = jax.tree.map(lambda v: np.asarray(v) + 0.1, variables)
  one, other, later = (apply(moved, *args) for args in ((x, t), (-x, t), (x, 50 * t)))
  assert np.abs(one - other).max() > 1e-4
  assert np.abs(one - later).max() > 1e-4
