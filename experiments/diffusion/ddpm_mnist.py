"""DDPM on MNIST at 28x28, small enough for a CPU.

  jaxgen train diffusion/ddpm_mnist --workdir=runs/ddpm_mnist

Paper: Ho, Jain, Abbeel, Denoising Diffusion Probabilistic Models (2020), arXiv
  2006.11239.
Dataset: mnist (TFDS), 60,000 / 10,000 images.
Published: none in the paper.
Measure: frechet --metrics=frechet,prdc,labels,eval --features=classifier
  --weights=../rulers/mnist_28.npz --num_samples=1000
Ours: frechet 27.9 [24.0, 31.7] of 1,000 samples (1,000 test images: 5.2), precision
  0.76, recall 0.94, confidence 0.905 (training set 0.991), all 10 classes; test
  loss 0.0230 after 6,000 steps (3.2 epochs), 0.0245 after 3,000.
Most of the samples in the grid read as a digit; a few are strokes of the right kind.
Hardware: one core of an AMD EPYC, beside other jobs on the other.
Wall clock: 31 min; 3.7 steps/s (120 images/s). Drawing 1,000 samples: 12 min.
Seed 0.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion.ddpm import ddpm, linear_betas
from jaxgen.nn.unet import UNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 32,
      "num_steps": 6_000,  # 3.2 epochs
      "lr": 2e-3,
      "warmup_steps": 100,
      "clip_norm": 1.0,
      "ema_decay": 0.998,
      "num_timesteps": 250,
      "beta_start": 4e-4,  # the paper's 1e-4 ... 0.02 for 1,000 steps, times 4
      "beta_end": 0.08,
      "channels": 16,
      "channel_mults": (1, 2, 2),  # 28x28, 14x14, 7x7
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
    attention_resolutions=(),  # the middle has it, at 7x7
    num_groups=config.num_groups,
    dropout_rate=0.0,
    dtype=jnp.dtype(config.dtype),
  )
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  tx = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(lr))
  betas = linear_betas(config.num_timesteps, config.beta_start, config.beta_end)
  mnist = dict(batch_size=config.batch_size, image_size=28, channels=1)
  return dict(
    method=ddpm(net, tx=tx, betas=betas, ema_decay=config.ema_decay),
    train_data=data.tfds_images("mnist", "train", **mnist),
    eval_data=data.tfds_images("mnist", "test", **mnist),
    num_steps=config.num_steps,
    every=Every(log=100, eval=3_000, sample=2_000, save=1_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
