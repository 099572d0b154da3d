"""The prior over the codes of a VQ-VAE, its second stage (van den Oord et al., 2017).

van den Oord, Vinyals & Kavukcuoglu, "Neural Discrete Representation Learning",
https://arxiv.org/abs/1711.00937, Section 3.3: with the first stage fixed, an
autoregressive distribution over its codes, row by row, is fitted by maximum likelihood;
samples are codes drawn from it, decoded. With labels, the first token is the label.

Where this differs:
  - The network is a causal transformer in place of the paper's PixelCNN: any network
    with the interface of `jaxgen.nn.transformer.TokenTransformer` (see
    `jaxgen.autoregressive.tokens`).
  - One level of codes, [B, h, w] or [B, T].
"""

import functools

from flax import linen as nn
import optax

from jaxgen.autoregressive.decoding import FROM_MODEL, Sampler
from jaxgen.autoregressive.tokenizers import Tokenizer
from jaxgen.autoregressive.tokens import continue_tokens, token_steps, with_start
from jaxgen.method import Array, Batch, Method, TrainState


def vq_prior(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  tokenizer: Tokenizer,
  num_classes: int = 0,
  sampler: Sampler = FROM_MODEL,
) -> Method:
  """Maximum likelihood of each code given the label and the codes before it.

  Metrics: "loss" in nats per code; "grad_norm" before clipping; eval_step:
  "nats_per_token" and "bits_per_token", means over codes. A bound on log p(x) is the
  first stage's `elbo` with these in place of its uniform prior's log K.

  Tools, on batch["image"]:
    complete: {"completions"}, the first half of the codes kept, the others drawn.
    reconstruct: {"reconstructions"}, what the first stage alone loses.
    sample_uncached: What `sample` gives, without a cache.

  Args:
    net: See above: logits of K tokens; K + max(num_classes, 1) tokens of input, the
      last of which are the labels, or one start.
    tx: Its optimiser.
    tokenizer: The fixed first stage.
    num_classes: batch["label"], int32 [B], comes first; 0: the same start for all.
    sampler: Temperature, top_k, top_p.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; `sample` returns
    {"samples": f32 [B, H, W, C]}. The network is "net".

  Raises:
    ValueError: Network and tokenizer do not fit, or the sampler is out of range.
  """
  sampler.checked()
  num, num_inputs = tokenizer.num_tokens, tokenizer.num_tokens + max(num_classes, 1)
  if (net.num_tokens, net.num_inputs) != (num, num_inputs):
    raise ValueError(
      f"num_tokens={net.num_tokens}, num_inputs={net.num_inputs}: expected {num}, "
      f"the codes, and {num_inputs}, with {num_classes or 'no'} classes"
    )

  def sequences(batch: Batch) -> Array:
    """The label or start, then codes row by row: int32 [B, 1 + T]."""
    label = batch["label"] if num_classes else None
    return with_start(tokenizer.tokens(batch["image"]), num, label)

  def draw(
    state: TrainState, batch: Batch, key: Array, share: float, cached: bool = True
  ) -> Array:
    """Images whose first codes, a share of all, are those of the batch."""
    given = sequences(batch)
    num_given = 1 + int(share * (given.shape[1] - 1))
    drawn = continue_tokens(
      net, state.params["net"], given, num_given, key, sampler, cached=cached
    )
    return tokenizer.images(drawn[:, 1:], batch["image"])

  def sample(
    state: TrainState, batch: Batch, key: Array, cached: bool = True
  ) -> dict[str, Array]:
    return {"samples": draw(state, batch, key, 0.0, cached)}

  def complete(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    return {"completions": draw(state, batch, key, 0.5)}

  def reconstruct(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    tokens = tokenizer.tokens(batch["image"])
    return {"reconstructions": tokenizer.images(tokens, batch["image"])}

  tools = {
    "complete": complete,
    "reconstruct": reconstruct,
    "sample_uncached": functools.partial(sample, cached=False),
  }
  return Method(*token_steps(net, tx, sequences), sample, tools)
