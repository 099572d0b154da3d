"""Rows of the generic table: gan."""

from flax import linen as nn
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.data.source import zeros
from jaxgen.gan import (
  biggan,
  biggan_networks,
  cgan,
  dcgan,
  improved_gan,
  lsgan,
  mlp_gan,
  pacgan,
  progan,
  rnn_gan,
  stylegan,
)
from jaxgen.gan.ada import Ada
from jaxgen.gan.adversarial import two_player
from jaxgen.gan.sngan import sngan
from jaxgen.gan.stylegan2 import Lazy, stylegan2
from jaxgen.gan.wgan import wgan
from jaxgen.gan.wgan_gp import wgan_gp
from jaxgen.losses.adversarial import hinge
from jaxgen.nn import stylegan2 as stylegan2_nets
from jaxgen.nn.progressive import Discriminator
from jaxgen.nn.spectral import spectral_norm
from jaxgen.nn.style import Mapping, StyleGenerator
from rows import IMAGES, Row


class ConditionalGen(nn.Module):
  @nn.compact
  def __call__(self, z, label, train):
    h = nn.Dense(4 * 4 * 4, use_bias=False)(z) + nn.Embed(10, 64)(label)
    h = nn.relu(nn.BatchNorm(not train)(h)).reshape(-1, 4, 4, 4)
    return nn.tanh(nn.ConvTranspose(1, (4, 4), (2, 2))(h))


class ConditionalDisc(nn.Module):
  @nn.compact
  def __call__(self, x, label, train):
    h = nn.leaky_relu(nn.Conv(4, (4, 4), (2, 2))(x)).reshape(len(x), -1)
    return nn.Dense(1)(h)[:, 0] + (nn.Embed(10, 64)(label) * h).sum(1)


class Critic(nn.Module):
  """No batch norm, and no last bias: the Wasserstein loss would not move it."""

  @nn.compact
  def __call__(self, x, label, train):
    h = nn.leaky_relu(nn.Conv(4, (4, 4), (2, 2))(x)).reshape(len(x), -1)
    return nn.Dense(1, use_bias=False)(h)[:, 0]


class SpectralDisc(nn.Module):
  """Normalised layers and a projection; no last bias, which the hinge may not move."""

  @nn.compact
  def __call__(self, x, label, train):
    conv = spectral_norm(nn.Conv(4, (4, 4), (2, 2), name="conv"), train=train)
    embed = spectral_norm(nn.Embed(10, 64, name="label"), train=train)
    h = nn.leaky_relu(conv(x)).reshape(len(x), -1)
    return nn.Dense(1, use_bias=False)(h)[:, 0] + (embed(label) * h).sum(1)


def make_dcgan():
  gen = dcgan.Generator(channels=1, width=4, num_doublings=1)
  disc = dcgan.Discriminator(width=4, num_halvings=1)
  adam = lambda rate: optax.adam(rate, b1=0.5)
  return dcgan.dcgan(gen, disc, gen_tx=adam(2e-3), disc_tx=adam(5e-3), latent_dim=4)


def make_two_player():
  tx = optax.adam(2e-3, b1=0.5)
  return two_player(
    ConditionalGen(),
    ConditionalDisc(),
    loss=hinge,
    gen_tx=tx,
    disc_tx=tx,
    latent_dim=4,
    ema_decay=0.9,
  )


def make_wgan():
  gen, tx = dcgan.Generator(1, 4, 1), optax.rmsprop(2e-3)
  return wgan(
    *(gen, Critic()),
    gen_tx=tx,
    critic_tx=tx,
    latent_dim=4,
    num_critic_steps=2,
    clip=0.1,
  )


def make_wgan_gp():
  gen, tx = dcgan.Generator(1, 4, 1), optax.adam(2e-3, b1=0.0, b2=0.9)
  return wgan_gp(
    gen, Critic(), gen_tx=tx, critic_tx=tx, latent_dim=4, num_critic_steps=3
  )


def make_sngan():
  nets, tx = (ConditionalGen(), SpectralDisc()), optax.adam(2e-3, b1=0.0, b2=0.9)
  return sngan(*nets, gen_tx=tx, disc_tx=tx, latent_dim=4, num_disc_steps=2)


def make_mlp_gan():
  gen, disc = mlp_gan.Generator((8, 8, 1), (16,)), mlp_gan.Discriminator((8,), 2)
  tx = optax.adam(2e-3, b1=0.5)
  return mlp_gan.mlp_gan(gen, disc, gen_tx=tx, disc_tx=tx, latent_dim=4)


def make_cgan():
  gen = cgan.Generator(10, (8, 8, 1), 4, 4, 8)
  disc = cgan.Discriminator(10, (8, 2), (4, 2), (8, 2))
  tx = optax.adam(2e-3, b1=0.5)
  return cgan.cgan(gen, disc, gen_tx=tx, disc_tx=tx, latent_dim=4, ema_decay=0.9)


def make_lsgan():
  gen = dcgan.Generator(channels=1, width=4, num_doublings=1)
  disc = dcgan.Discriminator(width=4, num_halvings=1)
  tx = optax.adam(2e-3, b1=0.5)
  return lsgan.lsgan(gen, disc, gen_tx=tx, disc_tx=tx, latent_dim=4)


