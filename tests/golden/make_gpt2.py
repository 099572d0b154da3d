"""Writes what transformers' GPT-2 and Image GPT compute, for tests/test_gpt.py.

  pip install torch==2.13.0 transformers==5.23.0 numpy
  python make_gpt2.py gpt2 .
  python make_gpt2.py image_gpt .

NAME.safetensors is the file that `save_pretrained` writes of a network of random
weights, all drawn anew and rounded to float16 values, in float16. NAME.npz holds tokens
int32 [B, T], logits f64 [B, T, V] and the gradients of the mean cross entropy of
tokens[:, 1:] in float64 by the names of the file, as grads/NAME.
"""

import argparse
from pathlib import Path
import shutil
import tempfile

import numpy as np
import torch
from transformers import (
  GPT2Config,
  GPT2LMHeadModel,
  ImageGPTConfig,
  ImageGPTForCausalImageModeling,
)

SIZES = dict(n_layer=2, n_head=2, n_embd=8, n_positions=6, attn_implementation="eager")


def build(name):
  if name == "gpt2":
    return GPT2LMHeadModel(GPT2Config(vocab_size=7, **SIZES))
  return ImageGPTForCausalImageModeling(ImageGPTConfig(vocab_size=8, **SIZES))


def main(name, folder):
  torch.manual_seed(0)
  net = build(name).eval()
  with torch.no_grad():
    for parameter in net.parameters():
      parameter.copy_(0.5 * torch.randn_like(parameter))
      parameter.add_(1.0 if parameter.ndim == 1 else 0.0)
      parameter.copy_(parameter.half())
  with tempfile.TemporaryDirectory() as temporary:
    net.half().save_pretrained(temporary)
    source = Path(temporary, "model.safetensors")
    shutil.copy(source, Path(folder, f"{name}.safetensors"))
  net.double()
  tokens = torch.randint(0, 7, (2, 6))
  logits = net(input_ids=tokens).logits
  loss = torch.nn.functional.cross_entropy(
    logits[:, :-1].reshape(10, -1), tokens[:, 1:].reshape(-1)
  )
  loss.backward()
  arrays = {
    f"grads/{key.removeprefix('transformer.')}": value.grad.numpy()
    for key, value in net.named_parameters()
  }
  np.savez_compressed(
    Path(folder, f"{name}.npz"),
    tokens=tokens.numpy().astype(np.int32),
    logits=logits.detach().numpy(),
    **arrays,
  )
  print(sum(p.numel() for p in net.parameters()), "parameters;", sorted(arrays))


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("name", choices=("gpt2", "image_gpt"))
  parser.add_argument("folder")
  main(**vars(parser.parse_args()))
