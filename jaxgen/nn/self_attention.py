"""The self-attention block of SAGAN, for maps of features."""

from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from jaxgen.nn.spectral import spectral_norm
from jaxgen.nn.strided_conv import Conv1x1


class SelfAttention(nn.Module):
  """x + gamma * out(softmax(query(x) key(x)^T) value(x)), gamma zero at the start.

  Zhang, Goodfellow, Metaxas & Odena (2018), arXiv 1805.08318, Section 3, with what the
  authors' code adds to the text: queries and keys have 1/8 of the channels, values 1/2,
  and keys and values are the largest of 2x2 pixels. The four convolutions are 1x1,
  without biases, spectrally normalised; their products are not scaled.

  Attributes:
    dtype: Of the computation; the softmax is float32.
  """

  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """[B, H, W, C] -> [B, H, W, C].

    Args:
      x: H and W are even, C is a multiple of 8.
      train: Whether the vectors of `spectral_norm` move.

    Raises:
      ValueError: If H, W or C is another number.
    """
    b, height, width, c = x.shape
    if height % 2 or width % 2 or c % 8:
      raise ValueError(
        f"{height}x{width} pixels of {c} channels; expected even sides and a multiple "
        "of 8 channels"
      )

    def conv(features: int, name: str, x: Array) -> Array:
      layer = Conv1x1(features, use_bias=False, dtype=self.dtype, name=name)
      return spectral_norm(layer, train=train)(x)

    pool = lambda x: nn.max_pool(x, (2, 2), (2, 2))
    rows = lambda x: x.reshape(b, -1, x.shape[-1])
    query = rows(conv(c // 8, "query", x))
    key = rows(pool(conv(c // 8, "key", x)))
    value = rows(pool(conv(c // 2, "value", x)))
    logits = jnp.einsum("bqc,bkc->bqk", query, key)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    weights = jax.nn.softmax(logits).astype(value.dtype)
    seen = jnp.einsum("bqk,bkc->bqc", weights, value)
    gamma = self.param("gamma", nn.initializers.zeros, ())
    out = conv(c, "out", seen.reshape(b, height, width, c // 2))
    return x + gamma.astype(out.dtype) * out
