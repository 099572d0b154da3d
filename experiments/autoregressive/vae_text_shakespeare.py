"""A VAE of 32 characters of Shakespeare, with an LSTM that writes them.

  jaxgen train autoregressive/vae_text_shakespeare --workdir=runs/vae_text
  jaxgen sample runs/vae_text --out=samples.txt
  jaxgen sample runs/vae_text --mode=interpolate --num=4 --out=homotopies.txt

The data is tiny Shakespeare, 1,115,394 characters: data/tinyshakespeare/input.txt of
https://github.com/karpathy/char-rnn, compressed with gzip in the current folder, or as
it is with --config.path=FILE. For a text of your own add --config.alphabet="", which
takes the characters of the file.

Paper: Bowman et al., Generating Sentences from a Continuous Space (2015), arXiv
  1511.06349, which has words and sentences.
Dataset: tiny Shakespeare, the first 90 % of the characters to train.
Published: none for this data.
Measure: nats_per_token --metrics=eval
Ours: a bound of 2.257 nats per character [2.249, 2.265], of windows of 32 on the whole
  validation split: reconstruction -67.44 nats per window, divergence 4.78 [4.71, 4.85].
With 1,500 steps, word dropout 0.3 and a weight that reached 1/2 at step 750 within some
200 steps, the divergence was 0.74 nats and the bound 2.113: the code had collapsed. No
part of the code was wrong: the encoder had not learned to say anything by then, and a
decoder that sees most characters needs little of it. Now the weight takes half of a
longer training to rise, and three of four characters are not seen. The divergence falls
from 16.7 nats to 4.7 at step 3,500 and stays. That the bound is worse is the price that
the paper tells of.
What the code carries was looked at, in 16 reconstructions and 3 interpolations: where
lines end and where a speaker's name stands. "ur Baptista.|| BAPTISTA:|Good mor" becomes
" the sord me.|| CARINIUS:|I with " (| for a new line), and of 7 points from it to
"rrow, neighbour Gremio.|God save" the name moves to the right, then out. Words are not
kept: the most likely ones are written. Samples have the spelling and the lines of the
play, hardly words.
Hardware: one core of an AMD EPYC, shared with other jobs (load 11). Wall clock: 10 min.
Seed 0.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.autoregressive.decoding import Sampler
from jaxgen.autoregressive.vae_text import Network, sigmoid_annealing, vae_text
from jaxgen.data.text import SHAKESPEARE
from jaxgen.nn.rnn import StackedRNN
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "path": "tinyshakespeare.txt.gz",  # a text file, see above
      "alphabet": SHAKESPEARE,  # "": the characters of the file
      "batch_size": 32,
      "length": 32,
      "num_steps": 5_000,
      "lr": 3e-3,
      "clip": 5.0,
      "width": 128,
      "embed_dim": 32,
      "latent_dim": 16,
      "annealing_middle": 2_500,  # steps
      "annealing_width": 500,
      "word_dropout": 0.75,
      "temperature": 1.0,
      "top_k": 0,
      "top_p": 1.0,
    }
  )


def build(config):
  config.alphabet = config.alphabet or data.characters_of(config.path)
  net = Network(
    StackedRNN(1, config.width),
    StackedRNN(1, config.width),
    num_tokens=len(config.alphabet),
    embed_dim=config.embed_dim,
    latent_dim=config.latent_dim,
  )
  lr = optax.cosine_decay_schedule(config.lr, config.num_steps)
  method = vae_text(
    net,
    tx=optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(lr)),
    kl_weight=sigmoid_annealing(config.annealing_middle, config.annealing_width),
    word_dropout=config.word_dropout,
    sampler=Sampler(config.temperature, config.top_k, config.top_p),
  )
  windows = dict(
    alphabet=config.alphabet, length=config.length, batch_size=config.batch_size
  )
  return dict(
    method=method,
    train_data=data.text(config.path, "train", **windows),
    eval_data=data.text(config.path, "test", **windows),
    num_steps=config.num_steps,
    every=Every(log=100, eval=1_000, sample=2_500, save=1_000),
    num_samples=16,
  )


if __name__ == "__main__":
  cli.run(__file__)
