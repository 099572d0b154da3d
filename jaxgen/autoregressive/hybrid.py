"""A draft of all tokens at once, refined token by token: two decoders in a row.

Two-pass decoding is that of Yingce Xia et al., "Deliberation Networks: Sequence
Generation Beyond One-Pass Decoding" (2017), NIPS 30 (not on arXiv): a first decoder
writes a draft, a second one writes the result from left to right while it sees the
whole draft. The first decoder here is no autoregressive one but masked prediction, of
Marjan Ghazvininejad et al., "Mask-Predict: Parallel Decoding of Conditional Masked
Language Models" (2019), arXiv 1904.09324, with the decoding of MaskGIT (Chang et al.
2022, arXiv 2202.04200). Only abstracts and introductions of the first two were looked
at. No paper known to us is this method; what follows is decided here:

  - Training. The result of translation has a source that ties it to its draft; an image
    has none, and a draft drawn from nothing says nothing of one training image. So the
    second network learns on drafts that are the image in part: a share of the tokens is
    hidden, drawn as for the first network's own loss, which reaches 1, and the first
    network draws the hidden ones by the steps that it samples with. The second is not
    told which. It learns to keep what fits and to replace what does not, and the drafts
    of sampling, of which all is drawn, are one end of what it has seen.
  - No gradient flows through a draft (Xia et al. have an estimate of it, from memory):
    both networks have losses of their own, and are trained at the same time.
  - The draft enters as features, one vector for each position, which a bidirectional
    network makes of the whole draft and which are added where the token of that
    position is predicted (Xia et al. attend to the draft; here both are equally long).

p(x) is the sum of p(draft) p(x | draft) over all drafts, a distribution over images
whatever the networks are.
"""

from collections.abc import Callable
import functools

import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.autoregressive.decoding import FROM_MODEL, Sampler
from jaxgen.autoregressive.hybrid_networks import Refiner
from jaxgen.autoregressive.masking import (
  Schedule,
  any_mask,
  cosine,
  fill_in,
  masked_mean,
  scheduled_mask,
  token_nats,
)
from jaxgen.autoregressive.tokenizers import Tokenizer
from jaxgen.autoregressive.tokens import continue_tokens, nats, with_start
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
from jaxgen.nn.masked_transformer import MaskedTransformer

Outputs = dict[str, Array]


