"""WGAN-GP: a critic held at slope 1 between data and samples (Gulrajani et al., 2017).

Gulrajani, Ahmed, Arjovsky, Dumoulin & Courville, "Improved Training of Wasserstein
GANs", https://arxiv.org/abs/1704.00028, Algorithm 1. Networks are the caller's; those
of the paper's CIFAR-10 experiment, at torch-mimicry's sizes, are in
`jaxgen.nn.resnet_gan` (4,276,739 and 1,053,825 parameters).

Deviations from the paper:
  - None in Algorithm 1. The authors' CIFAR-10 code gives the generator twice the
    critic's batch; here both have the same.
  - Labels, if the networks read them, take the place that the networks give them; the
    paper's conditional model adds a classifier to the critic instead (AC-GAN).
The critic must not mix examples (no batch norm, Section 4), or the penalty is not that
of each example.
"""

from flax import linen as nn
import optax

from jaxgen.gan.critic_steps import alternating
from jaxgen.losses.adversarial import wasserstein
from jaxgen.losses.penalties import Score, gradient_penalty
from jaxgen.method import Array, Method


def wgan_gp(
  gen: nn.Module,
  critic: nn.Module,
  *,
  gen_tx: optax.GradientTransformation,
  critic_tx: optax.GradientTransformation,
  latent_dim: int = 128,
  num_critic_steps: int = 5,
  penalty_weight: float = 10.0,
) -> Method:
  """The Wasserstein loss under a critic penalised for slopes other than 1.

  Args:
    gen: (z, label or None, train) -> images.
    critic: (images, label or None, train) -> scores f32 [B]; without batch norm.
    gen_tx: The paper uses Adam(1e-4, b1=0, b2=0.9).
    critic_tx: The same.
    latent_dim: Length of z.
    num_critic_steps: Critic updates per generator update.
    penalty_weight: lambda.

  Returns:
    A method with networks "gen" and "critic"; see `alternating`.
  """

  def penalty(score: Score, real: Array, mixed: Array) -> Array:
    return penalty_weight * gradient_penalty(score, mixed)

  return alternating(
    gen,
    critic,
    loss=wasserstein,
    gen_tx=gen_tx,
    critic_tx=critic_tx,
    latent_dim=latent_dim,
    num_critic_steps=num_critic_steps,
    penalty=penalty,
  )
