"""VDM on CIFAR-10, the configuration of the authors' code.

  jaxgen train diffusion/vdm_cifar10 --workdir=runs/vdm_cifar10

Paper: Kingma, Salimans, Poole, Ho, Variational Diffusion Models (2021), arXiv
  2107.00630.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images, as they are.
Published: 2.65 bits per dimension without augmentation (abstract's Table 1, from
  memory); 2.637 by the authors' code after 10 million steps (its README).
Measure: bits_per_dim (published 2.637) --metrics=eval
Ours: not measured. The networks have 30,578,181 parameters together, those of the
  authors': 30,578,179 of the U-Net and 2 of the schedule, "net/score" and
  "net/schedule".
Hardware: theirs was TPUs v3. Wall clock: not measured.

On an accelerator, --config.dtype=bfloat16 halves the memory of activations;
parameters, averages and the loss stay float32.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion.learned_schedule import Network
from jaxgen.diffusion.vdm import vdm
from jaxgen.nn.vdm_unet import LinearSchedule, VdmUNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # the authors' configs/cifar10.py
    {
      "batch_size": 128,
      "num_steps": 10_000_000,
      "lr": 2e-4,
      "warmup_steps": 100,
      "b2": 0.99,
      "weight_decay": 0.01,
      "ema_decay": 0.9999,
      "num_sampling_steps": 1_000,
      "gamma_min": -13.3,
      "gamma_max": 5.0,
      "channels": 128,
      "num_blocks": 32,
      "dropout_rate": 0.1,
      "fourier": (6, 7),
      "dtype": "float32",
    }
  )


def build(config):
  ends = (config.gamma_min, config.gamma_max)
  score = VdmUNet(
    *ends,
    channels=config.channels,
    num_blocks=config.num_blocks,
    dropout_rate=config.dropout_rate,
    fourier=config.fourier,
    dtype=jnp.dtype(config.dtype),
  )
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  cifar = dict(batch_size=config.batch_size, image_size=32, channels=3)
  return dict(
    method=vdm(
      Network(score, LinearSchedule(*ends)),
      tx=optax.adamw(lr, b2=config.b2, weight_decay=config.weight_decay),
      num_sampling_steps=config.num_sampling_steps,
      ema_decay=config.ema_decay,
    ),
    train_data=data.tfds_images("cifar10", "train", **cifar),
    eval_data=data.tfds_images("cifar10", "test", **cifar),
    num_steps=config.num_steps,
    every=Every(log=1_000, eval=10_000, sample=50_000, save=10_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
