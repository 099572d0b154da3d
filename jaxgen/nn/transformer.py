"""Causal transformers with pre-normalisation, and their cache for decoding.

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), Section
2.3: the normalisation stands before each sub-block and once after the last; the
weights onto the residual path start smaller by 1 / sqrt(their number). Layers are one
`scan` over stacked parameters: the time to compile does not depend on the depth.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.attention import fused

INIT_STDDEV = 0.02  # GPT, Section 4.1
_normal = nn.initializers.normal

# Keys and values of earlier positions, {"key", "value"}: each [L, B, T, heads, dim].
Cache = dict[str, Array]

# Variances are mean squares less squared means: a train step of a small GPT takes a
# sixth less time on a CPU than with deviations squared.
LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-5)
ScaleOnlyLayerNorm = functools.partial(LayerNorm, use_bias=False)
RMSNorm = functools.partial(nn.RMSNorm, epsilon=1e-5)
gelu = functools.partial(nn.gelu, approximate=False)
gelu_tanh = functools.partial(nn.gelu, approximate=True)


def quick_gelu(x: Array) -> Array:
  """x sigmoid(1.702 x), the other approximation of Hendrycks & Gimpel (2016)."""
  return x * nn.sigmoid(1.702 * x)


def attend(
  query: Array, key: Array, value: Array, mask: Array, dropout: Callable
) -> Array:
  """softmax(query key^T / sqrt(dim)) value (Vaswani et al. 2017, Eq. 1).

  `jax.nn.dot_product_attention` computes the softmax in float32 whatever the inputs
  are, and drops no weights; `Block.attention` can be set to it where that is wanted.

  Args:
    query: [B, T, heads, dim].
    key: [B, S, heads, dim].
    value: [B, S, heads, dim].
    mask: bool, broadcastable to [B, heads, T, S]; True where a query sees a key.
    dropout: Of the weights.

  Returns:
    [B, T, heads, dim], in the dtype of `value`. The softmax is at least in float32.
  """
  logits = jnp.einsum("btnh,bsnh->bnts", query, key) * query.shape[-1] ** -0.5
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  weights = nn.softmax(jnp.where(mask, logits, -jnp.inf), axis=-1)
  return jnp.einsum("bnts,bsnh->btnh", dropout(weights).astype(value.dtype), value)


def fused_attend(
  query: Array, key: Array, value: Array, mask: Array, dropout: Callable
) -> Array:
  """`attend` by `jaxgen.nn.attention.fused`: softmax in float32, no dropout of it."""
  del dropout
  return fused(query, key, value, mask)


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)); see `Transformer` for fields."""

  num_heads: int
  residual_stddev: float
  bias: bool
  dropout: float
  activation: Callable
  norm: Callable[..., nn.Module]
  attention: Callable
  dtype: Any

  @nn.compact
  def __call__(
    self, x: Array, cache: Cache | None, position: Array | None, train: bool
  ) -> tuple[Array, Cache | None]:
    width = x.shape[-1]
    dense = functools.partial(nn.Dense, use_bias=self.bias, dtype=self.dtype)
    first = _normal(INIT_STDDEV)
    last = _normal(self.residual_stddev)
    drop = nn.Dropout(self.dropout, deterministic=not train)

    h = self.norm(dtype=self.dtype, name="norm1")(x)
    h = dense(3 * width, kernel_init=first, name="qkv")(h)
    heads = (*h.shape[:2], self.num_heads, width // self.num_heads)
    query, key, value = (a.reshape(heads) for a in jnp.split(h, 3, axis=-1))
    mask = jnp.tri(x.shape[1], dtype=bool)
    if cache is not None:
      write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(
        old, new.astype(old.dtype), position, axis=1
      )
      key, value = write(cache["key"], key), write(cache["value"], value)
      cache = {"key": key, "value": value}
      mask = (jnp.arange(key.shape[1]) <= position)[None]
    h = self.attention(query, key, value, mask[None, None], drop).reshape(x.shape)
    x = x + drop(dense(width, kernel_init=last, name="out")(h))

    h = self.norm(dtype=self.dtype, name="norm2")(x)
    h = self.activation(dense(4 * width, kernel_init=first, name="mlp1")(h))
    return x + drop(dense(width, kernel_init=last, name="mlp2")(h)), cache


class Transformer(nn.Module):
  """Embedded sequences -> sequences: position i is a function of positions <= i.

  Attributes:
    num_layers: Blocks, L.
    num_heads: Of the attention; they divide the width of the input.
    bias: Of dense layers.
    dropout: Of attention weights and of what joins the residual path.
    activation: Between the layers of the MLP, which are 4 times as wide.
    norm: LayerNorm, ScaleOnlyLayerNorm, RMSNorm, or whatever takes dtype and name.
    attention: `attend`, or `fused_attend` for accelerators' own kernels.
    dtype: Of the computation; None: that of the inputs.
    unroll: Blocks in one turn of the loop over them. All of them (num_layers) compute
      faster on a CPU, and take longer to compile.
  """

  num_layers: int
  num_heads: int
  bias: bool = True
  dropout: float = 0.0
  activation: Callable = gelu_tanh
  norm: Callable[..., nn.Module] = LayerNorm
  attention: Callable = attend
  dtype: Any = None
  unroll: int = 1

  @nn.compact
  def __call__(
    self,
    x: Array,
    cache: Cache | None = None,
    position: Array | None = None,
    train: bool = False,
  ) -> tuple[Array, Cache | None]:
    """All positions at once, or one of them with what is cached of the earlier ones.

    Args:
      x: [B, T, width]; with a cache [B, 1, width].
      cache: From `empty_cache` or the last call; None for all positions at once.
      position: i32 []; of `x`, with a cache.
      train: Whether dropout is on (stream "dropout").

    Returns:
      (f [B, T or 1, width], the cache with this position in it).
    """
    if x.shape[-1] % self.num_heads:
      raise ValueError(
        f"num_heads={self.num_heads} must divide the width, {x.shape[-1]}"
      )
    layers = nn.scan(
      Block,
      variable_axes={"params": 0},
      split_rngs={"params": True, "dropout": True},
      in_axes=(0, nn.broadcast, nn.broadcast),
      length=self.num_layers,
      unroll=self.unroll,
    )
    x, cache = layers(
      num_heads=self.num_heads,
      residual_stddev=INIT_STDDEV * (2 * self.num_layers) ** -0.5,
      bias=self.bias,
      dropout=self.dropout,
      activation=self.activation,
      norm=self.norm,
      attention=self.attention,
      dtype=self.dtype,
      name="layers",
    )(x, cache, position, train)
    return self.norm(dtype=self.dtype, name="norm")(x), cache

  def empty_cache(self, batch_size: int, length: int, width: int, dtype: Any) -> Cache:
    """A cache for `length` positions."""
    heads = (self.num_heads, width // self.num_heads)
    shape = (self.num_layers, batch_size, length, *heads)
    return {"key": jnp.zeros(shape, dtype), "value": jnp.zeros(shape, dtype)}


class TokenTransformer(nn.Module):
  """Logits of the next token, from all tokens so far.

  Attributes:
    layers: The network between embedding and head.
    num_tokens: V, of the output.
    width: Of the embedding.
    max_length: Positions, each with a learned embedding.
    tie_weights: The head is the transposed embedding.
    num_inputs: Tokens of the input; default num_tokens. More, for tokens that are
      given but never predicted, such as a start of sequence.
  """

  layers: Transformer
  num_tokens: int
  width: int
  max_length: int
  tie_weights: bool = True
  num_inputs: int | None = None

  def setup(self) -> None:
    inputs = self.num_inputs or self.num_tokens
    if self.tie_weights and inputs != self.num_tokens:
      raise ValueError(
        f"num_inputs={inputs} with tied weights: expected {self.num_tokens}"
      )
    embed = functools.partial(
      nn.Embed, features=self.width, embedding_init=_normal(INIT_STDDEV)
    )
    self.tokens = embed(inputs)
    self.positions = embed(self.max_length)
    self.drop = nn.Dropout(self.layers.dropout)
    if not self.tie_weights:
      self.head = nn.Dense(
        self.num_tokens,
        use_bias=False,
        dtype=self.layers.dtype,
        kernel_init=_normal(INIT_STDDEV),
      )

  def embed(self, tokens: Array) -> Array:
    """int32 [B, T] -> [B, T, width], without positions."""
    return self.tokens(tokens)

  def __call__(self, tokens: Array, train: bool = False) -> Array:
    """int32 [B, T] -> logits f32 [B, T, V]: entry i is of the token after the i-th.

    Raises:
      ValueError: If T is above max_length.
    """
    return self.predict(self.embed(tokens), train)

  def predict(self, x: Array, train: bool = False) -> Array:
    """The same from embedded tokens, [B, T, width]."""
    if x.shape[1] > self.max_length:
      raise ValueError(
        f"{x.shape[1]} tokens: expected at most max_length={self.max_length}"
      )
    x = x + self.positions(jnp.arange(x.shape[1]))[None]
    x, _ = self.layers(self.drop(x, deterministic=not train), train=train)
    return self._logits(x)

  def start(self, batch_size: int) -> Cache:
    """What `step` takes at position 0."""
    embedding = self.positions.embedding
    dtype = self.layers.dtype or embedding.dtype
    return self.layers.empty_cache(batch_size, self.max_length, self.width, dtype)

  def step(self, cache: Cache, tokens: Array, position: Array) -> tuple[Cache, Array]:
    """(cache, int32 [B], i32 []) -> (cache, logits of the next token f32 [B, V])."""
    return self.step_embedded(cache, self.embed(tokens), position)

  def step_embedded(
    self, cache: Cache, x: Array, position: Array
  ) -> tuple[Cache, Array]:
    """The same from embedded tokens, [B, width]."""
    x = x[:, None] + self.positions(position)[None, None]
    x, cache = self.layers(x, cache, position)
    return cache, self._logits(x)[:, 0]

  def _logits(self, x: Array) -> Array:
    logits = self.tokens.attend(x) if self.tie_weights else self.head(x)
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
