"""Likelihood and samples of models of token sequences, whatever the network.

A network of this family is a flax module with

  __call__(tokens int32 [B, T], train) -> logits [B, T, V], entry i of the token after
    the i-th, a function of tokens 0, ..., i;
  start(batch_size) -> carry, and
  step(carry, tokens int32 [B], position i32 []) -> (carry, logits [B, V]), the same
    for one position at a time.

A network of p(tokens | context) takes the context, of whatever arrays, after tokens in
`__call__` and after the batch size in `start`.

A sequence is int32 [B, N]; its first token is given, the others have probabilities.
"""

from collections.abc import Callable, Sequence
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxgen.autoregressive.decoding import Sampler, Step, generate, recompute
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  create_state,
)

Sequences = Callable[[Batch], Array]


def nats(
  net: nn.Module,
  params: PyTree,
  tokens: Array,
  dropout_key: Array | None = None,
  context: tuple = (),
) -> Array:
  """-log p(token i | tokens before it), i = 1, ..., N - 1.

  Args:
    net: See above.
    params: Its parameters.
    tokens: int32 [B, N].
    dropout_key: Turns dropout on.
    context: See above.

  Returns:
    f32 [B, N - 1].
  """
  train = dropout_key is not None
  rngs = {"dropout": dropout_key} if train else {}
  inputs = (tokens[:, :-1], *context)
  logits = net.apply({"params": params}, *inputs, train=train, rngs=rngs)
  return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])


def with_start(tokens: Array, num_tokens: int, label: Array | None = None) -> Array:
  """A first token that is given: the label's, K + label, or K for all.

  Args:
    tokens: int32 [B, T] in 0..K-1.
    num_tokens: K.
    label: int32 [B], or None.

  Returns:
    int32 [B, 1 + T].
  """
  label = jnp.zeros_like(tokens[:, 0]) if label is None else label
  return jnp.concatenate([num_tokens + label[:, None], tokens], axis=1)


def token_steps(
  net: nn.Module, tx: optax.GradientTransformation, sequences: Sequences
) -> tuple[Callable, Callable, Callable]:
  """(init, train_step, eval_step) of maximum likelihood; the network is "net".

  Metrics: "loss", nats per token; "grad_norm" before clipping. eval_step:
  "nats_per_token" and "bits_per_token", means over the N - 1 predicted tokens.

  Args:
    net: See above.
    tx: Its optimiser.
    sequences: batch -> int32 [B, N].
  """

  def init(key: Array, batch: Batch) -> TrainState:
    tokens = jnp.zeros_like(sequences(batch))[:, :-1]
    return create_state({"net": net.init(key, tokens)}, {"net": tx})

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    loss_fn = lambda p: nats(net, p, sequences(batch), key).mean()
    loss, grads = jax.value_and_grad(loss_fn)(state.params["net"])
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
    return apply_gradients(state, "net", grads, tx), metrics

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    mean = nats(net, state.params["net"], sequences(batch)).mean(axis=1)
    return {"nats_per_token": mean, "bits_per_token": mean / jnp.log(2.0)}

  return init, train_step, eval_step


def stepper(
  net: nn.Module,
  params: PyTree,
  given: Array,
  cached: bool = True,
  context: tuple = (),
) -> tuple[Step, PyTree]:
  """(step, carry) for `generate`: with the network's cache, or computing all anew.

  Args:
    net: See above.
    params: Its parameters.
    given: int32 [B, N]; only its shape is read.
    cached: False computes the whole sequence for each token: the same logits.
    context: See above.
  """
  variables = {"params": params}
  if not cached:
    logits = lambda tokens: net.apply(variables, tokens, *context)
    return recompute(logits), jnp.zeros_like(given[:, :-1])
  step = lambda *args: net.apply(variables, *args, method="step")
  return step, net.apply(variables, len(given), *context, method="start")


def continue_tokens(
  net: nn.Module,
  params: PyTree,
  given: Array,
  num_given: int,
  key: Array,
  sampler: Sampler,
  *,
  cached: bool = True,
  context: tuple = (),
) -> Array:
  """Draws tokens num_given, ..., N - 1 of `given`, int32 [B, N].

  Args:
    net: See above.
    params: Its parameters.
    given: Sequences of which the first `num_given` tokens stay.
    num_given: At least 1.
    key: Of the draws.
    sampler: How to draw.
    cached: False computes the whole sequence for each token: the same draws.
    context: See above.
  """
  step, carry = stepper(net, params, given, cached, context)
  return generate(step, carry, given, num_given, key, sampler)


def text_model(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  prompt: Sequence[int],
  sampler: Sampler,
) -> Method:
  """A method over batch["tokens"], int32 [B, N].

  `sample` returns {"samples": int32 [B, N]}, all of which begin with the prompt. Tools:
    complete: {"completions": int32 [B, N]}, the first half of batch["tokens"] with
      another second half.
    sample_uncached: What `sample` gives, without a cache.

  Args:
    net: See above.
    tx: Its optimiser.
    prompt: How samples begin: at least one token, since the model has no probability
      for the first.
    sampler: How tokens are drawn.

  Raises:
    ValueError: The sampler is out of range, or the prompt is empty.
  """
  sampler.checked()
  if not len(prompt):
    raise ValueError(f"prompt={prompt}: expected at least one token to begin with")
  init, train_step, eval_step = token_steps(net, tx, lambda batch: batch["tokens"])

  def draws(state: TrainState, batch: Batch, key: Array, cached: bool) -> dict:
    tokens, num = batch["tokens"], len(prompt)
    if num > tokens.shape[1]:
      raise ValueError(f"a prompt of {num} tokens: expected at most {tokens.shape[1]}")
    given = jnp.zeros_like(tokens).at[:, :num].set(jnp.asarray(prompt, jnp.int32)[None])
    return {
      "samples": continue_tokens(
        net, state.params["net"], given, num, key, sampler, cached=cached
      )
    }

  def complete(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    tokens = batch["tokens"]
    num = max(1, tokens.shape[1] // 2)
    drawn = continue_tokens(net, state.params["net"], tokens, num, key, sampler)
    return {"completions": drawn}

  return Method(
    init,
    train_step,
    eval_step,
    functools.partial(draws, cached=True),
    {"complete": complete, "sample_uncached": functools.partial(draws, cached=False)},
  )
