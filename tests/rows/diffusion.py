"""Rows of the generic table: diffusion."""

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.data.source import zeros
from jaxgen.diffusion import learned_schedule, process, schedules
from jaxgen.diffusion.classifier_guidance import classifier_guidance
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
from jaxgen.nn.unet import UNet
from jaxgen.nn.vdm_unet import MonotoneSchedule
from rows import IMAGES, Row


class Denoiser(nn.Module):
  """Two convolutions: most rows are about processes, and U-Nets are slow to compile.

  SR3's, which has the fewest programs, is a U-Net all the same.
  """

  out_channels: int = 1

  @nn.compact
  def __call__(self, x, t, label=None, augment=None, train=False):
    none = jnp.full(len(x), -1)
    classes = jax.nn.one_hot(none if label is None else label, 2)
    augment = jnp.zeros((len(x), 1)) if augment is None else augment
    time = jnp.cos(jnp.asarray(t, jnp.float32)[:, None] * jnp.array([[1.0, 0.1, 0.01]]))
    given = jnp.concatenate([time, classes, augment], axis=-1)
    h = nn.Conv(8, (3, 3))(x) + nn.Dense(8)(given)[:, None, None]
    h = nn.Dropout(0.1, deterministic=not train)(nn.swish(h))
    return nn.Conv(self.out_channels, (3, 3), kernel_init=nn.initializers.zeros)(h)


class Classifier(nn.Module):
  """One convolution, of an image and its time."""

  @nn.compact
  def __call__(self, x, t):
    h = nn.swish(nn.Conv(8, (3, 3), strides=2)(x)).mean(axis=(1, 2))
    return nn.Dense(2)(jnp.concatenate([h, t[:, None] / 1000], axis=1))


# A large eps: the bias of attention keys has no gradient but rounding.
adam = optax.adam(1e-2, eps=1e-4)


def make_ddpm():
  return ddpm(Denoiser(), tx=adam, betas=linear_betas(8, 1e-2, 0.5), ema_decay=0.9)


def make_ddim():
  betas, steps = linear_betas(8, 1e-2, 0.5), linear_steps(8, 3)
  return ddim(Denoiser(), tx=adam, betas=betas, steps=steps, eta=0.5, ema_decay=0.9)


def make_improved_ddpm():
  net, betas = Denoiser(2), cosine_betas(8)
  return improved_ddpm(net, tx=adam, betas=betas, num_sample_steps=4, ema_decay=0.9)


def make_sr3():
  net = Network(UNet(8, (1,), 1, (), num_groups=4, out_channels=1))
  betas = linear_betas(8, 1e-2, 0.5)
  return sr3(net, tx=adam, betas=betas, factor=4, ema_decay=0.9)


def mirrored(x, key):
  """A cheap augmentation, and its label."""
  flip = random.bernoulli(key, 0.5, (len(x),))
  wide = flip[:, None, None, None]
  return jnp.where(wide, x[:, :, ::-1], x), flip[:, None].astype(x.dtype)


def make_edm():
  return edm(
    Denoiser(),
    tx=optax.adam(1e-1, eps=1e-4),
    conditional=True,
    augment=mirrored,
    label_dropout=0.1,
    guidance=1.5,
    sigma_data=1.0,  # Not the images' 0.58, which would leave nothing to be learnt.
    log_sigma=(0.0, 0.1),
    ema_half_life=10.0,
    levels=karras_levels(4),
  )


def make_dit():
  net = DiT(2, patch_size=4, depth=2, width=8, num_heads=2)
  return dit(
    net,
    tx=adam,
    betas=linear_betas(8, 1e-2, 0.5),
    guidance=1.5,
    num_sampling_steps=4,
    ema_decay=0.9,
  )


def make_classifier_guidance():
  return classifier_guidance(
    Classifier(),
    tx=optax.adam(3e-2, eps=1e-4),
    denoise=lambda x_t, t: x_t / (1.0 + t**2),
    process=process.discrete(linear_betas(8, 1e-2, 0.5)),
    scale=2.0,
    times=linear_steps(8, 3),
  )


def make_vdm():
  method = vdm(
    learned_schedule.Network(Denoiser(), MonotoneSchedule(width=4)),
    # Adam would make much of the schedule's gradients, which are differences.
    tx=optax.partition(
      {"score": adam, "schedule": optax.sgd(1.5e-2)},
      lambda params: {part: part for part in params},
    ),
    num_sampling_steps=8,
    ema_decay=0.9,
  )

  def init(key, batch):
    """A bent schedule: the slope of a straight one has no gradient but rounding."""
    state = method.init(key, batch)
    schedule = state.params["net"]["schedule"]
    bent = {name: 100.0 * schedule[name] for name in ("inner", "outer")}
    net = {"net": {**state.params["net"], "schedule": {**schedule, **bent}}}
    return state.replace(params=net, ema=net)

  return method._replace(init=init)


def make_flow_matching():
  times = schedules.uniform(2, 1.0)
  return flow_matching(Denoiser(), tx=adam, ema_decay=0.9, times=times)


def make_score_sde():
  sub_vp = process.sub_vp()
  times = grid(sub_vp, 2)
  return score_sde(Denoiser(), tx=adam, process=sub_vp, ema_decay=0.9, times=times)


def make_consistency_training():
  schedule = progressive(40, last=4)
  return consistency(Denoiser(), tx=adam, schedule=schedule, levels=(1.0,))


def make_consistency_distillation():
  net, x, label = Denoiser(), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1, jnp.int32)
  return consistency(
    net,
    tx=optax.adam(1e-3, eps=1e-4),
    conditional=True,
    teacher=net.init(random.key(1), x, jnp.zeros(1), label)["params"],
    schedule=constant(6, 0.9),
  )


def make_progressive_distillation():
  return progressive_distillation(Denoiser(), tx=adam, num_steps=2, ema_decay=0.9)


ROWS = {
  "diffusion/ddpm": Row(make_ddpm, "loss"),
  "diffusion/ddim": Row(
    make_ddim, "loss", spec={**IMAGES, "latents": zeros((8, 8, 8, 1), np.float32)}
  ),
  "diffusion/improved_ddpm": Row(make_improved_ddpm, "loss"),
  "diffusion/sr3": Row(make_sr3, "loss"),
  "diffusion/edm": Row(make_edm, "loss"),
  "diffusion/dit": Row(make_dit, "loss"),
  "diffusion/classifier_guidance": Row(make_classifier_guidance, "loss"),
  "diffusion/vdm": Row(make_vdm, "loss", passes=2),  # Two losses have the schedule.
  "diffusion/flow_matching": Row(make_flow_matching, "loss"),
  "diffusion/score_sde": Row(make_score_sde, "loss"),
  "diffusion/consistency_training": Row(make_consistency_training, "loss"),
  "diffusion/consistency_distillation": Row(make_consistency_distillation, "loss"),
  "diffusion/progressive_distillation": Row(make_progressive_distillation, "loss"),
}
