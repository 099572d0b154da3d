"""GPT on the characters of Shakespeare: nanoGPT's example, 10.7 million parameters.

  jaxgen train autoregressive/gpt_shakespeare --workdir=runs/gpt
  jaxgen sample runs/gpt --out=samples.txt --config.prompt="ROMEO:"

The data is tiny Shakespeare, 1,115,394 characters: data/tinyshakespeare/input.txt of
https://github.com/karpathy/char-rnn, compressed with gzip in the current folder, or as
it is with --config.path=FILE. For a text of your own add --config.alphabet="", which
takes the characters of the file.

Paper: Radford et al., Language Models are Unsupervised Multitask Learners (2019), as
  implemented in nanoGPT (Karpathy, 2022), config/train_shakespeare_char.py.
Dataset: tiny Shakespeare, the first 90 % of the characters to train.
Published: best validation loss 1.4697 nats per character, on random batches, about 3
  minutes on one A100 (README). 10,745,088 parameters; nanoGPT prints 10.65M, without
  the embedding of positions.
Measure: nats_per_token (published 1.4697) --metrics=eval
Ours: not measured: the run waits for a free accelerator. nanoGPT's number is the best
  of its evaluations while training, ours is to be the last.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.autoregressive.decoding import Sampler
from jaxgen.autoregressive.gpt import decayed, gpt
from jaxgen.data.text import SHAKESPEARE
from jaxgen.nn import transformer
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "path": "tinyshakespeare.txt.gz",  # a text file, see above
      "alphabet": SHAKESPEARE,  # "": the characters of the file
      "batch_size": 64,
      "num_steps": 5_000,
      "lr": 1e-3,
      "last_lr": 1e-4,
      "warmup_steps": 100,
      "b2": 0.99,
      "weight_decay": 0.1,
      "clip": 1.0,
      "num_layers": 6,
      "num_heads": 6,
      "width": 384,
      "context": 256,
      "dropout": 0.2,
      "prompt": "\n",
      "temperature": 1.0,
      "top_k": 0,
      "top_p": 1.0,
    }
  )


SMALL = {"num_steps": 300}


def build(config):
  config.alphabet = config.alphabet or data.characters_of(config.path)
  alphabet = data.Alphabet(config.alphabet)
  net = transformer.TokenTransformer(
    transformer.Transformer(
      config.num_layers,
      config.num_heads,
      bias=False,
      dropout=config.dropout,
      activation=transformer.gelu,
      norm=transformer.ScaleOnlyLayerNorm,
    ),
    num_tokens=len(alphabet),
    width=config.width,
    max_length=config.context,
  )
  lr = optax.warmup_cosine_decay_schedule(
    0.0, config.lr, config.warmup_steps, config.num_steps, config.last_lr
  )
  tx = optax.chain(
    optax.clip_by_global_norm(config.clip),
    optax.adamw(lr, b2=config.b2, weight_decay=config.weight_decay, mask=decayed),
  )
  method = gpt(
    net,
    tx=tx,
    prompt=alphabet.encode(config.prompt).tolist(),
    sampler=Sampler(config.temperature, config.top_k, config.top_p),
  )
  windows = dict(
    alphabet=config.alphabet, length=config.context + 1, batch_size=config.batch_size
  )
  return dict(
    method=method,
    train_data=data.text(config.path, "train", **windows),
    eval_data=data.text(config.path, "test", **windows),
    num_steps=config.num_steps,
    every=Every(log=100, eval=250, sample=250, save=250),
    num_samples=4,
  )


if __name__ == "__main__":
  cli.run(__file__)