def make_pacgan():
  gen, disc = pacgan.Generator(1, 4, (4, 8)), pacgan.Discriminator(4, 1)
  tx = optax.adam(2e-3, b1=0.5)
  return pacgan.pacgan(gen, disc, num_packed=2, gen_tx=tx, disc_tx=tx, latent_dim=4)


def make_improved_gan():
  # Minibatch discrimination gathers features: test_gan_papers has it on 2 devices.
  gen = improved_gan.Generator((8, 8, 1), (8,))
  disc = improved_gan.Discriminator((16, 8), num_kernels=0)
  tx = optax.adam(2e-3, b1=0.5, eps=1e-4)
  return improved_gan.improved_gan(gen, disc, gen_tx=tx, disc_tx=tx, latent_dim=4)


def make_rnn_gan():
  gen, disc = rnn_gan.Generator((8, 8, 1), 8, 1), rnn_gan.Discriminator(8, 1)
  tx = optax.adam(5e-3, b1=0.5, eps=1e-4)
  return rnn_gan.rnn_gan(gen, disc, gen_tx=tx, disc_tx=tx, latent_dim=16)


def make_biggan():
  gen = biggan_networks.Generator(
    10, (8, 8), channels=1, shared_dim=4, hierarchical=True
  )
  disc = biggan_networks.Discriminator(10, (8,), 1, attention_side=4)
  # A large eps: biases before a batch norm have no gradient but rounding.
  adam = lambda lr: optax.adam(lr, b1=0.0, b2=0.9, eps=1e-4)
  return biggan.biggan(
    gen,
    disc,
    gen_tx=adam(2e-3),
    disc_tx=adam(1e-2),
    latent_dim=4,
    num_disc_steps=1,  # attention's kernels move only after gamma: two updates
    ema_decay=0.9,
    orthogonal_weight=1e-4,
  )


def make_progan():
  widths = dict(channel_base=16, channel_max=4)
  nets = (
    progan.Generator(8, channels=1, **widths),
    Discriminator(8, fades=True, **widths),
  )
  tx = optax.adam(2e-3, b1=0.0, b2=0.99, eps=1e-4)
  return progan.progan(
    *nets, gen_tx=tx, critic_tx=tx, latent_dim=4, num_fade_steps=2, ema_decay=0.9
  )


def make_stylegan():
  widths = dict(channel_base=16, channel_max=4)
  synthesis = stylegan.Synthesis(4, channels=1, **widths)
  gen = stylegan.generator(synthesis, w_dim=4, num_layers=2, num_classes=10)
  disc = Discriminator(4, blurs=True, num_classes=10, **widths)
  return stylegan.stylegan(
    *(gen, disc),
    # The first layer is constant at the start: what its instance norm passes back to
    # the bias is 10^4 times rounding.
    gen_tx=optax.chain(optax.clip(1.0), optax.sgd(1e-2)),
    disc_tx=optax.adam(1e-2, b1=0.0, b2=0.99, eps=1e-4),
    latent_dim=4,
    r1_gamma=0.1,
    ema_decay=0.9,
  )


def mirrored(x, key, p):
  """The cheapest augmentation to compile."""
  flips = random.bernoulli(key, p, (len(x), 1, 1, 1))
  return jnp.where(flips, x[:, :, ::-1], x)


def make_stylegan2():
  gen = StyleGenerator(Mapping(1, 8, 8), stylegan2_nets.Synthesis(4, 1, 16, 4), w_dim=8)
  disc = stylegan2_nets.Discriminator(16, 4, group_size=2)
  adam = lambda rate: optax.adam(rate, b1=0.0, b2=0.9, eps=1e-4)
  return stylegan2(
    *(gen, disc),
    gen_tx=adam(5e-4),
    disc_tx=adam(1e-2),
    batch_size=8,
    latent_dim=4,
    r1=Lazy(1.0, 2),
    path=Lazy(2.0, 2),
    ema_images=80,
    ema_ramp_up=0.5,
    ada=Ada(mirrored, interval=2, num_images=64, target=-1.0),
  )


SMALL = {**IMAGES, "image": zeros((8, 4, 4, 1), np.uint8)}
ROWS = {
  "gan/dcgan": Row(make_dcgan, "disc_loss", passes=2),  # Real and fake images.
  "gan/mlp_gan": Row(make_mlp_gan, "disc_loss", passes=2),
  "gan/cgan": Row(make_cgan, "disc_loss", passes=2),
  "gan/lsgan": Row(make_lsgan, "disc_loss", passes=2),
  "gan/pacgan": Row(make_pacgan, "disc_loss", passes=2),  # And two generator updates.
  "gan/improved_gan": Row(make_improved_gan, "disc_loss", passes=2),
  "gan/rnn_gan": Row(make_rnn_gan, "disc_loss", passes=2),
  "gan/progan (fading)": Row(make_progan, "critic_loss", passes=4),
  "gan/stylegan (labels)": Row(make_stylegan, "disc_loss", passes=3, spec=SMALL),
  "gan/stylegan2 (ADA)": Row(make_stylegan2, "disc_loss", passes=4, spec=SMALL),
  "gan/biggan": Row(make_biggan, "disc_loss", passes=2),
  "gan/wgan": Row(make_wgan, "critic_loss", passes=2),
  "gan/wgan_gp": Row(make_wgan_gp, "critic_loss", passes=3),
  "gan/sngan (labels)": Row(make_sngan, "disc_loss", passes=2),
  "gan/adversarial (labels, EMA)": Row(make_two_player, "disc_loss", passes=2),
}
