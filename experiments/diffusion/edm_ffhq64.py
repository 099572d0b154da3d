"""EDM on FFHQ at 64x64: DDPM++.

  jaxgen train diffusion/edm_ffhq64 --workdir=runs/edm_ffhq64 --config.path=ffhq

Paper: Karras, Aittala, Aila, Laine, Elucidating the Design Space of Diffusion-Based
  Generative Models (2022), arXiv 2206.00364.
Dataset: a folder of images (--config.path), cropped; theirs was FFHQ, 70,000 faces, all
  of them for training. Here every tenth is left for `evaluate`.
Published: FID 2.39 with 79 calls of the network per image (Table 2, from memory;
  config F, VP).
Measure: fid (published 2.39) --features=inception --num_samples=50000
Ours: not measured. The network has 61,805,571 parameters, those of the authors'.
Hardware: theirs was 8 V100, about 4 days (from memory). Wall clock: not measured.
"""

import functools

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion.edm import edm
from jaxgen.diffusion.schedules import karras_levels
from jaxgen.nn.song_unet import SongUNet
from jaxgen.ops.labelled_augment import NUM_LABELS, labelled_augment
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # The authors' README, from memory
    {
      "path": "",  # a folder of images
      "on_error": "raise",  # for a file that cannot be decoded; or "skip"
      "batch_size": 256,
      "num_steps": 781_250,  # 200 million images
      "lr": 2e-4,
      "warmup_steps": 39_063,  # 10 million images
      "ema_half_life": 1_953.1,  # 0.5 million images
      "augment": 0.15,
      "sigma_data": 0.5,
      "num_sampling_steps": 40,
      "channels": 128,
      "channel_mults": (1, 2, 2, 2),
      "num_blocks": 4,
      "attention_resolutions": (16,),
      "dropout_rate": 0.05,
      "dtype": "float32",
    }
  )


def build(config):
  net = SongUNet(
    augment_dim=NUM_LABELS,
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_blocks=config.num_blocks,
    attention_resolutions=config.attention_resolutions,
    dropout_rate=config.dropout_rate,
    dtype=jnp.dtype(config.dtype),
  )
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  faces = dict(
    batch_size=config.batch_size, image_size=64, channels=3, on_error=config.on_error
  )
  return dict(
    method=edm(
      net,
      tx=optax.chain(optax.zero_nans(), optax.adam(lr)),  # nan to 0, as theirs
      augment=functools.partial(labelled_augment, p=config.augment),
      sigma_data=config.sigma_data,
      ema_half_life=config.ema_half_life,
      levels=karras_levels(config.num_sampling_steps),
    ),
    train_data=data.image_folder(config.path, split="train", **faces),
    eval_data=data.image_folder(config.path, split="test", **faces),
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=10_000, save=5_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
