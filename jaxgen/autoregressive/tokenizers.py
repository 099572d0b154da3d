"""Images as tokens and back: two functions, and how many tokens there are."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import random
import jax.numpy as jnp
import numpy as np

from jaxgen.method import Array, Method, TrainState
from jaxgen.ops.kmeans import nearest


class Tokenizer(NamedTuple):
  """A frozen pair of functions; nothing here is trained.

  Attributes:
    num_tokens: K.
    encode: Images f32 [B, H, W, C] in [-1, 1] -> int32 [B, h, w] or [B, T] in 0..K-1.
    decode: The reverse, up to what tokens lose.
  """

  num_tokens: int
  encode: Callable[[Array], Array]
  decode: Callable[[Array], Array]

  def tokens(self, images: Array) -> Array:
    """Tokens row by row: int32 [B, T], without a gradient."""
    tokens = jax.lax.stop_gradient(self.encode(images))
    return tokens.reshape(len(images), -1)

  def images(self, tokens: Array, like: Array) -> Array:
    """int32 [B, T] -> images such as `like`, of which only the shape is read."""
    shape = jax.eval_shape(self.encode, like).shape
    return self.decode(tokens.reshape(-1, *shape[1:]))


def palette_tokenizer(palette: np.ndarray) -> Tokenizer:
  """Every pixel by itself, as the nearest colour of a palette f32 [K, C]."""
  palette = np.asarray(palette, np.float32)
  if palette.ndim != 2 or not np.all(abs(palette) <= 1):
    raise ValueError(f"palette {palette.shape}: expected [K, C] with values in [-1, 1]")
  return Tokenizer(
    len(palette),
    lambda images: nearest(images, palette),
    lambda tokens: jnp.asarray(palette)[tokens],
  )


def token_files(num_tokens: int) -> Tokenizer:
  """For batches that hold tokens already, computed once and kept: the identity."""
  same = lambda tokens: tokens
  return Tokenizer(num_tokens, same, same)


def trained_tokenizer(
  method: Method, state: TrainState, num_tokens: int, level: str = "codes"
) -> Tokenizer:
  """A first stage such as `jaxgen.vae.vq_vae`, with its trained state.

  Args:
    method: With the tools encode and decode_codes, which draw nothing.
    state: What it was trained to, in evaluation (`jaxgen.method.averaged`).
    num_tokens: Of its code book.
    level: The entry that both tools call the codes.
  """
  missing = {"encode", "decode_codes"} - set(method.tools)
  if missing:
    raise ValueError(
      f"a tokenizer needs the tools {sorted(missing)}: the method has "
      f"{sorted(method.tools)}"
    )
  host = jax.device_get(state)  # Of no device: a constant of whoever compiles it.

  def call(tool: str, batch: dict[str, Array]) -> dict[str, Array]:
    return method.tools[tool](jax.tree.map(jnp.asarray, host), batch, random.key(0))

  return Tokenizer(
    num_tokens,
    lambda images: call("encode", {"image": images})[level],
    lambda tokens: call("decode_codes", {level: tokens})["images"],
  )
