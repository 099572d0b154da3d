"""PixelCNN++ on CIFAR-10, the paper's configuration.

  jaxgen train autoregressive/pixel_cnn_pp_cifar10 --workdir=runs/pixel_cnn_pp_cifar10

Paper: Salimans, Karpathy, Chen & Kingma, PixelCNN++ (2017), arXiv 1701.05517.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images of 32x32x3, 256 levels.
Published: 2.92 bits/dim.
Measure: bits_per_dim (published 2.92) --metrics=eval
Ours: not measured: the authors' run takes about 5 days on 8 GPUs (their README).
Parameters: 53,659,080, as a port to PyTorch has (pclucas14/pixel-cnn-pp).
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.autoregressive.pixel_cnn_pp import Network, pixel_cnn_pp
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      # All as in github.com/openai/pixel-cnn, train.py.
      "batch_size": 96,  # 12 on each of 8 GPUs
      "num_steps": 2_600_000,  # 5,000 epochs at most
      "lr": 1e-3,
      "lr_decay": 0.999995,  # of each step
      "b1": 0.95,
      "b2": 0.9995,
      "width": 160,
      "num_blocks": 5,
      "num_mixtures": 10,
      "dropout": 0.5,
      "ema_decay": 0.9995,
    }
  )


def build(config):
  net = Network(
    channels=3,
    width=config.width,
    num_blocks=config.num_blocks,
    num_mixtures=config.num_mixtures,
    dropout=config.dropout,
  )
  lr = optax.exponential_decay(config.lr, 1, config.lr_decay)
  tx = optax.adam(lr, b1=config.b1, b2=config.b2)
  cifar10 = dict(batch_size=config.batch_size, image_size=32, channels=3)
  return dict(
    method=pixel_cnn_pp(net, tx=tx, ema_decay=config.ema_decay),
    train_data=data.tfds_images("cifar10", "train", **cifar10),
    eval_data=data.tfds_images("cifar10", "test", **cifar10),
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=10_000, save=2_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
