"""DCGAN at 64x64x3, with the parameter counts of the common reference.

  jaxgen train gan/dcgan_64 --workdir=runs/dcgan_64 --config.path=FOLDER
  jaxgen train gan/dcgan_64 --workdir=runs/dcgan_64
  jaxgen reproduce gan/dcgan_64 --seeds=1 --budget=small --weights=FILE

The first trains on the images (.png, .jpg, .webp) below a folder, the second on
celeb_a as TFDS prepares it, which needs TensorFlow, the third on photographs of flowers
in ./flowers5 with networks of a quarter of the width. Images are always cropped to a
centred square and resized to 64x64.

Paper: Radford, Metz & Chintala, Unsupervised Representation Learning with Deep
  Convolutional Generative Adversarial Networks (2015), arXiv 1511.06434.
Dataset: a folder of images of your own, or celeb_a (TFDS).
Dataset small: 4,058 photographs of flowers (./flowers5), resized to 64x64.
Published: 3,576,704 generator and 2,765,568 discriminator parameters
  (pytorch/examples, dcgan, at 64x64x3); no score without Inception weights.
Measure: frechet --features=squeezenet
Ours: the same counts (tests/test_gan.py); at this width only trained for 647 steps, on
  batches of 64 flowers: the discriminator won (loss 1e-5), all samples were one red
  disc. Of SMALL (width 16, 4,058 photographs, 7,000 steps, 110 epochs) the Frechet
  distance of SqueezeNet's features, which have no scale to compare with, is 36,875
  [36,624, 37,126]; the spread of samples is that of the data (`diversity` 1.07).
The grid of 64 of SMALL was looked at: colours and layouts of photographs of flowers
(yellow fields, white and red blossoms before dark green, skies), textures that repeat,
and hardly one flower that one would call so.
Hardware: one core of an AMD EPYC. Wall clock: 32 min. Seed 0.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.gan.dcgan import Discriminator, Generator, dcgan
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "path": "",  # a folder of images; empty: celeb_a
      "on_error": "raise",  # "skip" leaves out files that cannot be read
      "batch_size": 128,  # Section 4
      "num_steps": 30_000,
      "lr": 2e-4,  # Section 4
      "b1": 0.5,  # Section 4
      "latent_dim": 100,  # Section 4
      "width": 64,
    }
  )


SMALL = {"path": "flowers5", "width": 16, "batch_size": 64, "num_steps": 7_000}


def build(config):
  images = dict(batch_size=config.batch_size, image_size=64, channels=3)
  if config.path:
    train_data = data.image_folder(config.path, on_error=config.on_error, **images)
  else:
    train_data = data.tfds_images("celeb_a", "train", label=None, **images)
  adam = optax.adam(config.lr, config.b1)
  return dict(
    method=dcgan(
      Generator(width=config.width),
      Discriminator(width=config.width),
      gen_tx=adam,
      disc_tx=adam,
      latent_dim=config.latent_dim,
    ),
    train_data=train_data,
    num_steps=config.num_steps,
    every=Every(log=100, sample=1_000, save=1_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
