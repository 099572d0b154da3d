"""A train step of jaxgen beside the same network's in PyTorch, on this machine's CPU.

  pip install torch==2.13.0 diffusers==0.42.1; pip install --no-deps normflows==1.7.3
  python benchmarks/against_torch.py unet dit glow iwae

Both sides take the loss of the same batch size in float32 on random images, its
gradient, and a step of Adam; rounds of steps alternate within one process, and the
medians of both are printed with their ratio. The networks:
  unet  DDPM's for CIFAR-10; diffusers' UNet2DModel of the same sizes.
  dit   DiT-S/2 for latents of 32x32x4; diffusers' DiTTransformer2DModel, which embeds
        time and label anew in each block, and so has more parameters.
  glow  L = 2, K = 8, width 128, for 32x32x3, with noise of a level and what jaxgen's
        step measures; normflows' GlowBlock and MultiscaleFlow, without.
  iwae  784-200-200-50 and back, k = 50; written here, as one batched computation.
PyTorch runs eagerly, or, with --compile, through torch.compile.

Found on 2 cores of an AMD EPYC, one round, eager, jax 0.10.2: PyTorch's step takes 1.39
times ours for iwae, 0.88 for dit, 0.92 for unet. On 2 cores of an Intel Xeon 0.84 and
0.88 for glow, in two runs of three rounds.
"""

import argparse
from collections.abc import Callable
from functools import partial
import statistics
import time

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.distributions import Bernoulli, Normal

from jaxgen import parallel
from jaxgen.flow import glow
from jaxgen.method import Method
from jaxgen.nn.dit import DiT
from jaxgen.nn.unet import UNet
from jaxgen.vae.iwae import iwae
from jaxgen.vae.networks import FullyConnected

LR = 1e-4


# --- ours: functions without arguments that take a step -----------------------------


def of_network(net: nn.Module, *inputs: jax.Array) -> tuple[Callable, int]:
  """(a step, number of parameters): the squared distance of the output from noise."""
  params = jax.jit(net.init)(random.key(0), *inputs)["params"]
  tx = optax.adam(LR)

  @partial(jax.jit, donate_argnums=0)
  def update(carry: tuple, key: jax.Array) -> tuple:
    params, opt = carry

    def loss(params: dict) -> jax.Array:
      found = net.apply({"params": params}, *inputs, train=True, rngs={"dropout": key})
      return jnp.mean((found - random.normal(key, found.shape)) ** 2)

    value, grads = jax.value_and_grad(loss)(params)
    updates, opt = tx.update(grads, opt)
    return (optax.apply_updates(params, updates), opt), value

  carry = [(params, tx.init(params))]

  def step() -> None:
    carry[0], value = update(carry[0], random.key(0))
    value.block_until_ready()

  return step, sum(x.size for x in jax.tree.leaves(params))


def of_method(method: Method, spec: dict) -> tuple[Callable, int]:
  """(a train step, number of parameters), on uniform noise."""
  backend = parallel.jit_backend(jax.devices()[:1])
  state = backend.init(method.init, random.key(0), spec)
  count = sum(x.size for x in jax.tree.leaves(state.params))
  draw = np.random.default_rng(0).integers
  batch = {k: draw(0, 256, v.shape).astype(v.dtype) for k, v in spec.items()}
  placed, train = backend.put_batch(batch), backend.compile_train(method.train_step)
  carry = [state]

  def step() -> None:
    carry[0], metrics = train(carry[0], placed, random.key(0))
    jax.block_until_ready(metrics)

  return step, count


# --- theirs -------------------------------------------------------------------------


def of_torch(net: torch.nn.Module, loss: Callable) -> tuple[Callable, int]:
  """(a step, number of parameters); loss: net -> scalar."""
  adam = torch.optim.Adam(net.parameters(), lr=LR)

  def step() -> None:
    adam.zero_grad(set_to_none=True)
    loss(net).backward()
    adam.step()

  return step, sum(p.numel() for p in net.parameters() if p.requires_grad)


def distance(output: torch.Tensor) -> torch.Tensor:
  return torch.mean((output - torch.randn_like(output)) ** 2)


# --- pairs --------------------------------------------------------------------------


def unet(size: int, compiled: Callable) -> tuple:
  from diffusers import UNet2DModel

  t = np.arange(size)
  x = random.normal(random.key(0), (size, 32, 32, 3))
  ours = of_network(UNet(), x, jnp.asarray(t))
  kinds = ("", "Attn", "", "")
  net = UNet2DModel(
    sample_size=32,
    block_out_channels=(128, 256, 256, 256),
    layers_per_block=2,
    down_block_types=[kind + "DownBlock2D" for kind in kinds],
    up_block_types=[kind + "UpBlock2D" for kind in reversed(kinds)],
    attention_head_dim=None,
    downsample_padding=0,
    dropout=0.1,
  )
  x, t, run = torch.randn(size, 3, 32, 32), torch.as_tensor(t), compiled(net)
  return ours, of_torch(net, lambda net: distance(run(x, t).sample))


