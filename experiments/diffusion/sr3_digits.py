"""SR3 on 8x8 handwritten digits: from 2x2 pixels to 8x8.

  jaxgen train diffusion/sr3_digits --workdir=runs/sr3_digits
  jaxgen sample runs/sr3_digits --mode=upscale --num=16 --out=pairs.png

Paper: Saharia, Ho, Chan, Salimans, Fleet & Norouzi, Image Super-Resolution via
  Iterative Refinement (2021), arXiv 2104.07636.
Dataset: digits (scikit-learn's handwritten digits), 1,500 / 297 images.
Published: none for this set.
Measure: frechet --metrics=frechet,labels,eval --features=classifier
  --weights=../rulers/digits.npz --num_samples=1000
Ours: frechet 8.5 [2.7, 14.2] of 1,000 samples, each drawn for the 2x2 pixels of a
  training image (297 test images: 58.4; DDPM without them: 8.78 [6.55, 11.01] over
  three seeds), all 10 classes evenly, confidence of the classifier 0.990; test loss
  0.0626 (DDPM: 0.0782).
Of 16 pairs that were looked at, every sample reads as a digit and is as bright as the
blur it was drawn for.
Hardware: one core of an AMD EPYC, the other busy. Wall clock: 3.4 min. Seed 0.
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
  return ConfigDict(
    {
      "factor": 4,  # from 2x2 pixels
      "batch_size": 64,
      "num_steps": 4_000,  # 171 epochs
      "lr": 2e-3,
      "warmup_steps": 100,
      "clip_norm": 1.0,
      "ema_decay": 0.998,
      "num_timesteps": 250,
      "beta_start": 4e-4,  # the paper's 1e-4 ... 0.02 for 1,000 steps, times 4
      "beta_end": 0.08,
      "channels": 16,
      "channel_mults": (1, 2),
      "num_res_blocks": 1,
      "num_groups": 8,
      "dtype": "float32",
    }
  )


def build(config):
  net = UNet(
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_res_blocks=config.num_res_blocks,
    attention_resolutions=(),  # the middle has it, at 4x4
    num_groups=config.num_groups,
    out_channels=1,
    dropout_rate=0.0,
    dtype=jnp.dtype(config.dtype),
  )
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  tx = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(lr))
  betas = linear_betas(config.num_timesteps, config.beta_start, config.beta_end)
  digits = dict(batch_size=config.batch_size, image_size=8, channels=1)
  return dict(
    method=sr3(
      Network(net),
      tx=tx,
      betas=betas,
      factor=config.factor,
      ema_decay=config.ema_decay,
    ),
    train_data=data.tfds_images("digits", "train", **digits),
    eval_data=data.tfds_images("digits", "test", **digits),
    num_steps=config.num_steps,
    every=Every(log=100, eval=1_000, sample=1_000, save=1_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
