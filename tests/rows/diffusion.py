"""Rows of the generic table: diffusion."""

import optax

from jaxgen.diffusion.ddpm import ddpm, linear_betas
from jaxgen.nn.unet import UNet
from rows import Row


def make_ddpm():
  net = UNet(8, (1,), 1, (), num_groups=4)
  # A large eps: the bias of attention keys has no gradient but rounding.
  tx = optax.adam(1e-2, eps=1e-4)
  return ddpm(net, tx=tx, betas=linear_betas(8, 1e-2, 0.5), ema_decay=0.9)


ROWS = {
  "diffusion/ddpm": Row(make_ddpm, "loss"),
}
