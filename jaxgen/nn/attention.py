"""Attention of every position to every position, by the quickest kernel there is."""

import jax
from jax import Array
import jax.numpy as jnp


def attend(query: Array, key: Array, value: Array) -> Array:
  """softmax(query key^T / sqrt(D)) value, head by head (Vaswani et al. 2017, Eq. 1).

  Args:
    query: [B, T, heads, D].
    key: [B, S, heads, D].
    value: [B, S, heads, D].

  Returns:
    [B, T, heads, D], in their dtype. The softmax is at least in float32.
  """
  if query.dtype == jnp.float64:  # JAX's has its softmax in float32 all the same.
    scores = jnp.einsum("bthd,bshd->bhts", query, key) * query.shape[-1] ** -0.5
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), value)
  return fused(query, key, value)


def fused(query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
  """`jax.nn.dot_product_attention`, told to use cuDNN's kernel where that applies.

  Left to itself, JAX 0.10 always takes XLA's. No GPU was at hand: that cuDNN is asked
  for where it should be is tested, what it then does is not. The softmax is in float32.
  """
  applies = cudnn_applies(query.dtype, query.shape[-1], jax.devices()[0])
  implementation = "cudnn" if applies else None
  return jax.nn.dot_product_attention(
    query, key, value, mask=mask, implementation=implementation
  )


def cudnn_applies(dtype: jnp.dtype, dim: int, device: jax.Device) -> bool:
  """Whether cuDNN has fused attention for heads of `dim`, as JAX 0.10 checks it."""
  if "NVIDIA" not in device.device_kind or dtype not in (jnp.bfloat16, jnp.float16):
    return False
  capability = float(device.compute_capability)
  return capability >= 8.0 and dim % 8 == 0 and dim <= (256 if capability >= 9 else 128)
