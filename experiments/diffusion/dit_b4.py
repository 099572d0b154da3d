"""DiT-B/4 on ImageNet at 256x256.

  jaxgen train diffusion/dit_b4 --workdir=runs/dit_b4 --config.path=imagenet/train

Paper: Peebles, Xie, Scalable Diffusion Models with Transformers (2022), arXiv
  2212.09748.
Dataset: a folder of images by class (--config.path), cropped; without one,
  imagenet2012 (TFDS), 1,281,167 / 50,000 images.
Published: FID 68.4 of 50,000 samples after 400,000 steps without guidance (the authors'
  README).
Measure: fid --features=inception --num_samples=50000
Ours: not measured. The network has 130,426,496 parameters, as many as the authors'
  trains.
Hardware: theirs was a TPU v3 pod. Wall clock: not measured.

The paper's latents, 32x32x4, are those of Stable Diffusion's autoencoder, which is not
part of this project: `encode` and `decode` below, means over 8x8 pixels with an empty
fourth channel and back, stand for it, and should be replaced by a frozen one.

On an accelerator, --config.dtype=bfloat16 halves the memory of activations;
parameters, averages and the loss stay float32.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion.dit import dit
from jaxgen.diffusion.schedules import linear_betas
from jaxgen.nn.dit import DiT
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # Sections 4 and 5, and the authors' code
    {
      "path": "",
      "on_error": "raise",  # "skip" leaves out files that cannot be read
      "batch_size": 256,
      "num_steps": 400_000,
      "lr": 1e-4,
      "ema_decay": 0.9999,
      "num_timesteps": 1_000,
      "beta_start": 1e-4,
      "beta_end": 0.02,
      "num_sampling_steps": 250,
      "guidance": 1.0,
      "patch_size": 4,
      "depth": 12,
      "width": 768,
      "num_heads": 12,
      "remat": False,
      "dtype": "float32",
    }
  )


def encode(x, key):
  """[B, 256, 256, 3] -> [B, 32, 32, 4]; stands for an autoencoder's."""
  del key
  means = x.reshape(len(x), 32, 8, 32, 8, 3).mean(axis=(2, 4))
  return jnp.pad(means, ((0, 0), (0, 0), (0, 0), (0, 1)))


def decode(z):
  """[B, 32, 32, 4] -> [B, 256, 256, 3]."""
  return z[..., :3].repeat(8, axis=1).repeat(8, axis=2)


def build(config):
  net = DiT(
    num_classes=1000,
    patch_size=config.patch_size,
    depth=config.depth,
    width=config.width,
    num_heads=config.num_heads,
    scan=True,
    remat=config.remat,
    dtype=jnp.dtype(config.dtype),
  )
  images = dict(batch_size=config.batch_size, image_size=256, channels=3)
  if config.path:
    train_data = data.image_folder(
      config.path, on_error=config.on_error, split="train", flip=True, **images
    )
    eval_data = data.image_folder(
      config.path, on_error=config.on_error, split="test", **images
    )
  else:
    train_data = data.tfds_images("imagenet2012", "train", flip=True, **images)
    eval_data = data.tfds_images("imagenet2012", "validation", **images)
  return dict(
    method=dit(
      net,
      tx=optax.adam(config.lr),
      betas=linear_betas(config.num_timesteps, config.beta_start, config.beta_end),
      encode=encode,
      decode=decode,
      guidance=config.guidance,
      num_sampling_steps=config.num_sampling_steps,
      ema_decay=config.ema_decay,
    ),
    train_data=train_data,
    eval_data=eval_data,
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=50_000, save=10_000),
    num_samples=16,
  )


if __name__ == "__main__":
  cli.run(__file__)