def hybrid(
  draft_net: MaskedTransformer,
  net: Refiner,
  *,
  tx: optax.GradientTransformation,
  tokenizer: Tokenizer,
  schedule: Schedule = cosine,
  num_draft_steps: int = 4,
  temperature: float = 4.5,
  sampler: Sampler = FROM_MODEL,
) -> Method:
  """Masked prediction, and maximum likelihood of the tokens given drafts made by it.

  Metrics, in nats per token: "draft_nats" over hidden tokens, "refine_nats" over all,
  "loss", their sum. eval_step:
    nats_per_token, bits_per_token: Given drafts that are drawn from nothing. They do
      not depend on the image, so by Jensen's inequality these are at least those of
      p(x), in expectation: they compare with autoregressive models', as bounds.
    draft_nats_per_token: The first network's own bound, as `maskgit` has it.
    repair_nats_per_token: Given drafts as in training, which know a part of the image;
      no bound.

  Tools, images as in batch["image"]:
    draft: {"drafts"}, which `sample` with the same key refines.
    refine: {"refined"}, the batch's images taken as drafts.
    sample_uncached: What `sample` gives, without a cache.

  Args:
    draft_net: Of T tokens. With num_classes, batch["label"] int32 [B] is given to it
      and to `net`.
    net: Of the same tokens, and max(num_classes, 1) more of input: labels or a start.
    tx: The optimiser of both, each with a state of its own.
    tokenizer: Images as T of K tokens.
    schedule: Of hidden tokens, in training and in drawing drafts.
    num_draft_steps: Calls of `draft_net` for a draft, in training too.
    temperature: Of the confidence's noise, as in `maskgit`.
    sampler: Of the refined tokens.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; `sample` returns
    {"samples"}, after num_draft_steps calls of "draft" and T steps of "refine".

  Raises:
    ValueError: Networks and tokenizer do not fit, or a number is out of range.
  """
  sampler.checked()
  num, num_classes = tokenizer.num_tokens, draft_net.num_classes
  decoder = net.decoder
  found = (draft_net.num_tokens, net.reader.num_tokens, decoder.num_tokens)
  if (*found, decoder.num_inputs) != (num, num, num, num + max(num_classes, 1)):
    raise ValueError(
      f"tokens of draft_net, reader and decoder: {found}, of the decoder's input: "
      f"{decoder.num_inputs}; expected three times {num}, the tokenizer's, and "
      f"{num + max(num_classes, 1)}, with {num_classes or 'no'} classes"
    )
  if num_draft_steps < 1 or temperature < 0:
    raise ValueError(
      f"num_draft_steps={num_draft_steps}, temperature={temperature}: expected at "
      "least 1, and at least 0"
    )
  length, mask_token = draft_net.length, num
  tokens_of = lambda batch: tokenizer.tokens(batch["image"])
  label_of = lambda batch: batch["label"] if num_classes else None

  def name_hidden(
    params: PyTree, tokens: Array, hidden: Array, batch: Batch, **kwargs: PyTree
  ) -> Array:
    """The first network's nats per hidden token, f32 [B]."""
    seen = jnp.where(hidden, mask_token, tokens)
    logits = draft_net.apply({"params": params}, seen, label_of(batch), **kwargs)
    return masked_mean(token_nats(logits, tokens), hidden)

  def fill(
    params: PyTree, tokens: Array, hidden: Array, batch: Batch, key: Array
  ) -> Array:
    """The draft: `tokens` with the hidden ones drawn, int32 [B, T]."""
    return fill_in(
      lambda seen: draft_net.apply({"params": params}, seen, label_of(batch)),
      *(tokens, hidden, key),
      mask_token=mask_token,
      num_steps=num_draft_steps,
      temperature=temperature,
      schedule=schedule,
    )

  def refined_nats(
    params: PyTree, tokens: Array, draft: Array, batch: Batch, key: Array | None = None
  ) -> Array:
    """The second network's nats, f32 [B, T]."""
    sequences = with_start(tokens, num, label_of(batch))
    return nats(net, params, sequences, key, (draft,))

  def init(key: Array, batch: Batch) -> TrainState:
    draft_key, key = random.split(key)
    tokens = jnp.zeros_like(tokens_of(batch))
    variables = {
      "draft": draft_net.init(draft_key, tokens, label_of(batch)),
      "refine": net.init(key, tokens, tokens),
    }
    return create_state(variables, {"draft": tx, "refine": tx})

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    keys = random.split(key, 5)
    time_key, mask_key, fill_key, draft_dropout_key, dropout_key = keys
    tokens = tokens_of(batch)
    hidden = scheduled_mask(len(tokens), length, schedule, time_key, mask_key)
    draft = fill(state.params["draft"], tokens, hidden, batch, fill_key)

    def draft_loss(params: PyTree) -> Array:
      rngs = {"dropout": draft_dropout_key}
      return name_hidden(params, tokens, hidden, batch, train=True, rngs=rngs).mean()

    def refine_loss(params: PyTree) -> Array:
      return refined_nats(params, tokens, draft, batch, dropout_key).mean()

    metrics = {}
    for name, loss_fn in (("draft", draft_loss), ("refine", refine_loss)):
      loss, grads = jax.value_and_grad(loss_fn)(state.params[name])
      state = apply_gradients(state, name, grads, tx)
      metrics[f"{name}_nats"] = loss
    return state, {"loss": sum(metrics.values()), **metrics}

  def from_nothing(state: TrainState, batch: Batch, key: Array) -> Array:
    """A draft of which all is drawn, int32 [B, T]."""
    tokens = jnp.zeros((len(batch["image"]), length), jnp.int32)
    return fill(state.params["draft"], tokens, tokens == 0, batch, key)

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    draft_key, any_key, time_key, mask_key, fill_key = random.split(key, 5)
    tokens, params = tokens_of(batch), state.params
    given = lambda draft: refined_nats(params["refine"], tokens, draft, batch).mean(1)
    independent = given(from_nothing(state, batch, draft_key))
    hidden = any_mask(len(tokens), length, any_key)
    part = scheduled_mask(len(tokens), length, schedule, time_key, mask_key)
    return {
      "nats_per_token": independent,
      "bits_per_token": independent / jnp.log(2.0),
      "draft_nats_per_token": name_hidden(params["draft"], tokens, hidden, batch),
      "repair_nats_per_token": given(
        fill(params["draft"], tokens, part, batch, fill_key)
      ),
    }

  def rewrite(
    state: TrainState, batch: Batch, draft: Array, key: Array, cached: bool = True
  ) -> Array:
    """Images of refined drafts."""
    given = with_start(jnp.zeros_like(draft), num, label_of(batch))
    drawn = continue_tokens(
      net, state.params["refine"], given, 1, key, sampler,
      cached=cached, context=(draft,),
    )  # fmt: skip
    return tokenizer.images(drawn[:, 1:], batch["image"])

  def sample(
    state: TrainState, batch: Batch, key: Array, cached: bool = True
  ) -> Outputs:
    draft_key, refine_key = random.split(key)
    draft = from_nothing(state, batch, draft_key)
    return {"samples": rewrite(state, batch, draft, refine_key, cached)}

  def draft(state: TrainState, batch: Batch, key: Array) -> Outputs:
    drawn = from_nothing(state, batch, random.split(key)[0])
    return {"drafts": tokenizer.images(drawn, batch["image"])}

  def refine(state: TrainState, batch: Batch, key: Array) -> Outputs:
    return {"refined": rewrite(state, batch, tokens_of(batch), key)}

  tools: dict[str, Callable] = {
    "draft": draft,
    "refine": refine,
    "sample_uncached": functools.partial(sample, cached=False),
  }
  return Method(init, train_step, eval_step, sample, tools)
