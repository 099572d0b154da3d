"""Parameters of `TokenTransformer` from files with the names of OpenAI's GPT-2.

So are the files named that others publish: of GPT-2 in four sizes, of networks tuned
from it, and of Image GPT. Kernels are [inputs, outputs] there, as here, but for an
untied head.
"""

from pathlib import Path
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nn.safetensors import load_safetensors
from jaxgen.nn.transformer import TokenTransformer

_OUTSIDE = {
  ("tokens",): "wte",
  ("positions",): "wpe",
  ("layers", "norm"): "ln_f",
  ("head",): "lm_head",
}
_INSIDE = {
  "norm1": "ln_1",
  "qkv": "attn.c_attn",
  "out": "attn.c_proj",
  "norm2": "ln_2",
  "mlp1": "mlp.c_fc",
  "mlp2": "mlp.c_proj",
}
_MASKS = (".attn.bias", ".attn.masked_bias")  # of causality, not learned


def load_gpt2_params(path: str | Path, net: TokenTransformer) -> Any:
  """The parameters of `net` from a .safetensors file.

  Args:
    path: Of the file; names with or without the prefix "transformer.".
    net: Of the sizes of the file. The number of heads is not in the file: all sizes of
      GPT-2 have width / 64.

  Returns:
    Parameters, f32.

  Raises:
    FileNotFoundError: There is no such file.
    ValueError: It is cut off, or of other names or shapes, which are listed.
  """
  weights = {
    name.removeprefix("transformer."): array
    for name, array in load_safetensors(path).items()
    if not name.endswith(_MASKS)
  }
  if net.tie_weights:
    weights.pop("lm_head.weight", None)  # the embedding once more
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  abstract = jax.eval_shape(net.init, jax.random.key(0), tokens)["params"]
  expected = traverse_util.flatten_dict(abstract)
  names = {key: _names(key, net.layers.num_layers) for key in expected}
  known = {name for each in names.values() for name in each}
  if missing := sorted(known - set(weights)):
    raise ValueError(f"{path}: {len(missing)} arrays are missing, as {missing[:4]}")
  if unexpected := sorted(set(weights) - known):
    raise ValueError(f"{path}: the network has no place for {unexpected[:4]}")
  params = {}
  for key, each in names.items():
    arrays = [np.asarray(weights[name], np.float32) for name in each]
    value = np.stack(arrays) if key[:2] == ("layers", "layers") else arrays[0]
    value = value.T if key[0] == "head" else value
    if value.shape != expected[key].shape:
      raise ValueError(
        f"{path}: {each[0]!r} gives {'/'.join(key)} {list(value.shape)}: expected "
        f"{list(expected[key].shape)}"
      )
    params[key] = jnp.asarray(value)
  return traverse_util.unflatten_dict(params)


def _names(key: tuple[str, ...], num_layers: int) -> list[str]:
  """The file's names of what our parameter is made of: one, or one of each layer."""
  *module, leaf = key
  leaf = "bias" if leaf == "bias" else "weight"
  if module[:2] == ["layers", "layers"]:
    return [f"h.{i}.{_INSIDE[module[2]]}.{leaf}" for i in range(num_layers)]
  return [f"{_OUTSIDE[tuple(module)]}.{leaf}"]
