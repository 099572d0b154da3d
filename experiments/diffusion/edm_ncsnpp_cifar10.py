"""EDM on CIFAR-10: conditional, NCSN++.

  jaxgen train diffusion/edm_ncsnpp_cifar10 --workdir=runs/edm_ncsnpp_cifar10

Paper: Karras, Aittala, Aila, Laine, Elucidating the Design Space of Diffusion-Based
  Generative Models (2022), arXiv 2206.00364.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images; the augmentation mirrors them.
Published: FID 1.79 with 35 calls of the network per image, the least of three sets of
  50,000 images (Table 2; config F, VE).
Measure: fid (published 1.79) --features=inception --num_samples=50000
Ours: not measured. The network has 56,400,643 parameters, those of the authors'.
Hardware: theirs was 8 V100, about 2 days (the authors' README). Wall clock: not
  measured.
"""

import functools

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion.edm import edm
from jaxgen.nn.resampling_unet import BINOMIAL
from jaxgen.nn.song_unet import SongUNet
from jaxgen.ops.labelled_augment import NUM_LABELS, labelled_augment
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # the defaults of the authors' train.py
    {
      "batch_size": 512,
      "num_steps": 390_625,  # 200 million images
      "lr": 1e-3,
      "warmup_steps": 19_531,  # 10 million images
      "ema_half_life": 976.6,  # 0.5 million images
      "num_classes": 10,  # 0: no labels
      "augment": 0.12,  # 0: none, and a network that knows of none
      "sigma_data": 0.5,
      "channels": 128,
      "channel_mults": (2, 2, 2),
      "num_blocks": 4,
      "attention_resolutions": (16,),
      "dropout_rate": 0.13,
      "dtype": "float32",
    }
  )


def build(config):
  net = SongUNet(
    num_classes=config.num_classes,
    augment_dim=NUM_LABELS if config.augment else 0,
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_blocks=config.num_blocks,
    attention_resolutions=config.attention_resolutions,
    dropout_rate=config.dropout_rate,
    noise_embedding="fourier",
    embedding_mult=2,
    residual_input=True,
    taps=BINOMIAL,
    dtype=jnp.dtype(config.dtype),
  )
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  augment = functools.partial(labelled_augment, p=config.augment)
  cifar = dict(batch_size=config.batch_size, image_size=32, channels=3)
  return dict(
    method=edm(
      net,
      tx=optax.chain(optax.zero_nans(), optax.adam(lr)),  # nan to 0, as theirs
      conditional=config.num_classes > 0,
      augment=augment if config.augment else None,
      sigma_data=config.sigma_data,
      ema_half_life=config.ema_half_life,
    ),
    train_data=data.tfds_images("cifar10", "train", **cifar),
    eval_data=data.tfds_images("cifar10", "test", **cifar),
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=10_000, save=5_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
