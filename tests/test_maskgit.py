"""MaskGIT: schedules, decoding against closed forms, the loss, BERT's parameters."""

import functools
import json
from pathlib import Path

from causality import far_from_zero
from flax import traverse_util
from golden import masked_transformer_inputs
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import cli
from jaxgen.autoregressive import masking, tokenizers
from jaxgen.autoregressive.maskgit import known_tokens, maskgit
from jaxgen.autoregressive.masking import token_nats
from jaxgen.autoregressive.tokenizers import palette_tokenizer
from jaxgen.method import Method
from jaxgen.nn.masked_transformer import MaskedTransformer

LEVELS = np.linspace(-1, 1, 3, dtype=np.float32)[:, None]
NET = MaskedTransformer(3, 16, 8, 2, 2, num_classes=2, dropout=0.0)
BATCH = {
  "image": random.randint(random.key(0), (4, 4, 4, 1), 0, 3).astype(jnp.float32) - 1,
  "label": jnp.array([0, 1, 1, 0]),
}


def make(net=NET, **kwargs):
  options = dict(tx=optax.sgd(1.0), tokenizer=palette_tokenizer(LEVELS))
  return maskgit(net, **{**options, **kwargs})


@functools.cache
def method_and_state(**kwargs):
  """All parameters far from zero and from each other."""
  method = make(**kwargs)
  return method, far_from_zero(method, BATCH)


@pytest.mark.parametrize("schedule", [masking.cosine, masking.linear])
@pytest.mark.parametrize("num_steps", [1, 7, 12, 40])
def test_every_step_finds_some_and_all_are_found(schedule, num_steps):
  num = jnp.array([0, 1, 7, 64])
  counts = np.asarray(masking.hidden_counts(num, num_steps, schedule))
  found = -np.diff(counts, axis=0)
  np.testing.assert_array_equal(found.sum(axis=0), num)
  assert (found >= 0).all()
  assert (found[:, 3] > 0).all()  # more tokens than steps
  assert (counts[-1] == 0).all()
  assert (counts[1:-1, 1:] > 0).all()  # one is left for the last step


def test_counts_of_the_cosine_schedule():
  """floor(64 cos(pi t / 12)) by hand; cos(pi / 3) is exactly a half."""
  counts = masking.hidden_counts(jnp.array([64]), 6, masking.cosine)[:, 0]
  assert counts.tolist() == [64, 61, 55, 45, 32, 16, 0]
  linear = masking.hidden_counts(jnp.array([64]), 64, masking.linear)[:, 0]
  assert linear.tolist() == list(range(64, -1, -1))
  with pytest.raises(ValueError, match="num_steps=0"):
    masking.hidden_counts(jnp.array([3]), 0, masking.cosine)


def test_masks_have_their_number_and_any_place():
  num = jnp.arange(4).repeat(3000)
  mask = np.asarray(masking.random_mask(num, 3, random.key(0)))
  np.testing.assert_array_equal(mask.sum(axis=1), num)
  for n in (1, 2):
    np.testing.assert_allclose(mask[num == n].mean(axis=0), n / 3, atol=0.03)


def exact(joint):
  """Logits of each hidden token given those that are not, of a table [K, K, K]."""
  values = jnp.stack(jnp.meshgrid(*map(jnp.arange, joint.shape), indexing="ij"), -1)
  values, probs = values.reshape(-1, 3), joint.reshape(-1)

  def predict(tokens):
    agree = (tokens[:, None] == values[None]) | (tokens[:, None] == -1)
    weights = jnp.where(agree.all(axis=2), probs[None], 0.0)
    one_hot = jax.nn.one_hot(values, len(joint))
    return jnp.log(jnp.einsum("bn,ntk->btk", weights, one_hot) + 1e-30)

  return predict


def draws(joint, temperature, num, length=3):
  fn = functools.partial(
    masking.fill_in, exact(joint), mask_token=-1, num_steps=length,
    temperature=temperature, schedule=masking.linear,
  )  # fmt: skip
  tokens = jnp.zeros((num, length), jnp.int32)
  return np.asarray(jax.jit(fn)(tokens, tokens == 0, random.key(3)))


def test_an_exact_model_and_one_token_a_step_draw_from_it():
  """At a high temperature, where confidence does not depend on what was drawn."""
  joint = random.dirichlet(random.key(5), 0.5 * jnp.ones(8)).reshape(2, 2, 2)
  found = draws(joint, 1e6, 20_000) @ np.array([4, 2, 1])
  shares = np.bincount(found, minlength=8) / len(found)
  np.testing.assert_allclose(shares, joint.reshape(-1), atol=0.012)


