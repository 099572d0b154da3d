"""beta-VAE on dSprites, with the paper's dense network.

  jaxgen train vae/beta_vae_dsprites --workdir=runs/dsprites --config.path=FILE
  jaxgen sample runs/dsprites --mode=traverse --num=1 --out=traverse.png

FILE is an .npz with "image", uint8 [N, 64, 64], 0 and 255, of the published file:
np.savez("dsprites.npz", image=255 * np.load(PUBLISHED)["imgs"]). There is no test set:
the evaluation, too, is of these images. Sizes and rates are the paper's from memory
(Table 1 of its appendix), not looked up again; batch and length are ours.

Paper: Higgins et al., beta-VAE: Learning Basic Visual Concepts with a Constrained
  Variational Framework (ICLR 2017).
Dataset: dSprites, 737,280 binary images of 64x64, a file of yours (`path`).
Published: no likelihood (its disentanglement metric is not built here).
Measure: kl --metrics=eval
Ours: not measured. 14,196,516 parameters.
Hardware and wall clock: none. Seed: none.
"""

from flax import linen as nn
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.train import Every
from jaxgen.vae.beta_vae import beta_vae
from jaxgen.vae.networks import FullyConnected


class Higgins(FullyConnected):
  """ReLU in the encoder; tanh in the decoder, which has one layer more."""

  def setup(self):
    self.encoder = [nn.Dense(dim) for dim in self.hidden_dims]
    self.mean, self.log_var = nn.Dense(self.latent_dim), nn.Dense(self.latent_dim)
    dims = (*self.hidden_dims[::-1], self.hidden_dims[0])
    self.decoder = [nn.Dense(dim) for dim in dims]
    self.logits = nn.Dense(64 * 64)

  def encode(self, x):
    h = x.reshape(len(x), -1)
    for layer in self.encoder:
      h = nn.relu(layer(h))
    return self.mean(h), self.log_var(h)


def get_config():
  return ConfigDict(
    {
      "path": "dsprites.npz",
      "batch_size": 64,
      "num_steps": 345_600,  # 30 epochs
      "lr": 1e-2,
      "beta": 4.0,
      "hidden_dims": (1200, 1200),
      "latent_dim": 10,
    }
  )


def build(config):
  net = Higgins((64, 64, 1), config.hidden_dims, config.latent_dim)
  images = data.arrays(config.path, batch_size=config.batch_size)
  return dict(
    method=beta_vae(net, tx=optax.adagrad(config.lr), beta=config.beta),
    train_data=images,
    eval_data=images,
    num_steps=config.num_steps,
    every=Every(log=100, eval=11_520, sample=11_520, save=11_520),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
