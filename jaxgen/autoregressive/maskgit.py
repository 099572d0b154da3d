"""MaskGIT: Masked Generative Image Transformer (Chang et al., 2022).

Huiwen Chang, Han Zhang, Lu Jiang, Ce Liu, William T. Freeman, CVPR 2022,
https://arxiv.org/abs/2202.04200. The second stage: a bidirectional transformer learns
to name hidden tokens of an image (masked visual token modelling), with the share of
hidden ones drawn by the cosine schedule, and samples in a few steps, each of which
keeps the tokens it is most confident of. The first stage is any `Tokenizer`. The
network is `jaxgen.nn.masked_transformer.MaskedTransformer`; schedules and decoding are
in `jaxgen.autoregressive.masking`.

Figures and details are those of the authors' code (github.com/google-research/maskgit),
which holds no training loop.

Where this differs:
  - The first stage is not theirs (a VQGAN, trained with an adversarial loss).
  - `min_masking_rate` of their configuration is left out: nothing in their code uses
    it. The share of hidden tokens is the cosine of a uniform draw.
  - Logits are cut to the tokens of images before the softmax of the loss, as theirs are
    when they sample: labels and the hidden token are never predicted.
  - With `fused_attend`, as in the ImageNet experiment, no attention weights are
    dropped; theirs are, at the rate of the other dropout (0.1).
  - `nats_per_token` is not in the paper; see `maskgit`.
"""

from collections.abc import Callable

import jax
from jax import random
import jax.numpy as jnp
import optax

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


