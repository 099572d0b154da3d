"""A VAE on 8x8 digits that trains in a moment: an experiment for tests of scores.

Paper: none.
Dataset: digits.
Dataset small: digits, as for the full budget.
Published: made up.
Measure: elbo (published -1000.5) --metrics=eval,frechet --features=classifier
  --num_samples=300
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.train import Every
from jaxgen.vae.networks import FullyConnected
from jaxgen.vae.vae import vae

SMALL = {"num_steps": 3}


def get_config():
  return ConfigDict({"num_steps": 6, "lr": 1e-2, "hidden": 8})


def build(config):
  net = FullyConnected((8, 8, 1), (config.hidden,), 2)
  digits = dict(batch_size=64, image_size=8, channels=1)
  return dict(
    method=vae(net, tx=optax.adam(config.lr), binarize=False),
    train_data=data.tfds_images("digits", "train", **digits),
    eval_data=data.tfds_images("digits", "test", **digits),
    num_steps=config.num_steps,
    every=Every(log=2, save=100),
    num_samples=4,
  )


if __name__ == "__main__":
  cli.run(__file__)
