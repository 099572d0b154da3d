"""Makes iwae.npz: bounds on log p(x) and their gradients in PyTorch.

  pip install torch==2.13.0 numpy
  python tests/golden/make_iwae.py

Everything is float64. Two models of 3x3 binary images, 4 images, 5 draws each: one
stochastic layer (9-6-5-3, mirrored) and two (9-6-5-4 and 4-3-3-2, mirrored), tanh,
written with torch.distributions. Weights and noise are drawn by numpy's
default_rng(0) in the order in which the networks use them (`weights` below), then the
images, then the noise of each layer, z = mean + std * noise.

Keys, for L in 1, 2: L/bound (L_5 of each image), L/log_weights [5, 4], and L/grad/K,
the gradients of the mean bound by the K-th weight matrix or bias. Of the model of one
layer with the first draw alone, E log p(x|z) and KL(q(z|x) || N(0, I)) in closed form:
elbo/reconstruction, elbo/kl, and elbo/grad/K of the mean of their difference.
"""

import itertools
from pathlib import Path

import numpy as np
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

NUM_DRAWS, BATCH = 5, 4
# Per level: sizes of the encoder up to the latent; outputs of the decoder for a value.
LEVELS = {1: [((9, 6, 5, 3), 1)], 2: [((9, 6, 5, 4), 1), ((4, 3, 3, 2), 2)]}


def weights(rng, sizes, num_outputs):
  """Kernels [in, out] and biases: encoder layers, mean, log_var, decoder, outputs."""
  *hidden, latent = sizes
  widths = list(itertools.pairwise(hidden))
  widths += [(hidden[-1], latent)] * 2
  up = [latent, *hidden[:0:-1]]
  widths += list(itertools.pairwise(up))
  widths += [(hidden[1], sizes[0] * num_outputs)]
  found = []
  for a, b in widths:
    found += [0.5 * rng.standard_normal((a, b)), 0.5 * rng.standard_normal(b)]
  return found


def encode(w, x, depth):
  for i in range(depth):
    x = torch.tanh(x @ w[2 * i] + w[2 * i + 1])
  mean, log_var = (x @ w[j] + w[j + 1] for j in (2 * depth, 2 * depth + 2))
  return Normal(mean, torch.exp(0.5 * log_var))


def decode(w, z, depth):
  start = 2 * depth + 4
  for i in range(depth):
    z = torch.tanh(z @ w[start + 2 * i] + w[start + 2 * i + 1])
  return z @ w[-2] + w[-1]


def elbo(w, x, noise):
  for a in w:
    a.grad = None
  q = encode(w, x, 2)
  logits = decode(w, q.mean + q.stddev * noise, 2)
  reconstruction = Bernoulli(logits=logits).log_prob(x).sum(-1)
  kl = kl_divergence(q, Normal(0.0, 1.0)).sum(-1)
  (reconstruction - kl).mean().backward()
  found = {"reconstruction": reconstruction, "kl": kl}
  found = {name: value.detach() for name, value in found.items()}
  found |= {f"grad/{k}": a.grad for k, a in enumerate(w)}
  return {f"elbo/{name}": value.numpy() for name, value in found.items()}


def main():
  arrays = {}
  for num, levels in LEVELS.items():
    rng = np.random.default_rng(0)
    w = [
      [torch.tensor(a, requires_grad=True) for a in weights(rng, *level)]
      for level in levels
    ]
    x = torch.tensor((rng.random((BATCH, 9)) < 0.5).astype(np.float64))
    noise = [
      torch.tensor(rng.standard_normal((NUM_DRAWS, BATCH, s[-1]))) for s, _ in levels
    ]
    below, total, zs = x.expand(NUM_DRAWS, BATCH, 9), 0.0, []
    for i, (sizes, _) in enumerate(levels):
      q = encode(w[i], below, len(sizes) - 2)
      below = q.mean + q.stddev * noise[i]
      zs.append(below)
      total = total - q.log_prob(below).sum(-1)
    total = total + Normal(0.0, 1.0).log_prob(zs[-1]).sum(-1)
    if num == 2:
      out = decode(w[1], zs[1], 2).reshape(NUM_DRAWS, BATCH, 4, 2)
      p = Normal(out[..., 0], torch.exp(0.5 * out[..., 1]))
      total = total + p.log_prob(zs[0]).sum(-1)
    total = total + Bernoulli(logits=decode(w[0], zs[0], 2)).log_prob(x).sum(-1)
    bound = torch.logsumexp(total, 0) - np.log(NUM_DRAWS)
    bound.mean().backward()
    arrays[f"{num}/bound"] = bound.detach().numpy()
    arrays[f"{num}/log_weights"] = total.detach().numpy()
    grads = [a.grad.numpy() for level in w for a in level]
    arrays |= {f"{num}/grad/{k}": g for k, g in enumerate(grads)}
    if num == 1:
      arrays |= elbo(w[0], x, noise[0][0])
  np.savez_compressed(Path(__file__).with_name("iwae.npz"), **arrays)


if __name__ == "__main__":
  main()
