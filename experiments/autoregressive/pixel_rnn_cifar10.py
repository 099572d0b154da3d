"""PixelRNN on CIFAR-10, the paper's size: 12 layers of Diagonal BiLSTMs, h = 128.

  jaxgen train autoregressive/pixel_rnn_cifar10 --workdir=runs/pixel_rnn_cifar10
  jaxgen describe autoregressive/pixel_rnn_cifar10 --config.diagonal=False

Paper: van den Oord, Kalchbrenner & Kavukcuoglu, Pixel Recurrent Neural Networks (2016),
  arXiv 1601.06759. 12 layers, h = 128, 1,024 channels before the softmax and batches of
  16 are from memory of its Table 1 and Section 5, not looked up.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images of 32x32x3, 256 levels.
Published: 3.00 bits/dim (Diagonal BiLSTM), 3.07 (Row LSTM); from memory.
Measure: bits_per_dim (published 3.00) --metrics=eval
Ours: not measured: this is for accelerators. 7,876,263 parameters.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.autoregressive import pixels
from jaxgen.autoregressive.pixel_rnn import DiagonalBiLSTM, Network, RowLSTM, pixel_rnn
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 16,
      "num_steps": 1_000_000,  # ours
      "lr": 1e-4,  # ours; the paper has RMSProp and a rate for each data set
      "diagonal": True,  # False: Row LSTM
      "width": 129,  # the paper's 128, as a multiple of the colours
      "num_layers": 12,
      "first_size": 7,  # Table 1
      "head_width": 1_023,  # as many as three colours divide, of its 1024
    }
  )


def build(config):
  net = Network(
    channels=3,
    num_outputs=256,
    layer=DiagonalBiLSTM if config.diagonal else RowLSTM,
    width=config.width,
    num_layers=config.num_layers,
    first_size=config.first_size,
    head_width=config.head_width,
  )
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.lr))
  cifar10 = dict(batch_size=config.batch_size, image_size=32, channels=3)
  return dict(
    method=pixel_rnn(net, tx=tx, pixels=pixels.levels(3)),
    train_data=data.tfds_images("cifar10", "train", **cifar10),
    eval_data=data.tfds_images("cifar10", "test", **cifar10),
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=10_000, save=2_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
