"""A method and data so small that runner tests compile in a moment.

Also an experiment file: tests that need a real process train it by its path.
"""

import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from jaxgen.method import Method, apply_gradients, averaged, create_state, update_ema
from jaxgen.run import Phase
from jaxgen.train import Every


class Net(nn.Module):
  width: int = 16

  @nn.compact
  def __call__(self, x, train):
    h = nn.Dense(self.width, use_bias=False)(x.reshape(len(x), -1))
    h = nn.relu(nn.BatchNorm(use_running_average=not train)(h))
    return nn.Dense(16)(h).reshape(x.shape)


def toy(net, *, tx):
  """Predicts the noise that was added: draws, batch norm, EMA, one network."""

  def init(key, batch):
    variables = {"net": net.init(key, batch["image"], train=True)}
    return create_state(variables, {"net": tx}, ema=("net",))

  def train_step(state, batch, key):
    noise = jax.random.normal(key, batch["image"].shape)

    def loss_fn(params):
      predicted, stats = net.apply(
        {"params": params, **state.stats["net"]},
        batch["image"] + noise,
        train=True,
        mutable=["batch_stats"],
      )
      return jnp.mean((predicted - noise) ** 2), stats

    (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params["net"]
    )
    state = state.replace(stats={"net": dict(stats)})
    state = apply_gradients(state, "net", grads, tx)
    return update_ema(state, 0.9), {"loss": loss, "first": batch["image"][0, 0, 0, 0]}

  def eval_step(state, batch, key):
    return {"mean": batch["image"].mean((1, 2, 3))}

  def sample(state, batch, key):
    noise = jax.random.normal(key, batch["image"].shape)
    variables = {"params": state.params["net"], **state.stats["net"]}
    return {"samples": nn.tanh(net.apply(variables, noise, train=False))}

  def keep(state, batch, key):
    return {"kept": batch["image"] * batch.get("mask", jnp.ones_like(batch["image"]))}

  return Method(init, train_step, eval_step, sample, {"keep": keep})


class Numbers:
  """Batch k is a function of k; one pass is 10 images in batches of 8."""

  spec = {"image": np.broadcast_to(np.zeros((), np.uint8), (8, 4, 4, 1))}

  def __call__(self, first_step):
    for step in itertools.count(first_step):
      yield {"image": self.images(step, 8)}

  def images(self, seed, num):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num, 4, 4, 1), dtype=np.uint8)

  def epoch(self):
    images = self.images(12345, 10)
    for start in (0, 8):
      rows = images[start : start + 8]
      padded = np.full((8, 4, 4, 1), 255, np.uint8)
      padded[: len(rows)] = rows
      yield {"image": padded, "row_mask": (np.arange(8) < len(rows)).astype(np.float32)}

  def shard(self, index, count):
    return _Shard(self, index, count)


class _Shard(Numbers):
  def __init__(self, whole, index, count):
    self.whole = whole
    self.rows = slice(index * 8 // count, (index + 1) * 8 // count)

  def __call__(self, first_step):
    for batch in self.whole(first_step):
      yield {k: v[self.rows] for k, v in batch.items()}

  def epoch(self):
    for batch in self.whole.epoch():
      yield {k: v[self.rows] for k, v in batch.items()}


def carry(last, fresh):
  """A second phase starts from the averages of the first."""
  return fresh.replace(params=averaged(last).params, stats=last.stats)


def get_config():
  return ConfigDict({"width": 16, "lr": 0.01, "num_steps": 40, "second": 0, "save": 7})


def build(config):
  method = toy(Net(config.width), tx=optax.adam(config.lr))
  then = ()
  if config.second:
    then = (Phase(method, Numbers(), config.second, carry),)
  return {
    "method": method,
    "train_data": Numbers(),
    "eval_data": Numbers(),
    "num_steps": config.num_steps,
    "every": Every(log=3, eval=10, sample=10, save=config.save),
    "num_samples": 9,
    "then": then,
  }


if __name__ == "__main__":
  from jaxgen import cli

  cli.run(__file__)
