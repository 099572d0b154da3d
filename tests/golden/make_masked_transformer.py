"""Writes what transformers' BERT computes, for tests/test_maskgit.py.

  pip install torch==2.13.0 transformers==5.23.0 numpy
  python make_masked_transformer.py .

masked_transformer.npz holds logits f64 [B, T, K] of the tokens' positions, and the
gradients of the mean cross-entropy of all of them, as grads/PATH, by the paths of
masked_transformer_inputs.parameters().
"""

from pathlib import Path
import sys

import masked_transformer_inputs as shared
import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM


def build():
  config = BertConfig(
    vocab_size=shared.TOKENS + 1 + shared.CLASSES,
    hidden_size=shared.WIDTH,
    num_hidden_layers=shared.LAYERS,
    num_attention_heads=shared.HEADS,
    intermediate_size=4 * shared.WIDTH,
    max_position_embeddings=shared.LENGTH + 1,
    type_vocab_size=1,
    hidden_act="gelu_new",
    layer_norm_eps=1e-12,
    attn_implementation="eager",
    pad_token_id=None,  # else its row has no gradient from the input
  )
  return BertForMaskedLM(config).eval().double()


def places(net):
  """{path of ours: [(parameter of theirs, transposed?), ...]}, one for each layer."""
  bert, head = net.bert, net.cls.predictions
  found = {
    "tokens/embedding": [(bert.embeddings.word_embeddings.weight, False)],
    "positions/embedding": [(bert.embeddings.position_embeddings.weight, False)],
    "head_bias": [(head.bias, False)],
  }
  layers = bert.encoder.layer
  modules = {
    "embedding_norm": [bert.embeddings.LayerNorm],
    "layers/out": [x.attention.output.dense for x in layers],
    "layers/norm1": [x.attention.output.LayerNorm for x in layers],
    "layers/mlp1": [x.intermediate.dense for x in layers],
    "layers/mlp2": [x.output.dense for x in layers],
    "layers/norm2": [x.output.LayerNorm for x in layers],
    "head": [head.transform.dense],
    "head_norm": [head.transform.LayerNorm],
  }
  for name, several in modules.items():
    kind = "scale" if "norm" in name else "kernel"
    found[f"{name}/{kind}"] = [(x.weight, kind == "kernel") for x in several]
    found[f"{name}/bias"] = [(x.bias, False) for x in several]
  return found


def heads(net):
  """Query, key and value of each layer."""
  return [
    (x.attention.self.query, x.attention.self.key, x.attention.self.value)
    for x in net.bert.encoder.layer
  ]


def main(folder):
  net = build()
  values = {k: torch.from_numpy(v) for k, v in shared.parameters().items()}
  with torch.no_grad():
    net.bert.embeddings.token_type_embeddings.weight.zero_()
    for path, several in places(net).items():
      for i, (parameter, transposed) in enumerate(several):
        value = values[path][i] if path.startswith("layers") else values[path]
        parameter.copy_(value.T if transposed else value)
    for i, layer in enumerate(heads(net)):
      kernels = values["layers/qkv/kernel"][i].chunk(3, dim=1)
      biases = values["layers/qkv/bias"][i].chunk(3)
      for module, kernel, bias in zip(layer, kernels, biases, strict=True):
        module.weight.copy_(kernel.T)
        module.bias.copy_(bias)
  tokens, label, targets = map(torch.from_numpy, shared.inputs())
  given = torch.cat([label[:, None] + shared.TOKENS + 1, tokens], dim=1).long()
  logits = net(input_ids=given).logits[:, 1:, : shared.TOKENS]
  loss = torch.nn.functional.cross_entropy(
    logits.reshape(-1, shared.TOKENS), targets.reshape(-1).long()
  )
  loss.backward()
  arrays = {}
  for path, several in places(net).items():
    grads = [(p.grad.T if t else p.grad).numpy() for p, t in several]
    arrays[path] = np.stack(grads) if path.startswith("layers") else grads[0]
  join = lambda name, axis: np.stack(
    [
      np.concatenate([getattr(m, name).grad.numpy().T for m in layer], axis)
      for layer in heads(net)
    ]
  )
  arrays["layers/qkv/kernel"] = join("weight", 1)
  arrays["layers/qkv/bias"] = join("bias", 0)
  assert set(arrays) == set(values)
  np.savez_compressed(
    Path(folder, "masked_transformer.npz"),
    logits=logits.detach().numpy(),
    **{f"grads/{path}": value for path, value in arrays.items()},
  )
  print(sum(p.numel() for p in net.parameters()), "parameters;", sorted(arrays))


if __name__ == "__main__":
  main(sys.argv[1])