def test_confidence_prefers_likely_tokens_as_the_closed_form_says():
  """Three independent bits, p(1) = 0.9: p(all are 0) falls from 1e-3 to 1e-6.

  At temperature 0 a 0 is kept only if all of the step's draws are 0: 0.1^3 at first,
  then 0.1^2, then 0.1. A 1 is p(not all 0): 0.999 * 0.99 * 0.9.
  """
  p = jnp.array([0.1, 0.9])
  joint = jnp.einsum("i,j,k->ijk", p, p, p)
  found = draws(joint, 0.0, 20_000)
  np.testing.assert_allclose((found.sum(1) == 3).mean(), 0.999 * 0.99 * 0.9, atol=0.01)
  assert (found.sum(1) == 0).mean() < 5e-4


def test_loss_is_cross_entropy_of_hidden_tokens_only():
  method, state = method_and_state(label_smoothing=0.1)
  step = jax.jit(method.train_step)
  _, metrics = step(state, BATCH, random.key(2))
  # By hand, with the same draws.
  time_key, mask_key, _ = random.split(random.key(2), 3)
  num = jnp.ceil(16 * jnp.cos(jnp.pi / 2 * random.uniform(time_key, (4,))))
  hidden = masking.random_mask(num.astype(jnp.int32), 16, mask_key)
  tokens = BATCH["image"].astype(jnp.int32).reshape(4, 16) + 1
  seen = jnp.where(hidden, 3, tokens)
  apply = jax.jit(NET.apply)
  logits = apply({"params": state.params["net"]}, seen, BATCH["label"])
  log_probs, one_hot = np.asarray(jax.nn.log_softmax(logits)), np.eye(3)[tokens]
  for smoothed, name in ((one_hot * 0.9 + 0.1 / 3, "loss"), (one_hot, "nats")):
    nats = -(smoothed * log_probs).sum(-1)
    by_hand = [n[m].mean() for n, m in zip(nats, np.asarray(hidden), strict=True)]
    np.testing.assert_allclose(metrics[name], np.mean(by_hand), rtol=1e-5)
  # Tokens that are not hidden change nothing but what the network sees.
  other = jnp.where(hidden, tokens, (tokens + 1) % 3)
  a, b = (masking.masked_mean(token_nats(logits, t), hidden) for t in (tokens, other))
  np.testing.assert_array_equal(a, b)


def test_the_network_sees_all_that_is_not_hidden_and_the_label():
  _, state = method_and_state()
  apply = jax.jit(lambda *args: NET.apply({"params": state.params["net"]}, *args))
  tokens, label = jnp.zeros((1, 16), jnp.int32), jnp.array([0])
  before = apply(tokens, label)
  for j in (0, 7, 15):
    after = apply(tokens.at[0, j].set(2), label)
    assert (np.abs(after - before)[0].max(axis=-1) > 1e-4).all()
  assert (np.abs(apply(tokens, label + 1) - before)[0].max(axis=-1) > 1e-4).all()


def test_eval_is_a_bound_in_expectation():
  """T times it, over all draws, is the mean over orders of -log p(tokens)."""
  net = MaskedTransformer(3, 2, 8, 1, 2, dropout=0.0)
  tokenizer = tokenizers.token_files(3)
  method = maskgit(net, tx=optax.sgd(0.0), tokenizer=tokenizer, entry="tokens")
  tokens = jnp.tile(jnp.array([[2, 0]]), (4000, 1))
  batch = {"tokens": tokens}
  state = far_from_zero(method, batch, 0.5)
  found = jax.jit(method.eval_step)(state, batch, random.key(1))
  apply = jax.jit(lambda seen: net.apply({"params": state.params["net"]}, seen))
  one = lambda *seen: jax.nn.log_softmax(apply(np.array([seen])))[0]
  both = one(3, 3)
  orders = [both[0, 2] + one(2, 3)[1, 0], both[1, 0] + one(3, 0)[0, 2]]
  np.testing.assert_allclose(
    2 * found["nats_per_token"].mean(), -np.mean(orders), rtol=0.02
  )


