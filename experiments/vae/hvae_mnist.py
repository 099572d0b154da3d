"""A small hierarchical VAE on dynamically binarised MNIST.

  jaxgen train vae/hvae_mnist --workdir=runs/hvae_mnist

Paper: Sonderby et al., Ladder Variational Autoencoders (2016), arXiv 1602.02282, with
  the blocks of Child (2020), arXiv 2011.10650.
Dataset: mnist (TFDS), 60,000 / 10,000 images, every pixel redrawn as
  Bernoulli(pixel / 255) each time an image is used.
Published: no number of this network. (Five layers of Ladder VAE: not looked up.)
Measure: nll --metrics=nll,eval
Ours: not measured. A run was cut short after 3,000 steps (5 epochs), by when the test
  ELBO was -102.8 nats (reconstruction -78.2, KL 24.7, of which 21.2 at 4x4). The same
  bound of `vae/vae_mnist` after 10 epochs is -106.7; its NLL of 90.46
  after 100 epochs is not beaten by anything measured here.
Hardware: 2 cores of an AMD EPYC, shared with many jobs: 65 ms of CPU time per step,
compiling excluded. `jaxgen evaluate --metrics=nll` was not run: its 50 million draws
are for an accelerator. 262,673 parameters. Seed 0.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.train import Every
from jaxgen.vae.hvae import clip_and_skip, hvae
from jaxgen.vae.hvae_networks import Ladder


def get_config():
  return ConfigDict(
    {
      "batch_size": 50,
      "num_steps": 12_000,  # 10 epochs
      "lr": 2e-3,
      "lr_decay_steps": 18_000,  # to 0; stopped before, with an average of parameters
      "lr_warmup_steps": 200,
      "kl_warmup_steps": 600,
      "b2": 0.99,
      "weight_decay": 0.01,
      "clip_norm": 200.0,
      "skip_norm": 400.0,
      "ema_decay": 0.998,
      "width": 128,
      "middle": 32,
      "latent_dim": 8,
      "patch": 7,  # 4x4 squares of 7x7 pixels
      # Resolution, blocks upwards, blocks downwards.
      "levels": ((4, 1, 2), (2, 1, 2), (1, 1, 2)),
      "nll_draws": 50,  # of which the NLL is a bound, in expectation
    }
  )


def build(config):
  net = Ladder(
    (28, 28, 1),
    config.levels,
    config.width,
    config.latent_dim,
    num_outputs=1,
    middle=config.middle,
    patch=config.patch,
  )
  lr = optax.warmup_cosine_decay_schedule(
    0.0, config.lr, config.lr_warmup_steps, config.lr_decay_steps
  )
  adam = optax.adamw(lr, b2=config.b2, weight_decay=config.weight_decay)
  tx = clip_and_skip(adam, clip_norm=config.clip_norm, skip_norm=config.skip_norm)
  mnist = dict(image_size=28, channels=1)
  method = hvae(
    net,
    tx=tx,
    warmup_steps=config.kl_warmup_steps,
    ema_decay=config.ema_decay,
    nll_draws=config.nll_draws,
  )
  return dict(
    method=method,
    train_data=data.tfds_images(
      "mnist", "train", batch_size=config.batch_size, **mnist
    ),
    eval_data=data.tfds_images("mnist", "test", batch_size=100, **mnist),
    num_steps=config.num_steps,
    every=Every(log=100, eval=3_000, sample=3_000, save=1_500),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
