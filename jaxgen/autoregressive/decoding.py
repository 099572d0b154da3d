"""Drawing sequences token by token, in one compiled loop."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import random
import jax.numpy as jnp

from jaxgen.method import Array, PyTree, per_example


class Sampler(NamedTuple):
  """How a token is drawn from logits: temperature, then top_k, then top_p.

  Attributes:
    temperature: Divides the logits; above 0. 1 draws from the model.
    top_k: Only the so many most likely tokens (Fan et al. 2018), and others that are
      exactly as likely as the last of them; 0 for all.
    top_p: Only the smallest set of most likely tokens with at least this probability
      (Holtzman et al. 2019); 1 for all.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0

  def checked(self) -> "Sampler":
    """Itself.

    Raises:
      ValueError: Naming what is out of range.
    """
    if not self.temperature > 0:
      raise ValueError(f"temperature={self.temperature}: expected > 0")
    if self.top_k < 0:
      raise ValueError(f"top_k={self.top_k}: expected >= 0; 0 is for all tokens")
    if not 0 < self.top_p <= 1:
      raise ValueError(f"top_p={self.top_p}: expected in (0, 1]")
    return self

  def filtered(self, logits: Array) -> Array:
    """Logits [..., V] with -inf for tokens that are not drawn; not normalised."""
    logits = logits / self.temperature
    if 0 < self.top_k < logits.shape[-1]:
      least = jax.lax.top_k(logits, self.top_k)[0][..., -1:]
      logits = jnp.where(logits < least, -jnp.inf, logits)
    if self.top_p < 1:
      ordered = jnp.sort(logits, axis=-1, descending=True)
      probs = jax.nn.softmax(ordered, axis=-1)
      before = jnp.cumsum(probs, axis=-1) - probs  # of those that are more likely
      kept = jnp.where(before < self.top_p, ordered, jnp.inf)
      logits = jnp.where(logits < kept.min(axis=-1, keepdims=True), -jnp.inf, logits)
    return logits

  def draw(self, logits: Array, key: Array) -> Array:
    """One token for each row of logits f32 [B, V]; int32 [B]."""
    noise = per_example(random.gumbel(key, logits.shape, logits.dtype))
    return jnp.argmax(self.filtered(logits) + noise, axis=-1).astype(jnp.int32)


FROM_MODEL = Sampler()  # what the model says, unchanged

Step = Callable[[PyTree, Array, Array], tuple[PyTree, Array]]


def generate(
  step: Step, carry: PyTree, given: Array, num_given: int, key: Array, sampler: Sampler
) -> Array:
  """Continues sequences from their beginnings, with one call of `step` per token.

  Args:
    step: (carry, tokens int32 [B], position i32 []) -> (carry, logits f32 [B, V] of
      the token at position + 1).
    carry: The first.
    given: int32 [B, T]. Its first `num_given` tokens stay, others are drawn.
    num_given: At least 1.
    key: Position i is drawn with fold_in(key, i).
    sampler: How.

  Returns:
    int32 [B, T].
  """
  length = given.shape[1]
  if not 1 <= num_given <= length:
    raise ValueError(f"num_given={num_given}: expected in 1..{length}")

  def body(carry: PyTree, position: Array) -> tuple[PyTree, Array]:
    carry, token = carry
    carry, logits = step(carry, token, position)
    drawn = sampler.draw(logits, random.fold_in(key, position + 1))
    following = given[:, position + 1]
    token = jnp.where(position + 1 < num_given, following, drawn)
    return (carry, token), token

  carry = (carry, given[:, 0])
  _, tokens = jax.lax.scan(body, carry, jnp.arange(length - 1))
  return jnp.concatenate([given[:, :1], tokens.T], axis=1)


def recompute(logits: Callable[[Array], Array]) -> Step:
  """A `step` without memory: the whole sequence for every token.

  Args:
    logits: int32 [B, T] -> f32 [B, T, V], entry i of the token after the i-th.

  Returns:
    A step whose carry is the buffer of tokens, int32 [B, T], first of any values.
  """

  def step(tokens: Array, token: Array, position: Array) -> tuple[Array, Array]:
    tokens = tokens.at[:, position].set(token)
    return tokens, logits(tokens)[:, position]

  return step
