"""VAE/GAN at 64x64x3, with the sizes of the authors' code.

  jaxgen train vae/vae_gan_64 --workdir=runs/vae_gan_64 --config.path=FOLDER
  jaxgen train vae/vae_gan_64 --workdir=runs/vae_gan_64

The first trains on the images (.png, .jpg, .webp) below a folder, the second on
celeb_a as TFDS prepares it, which needs TensorFlow. Either way images are cropped to
a centred square and resized to 64x64.

Paper: Larsen, Sonderby, Larochelle & Winther, Autoencoding beyond pixels using a
  learned similarity metric (2015), arXiv 1512.09300.
Dataset: a folder of images of your own, or celeb_a (TFDS).
Published: no score without an attribute classifier; sizes and rates are those of
  github.com/andersbll/autoencoding_beyond_pixels (celeba_aegan.py, aegan.py,
  architectures.py), which cuts its faces out of the aligned images.
Measure: frechet --metrics=frechet,eval --features=squeezenet
Ours: not measured: it needs a GPU and CelebA. Parameters: 18,071,360 in the encoder,
  4,693,155 in the decoder, 10,953,857 in the discriminator (tests/test_vae_gan.py).
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.losses import adversarial
from jaxgen.train import Every
from jaxgen.vae.vae_gan import vae_gan
from jaxgen.vae.vae_gan_networks import Decoder, Discriminator, Encoder


def get_config():
  return ConfigDict(
    {
      "path": "",  # a folder of images; empty: celeb_a
      "on_error": "raise",  # "skip" leaves out files that cannot be read
      "batch_size": 64,  # celeba_aegan.py
      "num_steps": 37_500,  # the same: 150 epochs of 250 batches
      "lr": 0.02 / 64,  # aegan.py, a rate of the batch's sum
      "last_lr": 1e-5 / 64,  # the same
      "lr_power": 0.75,  # the same: of the share of training that is done
      "decay": 0.9,  # of RMSProp: andersbll/deeppy, learn_rules.py
      "latent_dim": 128,  # celeba_aegan.py
      "gamma": 1e-5,  # the same
      "gen_loss": "minimax",  # Algorithm 1; or "non_saturating"
    }
  )


def build(config):
  images = dict(batch_size=config.batch_size, image_size=64, channels=3)
  if config.path:
    train_data = data.image_folder(
      config.path, on_error=config.on_error, split="train", **images
    )
    eval_data = data.image_folder(
      config.path, on_error=config.on_error, split="test", **images
    )
  else:
    train_data = data.tfds_images("celeb_a", "train", label=None, **images)
    eval_data = data.tfds_images("celeb_a", "test", label=None, **images)
  fall = config.lr - config.last_lr
  done = lambda step: (step / config.num_steps) ** config.lr_power
  lr = lambda step: config.lr - fall * done(step)
  rmsprop = optax.rmsprop(lr, config.decay)
  return dict(
    method=vae_gan(
      Encoder(config.latent_dim),
      Decoder((64, 64, 3)),
      Discriminator(),
      encoder_tx=rmsprop,
      decoder_tx=rmsprop,
      disc_tx=rmsprop,
      gamma=config.gamma,
      gen_loss=getattr(adversarial, config.gen_loss).gen,
    ),
    train_data=train_data,
    eval_data=eval_data,
    num_steps=config.num_steps,
    every=Every(log=100, eval=2_500, sample=2_500, save=2_500),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
