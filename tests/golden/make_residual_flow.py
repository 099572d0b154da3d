"""Makes residual_flow.npz: the authors' network of convolutions, in float64.

  git clone https://github.com/rtqichen/residual-flows
  pip install torch==2.13.0 numpy
  PYTHONPATH=residual-flows python tests/golden/make_residual_flow.py

Weights are those of `state`, by that code's names; images are `images`. Vectors of the
power iterations are those of 2,000 of them.

Keys:
  z         [2, C H W] in that code's order: channels first
  log_det   of the Jacobian of the first image, by its determinant: []
  grad/NAME of sum(z^2) / 2 - log_det of the first image, by parameter
"""

from pathlib import Path

import numpy as np

SHAPE = (8, 8, 1)
NETWORK = dict(num_blocks=(1, 2), width=3, dense_dims=(5, 5), bound=0.9)


def images():
  return np.random.default_rng(0).standard_normal((2, *SHAPE))


def state(random):
  """float64 of a `random_state`; some kernels are above the bound, some are not."""
  found = {}
  for name, value in random.items():
    value = value.astype(np.float64)
    found[name] = 0.5 + value if name.endswith("beta") else value
  return found


def main():
  from random_state import random_state
  from resflows.resflow import ResidualFlow
  import torch

  torch.set_default_dtype(torch.float64)
  height, width, channels = SHAPE
  net = ResidualFlow(
    (2, channels, height, width),
    n_blocks=NETWORK["num_blocks"],
    intermediate_dim=NETWORK["width"],
    fc_idim=NETWORK["dense_dims"][0],
    coeff=NETWORK["bound"],
    factor_out=False,
    actnorm=True,
    vnorms="2222",
    sn_atol=1e-3,
    sn_rtol=1e-3,
    kernels="3-1-3",
    activation_fn="swish",
    preact=True,
    first_resblock=True,
  )
  x = torch.from_numpy(images().transpose(0, 3, 1, 2))
  net(x)  # Makes the vectors, and starts actnorm.
  named = dict(net.named_parameters())
  used = {k: p for k, p in named.items() if not k.endswith(("geom_p", "lamb"))}
  shapes = {k: tuple(p.shape) for k, p in used.items()}
  for name, value in state(random_state(shapes)).items():
    used[name].data = torch.from_numpy(value)
  for module in net.modules():
    if hasattr(module, "compute_weight"):
      module.compute_weight(update=True, n_iterations=2000)
  net.eval()
  z = net(x)
  first = lambda image: net(image[None])[0]
  jacobian = torch.autograd.functional.jacobian(first, x[0], create_graph=True)
  log_det = torch.linalg.slogdet(jacobian.reshape(x[0].numel(), -1))[1]
  loss = (first(x[0]) ** 2).sum() / 2 - log_det
  grads = torch.autograd.grad(loss, list(used.values()))
  found = {f"grad/{k}": g.numpy() for k, g in zip(used, grads, strict=True)}
  found |= {"z": z.detach().numpy(), "log_det": log_det.detach().numpy()}
  np.savez_compressed(Path(__file__).with_name("residual_flow.npz"), **found)


if __name__ == "__main__":
  main()
