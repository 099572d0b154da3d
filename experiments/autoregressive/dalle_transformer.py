"""DALL-E's transformer: 64 layers, 3,968 wide, 256 text and 1,024 image tokens.

  jaxgen train autoregressive/dalle_transformer --workdir=runs/dalle --config.path=NPZ
  jaxgen describe autoregressive/dalle_transformer

NPZ holds "image", int [N, 32, 32] in 0..8191, tokens that the encoder of
autoregressive/dalle_dvae gives, and "text", int [N, 256] in 0..16383, byte pairs,
computed once. Samples are tokens too.

Paper: Ramesh et al., Zero-Shot Text-to-Image Generation (2021), arXiv 2102.12092.
  64 layers of 62 heads of 64, both vocabularies and both lengths, the batch of 1,024,
  430,000 updates, and the rate are from memory of Section 2.2 and Appendix B, not
  looked up. Attention is dense here, see `jaxgen.autoregressive.dalle`.
Dataset: 250 million pairs of images and captions in the paper; none is included.
Published: none to compare with: the paper has FID against blur on MS-COCO, as a curve.
Measure: nats_per_token --metrics=eval
Ours: not measured: needs accelerators and the data. 12,295,605,888 parameters; the
  paper says 12 billion.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from jaxgen import cli, data
from jaxgen.autoregressive.dalle import dalle
from jaxgen.autoregressive.tokenizers import token_files
from jaxgen.nn.transformer import TokenTransformer, Transformer, fused_attend
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "path": "",  # .npz of "image" and "text", both tokens; "" only describes
      "batch_size": 1_024,
      "num_steps": 430_000,
      "lr": 4.5e-4,
      "warmup_steps": 5_000,
      "weight_decay": 4.5e-2,
      "b2": 0.96,
      "num_text_tokens": 16_384,
      "text_length": 256,
      "num_image_tokens": 8_192,
      "side": 32,
      "num_layers": 64,
      "num_heads": 62,
      "width": 3_968,
      "dtype": "bfloat16",
    }
  )


def build(config):
  num = config.num_text_tokens + config.num_image_tokens
  net = TokenTransformer(
    Transformer(
      config.num_layers,
      config.num_heads,
      attention=fused_attend,
      dtype=jnp.dtype(config.dtype),
    ),
    num_tokens=num,
    num_inputs=num + 1,
    width=config.width,
    max_length=config.text_length + config.side**2,
    tie_weights=False,
  )
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  rows = config.batch_size
  no_data = data.synthetic(
    {
      "image": data.source.zeros((rows, config.side, config.side), np.int32),
      "text": data.source.zeros((rows, config.text_length), np.int32),
    }
  )
  pairs = lambda path: data.arrays(path, batch_size=config.batch_size)
  return dict(
    method=dalle(
      net,
      tx=optax.adamw(lr, b2=config.b2, weight_decay=config.weight_decay),
      tokenizer=token_files(config.num_image_tokens),
      text=lambda batch: batch["text"],
      num_text_tokens=config.num_text_tokens,
    ),
    train_data=pairs(config.path) if config.path else no_data,
    num_steps=config.num_steps,
    every=Every(log=100, sample=10_000, save=10_000),
    num_samples=8,
  )


if __name__ == "__main__":
  cli.run(__file__)
