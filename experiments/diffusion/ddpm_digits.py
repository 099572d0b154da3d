"""DDPM on 8x8 handwritten digits: the first thing to run. Needs no download, no GPU.

  jaxgen train diffusion/ddpm_digits --workdir=runs/digits
  jaxgen sample runs/digits --out=samples.png
  jaxgen sample runs/digits --mode=chain --num=16 --out=chain.gif

Paper: Ho, Jain, Abbeel, Denoising Diffusion Probabilistic Models (2020), arXiv
  2006.11239.
Dataset: digits (scikit-learn's handwritten digits), 1,500 / 297 images.
Published: none for this set.
Measure: frechet --metrics=frechet,prdc,labels,memorisation,eval --features=classifier
  --weights=../rulers/digits.npz --num_samples=1000
Ours: over three seeds a Frechet distance of 8.8 [6.6, 11.0] (the 297 test images, which
  are few: 58.4), test loss 0.0782, 10 classes, label entropy 2.297 nats (training set
  2.303), no copies.
Distance to the nearest training image, per image of 64 pixels in [-1, 1]: samples 2.26,
test set 2.34. The grid of 64 was looked at: nearly every sample reads as a digit, as
well as 8x8 pixels let one; two or three do not.
Hardware: 2 cores of an AMD EPYC. Wall clock: 2 min 50 s from the command to its end
where the machine is quiet, 31 steps/s (2,000 images/s).
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
    dropout_rate=0.0,
    dtype=jnp.dtype(config.dtype),
  )
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  tx = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(lr))
  betas = linear_betas(config.num_timesteps, config.beta_start, config.beta_end)
  digits = dict(batch_size=config.batch_size, image_size=8, channels=1)
  return dict(
    method=ddpm(net, tx=tx, betas=betas, ema_decay=config.ema_decay),
    train_data=data.tfds_images("digits", "train", **digits),
    eval_data=data.tfds_images("digits", "test", **digits),
    num_steps=config.num_steps,
    every=Every(log=100, eval=1_000, sample=1_000, save=1_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