def dit(size: int, compiled: Callable) -> tuple:
  from diffusers import DiTTransformer2DModel

  numbers = np.arange(size)
  x = random.normal(random.key(0), (size, 32, 32, 4))
  ours = of_network(DiT(), x, jnp.asarray(numbers), jnp.asarray(numbers, jnp.int32))
  net = DiTTransformer2DModel(
    num_attention_heads=6,
    attention_head_dim=64,
    in_channels=4,
    out_channels=8,
    num_layers=12,
    sample_size=32,
    patch_size=2,
    num_embeds_ada_norm=1000,
  )
  x, i, run = torch.randn(size, 4, 32, 32), torch.as_tensor(numbers), compiled(net)
  return ours, of_torch(net, lambda net: distance(run(x, i, i).sample))


def glow_pair(size: int, compiled: Callable) -> tuple:
  import normflows as nf

  depth, width = 8, 128
  bijection = glow.network((32, 32, 3), num_scales=2, num_steps=depth, width=width)
  method = glow.glow(bijection, tx=optax.adam(LR))
  image = np.broadcast_to(np.zeros((), np.uint8), (size, 32, 32, 3))
  ours = of_method(method, {"image": image})
  blocks = lambda c: [nf.flows.GlowBlock(c, width) for _ in range(depth)]
  # From the latents up, as normflows orders them.
  flows = [[*blocks(24), nf.flows.Squeeze()], [*blocks(12), nf.flows.Squeeze()]]
  bases = [
    nf.distributions.DiagGaussian(shape, trainable=True)
    for shape in ((24, 8, 8), (6, 16, 16))
  ]
  net = nf.MultiscaleFlow(bases, flows, [nf.flows.Merge()], class_cond=False)
  x = torch.rand(size, 3, 32, 32) - 0.5
  net.forward_kld(x)  # ActNorm takes its start from a batch.
  run = compiled(net.forward_kld)
  return ours, of_torch(net, lambda net: run(x))


class Iwae(torch.nn.Module):
  """One stochastic layer; minus the bound of k = 50 draws, all of them at once."""

  def __init__(self, num_draws: int) -> None:
    super().__init__()
    layer = torch.nn.Linear
    tanh = lambda a, b: (layer(a, b), torch.nn.Tanh())
    self.num_draws = num_draws
    self.encoder = torch.nn.Sequential(*tanh(784, 200), *tanh(200, 200))
    self.mean, self.log_var = layer(200, 50), layer(200, 50)
    self.decoder = torch.nn.Sequential(*tanh(50, 200), *tanh(200, 200), layer(200, 784))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    h = self.encoder(x)
    q = Normal(self.mean(h), torch.exp(0.5 * self.log_var(h)))
    z = q.rsample((self.num_draws,))
    log_w = Bernoulli(logits=self.decoder(z)).log_prob(x).sum(-1)
    log_w += (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(-1)
    return -(torch.logsumexp(log_w, 0) - np.log(self.num_draws)).mean()


def iwae_pair(size: int, compiled: Callable) -> tuple:
  net = FullyConnected((28, 28, 1), (200, 200), 50)
  method = iwae((net,), tx=optax.adam(LR), num_draws=50)
  image = np.broadcast_to(np.zeros((), np.uint8), (size, 28, 28, 1))
  ours = of_method(method, {"image": image})
  net, x = Iwae(50), torch.rand(size, 784).round()
  run = compiled(net)
  return ours, of_torch(net, lambda net: run(x))


PAIRS = {  # With batches that take a CPU about a second, or what the paper has.
  "unet": (unet, 2, 2),
  "dit": (dit, 2, 3),
  "glow": (glow_pair, 16, 10),
  "iwae": (iwae_pair, 20, 100),
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("pairs", nargs="+", choices=PAIRS)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--compile", action="store_true", help="torch.compile")
  args = parser.parse_args()
  print(f"torch {torch.__version__} with {torch.get_num_threads()} threads, ", end="")
  print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")
  for name in args.pairs:
    make, size, num_steps = PAIRS[name]
    sides = make(size, torch.compile if args.compile else lambda f: f)
    for step, _ in sides:
      step()
      step()  # The first compiles.
    times = ([], [])
    for _ in range(args.rounds):
      for (step, _), found in zip(sides, times, strict=True):
        for _ in range(num_steps):
          tick = time.perf_counter()
          step()
          found.append(time.perf_counter() - tick)
    ours, theirs = (statistics.median(found) for found in times)
    counts = " and ".join(f"{count:,}" for _, count in sides)
    print(
      f"{name}: batch {size}, {counts} parameters; ours {1e3 * ours:.4g} ms a step, "
      f"theirs {1e3 * theirs:.4g} ms: theirs takes {theirs / ours:.2f} times ours",
      flush=True,
    )


if __name__ == "__main__":
  main()
