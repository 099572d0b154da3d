"""Second network of `jaxgen.autoregressive.hybrid`: reads drafts and rewrites them."""

import functools

from flax import linen as nn
from jax import Array

from jaxgen.nn.masked_transformer import LayerNorm, blocks
from jaxgen.nn.transformer import INIT_STDDEV, Cache, TokenTransformer

Carry = tuple[Cache, Array]


class DraftReader(nn.Module):
  """Features of each position, of the whole draft.

  Attributes:
    num_tokens: K.
    length: T.
    width: Of the features; `num_heads` divides it.
    num_layers: Blocks.
    num_heads: Of the attention.
    dropout: As in `MaskedTransformer`.
  """

  num_tokens: int
  length: int
  width: int
  num_layers: int
  num_heads: int
  dropout: float = 0.0

  @nn.compact
  def __call__(self, draft: Array, train: bool = False) -> Array:
    """int32 [B, T] -> f32 [B, T, width]."""
    init = nn.initializers.normal(INIT_STDDEV)
    embed = functools.partial(nn.Embed, features=self.width, embedding_init=init)
    positions = embed(self.length, name="positions").embedding
    x = embed(self.num_tokens, name="tokens")(draft) + positions[None]
    drop = nn.Dropout(self.dropout, deterministic=not train)
    x = drop(LayerNorm(name="embedding_norm")(x))
    x = blocks(self.num_layers, self.num_heads, self.dropout)(x, train)
    return nn.Dense(self.width, kernel_init=init, name="out")(x)


class Refiner(nn.Module):
  """p(token | tokens before it, the whole draft), as `jaxgen.autoregressive.tokens`.

  Attributes:
    reader: Of the draft, as wide as `decoder`.
    decoder: Causal, over the start and the tokens.
  """

  reader: DraftReader
  decoder: TokenTransformer

  def __call__(self, tokens: Array, draft: Array, train: bool = False) -> Array:
    """Start and tokens int32 [B, T], draft int32 [B, T] -> logits f32 [B, T, K]."""
    return self.predict(self.decoder.embed(tokens), draft, train)

  def predict(self, x: Array, draft: Array, train: bool = False) -> Array:
    """The same from embedded tokens, [B, T, width]."""
    return self.decoder.predict(x + self.reader(draft, train), train)

  def start(self, batch_size: int, draft: Array) -> Carry:
    """What `step` takes at position 0; the draft is read once."""
    return self.decoder.start(batch_size), self.reader(draft)

  def step(self, carry: Carry, tokens: Array, position: Array) -> tuple[Carry, Array]:
    """(carry, int32 [B], i32 []) -> (carry, logits of the next token f32 [B, K])."""
    cache, told = carry
    x = self.decoder.embed(tokens) + told[:, position]
    cache, logits = self.decoder.step_embedded(cache, x, position)
    return (cache, told), logits
