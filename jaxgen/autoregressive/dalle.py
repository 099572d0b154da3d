"""DALL-E: Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).

Aditya Ramesh, Mikhail Pavlov, Gabriel Goh, Scott Gray, Chelsea Voss, Alec Radford, Mark
Chen, Ilya Sutskever, https://arxiv.org/abs/2102.12092. The second stage: one
transformer over the tokens of a caption and then of its image, and the reranking of
what it draws. The first is `jaxgen.autoregressive.dalle_dvae`, or another `Tokenizer`.

Where this differs:
  - Attention is dense (the paper: sparse by rows, columns and neighbours, at 12 billion
    parameters), and each position is learned by itself (rows and columns there).
  - A caption is tokens that the caller made; the paper's are byte pairs. Its padding is
    a token like others; the paper has one for each position.
  - The image's tokens are the most likely ones, as the authors said they took
    (github.com/openai/DALL-E, issue 1).
  - Reranking takes any score of images and batches; the paper's is CLIP.
  - No mixed precision with scaled gradients, and no PowerSGD.
The weights 1/8 and 7/8 and the 512 candidates are from memory of Section 2, not looked
up.
"""

from collections.abc import Callable

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.autoregressive.decoding import FROM_MODEL, Sampler, generate
from jaxgen.autoregressive.tokenizers import Tokenizer
from jaxgen.autoregressive.tokens import stepper
from jaxgen.losses import categorical
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

Outputs = dict[str, Array]


