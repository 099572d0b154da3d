"""Image GPT: a causal transformer over the pixels of an image, row by row.

Mark Chen, Alec Radford, Rewon Child, Jeff Wu, Heewoo Jun, Prafulla Dhariwal, David
Luan, Ilya Sutskever, "Generative Pretraining from Pixels" (2020), ICML. The
autoregressive objective, pixels as the colours of a palette found by k-means (512 in
the paper), a start token before the first pixel, and completions of half images. The
network is `jaxgen.nn.transformer.TokenTransformer` with `quick_gelu`, normalisations
that only divide by the root of the mean square, and an untied head, as in the authors'
released models; `jaxgen.ops.kmeans` makes palettes.

Where this differs:
  - The BERT objective, linear probes and fine-tuning are left out: this is the
    generative model.
  - Weights start as GPT-2's do, those of the head too, which start at zero in theirs.
  - Nothing is dropped unless the network says so, and every colour of a palette counts
    alike, however near to another.
"""

import functools

import numpy as np
import optax

from jaxgen.autoregressive.decoding import FROM_MODEL, Sampler
from jaxgen.autoregressive.tokenizers import palette_tokenizer
from jaxgen.autoregressive.tokens import continue_tokens, token_steps, with_start
from jaxgen.method import Array, Batch, Method, TrainState
from jaxgen.nn.transformer import TokenTransformer


def grey_levels(num: int) -> np.ndarray:
  """The palette of `num` equidistant grey values, f32 [num, 1] in [-1, 1]."""
  return np.linspace(-1.0, 1.0, num, dtype=np.float32)[:, None]


def colour_cube(side: int) -> np.ndarray:
  """The palette of side^3 equidistant colours, f32 [side^3, 3] in [-1, 1]."""
  levels = np.linspace(-1.0, 1.0, side, dtype=np.float32)
  return np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)


def image_gpt(
  net: TokenTransformer,
  *,
  tx: optax.GradientTransformation,
  palette: np.ndarray,
  sampler: Sampler = FROM_MODEL,
) -> Method:
  """Maximum likelihood of each pixel's colour given the pixels above and to the left.

  Metrics: "loss" in nats per pixel; "grad_norm" before clipping; eval_step:
  "nats_per_token", "bits_per_token", means over pixels. For grey images whose values
  are those of the palette, the latter are bits per dimension; else they say nothing
  about what the palette loses.

  Tools, on batch["image"]:
    complete: {"completions": f32 [B, H, W, C]}, the upper half as it is in the palette,
      the lower half drawn.
    quantize: {"quantized": f32 [B, H, W, C]}, images in the colours of the palette.
    sample_uncached: What `sample` gives, without a cache.

  Args:
    net: With num_tokens K, num_inputs K + 1 (the start), untied weights, and max_length
      H * W or more.
    tx: Its optimiser.
    palette: f32 [K, C] in [-1, 1].
    sampler: Temperature, top_k, top_p.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; `sample` returns
    {"samples": f32 [B, H, W, C]}. The network is "net".

  Raises:
    ValueError: Palette and network do not fit, or the sampler is out of range.
  """
  sampler.checked()
  tokenizer = palette_tokenizer(palette)
  if (net.num_tokens, net.num_inputs) != (len(palette), len(palette) + 1):
    raise ValueError(
      f"num_tokens={net.num_tokens}, num_inputs={net.num_inputs}: expected "
      f"{len(palette)}, the colours, and {len(palette) + 1}, with a start"
    )

  def sequences(batch: Batch) -> Array:
    """The start, then colours row by row: int32 [B, 1 + H * W]."""
    return with_start(tokenizer.tokens(batch["image"]), tokenizer.num_tokens)

  def images(tokens: Array, batch: Batch) -> Array:
    return tokenizer.images(tokens[:, 1:], batch["image"])

  def draw(
    state: TrainState, batch: Batch, key: Array, num_given: int, cached: bool = True
  ) -> Array:
    """Images whose first `num_given` pixels are those of the batch."""
    tokens = continue_tokens(
      net, state.params["net"], sequences(batch), num_given + 1, key, sampler,
      cached=cached,
    )  # fmt: skip
    return images(tokens, batch)

  def sample(
    state: TrainState, batch: Batch, key: Array, cached: bool = True
  ) -> dict[str, Array]:
    return {"samples": draw(state, batch, key, 0, cached)}

  def complete(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    _, height, width, _ = batch["image"].shape
    return {"completions": draw(state, batch, key, height // 2 * width)}

  def quantize(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    return {"quantized": images(sequences(batch), batch)}

  tools = {
    "complete": complete,
    "quantize": quantize,
    "sample_uncached": functools.partial(sample, cached=False),
  }
  return Method(*token_steps(net, tx, sequences), sample, tools)
