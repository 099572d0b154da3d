"""A transformer that sees all positions at once and names the hidden tokens.

Devlin et al., "BERT" (2018), arXiv 1810.04805, without segments and without the
prediction of the next sentence, as Chang et al. (2022), arXiv 2202.04200, use it:
normalisations stand after each sum, and the head is a dense layer, a normalisation and
the transposed embedding. Layers are one `scan` over stacked parameters.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.transformer import INIT_STDDEV, attend, gelu_tanh

_init = nn.initializers.truncated_normal(INIT_STDDEV)
LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-12, use_fast_variance=False)


class Block(nn.Module):
  """norm(x + attention(x)), then norm(x + mlp(x)); see `MaskedTransformer`."""

  num_heads: int
  dropout: float
  attention: Callable
  dtype: Any

  @nn.compact
  def __call__(self, x: Array, train: bool) -> tuple[Array, None]:
    width = x.shape[-1]
    dense = functools.partial(nn.Dense, kernel_init=_init, dtype=self.dtype)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    heads = (*x.shape[:2], self.num_heads, width // self.num_heads)
    query, key, value = (
      a.reshape(heads) for a in jnp.split(dense(3 * width, name="qkv")(x), 3, axis=-1)
    )
    all_seen = jnp.ones((1, 1, 1, 1), bool)
    h = self.attention(query, key, value, all_seen, drop).reshape(x.shape)
    h = drop(dense(width, name="out")(h))
    x = LayerNorm(dtype=self.dtype, name="norm1")(x + h)
    h = gelu_tanh(dense(4 * width, name="mlp1")(x))
    h = drop(dense(width, name="mlp2")(h))
    return LayerNorm(dtype=self.dtype, name="norm2")(x + h), None


def blocks(
  num_layers: int,
  num_heads: int,
  dropout: float,
  attention: Callable = attend,
  dtype: Any = None,
) -> Callable[[Array, bool], Array]:
  """`num_layers` of `Block`, the submodule "layers" of the module that calls this.

  Returns:
    ([B, T, width], train) -> [B, T, width]; each position sees all.
  """
  layers = nn.scan(
    Block,
    variable_axes={"params": 0},
    split_rngs={"params": True, "dropout": True},
    in_axes=nn.broadcast,
    length=num_layers,
  )(num_heads, dropout, attention, dtype, name="layers")
  return lambda x, train: layers(x, train)[0]


class MaskedTransformer(nn.Module):
  """Logits of every token, from the tokens that are not hidden.

  The embedding has a row for each token, then one for a hidden token, then one for each
  class. Its transpose is the head's matrix, of which only the rows of tokens are used.

  Attributes:
    num_tokens: K. The number K itself stands for a hidden token.
    length: T, the tokens of an example; each position has a learned embedding.
    width: Of the embedding; `num_heads` divides it. The MLP is 4 times as wide.
    num_layers: Blocks.
    num_heads: Of the attention.
    num_classes: A label goes before the tokens; 0 for none.
    dropout: Of attention weights, embeddings, and what joins the residual path.
    attention: `attend` of `jaxgen.nn.transformer`, or `fused_attend`.
    dtype: Of the computation; None: float32.
  """

  num_tokens: int
  length: int
  width: int
  num_layers: int
  num_heads: int
  num_classes: int = 0
  dropout: float = 0.1
  attention: Callable = attend
  dtype: Any = None

  @nn.compact
  def __call__(
    self, tokens: Array, label: Array | None = None, train: bool = False
  ) -> Array:
    """All logits in one pass.

    Args:
      tokens: int32 [B, T] in 0..K; K where hidden.
      label: int32 [B] if there are classes, else None.
      train: Whether dropout is on (stream "dropout").

    Returns:
      f32 [B, T, K].

    Raises:
      ValueError: The shape does not fit, or labels are missing or superfluous.
    """
    if tokens.shape[1:] != (self.length,):
      raise ValueError(f"tokens {tokens.shape}: expected [B, {self.length}]")
    if (label is None) == bool(self.num_classes):
      raise ValueError(
        f"num_classes={self.num_classes}: expected "
        f"{'labels' if self.num_classes else 'no label'}"
      )
    if self.width % self.num_heads:
      raise ValueError(
        f"num_heads={self.num_heads} must divide the width, {self.width}"
      )
    drop = nn.Dropout(self.dropout, deterministic=not train)
    norm = functools.partial(LayerNorm, dtype=self.dtype)
    embed = functools.partial(nn.Embed, features=self.width, embedding_init=_init)
    first = 1 if self.num_classes else 0
    embedding = embed(self.num_tokens + 1 + self.num_classes, name="tokens")
    positions = embed(self.length + first, name="positions").embedding
    if label is not None:
      classes = (label + self.num_tokens + 1)[:, None]
      tokens = jnp.concatenate([classes, tokens], axis=1)
    x = drop(norm(name="embedding_norm")(embedding(tokens) + positions[None]))

    x = blocks(
      self.num_layers, self.num_heads, self.dropout, self.attention, self.dtype
    )(x, train)

    h = nn.Dense(self.width, kernel_init=_init, dtype=self.dtype, name="head")(x)
    logits = embedding.attend(norm(name="head_norm")(gelu_tanh(h)))
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    bias = self.param("head_bias", nn.initializers.zeros, logits.shape[-1:])
    return (logits + bias[None, None])[:, first:, : self.num_tokens]
