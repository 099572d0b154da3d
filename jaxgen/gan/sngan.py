"""SNGAN: spectral normalisation of the discriminator (Miyato et al., 2018).

Miyato, Kataoka, Koyama & Yoshida, "Spectral Normalization for Generative Adversarial
Networks", https://arxiv.org/abs/1802.05957: the hinge loss (Eq. 16, 17) and
discriminators whose every kernel has a spectral norm of 1. The normalisation is a part
of the network, `jaxgen.nn.spectral`; its vectors are in `state.stats["disc"]`. The
paper's residual networks for CIFAR-10, at torch-mimicry's sizes, are in
`jaxgen.nn.resnet_gan` (4,276,739 and 1,053,825 parameters); with `num_classes` they are
the projection discriminator and conditional generator of Miyato & Koyama (2018),
https://arxiv.org/abs/1802.05637.

Deviations from the papers:
  - An average of the generator's weights may be sampled, as in later papers. Its decay
    rises with the steps, see `update_ema`.
  - Fakes are generated with the labels of the real batch; the authors draw them
    uniformly.
  - Power iteration runs in every pass of the discriminator's own update: two per step,
    as in PyTorch. The generator's update runs it too but keeps nothing of it.
  - The bound is on the kernel as a matrix, as in the authors' code: it is not that of
    the convolution.
"""

from flax import linen as nn
import optax

from jaxgen.gan.critic_steps import alternating
from jaxgen.losses.adversarial import hinge
from jaxgen.method import Method


def sngan(
  gen: nn.Module,
  disc: nn.Module,
  *,
  gen_tx: optax.GradientTransformation,
  disc_tx: optax.GradientTransformation,
  latent_dim: int = 128,
  num_disc_steps: int = 5,
  ema_decay: float = 0.0,
) -> Method:
  """The hinge loss under a spectrally normalised discriminator.

  Args:
    gen: (z, label or None, train) -> images.
    disc: (images, label or None, train) -> scores f32 [B], its layers wrapped in
      `spectral_norm`.
    gen_tx: The paper's residual networks use Adam(2e-4, b1=0, b2=0.9).
    disc_tx: The same.
    latent_dim: Length of z.
    num_disc_steps: Discriminator updates per generator update.
    ema_decay: Per generator update, of the weights that are sampled; 0, as the paper,
      keeps none.

  Returns:
    A method with networks "gen" and "disc"; see `alternating`.
  """
  return alternating(
    gen,
    disc,
    loss=hinge,
    gen_tx=gen_tx,
    critic_tx=disc_tx,
    latent_dim=latent_dim,
    num_critic_steps=num_disc_steps,
    critic_name="disc",
    ema_decay=ema_decay,
  )
