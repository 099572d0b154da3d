"""EDM on ImageNet at 64x64: conditional, the ADM U-Net, stochastic sampling.

  jaxgen train diffusion/edm_imagenet64 --workdir=runs/edm_imagenet64 \
    --config.path=imagenet/train

Paper: Karras, Aittala, Aila, Laine, Elucidating the Design Space of Diffusion-Based
  Generative Models (2022), arXiv 2206.00364.
Dataset: a folder of images by class (--config.path), cropped; without one,
  imagenet2012 (TFDS), 1,281,167 / 50,000 images.
Published: FID 1.36 (abstract), by the stochastic sampler; 511 calls of the network per
  image (from memory).
Measure: fid (published 1.36) --features=inception --num_samples=50000
Ours: not measured. The network has 295,899,267 parameters, those of the authors'.
Hardware: theirs was 32 A100 (from memory). Wall clock: not measured.

On an accelerator, --config.dtype=bfloat16 halves the memory of activations; theirs were
float16. Parameters, averages and the loss stay float32.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion import stochastic_samplers
from jaxgen.diffusion.edm import edm
from jaxgen.diffusion.schedules import karras_levels
from jaxgen.nn.adm_unet import AdmUNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # The authors' README, from memory
    {
      "path": "",  # a folder of images by class; "": imagenet2012 (TFDS)
      "on_error": "raise",  # for a file that cannot be decoded; or "skip"
      "batch_size": 4096,
      "num_steps": 610_352,  # 2,500 million images
      "lr": 1e-4,
      "warmup_steps": 2_441,  # 10 million images
      "ema_half_life": 12_207.0,  # 50 million images
      "sigma_data": 0.5,
      "num_sampling_steps": 256,
      "num_classes": 1000,
      "channels": 192,
      "channel_mults": (1, 2, 3, 4),
      "num_blocks": 3,
      "attention_resolutions": (32, 16, 8),
      "head_dim": 64,
      "dropout_rate": 0.1,
      "dtype": "float32",
    }
  )


def build(config):
  net = AdmUNet(
    num_classes=config.num_classes,
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_blocks=config.num_blocks,
    attention_resolutions=config.attention_resolutions,
    head_dim=config.head_dim,
    dropout_rate=config.dropout_rate,
    dtype=jnp.dtype(config.dtype),
  )
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  images = dict(batch_size=config.batch_size, image_size=64, channels=3)
  if config.path:
    images |= dict(on_error=config.on_error)
    train_data = data.image_folder(config.path, split="train", **images)
    eval_data = data.image_folder(config.path, split="test", **images)
  else:
    train_data = data.tfds_images("imagenet2012", "train", **images)
    eval_data = data.tfds_images("imagenet2012", "validation", **images)
  return dict(
    method=edm(
      net,
      tx=optax.chain(optax.zero_nans(), optax.adam(lr)),  # nan to 0, as theirs
      conditional=True,
      sigma_data=config.sigma_data,
      ema_half_life=config.ema_half_life,
      levels=karras_levels(config.num_sampling_steps),
      sampler=stochastic_samplers.stochastic_heun,
    ),
    train_data=train_data,
    eval_data=eval_data,
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=10_000, save=5_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
