"""Progressive distillation on CIFAR-10: from 1,024 steps to 8, 4, 2 and 1.

  jaxgen train diffusion/progressive_distillation_cifar10 --workdir=runs/halving_cifar10

Paper: Salimans, Ho, Progressive Distillation for Fast Sampling of Diffusion Models
  (2022), arXiv 2202.00512.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images, mirrored at random.
Published: FID 9.12 in one step, 4.51 in two, 3.00 in four, 2.57 in eight (Table 2, from
  memory).
Measure: fid (published 9.12) --features=inception --num_samples=50000
Ours: not measured. The network is ADM's with the paper's width, depth and resolutions
  of attention: 60,004,099 parameters.
Hardware: theirs was TPUs. Wall clock: not measured.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import Phase, cli, data
from jaxgen.diffusion.progressive_distillation import (
  distil,
  progressive_distillation,
  teacher,
)
from jaxgen.nn.adm_unet import AdmUNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # Appendix, from memory
    {
      "batch_size": 128,
      "num_steps": 800_000,  # of the teacher
      "steps_per_round": 50_000,
      "last_steps": 100_000,  # of the rounds of two steps and of one
      "rounds": (512, 256, 128, 64, 32, 16, 8, 4, 2, 1),  # sampling steps of students
      "lr": 2e-4,
      "round_lr": 1e-4,  # falls to 0 in every round
      "clip_norm": 1.0,
      "ema_decay": 0.9999,
      "channels": 256,
      "channel_mults": (1, 1, 1),
      "num_blocks": 3,
      "attention_resolutions": (16, 8),
      "head_dim": 256,  # one head
      "dropout_rate": 0.2,
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
    dtype=jnp.dtype(config.dtype),
  )
  cifar = dict(batch_size=config.batch_size, image_size=32, channels=3)
  train_data = data.tfds_images("cifar10", "train", flip=True, **cifar)

  def tx(lr):
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(lr))

  def student(num_steps):
    steps = config.steps_per_round if num_steps > 2 else config.last_steps
    method = progressive_distillation(
      net,
      tx=tx(optax.linear_schedule(config.round_lr, 0.0, steps)),
      num_steps=num_steps,
      ema_decay=config.ema_decay,
    )
    return Phase(method, train_data, steps, distil)

  first = teacher(
    net,
    tx=tx(config.lr),
    num_steps=2 * config.rounds[0],
    ema_decay=config.ema_decay,
  )
  return dict(
    method=first,
    train_data=train_data,
    eval_data=data.tfds_images("cifar10", "test", **cifar),
    num_steps=config.num_steps,
    then=[student(n) for n in config.rounds],
    every=Every(log=100, eval=10_000, sample=50_000, save=10_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
