"""Networks whose inputs and targets have variance 1 at every noise level.

Karras, Aittala, Aila & Laine, "Elucidating the Design Space of Diffusion-Based
Generative Models" (2022), https://arxiv.org/abs/2206.00364, whose equation numbers
these are. For the process `process.edm`.
"""

from typing import NamedTuple

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from jaxgen.method import PyTree


class Preconditioning(NamedTuple):
  """D(x; sigma) = skip x + out F(scale x; noise) (Eq. 7), and the loss weight.

  Each f32, of the shape of sigma.
  """

  skip: Array
  out: Array
  scale: Array
  noise: Array
  weight: Array


def preconditioning(sigma: Array, sigma_data: float) -> Preconditioning:
  """For which inputs and targets of F have variance 1 (Table 1, Appendix B.6)."""
  total = sigma**2 + sigma_data**2
  return Preconditioning(
    skip=sigma_data**2 / total,
    out=sigma * sigma_data / jnp.sqrt(total),
    scale=1 / jnp.sqrt(total),
    noise=jnp.log(sigma) / 4,
    weight=total / (sigma * sigma_data) ** 2,
  )


def denoise(
  net: nn.Module,
  params: PyTree,
  x: Array,
  sigma: Array,
  sigma_data: float,
  label: Array | None = None,
  **options: object,
) -> Array:
  """D(x; sigma), E[image | x] of Eq. 7; F is that network.

  Args:
    net: F.
    params: Its parameters.
    x: f32 [B, H, W, C].
    sigma: f32 [B].
    sigma_data: Standard deviation of the images.
    label: int32 [B], of a conditional network.
    **options: Of net.apply.
  """
  return apply(
    net, params, x, preconditioning(sigma, sigma_data), label=label, **options
  )


def apply(
  net: nn.Module,
  params: PyTree,
  x: Array,
  c: Preconditioning,
  label: Array | None = None,
  **options: object,
) -> Array:
  """skip x + out F(scale x; noise), f32 [B, H, W, C]; c has f32 [B] each."""
  skip, out, scale = (a[:, None, None, None] for a in (c.skip, c.out, c.scale))
  return skip * x + out * net.apply(
    {"params": params}, scale * x, c.noise, label, **options
  )
