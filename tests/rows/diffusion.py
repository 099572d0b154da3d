"""Rows of the generic table: diffusion."""

import numpy as np
import optax

from jaxgen.data.source import zeros
from jaxgen.diffusion.ddim import ddim
from jaxgen.diffusion.ddpm import ddpm
from jaxgen.diffusion.improved_ddpm import improved_ddpm
from jaxgen.diffusion.schedules import cosine_betas, linear_betas, linear_steps
from jaxgen.diffusion.sr3 import Network, sr3
from jaxgen.nn.unet import UNet
from rows import IMAGES, Row


def make_ddpm():
  net = UNet(8, (1,), 1, (), num_groups=4)
  # A large eps: the bias of attention keys has no gradient but rounding.
  tx = optax.adam(1e-2, eps=1e-4)
  return ddpm(net, tx=tx, betas=linear_betas(8, 1e-2, 0.5), ema_decay=0.9)


def make_ddim():
  net = UNet(8, (1,), 1, (), num_groups=4)
  tx = optax.adam(1e-2, eps=1e-4)
  betas, steps = linear_betas(8, 1e-2, 0.5), linear_steps(8, 3)
  return ddim(net, tx=tx, betas=betas, steps=steps, eta=0.5, ema_decay=0.9)


def make_improved_ddpm():
  net = UNet(8, (1,), 1, (), num_groups=4, out_channels=2)
  tx = optax.adam(1e-2, eps=1e-4)
  betas = cosine_betas(8)
  return improved_ddpm(net, tx=tx, betas=betas, num_sample_steps=4, ema_decay=0.9)


def make_sr3():
  net = Network(UNet(8, (1,), 1, (), num_groups=4, out_channels=1))
  tx = optax.adam(1e-2, eps=1e-4)
  return sr3(net, tx=tx, betas=linear_betas(8, 1e-2, 0.5), factor=4, ema_decay=0.9)


ROWS = {
  "diffusion/ddpm": Row(make_ddpm, "loss"),
  "diffusion/ddim": Row(
    make_ddim, "loss", spec={**IMAGES, "latents": zeros((8, 8, 8, 1), np.float32)}
  ),
  "diffusion/improved_ddpm": Row(make_improved_ddpm, "loss"),
  "diffusion/sr3": Row(make_sr3, "loss"),
}
