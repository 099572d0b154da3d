"""DCGAN on stacked MNIST: what PacGAN is compared with.

  jaxgen train gan/dcgan_stacked_mnist --workdir=runs/dcgan_stacked

Paper: Lin, Khetan, Fanti & Oh, PacGAN: The Power of Two Samples in Generative
  Adversarial Networks (2017), arXiv 1712.04086.
Dataset: stacked MNIST (of mnist, TFDS), 128,000 images of 1,000 modes.
Published: 78.9 +- 6.46 modes, KL 4.50 +- 0.127 (Table 2, their DCGAN, 10 trials).
Measure: modes (published 78.9) --num_samples=26000 --features=classifier
  --weights=../rulers/mnist_28.npz
Ours: not measured at full size. With --config.width=12, after 601 of 100,000 steps: 1
  mode, KL 6.908 (26,000 samples; by a script, with the same classifier).
That is 0.6 % of the training: all samples are one image, and it shows no digits. The
published DCGAN trains 50 epochs. `diversity` was 0.05 at the end.
Hardware: 2 cores, shared with other jobs. Wall clock: 5 min 20 s. Seed 0.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.gan.pacgan import Discriminator, Generator, pacgan
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "num_packed": 1,
      "num_tuples": 64,  # per batch; all numbers as in the authors' config.py
      "num_steps": 100_000,  # 50 of their epochs of 2,000 steps
      "lr": 2e-4,
      "b1": 0.5,
      "latent_dim": 100,
      "width": 64,
      "num_gen_updates": 2,
    }
  )


SMALL = {"width": 24, "num_steps": 8_000}  # for an hour of a CPU


def build(config):
  adam = optax.adam(config.lr, config.b1)
  return dict(
    method=pacgan(
      Generator(width=config.width),
      Discriminator(config.width),
      num_packed=config.num_packed,
      gen_tx=adam,
      disc_tx=adam,
      latent_dim=config.latent_dim,
      num_gen_updates=config.num_gen_updates,
    ),
    train_data=data.stacked_mnist(batch_size=config.num_tuples * config.num_packed),
    num_steps=config.num_steps,
    every=Every(log=100, sample=2_000, save=2_000),
    num_samples=100,
  )


if __name__ == "__main__":
  cli.run(__file__)
