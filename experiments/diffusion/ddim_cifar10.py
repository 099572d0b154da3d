"""DDIM on CIFAR-10, the configuration of the paper.

  jaxgen train diffusion/ddim_cifar10 --workdir=runs/ddim_cifar10

Paper: Song, Meng, Ermon, Denoising Diffusion Implicit Models (2020), arXiv 2010.02502.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images, mirrored at random.
Published: FID 13.36, 6.84, 4.67, 4.16 with eta = 0 and 10, 20, 50, 100 steps (Table 1,
  from memory), by DDPM's network: the authors' has 35.7 M parameters.
Measure: fid (published 4.67) --features=inception --num_samples=50000
Ours: not measured. The network has 35,746,307 parameters.
Hardware: none. Wall clock: not measured.

The subset is the quadratic one, as theirs for CIFAR-10 (Appendix D.2).
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion.ddim import ddim
from jaxgen.diffusion.schedules import linear_betas, quadratic_steps
from jaxgen.nn.unet import UNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # DDPM's
    {
      "batch_size": 128,
      "num_steps": 800_000,
      "lr": 2e-4,
      "warmup_steps": 5_000,  # the authors' code
      "clip_norm": 1.0,  # the authors' code
      "ema_decay": 0.9999,
      "num_timesteps": 1_000,
      "beta_start": 1e-4,
      "beta_end": 0.02,
      "num_sample_steps": 50,
      "eta": 0.0,
      "channels": 128,
      "channel_mults": (1, 2, 2, 2),
      "num_res_blocks": 2,
      "attention_resolutions": (16,),
      "dropout_rate": 0.1,
      "dtype": "float32",
    }
  )


def build(config):
  net = UNet(
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_res_blocks=config.num_res_blocks,
    attention_resolutions=config.attention_resolutions,
    dropout_rate=config.dropout_rate,
    dtype=jnp.dtype(config.dtype),
  )
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  tx = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(lr))
  betas = linear_betas(config.num_timesteps, config.beta_start, config.beta_end)
  cifar = dict(batch_size=config.batch_size, image_size=32, channels=3)
  return dict(
    method=ddim(
      net,
      tx=tx,
      betas=betas,
      steps=quadratic_steps(config.num_timesteps, config.num_sample_steps),
      eta=config.eta,
      ema_decay=config.ema_decay,
    ),
    train_data=data.tfds_images("cifar10", "train", flip=True, **cifar),
    eval_data=data.tfds_images("cifar10", "test", **cifar),
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=50_000, save=10_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
