"""VDVAE on CIFAR-10, at the paper's size.

  jaxgen train vae/hvae_cifar10 --workdir=runs/hvae_cifar10

Paper: Child, Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on
  Images (2020), arXiv 2011.10650.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images.
Published: at most 2.87 bits/dim on the test set, the mean of four seeds (authors' code,
  README), with 39,145,700 parameters (counted from that code).
Measure: bits_per_dim (published 2.87) --metrics=eval
Ours: not measured: a million steps, less than a week on two GPUs there.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.train import Every
from jaxgen.vae.hvae import clip_and_skip, hvae
from jaxgen.vae.hvae_networks import Ladder
from jaxgen.vae.likelihoods import rgb_logistic_pixels


def get_config():
  return ConfigDict(
    {  # Those of the authors' code, hps.py.
      "batch_size": 32,  # 16 on each of two GPUs
      "num_steps": 1_000_000,
      "lr": 2e-4,
      "warmup_steps": 100,  # of the rate
      "b2": 0.9,
      "weight_decay": 0.01,
      "clip_norm": 200.0,
      "skip_norm": 400.0,
      "ema_decay": 0.9999,
      "width": 384,
      "latent_dim": 16,
      # Resolution, blocks upwards, blocks downwards.
      "levels": ((32, 12, 22), (16, 7, 11), (8, 7, 6), (4, 4, 3), (1, 3, 1)),
      "num_mixtures": 10,
    }
  )


def build(config):
  likelihood = rgb_logistic_pixels(num_mixtures=config.num_mixtures)
  net = Ladder(
    (32, 32, 3), config.levels, config.width, config.latent_dim, likelihood.num_outputs
  )
  lr = optax.warmup_constant_schedule(0.0, config.lr, config.warmup_steps)
  adam = optax.adamw(lr, b2=config.b2, weight_decay=config.weight_decay)
  tx = clip_and_skip(adam, clip_norm=config.clip_norm, skip_norm=config.skip_norm)
  cifar = dict(batch_size=config.batch_size, image_size=32, channels=3)
  return dict(
    method=hvae(net, tx=tx, likelihood=likelihood, ema_decay=config.ema_decay),
    train_data=data.tfds_images("cifar10", "train", **cifar),
    eval_data=data.tfds_images("cifar10", "test", **cifar),
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=10_000, save=10_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
