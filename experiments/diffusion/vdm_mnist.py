"""VDM on MNIST at 28x28: bits per dimension, small enough for a CPU.

  jaxgen train diffusion/vdm_mnist --workdir=runs/vdm_mnist
  jaxgen reproduce diffusion/vdm_mnist --seeds=1

Paper: Kingma, Salimans, Poole, Ho, Variational Diffusion Models (2021), arXiv
  2107.00630.
Dataset: mnist (TFDS), 60,000 / 10,000 images, 8 bits.
Published: none on this set in the paper.
Measure: bits_per_dim --metrics=eval
Ours: 1.405 bits/dim [1.391, 1.418] over the 10,000 test images (diffusion 1.387,
  reconstruction 0.014, latent 0.004), after 2,000 steps, 1.1 epochs.
With an average of weights whose decay was 0.998 from the first step: 1.862,
and a Frechet distance of 431, which was not measured again.
The grid of 64 was looked at: strokes and specks, not digits. Why is not measured; the
paper's network, of which this is a small one, has no lower resolution.
Hardware: one core of an AMD EPYC, shared for a part. Wall clock: 42 min of training, 3
of scores. Seed 0.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion.learned_schedule import Network
from jaxgen.diffusion.vdm import vdm
from jaxgen.nn.vdm_unet import MonotoneSchedule, VdmUNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 32,
      "num_steps": 2_000,  # 1.1 epochs
      "lr": 3e-3,
      "warmup_steps": 100,
      "clip_norm": 1.0,
      "ema_decay": 0.998,
      "num_sampling_steps": 100,
      "gamma_min": -13.3,
      "gamma_max": 5.0,
      "channels": 16,
      "num_blocks": 2,
      "num_groups": 8,
      "fourier": (6, 7),  # as the paper has them
      "dtype": "float32",
    }
  )


def build(config):
  ends = (config.gamma_min, config.gamma_max)
  score = VdmUNet(
    *ends,
    channels=config.channels,
    num_blocks=config.num_blocks,
    num_groups=config.num_groups,
    fourier=config.fourier,
    dropout_rate=0.0,
    dtype=jnp.dtype(config.dtype),
  )
  lr = optax.warmup_cosine_decay_schedule(
    0.0, config.lr, config.warmup_steps, config.num_steps
  )
  tx = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(lr))
  mnist = dict(batch_size=config.batch_size, image_size=28, channels=1)
  return dict(
    method=vdm(
      Network(score, MonotoneSchedule(*ends)),
      tx=tx,
      num_sampling_steps=config.num_sampling_steps,
      ema_decay=config.ema_decay,
    ),
    train_data=data.tfds_images("mnist", "train", **mnist),
    eval_data=data.tfds_images("mnist", "test", **mnist),
    num_steps=config.num_steps,
    every=Every(log=100, eval=1_000, sample=1_000, save=1_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
