"""Weights and tokens that tests/test_maskgit.py shares with make_masked_transformer."""

import numpy as np

TOKENS, CLASSES, LENGTH, WIDTH, LAYERS, HEADS = 5, 2, 4, 8, 2, 2


def parameters():
  """Of MaskedTransformer, f64, by path."""
  rng = np.random.Generator(np.random.PCG64(0))
  matrix = lambda *shape: 0.5 * rng.standard_normal(shape)
  found = {
    "tokens/embedding": matrix(TOKENS + 1 + CLASSES, WIDTH),
    "positions/embedding": matrix(LENGTH + 1, WIDTH),
    "head_bias": matrix(TOKENS + 1 + CLASSES),
  }

  def dense(name, *shape):
    found[f"{name}/kernel"] = matrix(*shape)
    found[f"{name}/bias"] = matrix(*shape[:-2], shape[-1])

  def norm(name, *shape):
    found[f"{name}/scale"] = 1.0 + matrix(*shape)
    found[f"{name}/bias"] = matrix(*shape)

  norm("embedding_norm", WIDTH)
  for name, ins, outs in (
    ("qkv", WIDTH, 3 * WIDTH),
    ("out", WIDTH, WIDTH),
    ("mlp1", WIDTH, 4 * WIDTH),
    ("mlp2", 4 * WIDTH, WIDTH),
  ):
    dense(f"layers/{name}", LAYERS, ins, outs)
  norm("layers/norm1", LAYERS, WIDTH)
  norm("layers/norm2", LAYERS, WIDTH)
  dense("head", WIDTH, WIDTH)
  norm("head_norm", WIDTH)
  return found


def inputs():
  """(tokens with hidden ones, labels, targets)."""
  targets = np.array([[0, 4, 2, 1], [3, 3, 0, 2]], np.int32)
  tokens = np.where([[0, 1, 0, 1], [1, 1, 1, 0]], TOKENS, targets).astype(np.int32)
  return tokens, np.array([1, 0], np.int32), targets
