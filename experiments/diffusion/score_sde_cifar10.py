"""Score SDE (sub-VP) on CIFAR-10 with the network of DDPM: "DDPM cont. (sub-VP)".

  jaxgen train diffusion/score_sde_cifar10 --workdir=runs/score_sde_cifar10

Paper: Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole, Score-Based Generative
  Modeling through Stochastic Differential Equations (2021), arXiv 2011.13456.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images, mirrored at random.
Published: 3.05 bits per dimension, FID 3.56 by the probability-flow ODE (Table 2, from
  memory). The best of the paper, with larger networks (DDPM++, NCSN++): 2.99, FID 2.20.
Measure: bits_per_dim (published 3.05) --metrics=nll
Ours: not measured. The network has 35,746,307 parameters, those of DDPM.
Hardware: not known. Wall clock: not measured.
Needs the extra `ode` of jaxgen (diffrax) for the likelihood.
"""

import functools

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.diffusion import process, stochastic_samplers
from jaxgen.diffusion.score_sde import grid, score_sde
from jaxgen.nn.unet import UNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # The authors' code, from memory
    {
      "batch_size": 128,
      "num_steps": 1_300_000,
      "lr": 2e-4,
      "warmup_steps": 5_000,
      "clip_norm": 1.0,
      "ema_decay": 0.9999,
      "num_sampling_steps": 1_000,
      "num_corrections": 0,  # Of VP and sub-VP, the best samples are without.
      "channels": 128,
      "channel_mults": (1, 2, 2, 2),
      "num_res_blocks": 2,
      "attention_resolutions": (16,),
      "dropout_rate": 0.1,
    }
  )


def build(config):
  net = UNet(
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_res_blocks=config.num_res_blocks,
    attention_resolutions=config.attention_resolutions,
    dropout_rate=config.dropout_rate,
  )
  sde = process.sub_vp()
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  method = score_sde(
    net,
    tx=optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(lr)),
    process=sde,
    ema_decay=config.ema_decay,
    sampler=functools.partial(
      stochastic_samplers.predictor_corrector, num_corrections=config.num_corrections
    ),
    times=grid(sde, config.num_sampling_steps),
  )
  cifar = dict(batch_size=config.batch_size, image_size=32, channels=3)
  return dict(
    method=method,
    train_data=data.tfds_images("cifar10", "train", flip=True, **cifar),
    eval_data=data.tfds_images("cifar10", "test", **cifar),
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=50_000, save=10_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
