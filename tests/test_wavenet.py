"""WaveNet: what sees what, sums over all sounds, queues, mu-law, masks."""

import functools

from causality import check_causal, check_sums_to_one, far_from_zero
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.autoregressive.wavenet import Network, wavenet
from jaxgen.ops import mu_law

KEY = jax.random.key(0)
DILATIONS = (1, 2, 4, 1)


@functools.cache
def made():
  net = Network(6, 8, DILATIONS, (("label", 3), ("speaker", 2)), num_levels=4)
  method = wavenet(net, tx=optax.adam(1e-2), sample_rate=8000)
  batch = {
    "audio": jnp.zeros((5, 24)),
    "label": jnp.arange(5) % 3,
    "speaker": jnp.arange(5) % 2,
  }
  return method, net, far_from_zero(method, batch, 0.5), batch


def predict(net, state):
  """f32 [16, 4] -> logits [16, ...]; sample t mixes the rows of tables by x[t]."""
  one = {"label": jnp.array([1]), "speaker": jnp.array([0])}
  wide = net.clone(num_levels=16)  # A level of its own for each sample.

  def run(x):
    params = dict(state.params["net"])
    for name in ("last", "second_last"):
      params[name] = {"embedding": x @ params[name]["embedding"]}
    params["logits"] = jax.tree.map(lambda p: jnp.tile(p, 4), params["logits"])
    return wide.apply({"params": params}, jnp.arange(16)[None], one)[0]

  return run


def test_a_sample_depends_on_its_receptive_field_and_nothing_else():
  _, net, state, _ = made()
  x = jax.random.uniform(KEY, (16, 4))
  found = check_causal(predict(net, state), x, sees_all=False) > 0
  assert net.receptive_field == 10
  distance = np.arange(16)[:, None] - np.arange(16)[None]
  np.testing.assert_array_equal(found, (distance >= 1) & (distance <= 10))


def test_probabilities_of_all_sounds_sum_to_one():
  method, _, state, _ = made()

  def log_prob(levels):
    num = len(levels)
    batch = {"audio": mu_law.decode(levels, 4), "label": jnp.full(num, 2)}
    batch["speaker"] = jnp.zeros(num, jnp.int32)
    bits = jax.jit(method.eval_step)(state, batch, KEY)["bits_per_sample"]
    return -bits * levels.shape[1] * jnp.log(2.0)

  check_sums_to_one(log_prob, 4, 5)


def test_queues_change_no_sample():
  method, _, state, batch = made()
  fast = jax.jit(method.sample)(state, batch, KEY)
  slow = jax.jit(method.tools["sample_uncached"])(state, batch, KEY)
  np.testing.assert_array_equal(fast["samples"], slow["samples"])
  np.testing.assert_array_equal(fast["sample_rate"], np.full(5, 8000))
  levels = mu_law.decode(jnp.arange(4), 4)
  assert set(np.unique(fast["samples"])) == set(np.asarray(levels))


def test_frequencies_of_samples_are_probabilities():
  method, _, state, _ = made()
  num = 8192
  pair = {"audio": jnp.zeros((num, 2)), "label": jnp.zeros(num, jnp.int32)}
  pair["speaker"] = pair["label"]
  drawn = mu_law.encode(jax.jit(method.sample)(state, pair, KEY)["samples"], 4)
  found = np.bincount(np.asarray(drawn) @ [4, 1], minlength=16) / num
  every = mu_law.decode(jnp.stack(jnp.divmod(jnp.arange(16), 4), -1), 4)
  batch = {"audio": every, **{k: pair[k][:16] for k in ("label", "speaker")}}
  p = 2.0 ** (-2 * jax.jit(method.eval_step)(state, batch, KEY)["bits_per_sample"])
  np.testing.assert_allclose(found, p, atol=4 * 0.5 / np.sqrt(num))


def test_only_samples_under_the_mask_count():
  method, _, state, batch = made()
  audio = jax.random.uniform(KEY, (5, 24), minval=-1.0)
  evaluate = jax.jit(method.eval_step)
  bits = lambda audio, mask: evaluate(
    state, {**batch, "audio": audio, "mask": mask}, KEY
  )["bits_per_sample"]
  mask = jnp.broadcast_to(jnp.arange(24) < 10, (5, 24)).astype(jnp.float32)
  changed = audio.at[:, 10:].set(0.0)
  np.testing.assert_allclose(bits(changed, mask), bits(audio, mask), rtol=1e-6)
  alone = jax.jit(method.eval_step)(state, {**batch, "audio": audio[:, :10]}, KEY)
  np.testing.assert_allclose(alone["bits_per_sample"], bits(audio, mask), rtol=1e-5)


def test_conditions_matter_and_are_asked_for():
  method, _, state, batch = made()
  bits = np.asarray(jax.jit(method.eval_step)(state, batch, KEY)["bits_per_sample"])
  assert len(np.unique(np.round(bits, 5))) == 5  # of 5 pairs of label and speaker
  with pytest.raises(ValueError, match=r"expected \['speaker'\] as well"):
    method.init(KEY, {"audio": batch["audio"], "label": batch["label"]})


def test_mu_law_is_finer_near_zero_and_nearest():
  levels = jnp.arange(256)
  x = np.asarray(mu_law.decode(levels))
  np.testing.assert_array_equal(mu_law.encode(x), levels)
  np.testing.assert_allclose(x, -x[::-1], atol=1e-6)
  assert x[0] == -1.0
  np.testing.assert_allclose(x[-1], 1.0, rtol=1e-6)
  # F(x) = sign(x) ln(1 + 255 |x|) / ln 256: levels are equally far apart in F.
  squeezed = np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256)
  np.testing.assert_allclose(np.diff(squeezed), 2 / 255, rtol=1e-3)
  assert np.diff(x)[127] < np.diff(x)[0] / 50
  np.testing.assert_array_equal(mu_law.encode(jnp.array([-3.0, 3.0])), [0, 255])
