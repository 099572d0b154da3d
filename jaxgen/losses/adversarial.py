"""Adversarial losses: what the two players of a GAN minimise.

Every loss is a function of scores, the discriminator's outputs before any
sigmoid: large for real. Scores may have any shape (one per image, or a map of
patches); losses are means over all of them. Each player's value is to be
minimised.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array


class AdversarialLoss(NamedTuple):
  """A pair of losses over scores.

  Attributes:
    disc: (scores of real, scores of fake), f32 [...] each -> f32 [].
    gen: scores of fake, f32 [...] -> f32 [].
    boundary: The score above which an example counts as judged real.
  """

  disc: Callable[[Array, Array], Array]
  gen: Callable[[Array], Array]
  boundary: float = 0.0


def _cross_entropy(real: Array, fake: Array) -> Array:
  """-E log D(x) - E log(1 - D(G(z))) with D = sigmoid(score)."""
  return jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean()


# Goodfellow et al. (2014), arXiv 1406.2661, Eq. 1. At the optimal D,
# disc = 2 log 2 - 2 JSD(data, model). The generator's gradient vanishes where D
# is sure of its fakes.
minimax = AdversarialLoss(
  disc=_cross_entropy,
  gen=lambda fake: -jax.nn.softplus(fake).mean(),  # E log(1 - D(G(z)))
)

# The same paper, end of Section 3: same fixed point, no vanishing gradient.
non_saturating = AdversarialLoss(
  disc=_cross_entropy,
  gen=lambda fake: jax.nn.softplus(-fake).mean(),  # -E log D(G(z))
)

# Mao et al. (2016), arXiv 1611.04076, Eq. 9: the 0-1 coding, a = 0, b = c = 1.
least_squares = AdversarialLoss(
  disc=lambda real, fake: 0.5 * ((real - 1) ** 2).mean() + 0.5 * (fake**2).mean(),
  gen=lambda fake: 0.5 * ((fake - 1) ** 2).mean(),
  boundary=0.5,
)

# Lim & Ye (2017), arXiv 1705.02894. At the optimal D, disc = 2 - 2 TV.
hinge = AdversarialLoss(
  disc=lambda real, fake: jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean(),
  gen=lambda fake: -fake.mean(),
)

# Arjovsky et al. (2017), arXiv 1701.07875, Eq. 2. -disc estimates the distance if
# the critic is 1-Lipschitz, which whoever uses it must see to. Its scores have no
# zero of their own: the boundary says nothing here.
wasserstein = AdversarialLoss(
  disc=lambda real, fake: fake.mean() - real.mean(),
  gen=lambda fake: -fake.mean(),
)