def known_tokens(mask: Array, shape: tuple[int, ...]) -> Array:
  """Which tokens lie in known pixels only.

  Args:
    mask: 1 = known; [B, H, W, 1] of pixels, or of the tokens' own shape.
    shape: (B, h, w), with h and w that divide H and W; or (B, T).

  Returns:
    bool of `shape`.
  """
  if mask.shape == shape:
    return mask > 0
  fits = len(shape) == 3 and mask.ndim == 4 and mask.shape[3] == 1
  if not fits or mask.shape[1] % shape[1] or mask.shape[2] % shape[2]:
    raise ValueError(
      f"mask {mask.shape} for tokens {shape}: expected that shape, or pixels "
      "[B, H, W, 1] with sides that those of the tokens divide"
    )
  batch, height, width = shape
  patches = mask.reshape(batch, height, -1, width, mask.shape[2] // width)
  return patches.min(axis=(2, 4)) > 0


def maskgit(
  net: MaskedTransformer,
  *,
  tx: optax.GradientTransformation,
  tokenizer: Tokenizer,
  entry: str = "image",
  schedule: Schedule = cosine,
  num_steps: int = 8,
  temperature: float = 4.5,
  label_smoothing: float = 0.1,
) -> Method:
  """Masked token modelling, and iterative decoding.

  The loss is Eq. 1, as a mean over an example's hidden tokens, with smoothed labels.
  Metrics: "loss"; "nats", the same without smoothing; "grad_norm" before clipping.
  eval_step: "nats_per_token" and "bits_per_token" with a number of hidden tokens drawn
  uniformly from 1..T: T times it is in expectation at least -log p(tokens) of the
  model that finds one token at a time in a random order (Uria et al. 2014, arXiv
  1310.1757), so they compare with those of autoregressive models, as bounds. Decoding
  by confidence, as `sample` does, has no such likelihood.

  Tools:
    inpaint: {"inpainted", "reconstructions"}, as batch[entry]; the first with hidden
      tokens drawn, the second from all tokens as they are. batch["mask"] (1 = known,
      pixels [B, H, W, 1] or tokens) says which are known: a token is where all of its
      pixels are. Batches without one have the second and third quarter hidden, row by
      row. Known tokens stay; pixels are what the decoder makes of them.
    reconstruct: {"reconstructions"}, the tokenizer's own loss.
    encode: {"tokens": int32}, as the tokenizer gives them.

  Args:
    net: With the tokenizer's num_tokens, and length T. With num_classes, batch["label"]
      int32 [B] is given to it.
    tx: Its optimiser.
    tokenizer: The frozen first stage.
    entry: Of the batch, that the tokenizer encodes.
    schedule: gamma(r) of Section 3.1; `cosine` in the paper, or `linear`.
    num_steps: Of decoding. 8 in the paper, for 256 tokens.
    temperature: Of the confidence's Gumbel noise; 4.5 in the authors' configuration.
    label_smoothing: As there.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; `sample` returns
    {"samples": decoded tokens}. The network is "net".

  Raises:
    ValueError: Network and tokenizer do not fit, or a number is out of range.
  """
  if net.num_tokens != tokenizer.num_tokens:
    raise ValueError(
      f"num_tokens={net.num_tokens} of the network: expected the tokenizer's, "
      f"{tokenizer.num_tokens}"
    )
  if num_steps < 1 or temperature < 0 or not 0 <= label_smoothing < 1:
    raise ValueError(
      f"num_steps={num_steps}, temperature={temperature}, "
      f"label_smoothing={label_smoothing}: expected >= 1, >= 0, and in [0, 1)"
    )
  label_of = lambda batch: batch["label"] if net.num_classes else None
  tokens_of = lambda batch: tokenizer.tokens(batch[entry])

  def predict(
    params: PyTree, tokens: Array, hidden: Array, batch: Batch, **kwargs: PyTree
  ) -> Array:
    seen = jnp.where(hidden, net.num_tokens, tokens)
    return net.apply({"params": params}, seen, label_of(batch), **kwargs)

  def init(key: Array, batch: Batch) -> TrainState:
    tokens = jnp.zeros_like(tokens_of(batch))
    return create_state({"net": net.init(key, tokens, label_of(batch))}, {"net": tx})

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    time_key, mask_key, dropout_key = random.split(key, 3)
    tokens = tokens_of(batch)
    hidden = scheduled_mask(len(tokens), net.length, schedule, time_key, mask_key)

    def loss_fn(params: PyTree) -> tuple[Array, Array]:
      rngs = {"dropout": dropout_key}
      logits = predict(params, tokens, hidden, batch, train=True, rngs=rngs)
      mean = lambda smooth: masked_mean(token_nats(logits, tokens, smooth), hidden)
      return mean(label_smoothing).mean(), mean(0.0).mean()

    (loss, nats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params["net"])
    metrics = {"loss": loss, "nats": nats, "grad_norm": optax.tree.norm(grads)}
    return apply_gradients(state, "net", grads, tx), metrics

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    tokens = tokens_of(batch)
    hidden = any_mask(len(tokens), net.length, key)
    logits = predict(state.params["net"], tokens, hidden, batch)
    nats = masked_mean(token_nats(logits, tokens), hidden)
    return {"nats_per_token": nats, "bits_per_token": nats / jnp.log(2.0)}

  def draw(
    state: TrainState, batch: Batch, key: Array, tokens: Array, hidden: Array
  ) -> Array:
    """Decoded tokens, with the hidden ones drawn."""
    params, label = state.params["net"], label_of(batch)
    found = fill_in(
      lambda seen: net.apply({"params": params}, seen, label),
      *(tokens, hidden, key),
      mask_token=net.num_tokens,
      num_steps=num_steps,
      temperature=temperature,
      schedule=schedule,
    )
    return tokenizer.images(found, batch[entry])

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    tokens = jnp.zeros((len(batch[entry]), net.length), jnp.int32)
    hidden = jnp.ones(tokens.shape, bool)
    return {"samples": draw(state, batch, key, tokens, hidden)}

  def reconstruct(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    return {"reconstructions": tokenizer.images(tokens_of(batch), batch[entry])}

  def inpaint(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    grid, tokens = tokenizer.encode(batch[entry]).shape, tokens_of(batch)
    if "mask" in batch:
      hidden = ~known_tokens(batch["mask"], grid).reshape(tokens.shape)
    else:
      middle = jnp.arange(net.length) * 4 // net.length  # the quarter: 0, 1, 2, 3
      hidden = jnp.broadcast_to(((middle == 1) | (middle == 2))[None], tokens.shape)
    drawn = draw(state, batch, key, tokens, hidden)
    return {"inpainted": drawn, **reconstruct(state, batch, key)}

  def encode(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    return {"tokens": tokenizer.encode(batch[entry])}

  tools: dict[str, Callable] = {
    "inpaint": inpaint,
    "reconstruct": reconstruct,
    "encode": encode,
  }
  return Method(init, train_step, eval_step, sample, tools)
