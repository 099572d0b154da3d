"""Seconds of a train step here and in PyTorch: the same network, batch and arithmetic.

  pip install torch normflows nflows
  python tests/bench/torch_ratios.py                      # all, on all cores
  taskset -c 0 python tests/bench/torch_ratios.py iwae nll  # on one

Prints, for each, the median of seconds and of CPU seconds in both, and PyTorch's
divided by ours (above 1: ours is faster). Both take turns, so that a busy machine hurts
them alike; CPU seconds, of one core, hardly depend on what else it does.
float32, Adam, random images; compiling is not counted.

  iwae  IWAE, one layer (425,284 parameters in both), batch 20, 50 draws
  glow  2 levels of 4 steps, width 48, 28x28, batch 64, against normflows: the same
        sequence of layers and convolutions, whose scales, borders and priors are
        normflows' own, as the two numbers of parameters show
  maf   MAF (5) of 28x28 (22,551,200 parameters in both), batch 100, against nflows
  nll   5,000 importance samples for each of 20 images of the IWAE, 50 at a time in
        PyTorch; also the minutes of 10,000 images here, and the process's peak memory
"""

import os
import resource
import sys
import time

import jax
import numpy as np
import optax

from jaxgen.flow import glow, maf
from jaxgen.vae.iwae import iwae, one_layer

THREADS = len(os.sched_getaffinity(0))
KEY = jax.random.key(0)
SIZE = 784


def in_turns(ours, theirs, num=20):
  """Medians of two functions without arguments: [[seconds, CPU seconds], ...]."""
  clocks = lambda: np.array([time.perf_counter(), time.process_time()])
  taken = ([], [])
  for fn in (ours, theirs):
    fn()  # Compiles, or fills caches.
  for _ in range(num):
    for fn, times in zip((ours, theirs), taken, strict=True):
      start = clocks()
      fn()
      times.append(clocks() - start)
  return np.median(taken, axis=1)


def count(state):
  return sum(x.size for x in jax.tree.leaves(state.params))


def stepper(method, batch):
  """One compiled train step as a function without arguments; and the parameters."""
  state = jax.jit(method.init)(KEY, batch)

  def one(state, batch, key):  # Advanced, as by the runner: step 0 has more to do.
    state, metrics = method.train_step(state, batch, key)
    return state.replace(step=state.step + 1), metrics

  step, held = jax.jit(one, donate_argnums=0), [state]

  def run():
    held[0], metrics = step(held[0], batch, KEY)
    jax.block_until_ready(metrics)

  return run, count(state)


def torch_stepper(net, loss):
  import torch

  adam = torch.optim.Adam(net.parameters(), 1e-3)

  def run():
    adam.zero_grad()
    loss().backward()
    adam.step()

  return run, sum(p.numel() for p in net.parameters())


def torch_iwae():
  """The network in PyTorch, with loss(grey, number of draws)."""
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

  return Net()


def bench_iwae():
  import torch

  image = np.random.default_rng(0).uniform(-1, 1, (20, 28, 28, 1)).astype(np.float32)
  method = iwae(one_layer((28, 28, 1)), tx=optax.adam(1e-3), num_draws=50)
  net, grey = torch_iwae(), torch.from_numpy((image.reshape(20, -1) + 1) / 2)
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


def bench_maf():
  from nflows.flows import MaskedAutoregressiveFlow
  import torch

  rng = np.random.default_rng(0)
  levels = rng.integers(0, 256, (100, 28, 28, 1)).astype(np.float32)
  method = maf.maf(maf.network((28, 28, 1)), tx=optax.adam(1e-4), alpha=None)
  theirs = MaskedAutoregressiveFlow(SIZE, 1024, 5, 1, batch_norm_between_layers=False)
  level = torch.from_numpy(levels.reshape(100, -1))
  loss = lambda: -theirs.log_prob((level + torch.rand_like(level)) / 256 - 0.5).mean()
  return stepper(method, {"image": levels / 127.5 - 1}), torch_stepper(theirs, loss)


def bench_nll(num=20, draws=5_000, chunk=50):
  import torch

  method = iwae(one_layer((28, 28, 1)), tx=optax.adam(1e-3), num_draws=50)
  image = np.random.default_rng(0).uniform(-1, 1, (num, 28, 28, 1)).astype(np.float32)
  state = jax.jit(method.init)(KEY, {"image": image})
  tool = jax.jit(method.tools["nll"])
  net, grey = torch_iwae(), torch.from_numpy((image.reshape(num, -1) + 1) / 2)

  @torch.no_grad()
  def theirs():
    for _ in range(draws // chunk):
      net.loss(grey, chunk)

  ours = lambda: jax.block_until_ready(tool(state, {"image": image}, KEY))
  num_theirs = sum(p.numel() for p in net.parameters())
  return (ours, count(state)), (theirs, num_theirs)


BENCHES = {"iwae": bench_iwae, "glow": bench_glow, "maf": bench_maf, "nll": bench_nll}


def show(name, ours, theirs, num=20):
  """Prints a comparison of two (function, number of parameters); medians as above."""
  (run, count), (run_theirs, count_theirs) = ours, theirs
  here, there = in_turns(run, run_theirs, num)
  shown = " / ".join(
    "{:.1f} ms ({:.1f} ms of CPU)".format(*1e3 * t) for t in (here, there)
  )
  print(
    f"{name} jaxgen / torch {shown}, {count} / {count_theirs} parameters: "
    "torch / jaxgen {:.2f} ({:.2f} of CPU)".format(*there / here),
    flush=True,
  )
  return here


def main(names):
  import torch

  torch.set_num_threads(THREADS)
  for name in names:
    here = show(name, *BENCHES[name](), 5 if name in ("maf", "nll") else 20)
    if name == "nll":
      peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
      print(
        f"nll   10,000 images: {here[1] * 10_000 / 20 / 60:.1f} minutes of CPU time; "
        f"peak memory {peak:.2f} GiB"
      )


if __name__ == "__main__":
  main(sys.argv[1:] or list(BENCHES))
