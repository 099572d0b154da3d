"""Makes ffjord.npz: the authors' flow of convolutions, in float64.

  git clone https://github.com/rtqichen/ffjord
  pip install torch==2.13.0 torchdiffeq==0.2.5 numpy
  PYTHONPATH=ffjord python tests/golden/make_ffjord.py

Weights are those of `state`, by that code's names; images are `images`. The trace is
that of the whole Jacobian; T is 1, a parameter that gets no gradient in that code.

Keys:
  z         [2, C H W] of both scales in that code's order: channels first
  log_det   [2]
  grad/NAME of sum(z^2) / 2 - log_det, over both images, by parameter
"""

from pathlib import Path

import numpy as np

SHAPE = (8, 8, 1)
NETWORK = dict(hidden_dims=(3,), num_flows=1, num_scales=2)


def images():
  return np.random.default_rng(0).standard_normal((2, *SHAPE))


def state(random):
  """float64 of a `random_state`, halved."""
  return {name: 0.5 * value.astype(np.float64) for name, value in random.items()}


def main():
  from lib import odenvp
  from lib.layers import odefunc
  from random_state import random_state
  import torch

  torch.set_default_dtype(torch.float64)
  height, width, channels = SHAPE
  options = dict(T=1.0, train_T=False, rtol=1e-9, atol=1e-9)
  net = odenvp.ODENVP(
    (2, channels, height, width),
    n_blocks=NETWORK["num_flows"],
    intermediate_dims=NETWORK["hidden_dims"],
    squash_input=False,
    cnf_kwargs=options,
  )

  def trace(dx, x, e=None):
    """Of each image; that code's own forgets the graph that gradients need."""
    rows = [dx.reshape(len(dx), -1)[:, i].sum() for i in range(dx[0].numel())]
    slopes = [torch.autograd.grad(row, x, create_graph=True)[0] for row in rows]
    flat = torch.stack([s.reshape(len(x), -1) for s in slopes], 1)
    return torch.diagonal(flat, dim1=1, dim2=2).sum(-1)

  for module in net.modules():
    if isinstance(module, odefunc.ODEfunc):
      module.divergence_fn = trace
  named = dict(net.named_parameters())
  shapes = {k: tuple(p.shape) for k, p in named.items()}
  for name, value in state(random_state(shapes)).items():
    named[name].data = torch.as_tensor(value)
  x = torch.from_numpy(images().transpose(0, 3, 1, 2))
  z, minus = net(x, torch.zeros(2, 1))
  loss = (z**2).sum() / 2 + minus.sum()
  grads = torch.autograd.grad(loss, list(named.values()))
  found = {f"grad/{k}": g.numpy() for k, g in zip(named, grads, strict=True)}
  found |= {"z": z.detach().numpy(), "log_det": -minus.detach().numpy()[:, 0]}
  np.savez_compressed(Path(__file__).with_name("ffjord.npz"), **found)


if __name__ == "__main__":
  main()
