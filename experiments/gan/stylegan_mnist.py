"""StyleGAN on MNIST at 16x16: six layers, each with a style and noise of its own.

  jaxgen train gan/stylegan_mnist --workdir=runs/stylegan_mnist

Paper: Karras, Laine & Aila, A Style-Based Generator Architecture for Generative
  Adversarial Networks (2018), arXiv 1812.04948.
Dataset: mnist (TFDS), 60,000 / 10,000 images, resized to 16x16.
Published: no number for plain MNIST.
Measure: frechet --metrics=frechet,prdc,labels --features=classifier
Ours: collapsed. frechet 511 of 5,000 samples (of the test set 0.94), precision 0.62,
  recall 0, 5 classes: the grid shows one shape between 0 and 6 in slightly varying
  strokes, and `diversity` falls to 0.3.
Not explained yet. Runs at lr 2e-3 with r1_gamma 1 and 0.1 collapsed as well (0.5 and
0.3); progan_mnist, with nearly this discriminator, does not. stylegan2_mnist collapsed
likewise, and no longer does with r1_gamma 5 on every 16th step; at 8x8 it never did.
Neither such a strong penalty nor 8x8 was tried here. In all runs fakes start out 2.5 to
3 times as diverse as the data, since nothing bounds the generator's output, and fall
from there through 1 within 400 steps; the Wasserstein loss with a gradient penalty
falls more slowly (0.68 after 700 steps). The paper's runs see hundreds of times as many
images.
Hardware: 2 cores of an AMD EPYC, shared with five other jobs. Wall clock: 5.3 min.
Seed 0.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.gan.stylegan import Synthesis, generator, stylegan
from jaxgen.nn.progressive import Discriminator
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 32,
      "num_steps": 10_000,
      "image_size": 16,
      "gen_lr": 4e-3,  # Appendix C: up to 3e-3 at 1024x1024, for both
      "disc_lr": 1.2e-2,
      "b1": 0.0,
      "b2": 0.99,
      "latent_dim": 64,
      "w_dim": 64,
      "num_mapping_layers": 2,  # the paper: 8
      "channel_base": 128,
      "channel_max": 32,
      "r1_gamma": 0.2,  # Appendix C: 10, at 1024x1024
      "mixing_probability": 0.9,
      "ema_half_life": 10_000,  # images
    }
  )


def build(config):
  widths = dict(channel_base=config.channel_base, channel_max=config.channel_max)
  gen = generator(
    Synthesis(config.image_size, channels=1, **widths),
    w_dim=config.w_dim,
    num_layers=config.num_mapping_layers,
    mixing_probability=config.mixing_probability,
  )
  mnist = dict(batch_size=config.batch_size, image_size=config.image_size, channels=1)
  return dict(
    method=stylegan(
      gen,
      Discriminator(config.image_size, blurs=True, **widths),
      gen_tx=optax.adam(config.gen_lr, config.b1, config.b2),
      disc_tx=optax.adam(config.disc_lr, config.b1, config.b2),
      latent_dim=config.latent_dim,
      r1_gamma=config.r1_gamma,
      ema_decay=0.5 ** (config.batch_size / config.ema_half_life),
    ),
    train_data=data.tfds_images("mnist", "train", **mnist),
    eval_data=data.tfds_images("mnist", "test", **mnist),  # for `jaxgen evaluate`
    num_steps=config.num_steps,
    every=Every(log=250, sample=1_000, save=2_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
