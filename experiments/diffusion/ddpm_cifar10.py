"""DDPM on CIFAR-10, the configuration of the paper.

  jaxgen train diffusion/ddpm_cifar10 --workdir=runs/ddpm_cifar10
  jaxgen reproduce diffusion/ddpm_cifar10 --seeds=1 --budget=small --weights=FILE

The second trains SMALL, a network of 1,525,411 parameters for 2.6 epochs, on a folder
of the training images, ./cifar10, and compares with every 20th of them (sorted by
path), ./cifar10_2500.

Paper: Ho, Jain, Abbeel, Denoising Diffusion Probabilistic Models (2020), arXiv
  2006.11239.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images, mirrored at random.
Dataset small: cifar10's 50,000 training images as JPEG files (./cifar10), mirrored at
  random.
Published: FID 3.17, inception score 9.46, at most 3.75 bits per dimension (Table 1,
  L_simple), with 35.7 M parameters after 800,000 steps (Appendix B).
Measure: fid (published 3.17) --features=inception --num_samples=50000
Measure small: frechet --metrics=frechet,prdc --features=squeezenet --num_samples=500
  --reference=cifar10_2500
Ours: not measured. The network has 35,746,307 parameters, those of the authors'. Of
  SMALL, on images that had been compressed as JPEG, the Frechet distance of features of
  SqueezeNet of 500 samples is 13,862 [13,199, 14,524], that of 500 training images
  1,091 (every 100th from index 7 on, in ./cifar10_500, by `jaxgen evaluate
  --samples=cifar10_500` and the flags above). Precision 0.32 (theirs 0.70), recall 0.01
  (0.85).
The grid of 64 of SMALL was looked at: colours and textures of photographs, light
grounds and skies, and no object that one could name.
Hardware: theirs was a TPU v3-8, 10.6 hours (Appendix B); SMALL, one core of an EPYC.
Wall clock: 76 min (28 images/s), 100 network evaluations a sample. Seed 0.

On an accelerator, --config.dtype=bfloat16 halves the memory of activations;
parameters, averages and the loss stay float32.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion.ddpm import ddpm, linear_betas
from jaxgen.nn.unet import UNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # Section 4 and Appendix B
    {
      "path": "",  # a folder of images; empty: cifar10 (TFDS)
      "on_error": "raise",  # "skip" leaves out files that cannot be read
      "batch_size": 128,
      "num_steps": 800_000,
      "lr": 2e-4,
      "warmup_steps": 5_000,  # the authors' code
      "clip_norm": 1.0,  # the authors' code
      "ema_decay": 0.9999,
      "num_timesteps": 1_000,
      "beta_start": 1e-4,
      "beta_end": 0.02,
      "channels": 128,
      "channel_mults": (1, 2, 2, 2),
      "num_res_blocks": 2,
      "attention_resolutions": (16,),
      "num_groups": 32,  # the authors' code
      "dropout_rate": 0.1,
      "dtype": "float32",
    }
  )


SMALL = {  # for one core of a CPU; the same process in a tenth of the steps
  "path": "cifar10",
  "batch_size": 32,
  "num_steps": 4_000,
  "lr": 1e-3,
  "warmup_steps": 200,
  "ema_decay": 0.995,
  "num_timesteps": 100,
  "beta_start": 1e-3,
  "beta_end": 0.2,
  "channels": 32,
  "num_res_blocks": 1,
  "num_groups": 8,
  "dropout_rate": 0.0,
}


def build(config):
  net = UNet(
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_res_blocks=config.num_res_blocks,
    attention_resolutions=config.attention_resolutions,
    num_groups=config.num_groups,
    dropout_rate=config.dropout_rate,
    dtype=jnp.dtype(config.dtype),
  )
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  tx = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(lr))
  betas = linear_betas(config.num_timesteps, config.beta_start, config.beta_end)
  images = dict(batch_size=config.batch_size, image_size=32, channels=3)
  if config.path:
    train_data = data.image_folder(
      config.path, on_error=config.on_error, flip=True, **images
    )
    eval_data = None
  else:
    train_data = data.tfds_images("cifar10", "train", flip=True, **images)
    eval_data = data.tfds_images("cifar10", "test", **images)
  return dict(
    method=ddpm(net, tx=tx, betas=betas, ema_decay=config.ema_decay),
    train_data=train_data,
    eval_data=eval_data,
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=50_000, save=10_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
