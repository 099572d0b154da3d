"""Drafts refined token by token: causality, normalisation, draws, training."""

import functools

from causality import all_sequences, check_causal, check_sums_to_one, far_from_zero
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.autoregressive import masking, tokens
from jaxgen.autoregressive.hybrid import hybrid
from jaxgen.autoregressive.hybrid_networks import DraftReader, Refiner
from jaxgen.autoregressive.tokenizers import palette_tokenizer
from jaxgen.nn.masked_transformer import MaskedTransformer
from jaxgen.nn.transformer import TokenTransformer, Transformer

LEVELS = np.linspace(-1, 1, 3, dtype=np.float32)[:, None]


def networks(num, length, num_classes=0):
  draft_net = MaskedTransformer(num, length, 8, 1, 2, num_classes, dropout=0.0)
  inputs = num + max(num_classes, 1)
  layers = Transformer(1, 2)
  decoder = TokenTransformer(layers, num, 8, length, False, inputs)
  return draft_net, Refiner(DraftReader(num, length, 8, 1, 2), decoder)


@functools.cache
def made(num, side, num_classes=0, **kwargs):
  """(method, networks, batch of 4 images of side^2 pixels, state of large weights)."""
  nets = networks(num, side**2, num_classes)
  palette = LEVELS[:: 4 - num]  # Two or all three levels.
  options = dict(tx=optax.sgd(1.0), tokenizer=palette_tokenizer(palette))
  method = hybrid(*nets, **{**options, **kwargs})
  image = random.choice(random.key(0), palette[:, 0], (4, side, side, 1))
  batch = {"image": image, "label": jnp.array([0, 1, 1, 0])}
  return method, nets, batch, far_from_zero(method, batch, 0.5, seed=2)


def test_refinement_is_causal_given_the_draft_of_which_it_sees_all():
  _, (_, net), _, state = made(3, 2)
  variables = {"params": state.params["refine"]}
  draft = jnp.array([0, 2, 1, 1])

  def predict(x):  # x: inputs, which are one position late
    logits = net.apply(variables, x[None], draft[None], method="predict")[0]
    return jnp.concatenate([jnp.zeros((1, 3)), logits[:-1]])

  check_causal(predict, random.normal(random.key(0), (4, 8)))
  inputs = jnp.array([[3, 0, 1, 2]])
  drafts = jnp.stack([draft, *(draft.at[j].set(0 if j else 1) for j in range(4))])
  logits = jax.jit(net.apply)(variables, inputs.repeat(5, 0), drafts)
  assert (np.abs(logits[1:] - logits[:1]).max(axis=-1) > 1e-4).all()


def test_refined_tokens_have_a_distribution_for_every_draft():
  _, (_, net), _, state = made(3, 2)
  for draft in ((0, 0, 0, 0), (2, 1, 0, 2)):
    context = lambda t, d=draft: (jnp.tile(jnp.array([d]), (len(t), 1)),)
    log_prob = lambda t, c=context: (
      -tokens.nats(
        net, state.params["refine"], tokens.with_start(t, 3), context=c(t)
      ).sum(axis=1)
    )
    check_sums_to_one(log_prob, num_values=3, length=4)


@functools.cache
def table(num):
  """(all sequences, p(draft) of one step [N], p(x | draft) [N of x, N of drafts])."""
  _, (draft_net, net), _, state = made(num, 2, num_draft_steps=1)
  every = jnp.asarray(all_sequences(num, 4))
  hidden = jnp.full((1, 4), num)
  logits = jax.jit(draft_net.apply)({"params": state.params["draft"]}, hidden)
  log_probs = jax.nn.log_softmax(logits)[0]
  p_draft = jnp.exp(log_probs[jnp.arange(4)[None], every].sum(axis=1))

  def given(draft):
    context = (jnp.broadcast_to(draft[None], every.shape),)
    start = tokens.with_start(every, num)
    return jnp.exp(
      -tokens.nats(net, state.params["refine"], start, None, context).sum(1)
    )

  return every, p_draft, jax.jit(functools.partial(jax.lax.map, given))(every).T


def many(batch, num):
  return {k: jnp.broadcast_to(v[:1], (num, *v.shape[1:])) for k, v in batch.items()}


def test_samples_are_of_the_mixture_over_drafts_and_drafts_of_the_first_network():
  method, nets, batch, state = made(2, 2, num_draft_steps=1)
  _, p_draft, p_given = table(2)
  place = 2 ** np.arange(4)[::-1]
  for name, fn, expected in (
    ("samples", method.sample, p_given @ p_draft),
    ("drafts", method.tools["draft"], p_draft),
  ):
    out = jax.jit(fn)(state, many(batch, 20_000), random.key(2))[name]
    found = (np.asarray(out).reshape(-1, 4) > 0) @ place
    shares = np.bincount(found, minlength=16) / len(found)
    np.testing.assert_allclose(shares, expected, atol=0.015)
  assert np.abs(p_given @ p_draft - p_draft).max() > 0.05  # They differ.
  # The draft is the one that the sample of the same key refines.
  some = many(batch, 64)
  one = jax.jit(method.tools["draft"])(state, some, random.key(5))["drafts"]
  drafts = (one.reshape(64, 4) > 0).astype(jnp.int32)
  given = tokens.with_start(jnp.zeros((64, 4), jnp.int32), 2)
  key = random.split(random.key(5))[1]
  drawn = jax.jit(
    lambda *args: tokens.continue_tokens(
      nets[1], state.params["refine"], given, 1, key, tokens.Sampler(), context=args
    )
  )(drafts)
  sample = jax.jit(method.sample)(state, some, random.key(5))["samples"]
  np.testing.assert_array_equal(sample.reshape(64, 4) > 0, drawn[:, 1:] > 0)


