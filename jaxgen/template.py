"""denoiser: a method of your own in one file. python denoiser.py --workdir=runs/it"""

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.method import Method, apply_gradients, create_state
from jaxgen.train import Every


class Net(nn.Module):
  channels: int

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(self.channels, (3, 3))(x))
    return nn.tanh(nn.Conv(1, (3, 3))(x))


def denoiser(net, *, tx, noise_std):
  def init(key, batch):
    return create_state({"net": net.init(key, batch["image"])}, {"net": tx})

  def clean(params, batch, key):
    noise = noise_std * random.normal(key, batch["image"].shape)
    return net.apply({"params": params}, batch["image"] + noise)

  def train_step(state, batch, key):
    loss_fn = lambda p: jnp.mean((clean(p, batch, key) - batch["image"]) ** 2)
    loss, grads = jax.value_and_grad(loss_fn)(state.params["net"])
    return apply_gradients(state, "net", grads, tx), {"loss": loss}

  def sample(state, batch, key):
    return {"samples": clean(state.params["net"], batch, key)}

  return Method(init, train_step, sample=sample)


def get_config():
  return ConfigDict({"channels": 32, "lr": 3e-3, "num_steps": 1000})


def build(config):
  return dict(
    method=denoiser(Net(config.channels), tx=optax.adam(config.lr), noise_std=0.5),
    train_data=data.tfds_images("digits", "train", batch_size=64, channels=1),
    num_steps=config.num_steps,
    every=Every(log=20, save=100),
  )


if __name__ == "__main__":
  cli.run(__file__)
