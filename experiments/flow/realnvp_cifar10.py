"""RealNVP on CIFAR-10, with the paper's widths and depths.

  jaxgen train flow/realnvp_cifar10 --workdir=runs/realnvp_cifar10

Sizes and rates are the paper's from memory (Section 4.1), not looked up again; it does
not say for how long it trained.

Paper: Dinh, Sohl-Dickstein & Bengio, Density Estimation Using Real NVP (2016), arXiv
  1605.08803.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images, mirrored at random, 256 levels, uniform
  noise, logits with alpha = 0.05.
Published: 3.49 bits/dim (as later papers quote it), with weight normalisation, an L2
  penalty on its scales and skip connections, which this network has not.
Measure: bits_per_dim (published 3.49) --metrics=eval
Ours: not measured. 18,387,299 parameters.
Hardware and wall clock: none. Seed: none.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.flow.realnvp import network, realnvp
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 64,
      "num_steps": 400_000,  # 512 epochs; ours
      "lr": 1e-3,
      "num_scales": 2,  # one squeeze
      "width": 64,
      "num_blocks": 8,
      "alpha": 0.05,
    }
  )


def build(config):
  net = network(
    (32, 32, 3),
    num_scales=config.num_scales,
    width=config.width,
    num_blocks=config.num_blocks,
  )
  cifar = dict(batch_size=config.batch_size, image_size=32, channels=3)
  return dict(
    method=realnvp(net, tx=optax.adam(config.lr), alpha=config.alpha),
    train_data=data.tfds_images("cifar10", "train", flip=True, **cifar),
    eval_data=data.tfds_images("cifar10", "test", **cifar),
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=10_000, save=10_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
