"""Consistency models on CIFAR-10, trained without a teacher or distilled from EDM.

  jaxgen train diffusion/consistency_cifar10 --workdir=runs/ct
  jaxgen train diffusion/edm_ncsnpp_cifar10 --workdir=runs/edm --config.num_classes=0 \
    --config.augment=0.0
  jaxgen train diffusion/consistency_cifar10 --workdir=runs/cd --config.teacher=runs/edm

The paper's distance is LPIPS, which needs files that you have: --config.backbone=
torchvision's vgg16-397923af.pth, --config.heads= the lpips package's vgg.pth. Without
them it is the mean of squares, which the paper compares and finds worse (from memory).

Paper: Song, Dhariwal, Chen, Sutskever, Consistency Models (2023), arXiv 2303.01469.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images.
Published: FID 8.70 in one step for training, 3.55 for distillation, with LPIPS (Table
  1, from memory).
Measure: fid (published 8.70) --features=inception --num_samples=50000
Ours: not measured. The network is that of edm_ncsnpp_cifar10 without labels and numbers
  of augmentations: 56,395,523 parameters.
Hardware: theirs was 8 A100 (from memory). Wall clock: not measured.
"""

import jax
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data, run
from jaxgen.diffusion.consistency import consistency, constant, progressive, square
from jaxgen.metrics.lpips import load_lpips, lpips
from jaxgen.nn.resampling_unet import BINOMIAL
from jaxgen.nn.song_unet import SongUNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # Table 3, from memory
    {
      "teacher": "",  # a workdir of edm_ncsnpp_cifar10, see above; "": none
      "backbone": "",  # of LPIPS, see above; "": the mean of squares
      "heads": "",
      "batch_size": 512,
      "num_steps": 800_000,
      "lr": 4e-4,
      "num_levels": 18,  # of distillation; training has 2 to 151
      "decay": 0.0,  # of the target of distillation; training: 0.9 at its start
      "sigma_data": 0.5,
      "levels": (),  # at which a sample is made noisy and mapped again
      "channels": 128,
      "channel_mults": (2, 2, 2),
      "num_blocks": 4,
      "attention_resolutions": (16,),
    }
  )


def perceptual(backbone, heads):
  """LPIPS of images enlarged to the size its network was trained on."""
  network = load_lpips("vgg", backbone, heads)
  large = lambda x: jax.image.resize(x, (len(x), 224, 224, 3), "bilinear")
  return lambda a, b: lpips(large(a), large(b), network)


def build(config):
  net = SongUNet(
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_blocks=config.num_blocks,
    attention_resolutions=config.attention_resolutions,
    dropout_rate=0.0,
    noise_embedding="fourier",
    embedding_mult=2,
    residual_input=True,
    taps=BINOMIAL,
  )
  teacher, schedule = None, progressive(config.num_steps)
  if config.teacher:
    stage_one = run.first_stage(
      config.teacher, "diffusion/edm_ncsnpp_cifar10", "teacher"
    )
    teacher = jax.device_get(stage_one.state.ema["net"])
    schedule = constant(config.num_levels, config.decay)
  distance = square
  if config.backbone:
    distance = perceptual(config.backbone, config.heads)
  cifar = dict(batch_size=config.batch_size, image_size=32, channels=3)
  return dict(
    method=consistency(
      net,
      tx=optax.radam(config.lr),
      teacher=teacher,
      schedule=schedule,
      distance=distance,
      sigma_data=config.sigma_data,
      levels=config.levels,
    ),
    train_data=data.tfds_images("cifar10", "train", **cifar),
    eval_data=data.tfds_images("cifar10", "test", **cifar),
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=10_000, save=10_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
