"""DDIM on 8x8 handwritten digits: one network, many samplers. No download, no GPU.

  jaxgen train diffusion/ddim_digits --workdir=runs/ddim_digits
  python experiments/diffusion/ddim_digits.py --table=runs/ddim_digits

Paper: Song, Meng, Ermon, Denoising Diffusion Implicit Models (2020), arXiv 2010.02502.
Dataset: digits (scikit-learn's handwritten digits), 1,500 / 297 images.
Published: none for this set.
Measure: frechet --metrics=frechet,prdc,labels,eval
  --features=classifier --num_samples=1000
Ours: not measured.
Hardware: 2 cores of an AMD EPYC, shared with other jobs. Wall clock: not measured.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion.ddim import ddim
from jaxgen.diffusion.schedules import linear_betas, linear_steps, quadratic_steps
from jaxgen.nn.unet import UNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 64,
      "num_steps": 4_000,  # 171 epochs
      "lr": 2e-3,
      "warmup_steps": 100,
      "clip_norm": 1.0,
      "ema_decay": 0.998,
      "num_timesteps": 1_000,
      "beta_start": 1e-4,
      "beta_end": 0.02,
      "num_sample_steps": 50,
      "quadratic": False,
      "eta": 0.0,
      "channels": 16,
      "channel_mults": (1, 2),
      "num_res_blocks": 1,
      "num_groups": 8,
    }
  )


def network(config):
  return UNet(
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_res_blocks=config.num_res_blocks,
    attention_resolutions=(),  # the middle has it, at 4x4
    num_groups=config.num_groups,
    dropout_rate=0.0,
  )


def optimizer(config):
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(lr))


def build(config):
  betas = linear_betas(config.num_timesteps, config.beta_start, config.beta_end)
  subset = quadratic_steps if config.quadratic else linear_steps
  digits = dict(batch_size=config.batch_size, image_size=8, channels=1)
  return dict(
    method=ddim(
      network(config),
      tx=optimizer(config),
      betas=betas,
      steps=subset(config.num_timesteps, config.num_sample_steps),
      eta=config.eta,
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
