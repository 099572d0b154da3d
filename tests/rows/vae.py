"""Rows of the generic table: vae."""

import functools

import optax

from jaxgen.nn.vector_quantizer import VectorQuantizer
from jaxgen.vae import cycle_vae_networks, vae_gan_networks, vq_vae, vq_vae_2
from jaxgen.vae.beta_vae import beta_vae
from jaxgen.vae.cvae import Network, by_label, by_part, cvae, quarters
from jaxgen.vae.cycle_vae import cycle_vae, low_resolution
from jaxgen.vae.hvae import clip_and_skip, hvae
from jaxgen.vae.hvae_networks import Ladder
from jaxgen.vae.iwae import iwae
from jaxgen.vae.likelihoods import logistic_pixels
from jaxgen.vae.networks import Convolutional, FullyConnected
from jaxgen.vae.vae import vae
from jaxgen.vae.vae_gan import vae_gan
from rows import Row


def make_vae():
  return vae(FullyConnected((8, 8, 1), (16,), 4), tx=optax.adam(1e-2), binarize=False)


def make_conv_vae():
  net = Convolutional((8, 8, 1), 4, (4, 4), 16, num_outputs=6)
  return vae(net, tx=optax.adam(1e-2), likelihood=logistic_pixels(num_mixtures=2))


def make_iwae(num_levels=1):
  nets = (
    FullyConnected((8, 8, 1), (16,), 4),
    FullyConnected((4,), (8,), 2, num_outputs=2),
  )
  return iwae(nets[:num_levels], tx=optax.adam(1e-2), num_draws=3)


def make_beta_vae():
  net = FullyConnected((8, 8, 1), (16,), 4)
  return beta_vae(net, tx=optax.adam(1e-2), beta=4.0, capacity=1.0, capacity_steps=8)


def make_hvae():
  likelihood = logistic_pixels()
  net = Ladder((8, 8, 1), ((4, 1, 1), (1, 1, 1)), 8, 2, 2, patch=2, middle=4)
  tx = clip_and_skip(optax.adam(1e-2), clip_norm=200.0, skip_norm=400.0)
  steps = dict(free_bits=0.01, warmup_steps=4, ema_decay=0.9, nll_draws=8)
  return hvae(net, tx=tx, likelihood=likelihood, **steps)


def make_cvae(condition=None):
  net, tx = Network((8, 8, 1), (16,), 4), optax.adam(1e-2)
  return cvae(net, tx=tx, condition=condition or by_part(quarters(8, 1)))


def make_vae_gan():
  # Large eps: some gradients before a batch norm are little more than rounding.
  adam = lambda lr: optax.adam(lr, b1=0.5, eps=1e-3)
  return vae_gan(
    vae_gan_networks.Encoder(4, (4,), (8,)),
    vae_gan_networks.Decoder((8, 8, 1), (4,)),
    vae_gan_networks.Discriminator((4,), (8,), layer=0, first_width=2),
    encoder_tx=adam(2e-3),
    decoder_tx=adam(2e-3),
    disc_tx=adam(1e-2),
    gamma=0.1,
  )


def make_cycle_vae():
  adam = optax.adam(2e-3, b1=0.5, eps=1e-4)
  return cycle_vae(
    cycle_vae_networks.Encoder(4, (8,)),
    cycle_vae_networks.Generator((8, 8, 1), (16,)),
    cycle_vae_networks.Discriminator((8,)),
    tx=adam,
    disc_tx=adam,
    condition=low_resolution(4),
  )


def make_vq_vae(learned=False):
  # A short memory: codes die, and are restarted, within three steps.
  book = VectorQuantizer(
    8, 4, learned=learned, decay=0.3, dead_below=0.2, restart_probability=1.0
  )
  net = vq_vae.Network(book, 1, (4,), residual_width=4, num_blocks=1, num_maps=2)
  return vq_vae.vq_vae(net, tx=optax.adam(1e-2, eps=1e-4))


def make_vq_vae_2():
  # A short memory: see make_vq_vae.
  book = lambda: VectorQuantizer(
    8, 4, decay=0.3, dead_below=0.2, restart_probability=1.0
  )
  net = vq_vae_2.Network(book(), book(), 1, (4,), 4, 4, num_blocks=1)
  return vq_vae_2.vq_vae_2(net, tx=optax.adam(1e-2, eps=1e-4))


ROWS = {
  "vae/vae": Row(make_vae, "loss"),
  "vae/vae (convolutions, logistics)": Row(make_conv_vae, "loss"),
  "vae/iwae": Row(make_iwae, "loss"),
  "vae/iwae (two layers)": Row(functools.partial(make_iwae, 2), "loss"),
  "vae/beta_vae": Row(make_beta_vae, "loss"),
  "vae/hvae": Row(make_hvae, "loss"),
  "vae/cvae (parts)": Row(make_cvae, "loss"),
  "vae/cvae (labels)": Row(functools.partial(make_cvae, by_label(10)), "loss"),
  "vae/vq_vae": Row(make_vq_vae, "loss"),
  "vae/vq_vae (learned book)": Row(functools.partial(make_vq_vae, True), "loss"),
  "vae/vq_vae_2": Row(make_vq_vae_2, "loss"),
  "vae/vae_gan": Row(make_vae_gan, "disc_loss"),
  "vae/cycle_vae": Row(make_cycle_vae, "image_l1"),
}
