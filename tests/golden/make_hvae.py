"""Makes hvae.npz: the authors' VDVAE in float64, with the means for draws of q.

  pip install torch==2.13.0 numpy; git clone https://github.com/openai/vdvae
  PYTHONPATH=vdvae python tests/golden/make_hvae.py

Weights are those of `random_state`, by that code's names; images are `images`.

Keys:
  outputs    parameters of p(x | z), [2, 8, 8, 20]
  kl         nats of each block's KL, the topmost first, [4, 2]
  nll        -log p(x | z) in nats per value, [2]
  grad       of the sum of KLs and of squared outputs, by what the network sees
  mixture    log P of `pixels` under `mixture_outputs`, one image, in nats per value
"""

from pathlib import Path

import numpy as np

ENCODER, DECODER = "8x1,8d2,4x1,4d4,1x1", "1x1,4m1,4x1,8m4"
LEVELS = ((8, 2, 1), (4, 2, 2), (1, 1, 1))
WIDTH, LATENT, MIXTURES = 8, 3, 2


def images():
  """What the network sees, [2, 8, 8, 3], and 8-bit levels in [-1, 1]."""
  rng = np.random.default_rng(0)
  seen = rng.standard_normal((2, 8, 8, 3))
  return seen, rng.integers(0, 256, (2, 8, 8, 3)) / 127.5 - 1


def mixture_outputs():
  """Outputs and levels of an image, among these 0 and 255: [1, 4, 4, 20 and 3]."""
  rng = np.random.default_rng(1)
  levels = rng.integers(0, 256, (1, 4, 4, 3))
  levels[0, 0] = [[0, 255, 0]]
  return rng.standard_normal((1, 4, 4, 10 * MIXTURES)), levels / 127.5 - 1


def main():
  from hps import Hyperparams
  from random_state import random_state
  import torch
  import vae
  import vae_helpers

  vae.draw_gaussian_diag_samples = lambda mean, log_std: mean
  sizes = dict(width=WIDTH, zdim=LATENT, image_size=8, image_channels=3)
  blocks = dict(enc_blocks=ENCODER, dec_blocks=DECODER, bottleneck_multiple=0.5)
  options = dict(no_bias_above=64, num_mixtures=MIXTURES, dataset="", **sizes)
  net = vae.VAE(Hyperparams(**options, **blocks)).double()
  state = random_state({n: tuple(p.shape) for n, p in net.named_parameters()})
  net.load_state_dict({n: torch.from_numpy(v).double() for n, v in state.items()})
  seen, target = (torch.from_numpy(v) for v in images())
  seen.requires_grad_()
  features, stats = net.decoder(net.encoder(seen))
  kl = torch.stack([s["kl"].sum(dim=(1, 2, 3)) for s in stats])
  nll = net.decoder.out_net.nll(features, target)
  parameters = net.decoder.out_net(features)
  total = kl.sum() + (parameters**2).sum()
  outputs, levels = (torch.from_numpy(v) for v in mixture_outputs())
  mixture = vae_helpers.discretized_mix_logistic_loss(levels, outputs)
  golden = {
    "outputs": parameters,
    "kl": kl,
    "nll": nll,
    "grad": torch.autograd.grad(total, seen)[0],
    "mixture": -mixture,
  }
  golden = {name: v.detach().numpy() for name, v in golden.items()}
  np.savez_compressed(Path(__file__).parent / "hvae.npz", **golden)


if __name__ == "__main__":
  main()
