"""GPT-2, 124 million parameters, as nanoGPT trains it; or from published weights.

  jaxgen train autoregressive/gpt2_124m --workdir=runs/gpt2
  jaxgen describe autoregressive/gpt2_124m

train.bin and val.bin, in the current folder or wherever --config.path and
--config.eval_path say, hold text in GPT-2's byte-pair encoding, 16 bits a token, as
nanoGPT's data/openwebtext/prepare.py writes it. There are 50,257 tokens, padded to
50,304, a multiple of 64. To start from the weights that OpenAI published
(model.safetensors of "gpt2" on Hugging Face): --config.weights=FILE
--config.num_tokens=50257 --config.bias=True. Samples are tokens: write them to .npz.
Windows tile the file; nanoGPT's begin anywhere.

Paper: Radford et al., Language Models are Unsupervised Multitask Learners (2019); the
  recipe is nanoGPT's (Karpathy, 2022) for eight GPUs.
Dataset: OpenWebText, about 9 billion tokens, not included.
Published: validation loss 2.85 nats per token after 600,000 steps (nanoGPT's README);
  3.12 of OpenAI's weights as they are. 124,373,760 parameters without biases, counted
  with the embeddings of positions and tokens (once, since tied).
Measure: nats_per_token (published 2.85) --metrics=eval
Ours: not measured: needs eight GPUs and the data.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.autoregressive.decoding import Sampler
from jaxgen.autoregressive.gpt import decayed, gpt
from jaxgen.nn import transformer
from jaxgen.nn.gpt2_file import load_gpt2_params
from jaxgen.train import Every

END_OF_TEXT = 50_256


def get_config():
  return ConfigDict(
    {
      "path": "train.bin",  # 16-bit tokens
      "eval_path": "val.bin",  # "" for none
      "weights": "",  # .safetensors; "" to start at random
      "batch_size": 480,  # 12 for each of 5 accumulated steps on 8 GPUs
      "num_steps": 600_000,
      "lr": 6e-4,
      "last_lr": 6e-5,
      "warmup_steps": 2_000,
      "b2": 0.95,
      "weight_decay": 0.1,
      "clip": 1.0,
      "num_layers": 12,
      "num_heads": 12,
      "width": 768,
      "context": 1024,
      "bias": False,
      "num_tokens": 50_304,
      "dtype": "bfloat16",
      "temperature": 1.0,
      "top_k": 0,
      "top_p": 1.0,
    }
  )


def build(config):
  net = transformer.TokenTransformer(
    transformer.Transformer(
      config.num_layers,
      config.num_heads,
      bias=config.bias,
      # OpenAI's weights expect the approximation, nanoGPT trains with the exact one.
      activation=transformer.gelu_tanh if config.weights else transformer.gelu,
      norm=transformer.LayerNorm if config.bias else transformer.ScaleOnlyLayerNorm,
      attention=transformer.fused_attend,
      dtype=jnp.dtype(config.dtype),
    ),
    num_tokens=config.num_tokens,
    width=config.width,
    max_length=config.context,
  )
  lr = optax.warmup_cosine_decay_schedule(
    0.0, config.lr, config.warmup_steps, config.num_steps, config.last_lr
  )
  adamw = optax.adamw(lr, b2=config.b2, weight_decay=config.weight_decay, mask=decayed)
  method = gpt(
    net,
    tx=optax.chain(optax.clip_by_global_norm(config.clip), adamw),
    prompt=(END_OF_TEXT,),
    sampler=Sampler(config.temperature, config.top_k, config.top_p),
    params=load_gpt2_params(config.weights, net) if config.weights else None,
  )
  windows = dict(length=config.context + 1, batch_size=config.batch_size)
  held_out = data.token_file(config.eval_path, **windows)
  return dict(
    method=method,
    train_data=data.token_file(config.path, **windows),
    eval_data=held_out if config.eval_path else None,
    num_steps=config.num_steps,
    every=Every(log=100, eval=1_000, sample=10_000, save=2_000),
    num_samples=4,
  )


if __name__ == "__main__":
  cli.run(__file__)