@pytest.mark.parametrize("kind", ["pixels", "tokens", "none"])
def test_inpainting_keeps_known_tokens(kind):
  method, state = method_and_state()
  mask = {
    "pixels": random.bernoulli(random.key(4), 0.5, (4, 4, 4, 1)).astype(jnp.float32),
    "tokens": random.bernoulli(random.key(4), 0.5, (4, 4, 4)).astype(jnp.float32),
  }
  batch = {**BATCH, "mask": mask[kind]} if kind in mask else BATCH
  out = jax.jit(method.tools["inpaint"])(state, batch, random.key(5))
  rows = np.array([1, 0, 0, 1])[None, :, None, None]
  known = np.asarray(mask[kind]).reshape(4, 4, 4, 1) if kind in mask else rows
  known = np.broadcast_to(known > 0, (4, 4, 4, 1))
  inpainted = np.asarray(out["inpainted"])
  np.testing.assert_array_equal(inpainted[known], BATCH["image"][known])
  assert (inpainted[~known] != BATCH["image"][~known]).any()
  np.testing.assert_array_equal(out["reconstructions"], BATCH["image"])


def test_a_token_is_known_where_all_of_its_pixels_are():
  mask = jnp.ones((1, 4, 4, 1)).at[0, 1, 2].set(0)
  assert known_tokens(mask, (1, 2, 2)).tolist() == [[[True, False], [True, True]]]
  with pytest.raises(ValueError, match=r"mask \(1, 4, 4, 1\) for tokens \(1, 3, 3\)"):
    known_tokens(mask, (1, 3, 3))


def test_a_trained_first_stage_is_used_as_it_is():
  codes = lambda state, batch, key: {"codes": batch["image"][..., 0].astype(int)}
  images = lambda state, batch, key: {"images": state * batch["codes"][..., None]}
  first = Method(None, None, tools={"encode": codes, "decode_codes": images})
  tokenizer = tokenizers.trained_tokenizer(first, 2.0, 3)
  x = jnp.arange(8.0).reshape(2, 2, 2, 1)
  assert tokenizer.tokens(x).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
  np.testing.assert_array_equal(tokenizer.images(tokenizer.tokens(x), x), 2 * x)
  with pytest.raises(ValueError, match="needs the tools.*decode_codes"):
    tokenizers.trained_tokenizer(first._replace(tools={"encode": codes}), 2.0, 3)


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="num_tokens=4 of the network.*, 3"):
    make(NET.clone(num_tokens=4))
  with pytest.raises(ValueError, match="num_steps=0"):
    make(num_steps=0)
  with pytest.raises(ValueError, match="temperature=-1"):
    make(temperature=-1)
  tokens = jnp.zeros((2, 16), jnp.int32)
  for net, label, text in (
    (NET, None, "num_classes=2: expected labels"),
    (NET.clone(num_classes=0), jnp.zeros(2, jnp.int32), "expected no label"),
    (NET.clone(length=5), jnp.zeros(2, jnp.int32), r"expected \[B, 5\]"),
    (NET.clone(num_heads=3), jnp.zeros(2, jnp.int32), "must divide the width, 8"),
  ):
    with pytest.raises(ValueError, match=text):
      jax.eval_shape(net.init, random.key(0), tokens, label)
  with pytest.raises(ValueError, match=r"palette \(2,\)"):
    palette_tokenizer(np.zeros(2))


def test_parity_with_transformers_bert():
  """Logits of all tokens and the gradients of their cross-entropy, in float64."""
  shared = masked_transformer_inputs
  golden = np.load(Path(__file__).parent / "golden" / "masked_transformer.npz")
  net = MaskedTransformer(
    shared.TOKENS, shared.LENGTH, shared.WIDTH, shared.LAYERS, shared.HEADS,
    num_classes=shared.CLASSES,
  )  # fmt: skip
  tokens, label, targets = shared.inputs()
  with jax.enable_x64(True):
    flat = {k: jnp.asarray(v, jnp.float64) for k, v in shared.parameters().items()}
    params = traverse_util.unflatten_dict(flat, sep="/")

    def loss(params):
      logits = jax.jit(net.apply)({"params": params}, tokens, label)
      return token_nats(logits, targets).mean(), logits

    grads, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
  np.testing.assert_allclose(logits, golden["logits"], rtol=1e-8, atol=1e-10)
  for path, value in traverse_util.flatten_dict(grads, sep="/").items():
    expected = golden[f"grads/{path}"]
    np.testing.assert_allclose(value, expected, rtol=1e-8, atol=1e-10, err_msg=path)


def test_published_parameter_count(capsys):
  """Of the authors' network with their configuration, embeddings and head included."""
  cli.main(["describe", "autoregressive/maskgit_imagenet", "--json"])
  info = json.loads(capsys.readouterr().out)
  assert info["networks"]["net"]["parameters"] == 172_457_193