def dalle(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  tokenizer: Tokenizer,
  text: Callable[[Batch], Array],
  num_text_tokens: int,
  image_weight: float = 7 / 8,
  sampler: Sampler = FROM_MODEL,
  score: Callable[[Array, Batch], Array] | None = None,
  num_candidates: int = 512,
) -> Method:
  """Maximum likelihood of a caption's tokens and then of its image's.

  The tokens of both are predicted by one network, from vocabularies of their own: at a
  position of the caption no image token has a probability, and the reverse.

  Metrics: "loss" = (1 - image_weight) text + image_weight image; "text_nats" and
  "image_nats", nats per token; "grad_norm" before clipping. eval_step:
  "nats_per_token" and "bits_per_token" of images given their captions, and
  "text_nats_per_token".

  Tools:
    reconstruct: {"reconstructions"}, what the first stage alone loses.
    sample_uncached: What `sample` gives, without a cache.
    rerank: {"best"}: of num_candidates draws for each caption, that of the highest
      score. Only where `score` is given.

  Args:
    net: As `jaxgen.autoregressive.tokens` says: logits of num_text_tokens + K tokens,
      and one token more of input, the start.
    tx: Its optimiser.
    tokenizer: Stage one, of K tokens.
    text: batch -> captions, int32 [B, L] in 0..num_text_tokens-1, L at least 1.
    num_text_tokens: Of the captions' vocabulary.
    image_weight: 7/8 in the paper.
    sampler: Of image tokens.
    score: (images f32 [B, H, W, C], batch) -> f32 [B], for `rerank`.
    num_candidates: 512 in the paper.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1], and what `text` reads;
    `sample` returns {"samples"}, images of the captions. The network is "net".

  Raises:
    ValueError: Network and vocabularies do not fit, or a number is out of range.
  """
  sampler.checked()
  num = num_text_tokens + tokenizer.num_tokens
  if (net.num_tokens, net.num_inputs) != (num, num + 1):
    raise ValueError(
      f"num_tokens={net.num_tokens}, num_inputs={net.num_inputs}: expected {num}, text "
      f"and image tokens, and {num + 1}, with a start"
    )
  if not 0 <= image_weight <= 1 or num_candidates < 1:
    raise ValueError(
      f"image_weight={image_weight}, num_candidates={num_candidates}: expected in "
      "[0, 1], and at least 1"
    )

  def sequences(batch: Batch) -> tuple[Array, int]:
    """(start, caption, image tokens: int32 [B, 1 + L + T]; L)."""
    caption = text(batch)
    tokens = tokenizer.tokens(batch["image"]) + num_text_tokens
    start = jnp.full_like(caption[:, :1], num)
    return jnp.concatenate([start, caption, tokens], axis=1), caption.shape[1]

  def of_its_kind(logits: Array, position: Array, num_text: int) -> Array:
    """-inf for tokens of the other kind; `position` of the inputs, to go with [..., V].

    The token after input i is of the caption if i < num_text.
    """
    is_text = jnp.arange(num).reshape(*(1,) * (logits.ndim - 1), -1) < num_text_tokens
    return jnp.where(is_text == (position < num_text), logits, -jnp.inf)

  def nats(params: PyTree, batch: Batch, key: Array | None = None) -> tuple:
    """(of the caption, of the image): f32 [B], means over tokens."""
    tokens, num_text = sequences(batch)
    train = key is not None
    rngs = {"dropout": key} if train else {}
    logits = net.apply({"params": params}, tokens[:, :-1], train=train, rngs=rngs)
    positions = jnp.arange(logits.shape[1])[None, :, None]
    logits = of_its_kind(logits, positions, num_text)
    found = -categorical.log_prob(tokens[:, 1:], logits)
    return found[:, :num_text].mean(axis=1), found[:, num_text:].mean(axis=1)

  def init(key: Array, batch: Batch) -> TrainState:
    tokens = jnp.zeros_like(sequences(batch)[0])[:, :-1]
    return create_state({"net": net.init(key, tokens)}, {"net": tx})

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    def loss_fn(params: PyTree) -> tuple[Array, Metrics]:
      of_text, of_image = (x.mean() for x in nats(params, batch, key))
      loss = (1.0 - image_weight) * of_text + image_weight * of_image
      return loss, {"loss": loss, "text_nats": of_text, "image_nats": of_image}

    grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params["net"])
    metrics["grad_norm"] = optax.tree.norm(grads)
    return apply_gradients(state, "net", grads, tx), metrics

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    of_text, of_image = nats(state.params["net"], batch)
    bits = of_image / jnp.log(2.0)
    values = {"nats_per_token": of_image, "bits_per_token": bits}
    return {**values, "text_nats_per_token": of_text}

  def draw(state: TrainState, batch: Batch, key: Array, cached: bool = True) -> Array:
    given, num_text = sequences(batch)
    one, carry = stepper(net, state.params["net"], given, cached)

    def step(carry: PyTree, token: Array, position: Array) -> tuple[PyTree, Array]:
      carry, logits = one(carry, token, position)
      return carry, of_its_kind(logits, position, num_text)

    tokens = generate(step, carry, given, 1 + num_text, key, sampler)
    return tokenizer.images(tokens[:, 1 + num_text :] - num_text_tokens, batch["image"])

  def rerank(state: TrainState, batch: Batch, key: Array) -> Outputs:
    """One candidate at a time, keeping the best so far."""

    def body(best: tuple[Array, Array], i: Array) -> tuple[tuple, None]:
      images = draw(state, batch, random.fold_in(key, i))
      scores = score(images, batch)
      better = scores > best[1]
      rows = better.reshape(-1, *(1,) * (images.ndim - 1))
      return (
        jnp.where(rows, images, best[0]),
        jnp.where(better, scores, best[1]),
      ), None

    first = jnp.zeros_like(batch["image"]), jnp.full(len(batch["image"]), -jnp.inf)
    (images, _), _ = jax.lax.scan(body, first, jnp.arange(num_candidates))
    return {"best": images}

  def reconstruct(state: TrainState, batch: Batch, key: Array) -> Outputs:
    tokens = tokenizer.tokens(batch["image"])
    return {"reconstructions": tokenizer.images(tokens, batch["image"])}

  def sample(state: TrainState, batch: Batch, key: Array) -> Outputs:
    return {"samples": draw(state, batch, key)}

  def sample_uncached(state: TrainState, batch: Batch, key: Array) -> Outputs:
    return {"samples": draw(state, batch, key, cached=False)}

  tools = {"reconstruct": reconstruct, "sample_uncached": sample_uncached}
  if score is not None:
    tools["rerank"] = rerank
  return Method(init, train_step, eval_step, sample, tools)
