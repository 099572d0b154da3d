"""PacDCGAN4 on stacked MNIST, the discriminator a quarter of the generator's size.

  jaxgen train gan/pacgan_quarter_mnist --workdir=runs/quarter
  jaxgen train gan/pacgan_quarter_mnist --workdir=runs/dcgan --config.num_packed=1

Paper: Lin, Khetan, Fanti & Oh, PacGAN: The Power of Two Samples in Generative
  Adversarial Networks (2017), arXiv 1712.04086.
Dataset: stacked MNIST (of mnist's training set, TFDS), 128,000 images of 1,000 modes.
Published: 667 modes (Table 3, PacDCGAN4, 25,600 samples); DCGAN (num_packed=1) 30.6.
Measure: modes (published 667) --num_samples=25600 --features=classifier
  --weights=../rulers/mnist_28.npz
Ours: not measured.
The setting is that of Unrolled GAN (Metz et al., 2016, arXiv 1611.02163). The authors
draw new triples in every step, here they are drawn once. Their m fake batches pass the
generator one by one, and `pacgan` has more deviations from their code.
"""

from jax import random
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.gan.pacgan import Discriminator, Generator, pacgan
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # the authors' config.py and model.py, unrolled_GAN_experiment
    {
      "num_packed": 4,
      "num_tuples": 128,  # per batch
      "num_steps": 500_000,
      "gen_lr": 1e-4,
      "disc_lr": 2e-4,
      "b1": 0.5,
      "b2": 0.99,
      "latent_dim": 256,
      "gen_width": 8,
      "disc_width": 2,
      "kernel": 3,
      "slope": 0.3,
      "num_gen_updates": 1,
    }
  )


def build(config):
  sides = (4, 7, 14, 28, 28)
  return dict(
    method=pacgan(
      Generator(width=config.gen_width, sides=sides, kernel=config.kernel),
      Discriminator(config.disc_width, 3, config.kernel, config.slope, first_norm=0),
      num_packed=config.num_packed,
      gen_tx=optax.adam(config.gen_lr, config.b1, config.b2),
      disc_tx=optax.adam(config.disc_lr, config.b1, config.b2),
      latent_dim=config.latent_dim,
      draw_latent=random.normal,
      num_gen_updates=config.num_gen_updates,
    ),
    train_data=data.stacked_mnist(
      batch_size=config.num_tuples * config.num_packed, splits=("train",)
    ),
    num_steps=config.num_steps,
    every=Every(log=100, sample=10_000, save=10_000),
    num_samples=100,
  )


if __name__ == "__main__":
  cli.run(__file__)
