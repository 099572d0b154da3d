"""BigGAN on ImageNet at 128x128, as BigGAN-PyTorch's launch_BigGAN_bs256x8.sh.

  jaxgen train gan/biggan_128 --workdir=runs/biggan_128 --config.path=imagenet/train

Paper: Brock, Donahue & Simonyan, Large Scale GAN Training for High Fidelity Natural
  Image Synthesis (2018), arXiv 1809.11096.
Dataset: a folder of images with one subfolder per class (`path`), or, without a path,
  imagenet2012 (TFDS), 1,281,167 / 50,000 images.
Published: FID 7.4, inception score 166.5 (abstract; of truncated samples, with the
  paper's settings, see get_config). The script comes without a number; it trains for
  150,000 iterations.
Measure: fid (published 7.4) --features=inception --num_samples=50000
Ours: not measured: no accelerator was at hand. The networks have BigGAN-PyTorch's
  70,433,988 and 87,982,370 parameters and its outputs and gradients
  (tests/test_biggan.py). A batch of 2048 is one pass here, on as many devices as hold
  it; the script accumulates 8 passes of 256, each with its own batch norm.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.gan.biggan import biggan
from jaxgen.gan.biggan_networks import Discriminator, Generator
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # the script
    {
      "path": "",  # a folder of images with a subfolder per class
      "on_error": "raise",  # "skip" leaves out files that cannot be read
      "num_classes": 1000,
      "batch_size": 2048,
      "num_gen_steps": 150_000,
      "num_disc_steps": 1,  # the paper: 2
      "gen_lr": 1e-4,  # the paper: 5e-5
      "disc_lr": 4e-4,  # the paper: 2e-4
      "b1": 0.0,
      "b2": 0.999,
      "adam_eps": 1e-6,
      "ema_decay": 0.9999,
      "orthogonal_weight": 0.0,  # off in the script; paper: 1e-4
      "latent_dim": 120,
      "shared_dim": 128,
      "width": 96,  # "ch", of both networks
      "attention_side": 64,
      "dtype": "float32",
    }
  )


def build(config):
  both = dict(attention_side=config.attention_side, dtype=config.dtype)
  gen = Generator(
    config.num_classes,
    tuple(config.width * k for k in (16, 16, 8, 4, 2, 1)),
    shared_dim=config.shared_dim,
    hierarchical=True,
    **both,
  )
  disc_widths = tuple(config.width * k for k in (1, 2, 4, 8, 16, 16))
  disc = Discriminator(config.num_classes, disc_widths, num_halvings=5, **both)
  adam = lambda lr: optax.adam(lr, config.b1, config.b2, config.adam_eps)
  images = dict(batch_size=config.batch_size, image_size=128, channels=3)
  if config.path:
    train_data = data.image_folder(
      config.path, on_error=config.on_error, split="train", **images
    )
    eval_data = data.image_folder(
      config.path, on_error=config.on_error, split="test", **images
    )
  else:
    train_data = data.tfds_images("imagenet2012", "train", **images)
    eval_data = data.tfds_images("imagenet2012", "validation", **images)
  return dict(
    method=biggan(
      gen,
      disc,
      gen_tx=adam(config.gen_lr),
      disc_tx=adam(config.disc_lr),
      latent_dim=config.latent_dim,
      num_disc_steps=config.num_disc_steps,
      ema_decay=config.ema_decay,
      orthogonal_weight=config.orthogonal_weight,
    ),
    train_data=train_data,
    eval_data=eval_data,
    num_steps=config.num_gen_steps * config.num_disc_steps,
    every=Every(log=100, sample=1_000, save=1_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
