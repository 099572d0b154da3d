"""A VAE on binarised 8x8 digits that codes them: an experiment for tests.

Paper: none.
Dataset: digits.
Published: none.
Measure: elbo --metrics=eval
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.train import Every
from jaxgen.vae.bits_back import bits_back
from jaxgen.vae.networks import FullyConnected
from jaxgen.vae.vae import vae


def get_config():
  return ConfigDict({"num_steps": 400, "lr": 1e-2, "hidden": 32, "num_streams": 10})


def network(config):
  return FullyConnected((8, 8, 1), (config.hidden,), 8)


def codec(config, state):
  return bits_back(network(config), state.params["net"], num_streams=config.num_streams)


def build(config):
  digits = dict(batch_size=64, image_size=8, channels=1)
  return dict(
    method=vae(network(config), tx=optax.adam(config.lr)),
    train_data=data.tfds_images("digits", "train", **digits),
    eval_data=data.tfds_images("digits", "test", **digits),
    num_steps=config.num_steps,
    every=Every(log=200, save=400),
    num_samples=4,
  )


if __name__ == "__main__":
  cli.run(__file__)
