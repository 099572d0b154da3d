"""Improved DDPM on CIFAR-10: cosine schedule of 4,000 steps, learned variances.

  jaxgen train diffusion/improved_ddpm_cifar10 --workdir=runs/improved_ddpm_cifar10

--config.hybrid=False trains the bound alone (L_vlb), for fewer bits and a worse FID.

Paper: Nichol, Dhariwal, Improved Denoising Diffusion Probabilistic Models (2021), arXiv
  2102.09672.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images.
Published: 3.17 bits per dimension and FID 3.19 with L_hybrid, 2.94 and 11.47 with
  L_vlb, after 500,000 steps (Table 2, from memory).
Measure: bits_per_dim (published 3.17) --metrics=nll
Ours: not measured. The network is ADM's in their widths, depths, heads and resolutions
  of attention, whose blocks halve and double the image where theirs has strided
  convolutions between blocks: 57,094,662 parameters.
Hardware: theirs is not known here. Wall clock: not measured.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion.improved_ddpm import HYBRID, VLB, improved_ddpm
from jaxgen.diffusion.schedules import cosine_betas
from jaxgen.nn.adm_unet import AdmUNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # The flags of the authors' README, from memory
    {
      "batch_size": 128,
      "num_steps": 500_000,
      "lr": 1e-4,
      "ema_decay": 0.9999,
      "num_timesteps": 4_000,
      "num_sample_steps": 4_000,
      "hybrid": True,
      "channels": 128,
      "channel_mults": (1, 2, 2, 2),
      "num_blocks": 3,
      "attention_resolutions": (16, 8),
      "head_dim": 64,  # four heads
      "dropout_rate": 0.3,
      "dtype": "float32",
    }
  )


def build(config):
  net = AdmUNet(
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_blocks=config.num_blocks,
    attention_resolutions=config.attention_resolutions,
    head_dim=config.head_dim,
    dropout_rate=config.dropout_rate,
    num_outputs=2,
    dtype=jnp.dtype(config.dtype),
  )
  cifar = dict(batch_size=config.batch_size, image_size=32, channels=3)
  return dict(
    method=improved_ddpm(
      net,
      tx=optax.adam(config.lr),
      betas=cosine_betas(config.num_timesteps),
      objective=HYBRID if config.hybrid else VLB,
      num_sample_steps=config.num_sample_steps,
      ema_decay=config.ema_decay,
    ),
    train_data=data.tfds_images("cifar10", "train", **cifar),
    eval_data=data.tfds_images("cifar10", "test", **cifar),
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=50_000, save=10_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
