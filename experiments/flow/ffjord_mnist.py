"""FFJORD of the paper's size on MNIST, at 28x28 without padding.

  jaxgen train flow/ffjord_mnist --workdir=runs/ffjord_mnist

Paper: Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud, FFJORD: Free-form Continuous
  Dynamics for Scalable Reversible Generative Models (2018), arXiv 1810.01367.
Dataset: mnist (TFDS), 60,000 / 10,000 images of 28x28, 256 levels, uniform noise,
  logits with alpha = 1e-6.
Published: 0.99 bits/dim on the test set (Table 2, from memory).
Measure: bits_per_dim (published 0.99) --metrics=eval
Ours: not measured, for want of a GPU. 800,636 parameters, those of the authors' network
  without its ten of T, which no gradient reaches. With equal weights, z, the
  log-determinant and its gradients of a small network are theirs (tests/golden).
Needs the extra `ode` of jaxgen (diffrax).
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.flow.ffjord import Tolerance, conv_network, ffjord
from jaxgen.train import Every


def get_config():
  return ConfigDict(  # As the authors' README calls train_cnf.py.
    {
      "batch_size": 200,
      "num_steps": 300_000,  # 1,000 epochs
      "lr": 1e-3,
      "warmup_steps": 1_000,
      "hidden_dims": (64, 64, 64),
      "num_flows": 2,
      "num_scales": 3,
      "tolerance": 1e-5,
      "max_steps": 128,
      "alpha": 1e-6,
    }
  )


def build(config):
  net = conv_network(
    (28, 28, 1),
    tolerance=Tolerance(config.tolerance, config.tolerance, config.max_steps),
    hidden_dims=config.hidden_dims,
    num_flows=config.num_flows,
    num_scales=config.num_scales,
  )
  lr = optax.linear_schedule(0.0, config.lr, config.warmup_steps)
  mnist = dict(batch_size=config.batch_size, image_size=28, channels=1)
  return dict(
    method=ffjord(net, tx=optax.adam(lr), logit_alpha=config.alpha),
    train_data=data.tfds_images("mnist", "train", **mnist),
    eval_data=data.tfds_images("mnist", "test", **mnist),
    num_steps=config.num_steps,
    every=Every(log=100, eval=3_000, sample=3_000, save=1_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
