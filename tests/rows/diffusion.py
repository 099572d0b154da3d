"""Rows of the generic table: diffusion."""

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.data.source import zeros
from jaxgen.diffusion import learned_schedule, process, schedules
from jaxgen.diffusion.consistency import consistency, constant, progressive
from jaxgen.diffusion.ddim import ddim
from jaxgen.diffusion.ddpm import ddpm
from jaxgen.diffusion.dit import dit
from jaxgen.diffusion.edm import edm
from jaxgen.diffusion.flow_matching import flow_matching
from jaxgen.diffusion.improved_ddpm import improved_ddpm
from jaxgen.diffusion.progressive_distillation import progressive_distillation
from jaxgen.diffusion.schedules import (
  cosine_betas,
  karras_levels,
  linear_betas,
  linear_steps,
)
from jaxgen.diffusion.score_sde import grid, score_sde
from jaxgen.diffusion.sr3 import Network, sr3
from jaxgen.diffusion.vdm import vdm
from jaxgen.nn.dit import DiT
from jaxgen.nn.song_unet import SongUNet
from jaxgen.nn.unet import UNet
from jaxgen.nn.vdm_unet import MonotoneSchedule, VdmUNet
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


def mirrored(x, key):
  """A cheap augmentation, and its label."""
  flip = random.bernoulli(key, 0.5, (len(x),))
  wide = flip[:, None, None, None]
  return jnp.where(wide, x[:, :, ::-1], x), flip[:, None].astype(x.dtype)


def make_edm():
  net = SongUNet(2, 1, 16, (1,), 1, (), dropout_rate=0.1)
  return edm(
    net,
    tx=optax.adam(2e-2, eps=1e-4),
    conditional=True,
    augment=mirrored,
    label_dropout=0.1,
    guidance=1.5,
    sigma_data=0.58,  # of uniform noise
    log_sigma=(1.0, 0.5),
    ema_half_life=10.0,
    levels=karras_levels(4),
  )


def make_dit():
  net = DiT(2, patch_size=4, depth=2, width=8, num_heads=2)
  return dit(
    net,
    tx=optax.adam(1e-2, eps=1e-4),
    betas=linear_betas(8, 1e-2, 0.5),
    guidance=1.5,
    num_sampling_steps=4,
    ema_decay=0.9,
  )


def make_vdm():
  score = VdmUNet(channels=8, num_blocks=1, num_groups=4, dropout_rate=0.1)
  method = vdm(
    learned_schedule.Network(score, MonotoneSchedule(width=4)),
    # Adam would make much of the schedule's gradients, which are differences.
    tx=optax.partition(
      {"score": optax.adam(1e-2, eps=1e-4), "schedule": optax.sgd(1.5e-2)},
      lambda params: {part: part for part in params},
    ),
    num_sampling_steps=8,
    ema_decay=0.9,
  )

  def init(key, batch):
    # Three layers behind one another start at zero: time would be heard at step four.
    state = method.init(key, batch)
    params = jax.tree.map(lambda p: p + 0.01, state.params)
    return state.replace(params=params, ema=params)

  return method._replace(init=init)


def tiny():
  return UNet(8, (1,), 1, (), num_groups=4), optax.adam(1e-2, eps=1e-4)


def make_flow_matching():
  net, tx = tiny()
  times = schedules.uniform(2, 1.0)
  return flow_matching(net, tx=tx, ema_decay=0.9, times=times)


def make_score_sde():
  net, tx = tiny()
  sub_vp = process.sub_vp()
  return score_sde(net, tx=tx, process=sub_vp, ema_decay=0.9, times=grid(sub_vp, 2))


def make_consistency_training():
  net, tx = tiny()
  return consistency(net, tx=tx, schedule=progressive(40, last=4), levels=(1.0,))


def make_consistency_distillation():
  net, tx = tiny()
  teacher = lambda x_t, sigma: x_t / (1.0 + sigma**2)
  return consistency(net, tx=tx, teacher=teacher, schedule=constant(6, 0.9))


def make_progressive_distillation():
  net, tx = tiny()
  return progressive_distillation(net, tx=tx, num_steps=2, ema_decay=0.9)


ROWS = {
  "diffusion/ddpm": Row(make_ddpm, "loss"),
  "diffusion/ddim": Row(
    make_ddim, "loss", spec={**IMAGES, "latents": zeros((8, 8, 8, 1), np.float32)}
  ),
  "diffusion/improved_ddpm": Row(make_improved_ddpm, "loss"),
  "diffusion/sr3": Row(make_sr3, "loss"),
  "diffusion/edm": Row(make_edm, "loss"),
  "diffusion/dit": Row(make_dit, "loss"),
  # The schedule has the gradients of two losses. Of bits, they are large and rounded.
  "diffusion/vdm": Row(make_vdm, "loss", passes=2, atol=3e-4),
  "diffusion/flow_matching": Row(make_flow_matching, "loss"),
  "diffusion/score_sde": Row(make_score_sde, "loss"),
  "diffusion/consistency_training": Row(make_consistency_training, "loss"),
  "diffusion/consistency_distillation": Row(make_consistency_distillation, "loss"),
  "diffusion/progressive_distillation": Row(make_progressive_distillation, "loss"),
}
