"""NICE on MNIST, with the paper's conditioners: 5 layers of 1000.

  jaxgen train flow/nice_wide_mnist --workdir=runs/nice_wide_mnist

flow/nice_mnist is its small version, with numbers.

Paper: Dinh, Krueger & Bengio, NICE (2014), arXiv 1410.8516.
Dataset: mnist (TFDS), 60,000 / 10,000 images of 28x28, 256 levels, uniform noise.
Published: 4.36 bits/dim (as later papers quote it), after 1500 epochs.
Measure: bits_per_dim (published 4.36) --metrics=eval
Ours: not measured. 19,158,352 parameters; 1500 epochs are 450,000 steps.
Hardware and wall clock: none. Seed: none.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.flow.nice import Network, nice
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 200,  # ours
      "num_steps": 450_000,  # 1500 epochs
      "lr": 1e-3,  # Section 5.1, as the next three
      "b1": 0.9,
      "b2": 0.01,
      "eps": 1e-4,
      "hidden_dims": (1000,) * 5,
      "num_couplings": 4,
    }
  )


def build(config):
  net = Network((28, 28, 1), config.hidden_dims, config.num_couplings)
  mnist = dict(batch_size=config.batch_size, image_size=28, channels=1)
  return dict(
    method=nice(net, tx=optax.adam(config.lr, config.b1, config.b2, config.eps)),
    train_data=data.tfds_images("mnist", "train", **mnist),
    eval_data=data.tfds_images("mnist", "test", **mnist),
    num_steps=config.num_steps,
    every=Every(log=100, eval=3_000, sample=3_000, save=3_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
