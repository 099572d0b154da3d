"""Seconds of a train step here and in PyTorch: the same network, batch and arithmetic.

  pip install torch normflows
  OMP_NUM_THREADS=2 python tests/bench/torch_ratios.py            # all
  OMP_NUM_THREADS=2 python tests/bench/torch_ratios.py iwae nll

Prints, for each, the median of seconds in both, and PyTorch's divided by ours (above
1: ours is faster). Both take turns, so that a busy machine hurts them alike.
float32, Adam, random images; compiling is not counted.

  iwae  IWAE, one layer (425,284 parameters in both), batch 20, 50 draws
  glow  2 levels of 4 steps, width 48, 28x28, batch 64, against normflows: the same
        sequence of layers and convolutions, whose scales, borders and priors are
        normflows' own, as the two numbers of parameters show
  nll   5,000 importance samples per image of the IWAE: images per second here, and by
        that the minutes of 10,000 test images; peak memory of this process
"""

import resource
import sys
import time

import jax
import numpy as np
import optax

from jaxgen.flow import glow
from jaxgen.vae.iwae import iwae, one_layer

THREADS = 2
KEY = jax.random.key(0)
SIZE = 784


def in_turns(ours, theirs, num=20):
  """Median seconds of two functions without arguments."""
  seconds = ([], [])
  for fn in (ours, theirs):
    fn()  # Compiles, or fills caches.
  for _ in range(num):
    for fn, times in zip((ours, theirs), seconds, strict=True):
      start = time.perf_counter()
      fn()
      times.append(time.perf_counter() - start)
  return tuple(float(np.median(times)) for times in seconds)


def stepper(method, batch):
  """One compiled train step as a function without arguments; and the parameters."""
  state = jax.jit(method.init)(KEY, batch)
  step, held = jax.jit(method.train_step, donate_argnums=0), [state]
  num = sum(x.size for x in jax.tree.leaves(state.params))

  def run():
    held[0], metrics = step(held[0], batch, KEY)
    jax.block_until_ready(metrics)

  return run, num


def torch_stepper(net, loss):
  import torch

  adam = torch.optim.Adam(net.parameters(), 1e-3)

  def run():
    adam.zero_grad()
    loss().backward()
    adam.step()

  return run, sum(p.numel() for p in net.parameters())


def bench_iwae():
  import torch
  from torch import nn

  class Net(nn.Module):
    def __init__(self):
      super().__init__()
      body = lambda a: (nn.Linear(a, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh())
      self.encoder = nn.Sequential(*body(SIZE))
      self.mean, self.log_var = nn.Linear(200, 50), nn.Linear(200, 50)
      self.decoder = nn.Sequential(*body(50), nn.Linear(200, SIZE))

    def loss(self, grey, num=50):
      x = torch.bernoulli(grey)
      h = self.encoder(x)
      mean, log_var = self.mean(h), self.log_var(h)
      eps = torch.randn(num, *mean.shape)
      z = mean + torch.exp(0.5 * log_var) * eps
      logits = self.decoder(z)
      log_x = (x * logits - nn.functional.softplus(logits)).sum(-1)
      log_ratio = 0.5 * (eps**2 + log_var - z**2).sum(-1)
      return -(torch.logsumexp(log_x + log_ratio, 0) - np.log(num)).mean()

  image = np.random.default_rng(0).uniform(-1, 1, (20, 28, 28, 1)).astype(np.float32)
  method = iwae(one_layer((28, 28, 1)), tx=optax.adam(1e-3), num_draws=50)
  net, grey = Net(), torch.from_numpy((image.reshape(20, -1) + 1) / 2)
  return stepper(method, {"image": image}), torch_stepper(net, lambda: net.loss(grey))


def bench_glow():
  import normflows as nf
  import torch

  rng = np.random.default_rng(0)
  levels = rng.integers(0, 256, (64, 28, 28, 1)).astype(np.float32)
  scales, steps, width = 2, 4, 48
  base, flows, merges = [], [], []
  for i in range(scales):  # From the smallest level, which has all that is left.
    channels = 2 ** (scales + 1 - i)
    blocks = [nf.flows.GlowBlock(channels, width, scale=True) for _ in range(steps)]
    flows.append([*blocks, nf.flows.Squeeze()])
    side = 28 // 2 ** (scales - i)
    shape = (channels // 2, side, side) if i else (channels, side, side)
    merges += [nf.flows.Merge()] if i else []
    base.append(nf.distributions.DiagGaussian(shape))
  theirs = nf.MultiscaleFlow(base, flows, merges)
  level = torch.from_numpy(levels).permute(0, 3, 1, 2).contiguous()
  loss = lambda: theirs.forward_kld((level + torch.rand_like(level)) / 256 - 0.5)
  net = glow.network((28, 28, 1), num_scales=scales, num_steps=steps, width=width)
  method = glow.glow(net, tx=optax.adam(1e-3))
  return stepper(method, {"image": levels / 127.5 - 1}), torch_stepper(theirs, loss)


def bench_nll(num=100):
  """Seconds of the tool `nll` on `num` images with 5,000 draws each."""
  method = iwae(one_layer((28, 28, 1)), tx=optax.adam(1e-3), num_draws=50)
  image = np.random.default_rng(0).uniform(-1, 1, (num, 28, 28, 1)).astype(np.float32)
  state = jax.jit(method.init)(KEY, {"image": image})
  tool = jax.jit(method.tools["nll"])
  run = lambda: jax.block_until_ready(tool(state, {"image": image}, KEY))
  run()
  start, cpu = time.perf_counter(), time.process_time()
  run()
  seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
  minutes = 10_000 / num * seconds / 60
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  print(
    f"nll      {num / seconds:.2f} images/s ({cpu / num:.3f} s of CPU time each): "
    f"{minutes:.1f} minutes for 10,000; peak memory {peak:.2f} GiB"
  )


def main(names):
  import torch

  torch.set_num_threads(THREADS)
  for name in names:
    if name == "nll":
      bench_nll()
      continue
    (ours, num), (theirs, num_theirs) = {"iwae": bench_iwae, "glow": bench_glow}[name]()
    here, there = in_turns(ours, theirs)
    print(
      f"{name:8} jaxgen {1e3 * here:.1f} ms ({num} parameters), torch "
      f"{1e3 * there:.1f} ms ({num_theirs}): torch / jaxgen {there / here:.2f}",
      flush=True,
    )


if __name__ == "__main__":
  main(sys.argv[1:] or ["iwae", "glow", "nll"])
