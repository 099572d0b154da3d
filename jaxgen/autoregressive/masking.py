"""Hiding some tokens of many, and finding them again a few at a time."""

from collections.abc import Callable

import jax
from jax import random
import jax.numpy as jnp

from jaxgen.losses import categorical
from jaxgen.method import Array, per_example

# Share of time gone by, f32 [...] in [0, 1] -> share of tokens hidden, from 1 to 0.
Schedule = Callable[[Array], Array]


def cosine(time: Array) -> Array:
  """cos(pi / 2 time): slow at first, where nothing is known."""
  return jnp.cos(0.5 * jnp.pi * time)


def linear(time: Array) -> Array:
  """1 - time: as many tokens in each step."""
  return 1.0 - time


def ranks(values: Array) -> Array:
  """int32 [..., T]: how many of a row come before each value in rising order."""
  return jnp.argsort(jnp.argsort(values, axis=-1), axis=-1)


def random_mask(num: Array, length: int, key: Array) -> Array:
  """Hides `num` of the tokens, all sets alike; int32 [B] -> bool [B, length]."""
  noise = per_example(random.uniform(key, (len(num), length)))
  return ranks(noise) < num[:, None]


def scheduled_mask(
  num: int, length: int, schedule: Schedule, time_key: Array, mask_key: Array
) -> Array:
  """What training hides: shares by the schedule of uniform times, at least one token.

  Returns:
    bool [num, length].
  """
  time = per_example(random.uniform(time_key, (num,)))
  hidden = jnp.ceil(schedule(time) * length).astype(jnp.int32)
  return random_mask(jnp.clip(hidden, 1, length), length, mask_key)


def any_mask(num: int, length: int, key: Array) -> Array:
  """What evaluation hides: 1, ..., length tokens, all numbers and sets alike.

  Returns:
    bool [num, length].
  """
  num_key, mask_key = random.split(key)
  hidden = per_example(random.randint(num_key, (num,), 1, length + 1))
  return random_mask(hidden, length, mask_key)


def token_nats(logits: Array, tokens: Array, label_smoothing: float = 0.0) -> Array:
  """Cross-entropy of each token, in nats.

  Args:
    logits: f32 [B, T, K].
    tokens: int32 [B, T].
    label_smoothing: e; the target is 1 - e of the token and e / K of every token.

  Returns:
    f32 [B, T].
  """
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  right = jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]
  mean = log_probs.mean(axis=-1)
  return -(1.0 - label_smoothing) * right - label_smoothing * mean


def masked_mean(values: Array, mask: Array) -> Array:
  """Mean of f32 [B, T] where mask, bool [B, T], is True; 0 where it nowhere is."""
  total = jnp.where(mask, values, 0.0).sum(axis=1)
  return total / jnp.maximum(mask.sum(axis=1), 1)


def hidden_counts(num_hidden: Array, num_steps: int, schedule: Schedule) -> Array:
  """How many tokens are still hidden after each step.

  At least one is found in a step, at least one is left for the next, and none after the
  last. With more steps than tokens the last token is drawn several times.

  Args:
    num_hidden: int32 [B]; before the first step.
    num_steps: S, at least 1.
    schedule: Share of the hidden tokens that are left, by the share of steps done.

  Returns:
    int32 [S + 1, B], falling from num_hidden to 0.
  """
  if num_steps < 1:
    raise ValueError(f"num_steps={num_steps}: expected at least 1")

  def after(left: Array, step: Array) -> tuple[Array, Array]:
    # The small number: 32.0 tokens may be 31.999998 by rounding.
    wanted = jnp.floor(schedule(step / num_steps) * num_hidden + 1e-3)
    fewer = jnp.maximum(1, jnp.minimum(left - 1, wanted.astype(left.dtype)))
    left = jnp.minimum(left, jnp.where(step < num_steps, fewer, 0))
    return left, left

  _, counts = jax.lax.scan(after, num_hidden, jnp.arange(1, num_steps + 1))
  return jnp.concatenate([num_hidden[None], counts])


def fill_in(
  predict: Callable[[Array], Array],
  tokens: Array,
  hidden: Array,
  key: Array,
  *,
  mask_token: int,
  num_steps: int,
  temperature: float,
  schedule: Schedule,
) -> Array:
  """Draws hidden tokens, and keeps those that the model is most confident of.

  In each step all hidden tokens are drawn, each from its own distribution. Confidence
  is log p of what was drawn, plus Gumbel noise times a temperature that falls linearly
  to 0 over the steps. The least confident are hidden again.

  Since confidence depends on what was drawn, this prefers likely tokens: with one token
  a step and an exact model, a high temperature draws from the model's distribution, 0
  does not. (Two independent bits of p(1) = 0.9: at temperature 0 the first to be kept
  is a 1 with probability 0.99.)

  Args:
    predict: int32 [B, T], mask_token where hidden -> logits f32 [B, T, K].
    tokens: int32 [B, T]; those that are not hidden stay as they are.
    hidden: bool [B, T].
    key: Step i uses fold_in(key, i).
    mask_token: Outside 0..K-1.
    num_steps: Calls of `predict`.
    temperature: Of the confidence, at the first step.
    schedule: See `hidden_counts`.

  Returns:
    int32 [B, T].
  """
  counts = hidden_counts(hidden.sum(axis=1), num_steps, schedule)

  def body(carry: tuple[Array, Array], step: Array) -> tuple[tuple, None]:
    tokens, hidden = carry
    draw_key, keep_key = random.split(random.fold_in(key, step))
    logits = predict(jnp.where(hidden, mask_token, tokens))
    noise = per_example(random.gumbel(draw_key, logits.shape))
    drawn = jnp.argmax(logits + noise, axis=-1).astype(tokens.dtype)
    tokens = jnp.where(hidden, drawn, tokens)
    chosen = categorical.log_prob(tokens, logits)
    noise = per_example(random.gumbel(keep_key, tokens.shape))
    cooled = temperature * (1.0 - (step + 1) / num_steps)
    confidence = jnp.where(hidden, chosen + cooled * noise, jnp.inf)
    return (tokens, ranks(confidence) < counts[step + 1][:, None]), None

  (tokens, _), _ = jax.lax.scan(body, (tokens, hidden), jnp.arange(num_steps))
  return tokens
