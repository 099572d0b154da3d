"""SR3 on a folder of faces: from 16x16 pixels to 128x128, the paper's widths.

  jaxgen train diffusion/sr3_faces --workdir=runs/sr3_faces --config.path=FOLDER
  jaxgen sample runs/sr3_faces --mode=upscale --low=small.png --out=large.png

Images of FOLDER are cropped to a centred square and resized. Every tenth of them, by
name, is the test set: the paper trains on FFHQ, tests on CelebA-HQ.

Paper: Saharia, Ho, Chan, Salimans, Fleet & Norouzi, Image Super-Resolution via
  Iterative Refinement (2021), arXiv 2104.07636.
Dataset: a folder of images of your own.
Published: FID 11.3, PSNR 23.04, SSIM 0.65 for CelebA-HQ (from memory).
Measure: fid --features=inception --num_samples=10000
Ours: not measured. The network has 523,908,611 parameters; theirs, with what it takes
  from BigGAN, has 550 M (from memory).
Hardware: theirs was 64 TPU v3 chips (from memory). Wall clock: not measured.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion.schedules import linear_betas
from jaxgen.diffusion.sr3 import Network, sr3
from jaxgen.nn.unet import UNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # From memory, but for the schedule
    {
      "path": "",  # a folder of images, see above
      "image_size": 128,
      "factor": 8,
      "batch_size": 256,
      "num_steps": 1_000_000,
      "lr": 1e-4,
      "warmup_steps": 10_000,
      "ema_decay": 0.9999,
      "num_timesteps": 2_000,
      "beta_start": 1e-6,
      "beta_end": 1e-2,
      "channels": 128,
      "channel_mults": (1, 2, 4, 8, 8),
      "num_res_blocks": 3,
      "attention_resolutions": (16,),
      "dropout_rate": 0.2,
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
    out_channels=3,
    dtype=jnp.dtype(config.dtype),
  )
  betas = linear_betas(config.num_timesteps, config.beta_start, config.beta_end)
  faces = dict(batch_size=config.batch_size, image_size=config.image_size, channels=3)
  return dict(
    method=sr3(
      Network(net),
      tx=optax.adam(optax.linear_schedule(0.0, config.lr, config.warmup_steps)),
      betas=betas,
      factor=config.factor,
      ema_decay=config.ema_decay,
    ),
    train_data=data.image_folder(config.path, split="train", **faces),
    eval_data=data.image_folder(config.path, split="test", **faces),
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=50_000, save=10_000),
    num_samples=16,
  )


if __name__ == "__main__":
  cli.run(__file__)