def test_evaluation_is_a_bound_on_the_likelihood_of_the_mixture():
  method, _, batch, state = made(2, 2, num_draft_steps=1)
  every, p_draft, p_given = table(2)
  found = jax.jit(method.eval_step)(state, many(batch, 20_000), random.key(3))
  x = (batch["image"][0].reshape(4) > 0).astype(int)
  i = int((x * 2 ** np.arange(4)[::-1]).sum())
  assert every[i].tolist() == x.tolist()
  expected = -(p_draft * jnp.log(p_given[i])).sum() / 4
  np.testing.assert_allclose(found["nats_per_token"].mean(), expected, rtol=0.01)
  assert expected > -jnp.log((p_draft * p_given[i]).sum()) / 4
  np.testing.assert_allclose(
    found["bits_per_token"], found["nats_per_token"] / np.log(2), rtol=1e-6
  )


def test_the_cache_changes_no_sample():
  method, _, batch, state = made(3, 4, 2)
  batch = {name: jnp.concatenate([x] * 8) for name, x in batch.items()}
  draw = lambda fn: jax.jit(fn)(state, batch, random.key(2))["samples"]
  cached = draw(method.sample)
  np.testing.assert_array_equal(cached, draw(method.tools["sample_uncached"]))
  other = {**batch, "label": 1 - batch["label"]}
  relabelled = jax.jit(method.sample)(state, other, random.key(2))["samples"]
  assert (cached != relabelled).any()


def test_each_network_is_trained_by_its_own_loss():
  """By hand, with the same draws: hidden tokens; all tokens, given a partial draft."""
  method, (draft_net, net), batch, state = made(3, 4, 2)
  after, metrics = jax.jit(method.train_step)(state, batch, random.key(2))
  time_key, mask_key, fill_key, _, _ = random.split(random.key(2), 5)
  num = jnp.ceil(16 * jnp.cos(jnp.pi / 2 * random.uniform(time_key, (4,))))
  hidden = np.asarray(masking.random_mask(num.astype(jnp.int32), 16, mask_key))
  x = batch["image"].astype(jnp.int32).reshape(4, 16) + 1
  label = batch["label"]
  apply = lambda params, seen: draft_net.apply({"params": params}, seen, label)

  @jax.jit
  @jax.value_and_grad
  def draft_loss(params):
    log_probs = jax.nn.log_softmax(apply(params, jnp.where(hidden, 3, x)))
    right = (jax.nn.one_hot(x, 3) * log_probs).sum(axis=-1)
    return -((right * hidden).sum(axis=1) / hidden.sum(axis=1)).mean()

  fill = functools.partial(
    masking.fill_in, functools.partial(apply, state.params["draft"]), mask_token=3,
    num_steps=4, temperature=4.5, schedule=masking.cosine,
  )  # fmt: skip
  draft = jax.jit(fill)(x, hidden, fill_key)
  assert 0 < (draft != x).sum() < hidden.sum()

  @jax.jit
  @jax.value_and_grad
  def refine_loss(params):
    inputs = jnp.concatenate([3 + label[:, None], x[:, :-1]], axis=1)
    log_probs = jax.nn.log_softmax(net.apply({"params": params}, inputs, draft))
    return -(jax.nn.one_hot(x, 3) * log_probs).sum(axis=-1).mean()

  for name, loss_fn in (("draft", draft_loss), ("refine", refine_loss)):
    loss, grads = loss_fn(state.params[name])
    np.testing.assert_allclose(metrics[f"{name}_nats"], loss, rtol=1e-5)
    for old, new, grad in zip(
      *map(jax.tree.leaves, (state.params[name], after.params[name], grads)),
      strict=True,
    ):
      np.testing.assert_allclose(old - new, grad, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(
    metrics["loss"], metrics["draft_nats"] + metrics["refine_nats"], rtol=1e-6
  )


def test_networks_that_do_not_fit():
  (draft_net, net), options = networks(3, 16), dict(tx=optax.sgd(1.0))
  tokenizer = palette_tokenizer(LEVELS)
  with pytest.raises(ValueError, match=r"\(4, 3, 3\).* 4; expected three times 3"):
    hybrid(draft_net.clone(num_tokens=4), net, tokenizer=tokenizer, **options)
  with pytest.raises(ValueError, match=r"input: 4; expected.* and 5, with 2 classes"):
    hybrid(draft_net.clone(num_classes=2), net, tokenizer=tokenizer, **options)
  for wrong in ({"num_draft_steps": 0}, {"temperature": -1.0}):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
      hybrid(draft_net, net, tokenizer=tokenizer, **options, **wrong)
