"""DDPM as diffusers publishes it: what `jaxgen import diffusers` makes a run of.

  jaxgen import diffusers FOLDER --out=runs/imported
  jaxgen sample runs/imported --num=16 --out=samples.png
  jaxgen train diffusion/ddpm_diffusers --workdir=runs/imported --config.num_steps=1000

FOLDER holds the files of google/ddpm-cifar10-32 and the like; the last line trains on.

Paper: Ho, Jain, Abbeel, Denoising Diffusion Probabilistic Models (2020), arXiv
  2006.11239.
Dataset: a folder of images (`path`), or a set of TFDS by name.
Published: of google/ddpm-cifar10-32 what ddpm_cifar10 says.
Measure: fid --features=inception --num_samples=50000
Ours: not measured: no published weights were at hand. A checkpoint with random weights
  that diffusers wrote gives its outputs (tests/test_diffusers_file.py).
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion.ddpm import ddpm
from jaxgen.diffusion.sampling import large_variance, small_variance
from jaxgen.diffusion.schedules import cosine_betas, linear_betas
from jaxgen.nn.unet import UNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "path": "",  # a folder of images; empty: `dataset`
      "on_error": "raise",  # "skip" leaves out files that cannot be read
      "dataset": "cifar10",
      "image_size": 32,
      "image_channels": 3,
      "batch_size": 128,
      "num_steps": 0,
      "lr": 2e-4,
      "clip_norm": 1.0,
      "ema_decay": 0.9999,
      "num_timesteps": 1_000,
      "beta_start": 1e-4,
      "beta_end": 0.02,
      "beta_schedule": "linear",  # or cosine
      "variance": "large",  # or small
      "channels": 128,
      "channel_mults": (1, 2, 2, 2),
      "num_res_blocks": 2,
      "attention_resolutions": (16,),
      "num_groups": 32,
      "dropout_rate": 0.0,
      "out_channels": 3,
    }
  )


def build(config):
  net = UNet(
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_res_blocks=config.num_res_blocks,
    attention_resolutions=config.attention_resolutions,
    num_groups=config.num_groups,
    dropout_rate=config.dropout_rate,
    out_channels=config.out_channels,
  )
  betas = {
    "linear": linear_betas(config.num_timesteps, config.beta_start, config.beta_end),
    "cosine": cosine_betas(config.num_timesteps),
  }[config.beta_schedule]
  variance = {"large": large_variance, "small": small_variance}[config.variance]
  adam = optax.adam(config.lr)
  images = dict(
    batch_size=config.batch_size,
    image_size=config.image_size,
    channels=config.image_channels,
  )
  if config.path:
    train_data = data.image_folder(config.path, on_error=config.on_error, **images)
  else:
    train_data = data.tfds_images(config.dataset, "train", label=None, **images)
  return dict(
    method=ddpm(
      net,
      tx=optax.chain(optax.clip_by_global_norm(config.clip_norm), adam),
      betas=betas,
      ema_decay=config.ema_decay,
      variance=variance,
    ),
    train_data=train_data,
    num_steps=config.num_steps,
    every=Every(log=100, sample=1_000, save=1_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
