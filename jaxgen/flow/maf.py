"""MAF: Masked Autoregressive Flow for Density Estimation.

George Papamakarios, Theo Pavlakou, Iain Murray, 2017. https://arxiv.org/abs/1705.07057.
Layers u_i = (x_i - mu_i) e^-alpha_i, mu_i and alpha_i functions of x_1, ..., x_{i-1}
by MADE (Germain et al., 2015, arXiv 1502.03509), the order reversed from layer to
layer, batch normalisation between them, a standard normal base, logits of images as
input. Unconditional. A density costs one pass of each layer's
network, a sample D of them.

Deviations from the paper:
  - MADE has residual blocks as in nflows 0.14 (`is_residual=False`: plain hidden layers
    as in the paper); its mean and log-scale start at 0.
  - Degrees of hidden units are 0, ..., D - 2 in turn. (Code: so, or drawn.)
  - Batch normalisation evaluates with running averages of the batches' statistics.
    (Paper: with those of all the training set, after the training.)
  - alpha is clipped to [-7, 7]: of pixels that training never showed it can be
    anything, and one e^alpha or e^-alpha that overflows makes a sample NaN.
  - No mixture of Gaussians as base (MAF MoG).
  - No flipped images, no penalty on weights, no early stopping: data, `tx` and the
    number of steps are the caller's.
"""

import math
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.flow.likelihood import density
from jaxgen.method import Array, Method
from jaxgen.nn.bijection import Flattened, FlowBatchNorm
from jaxgen.nn.made import AffineAutoregressive, Made

# e^7 is 1,100, where logits of y in [1e-6, 1 - 1e-6] are at most 14; e^-7 is 0.0009,
# where the noise of one level of 256 has a deviation of 0.0045, in logits of grey.
MAX_ALPHA = 7.0


class Conditioner(nn.Module):
  """The paper's mu and alpha, clipped by `MAX_ALPHA`, as shift and log_scale of x.

  Attributes:
    made: With two outputs, alpha and mu.
  """

  made: Made

  def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
    alpha, mu = jnp.moveaxis(self.made(x), -1, 0)
    alpha = jnp.clip(alpha, -MAX_ALPHA, MAX_ALPHA)
    return -mu * jnp.exp(-alpha), -alpha


def network(
  shape: tuple[int, int, int],
  *,
  hidden_dim: int = 1024,
  num_layers: int = 5,
  num_blocks: int = 1,
  is_residual: bool = True,
  has_batch_norm: bool = False,
) -> Flattened:
  """Autoregressive layers, in the order of pixels and in its reverse by turns.

  An inverse is as many passes of each layer as an image has values.

  Args:
    shape: (H, W, C) of an image.
    hidden_dim: Units of each hidden layer.
    num_layers: The paper's MAF (5) has 5.
    num_blocks: Of each `Made`.
    is_residual: The same.
    has_batch_norm: After each layer.
  """
  size, layers = math.prod(shape), []
  for i in range(num_layers):
    order = np.arange(size)[:: -1 if i % 2 else 1]
    made = Made(order, hidden_dim, num_blocks, 2, is_residual=is_residual)
    layers.append(AffineAutoregressive(Conditioner(made), order))
    if has_batch_norm:
      layers.append(FlowBatchNorm(size))
  return Flattened(shape, layers)


def maf(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  alpha: float | None = 1e-6,
  **options: Any,
) -> Method:
  """`likelihood.density` of logits of images.

  Args:
    net: As from `network`.
    tx: Its optimiser.
    alpha: Of the logit (MNIST: 1e-6; CIFAR-10: 0.05); None: y - 0.5, no logit.
    **options: Of `likelihood.density`.
  """
  return density(net, tx=tx, logit_alpha=alpha, **options)
