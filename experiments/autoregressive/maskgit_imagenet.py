"""MaskGIT on ImageNet at 256x256: 24 layers, 768 wide, 16x16 tokens of 1,024.

  jaxgen train autoregressive/maskgit_imagenet --workdir=runs/maskgit
    --config.path=TOKENS.npz
  jaxgen describe autoregressive/maskgit_imagenet

TOKENS.npz holds "tokens", int [N, 16, 16] in 0..1023, and "label", int [N]: images as a
tokenizer of 16 times smaller sides names them, computed once. Samples are tokens too.
Their VQGAN is not part of this project; a `jaxgen.vae.vq_vae` with four halvings writes
such tokens by its tool `encode` and reads them by `decode_codes`.

Paper: Chang et al., MaskGIT: Masked Generative Image Transformer (2022), arXiv
  2202.04200. Figures are those of the authors' configuration
  (maskgit_class_cond_config.py), where they say it.
Dataset: ImageNet at 256x256 as tokens, 1,281,167 images, not included.
Published: FID 6.06 (the authors' README; tokenizer alone 2.28). 172,457,193 parameters:
  what their configuration and code come to, without the tokenizer.
Measure: nats_per_token --metrics=eval
Ours: not measured: needs accelerators and the data.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from jaxgen import cli, data
from jaxgen.autoregressive.maskgit import maskgit
from jaxgen.autoregressive.tokenizers import token_files
from jaxgen.nn.masked_transformer import MaskedTransformer
from jaxgen.nn.transformer import fused_attend
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "path": "",  # .npz of "tokens" and "label"
      "eval_path": "",  # the same of the validation set; "" for none
      "batch_size": 256,
      "num_steps": 2_000_000,
      "lr": 1e-4,
      "warmup_steps": 5_000,
      "b2": 0.96,
      "weight_decay": 0.045,
      "label_smoothing": 0.1,
      "num_tokens": 1024,
      "num_classes": 1000,
      "side": 16,
      "num_layers": 24,
      "num_heads": 16,
      "width": 768,
      "dropout": 0.1,  # of attention weights as well, in theirs
      "dtype": "bfloat16",
      "num_sampling_steps": 8,  # the paper
      "temperature": 4.5,
    }
  )


def build(config):
  net = MaskedTransformer(
    config.num_tokens,
    length=config.side**2,
    width=config.width,
    num_layers=config.num_layers,
    num_heads=config.num_heads,
    num_classes=config.num_classes,
    dropout=config.dropout,
    attention=fused_attend,
    dtype=jnp.dtype(config.dtype),
  )
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  shape = (config.batch_size, config.side, config.side)
  no_data = data.synthetic(
    {
      "tokens": data.source.zeros(shape, np.int32),
      "label": data.source.zeros(shape[:1], np.int32),
    }
  )
  tokens = lambda path: data.arrays(path, batch_size=config.batch_size)
  return dict(
    method=maskgit(
      net,
      tx=optax.adamw(lr, b2=config.b2, weight_decay=config.weight_decay),
      tokenizer=token_files(config.num_tokens),
      entry="tokens",
      num_steps=config.num_sampling_steps,
      temperature=config.temperature,
      label_smoothing=config.label_smoothing,
    ),
    train_data=tokens(config.path) if config.path else no_data,
    eval_data=tokens(config.eval_path) if config.eval_path else None,
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=10_000, save=10_000),
    num_samples=8,
  )


if __name__ == "__main__":
  cli.run(__file__)
