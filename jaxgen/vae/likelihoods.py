"""What a decoder's outputs mean: distributions p(x|z) over images."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import random
import jax.numpy as jnp

from jaxgen.losses import bernoulli, gaussian, logistic
from jaxgen.method import Array

MIN_LOG_SCALE = -7.0  # As Salimans et al. (2017) floor theirs, below half a level.


class Likelihood(NamedTuple):
  """A family of p(x|z), every value of x on its own. In nats.

  Attributes:
    num_outputs: Parameters for each value: the decoder's last axis is C times that.
      (Of `rgb_logistic_pixels`, for each pixel: it is that.)
    observe: (image f32 [B, H, W, C] in [-1, 1], key) -> the x of p(x|z), of its shape.
    log_prob: (x [..., H, W, C], outputs [..., H, W, C * num_outputs]) -> [...].
    fast_log_prob: The same value where no gradient is needed.
    to_image: x -> image in [-1, 1].
    mean: outputs -> image f32 [..., H, W, C] in [-1, 1], the mean of p(x|z).
    of: What log_prob is of, in words.
  """

  num_outputs: int
  observe: Callable[[Array, Array], Array]
  log_prob: Callable[[Array, Array], Array]
  fast_log_prob: Callable[[Array, Array], Array]
  to_image: Callable[[Array], Array]
  mean: Callable[[Array], Array]
  of: str


def flat(x: Array) -> Array:
  """[..., H, W, C] -> [..., H * W * C]."""
  return x.reshape(*x.shape[:-3], -1)


def split(outputs: Array, num: int) -> Array:
  """[..., C * num] -> [num, ..., C]: each parameter of a value by itself."""
  apart = outputs.reshape(*outputs.shape[:-1], -1, num)
  return jnp.moveaxis(apart, -1, 0)


def bernoulli_pixels(*, binarize: bool = True) -> Likelihood:
  """Bits, the outputs their log odds; x = (image + 1) / 2.

  Args:
    binarize: True: every use of an image draws each pixel anew as Bernoulli(pixel)
      ("dynamic binarisation"), so that bounds are on the log-likelihood of binary
      images. False: grey values stand in for the bits, and bounds are losses that
      bound no likelihood.
  """

  def observe(image: Array, key: Array) -> Array:
    grey = (image + 1.0) / 2.0
    return random.bernoulli(key, grey).astype(grey.dtype) if binarize else grey

  return Likelihood(
    num_outputs=1,
    observe=observe,
    log_prob=lambda x, logits: bernoulli.log_prob(flat(x), flat(logits)),
    fast_log_prob=lambda x, logits: bernoulli.fast_log_prob(flat(x), flat(logits)),
    to_image=lambda x: 2.0 * x - 1.0,
    mean=lambda logits: 2.0 * jax.nn.sigmoid(logits) - 1.0,
    of="pixels drawn as bits" if binarize else "grey values in place of bits",
  )


def gaussian_pixels(
  *, log_var: float | None = None, min_log_var: float = -6.0
) -> Likelihood:
  """Densities of values in [-1, 1]; a density has no bits, and no bound below.

  Kingma & Welling, Appendix C.2, with the mean's nonlinearity left out.

  Args:
    log_var: Of every value, natural log; None: the decoder's, one for each value.
    min_log_var: The least that the decoder's is read as, by a soft floor: pixels that
      are the same in all images would give infinite densities.
  """
  num_outputs = 2 if log_var is None else 1

  def parameters(outputs: Array) -> tuple[Array, Array]:
    if log_var is not None:
      return outputs, jnp.full_like(outputs, log_var)
    mean, raw = split(outputs, 2)
    return mean, min_log_var + jax.nn.softplus(raw - min_log_var)

  def log_prob(x: Array, outputs: Array) -> Array:
    return gaussian.log_prob(flat(x), *map(flat, parameters(outputs)))

  return Likelihood(
    num_outputs=num_outputs,
    observe=lambda image, key: image,
    log_prob=log_prob,
    fast_log_prob=log_prob,
    to_image=lambda x: x,
    mean=lambda outputs: parameters(outputs)[0].clip(-1.0, 1.0),
    of="densities of values in [-1, 1]",
  )


def logistic_pixels(*, num_mixtures: int = 1) -> Likelihood:
  """256 levels under mixtures of logistics: probabilities, which have bits per value.

  Images must be 8-bit ones in [-1, 1], as all data sources of jaxgen give.

  Args:
    num_mixtures: Components for each value, each with mean, log scale and (if there
      are several) logit.
  """

  def parameters(outputs: Array) -> tuple[Array, Array, Array]:
    """logits, means, log scales, each [..., C, K]."""
    if num_mixtures == 1:
      mean, log_scale = (p[..., None] for p in split(outputs, 2))
      logits = jnp.zeros_like(mean)
    else:
      parts = split(outputs, 3 * num_mixtures)
      parts = jnp.moveaxis(parts, 0, -1)
      logits, mean, log_scale = jnp.split(parts, 3, axis=-1)
    return logits, mean, jnp.maximum(log_scale, MIN_LOG_SCALE)

  def log_prob(x: Array, outputs: Array) -> Array:
    return flat(logistic.mixture_log_level(x, *parameters(outputs))).sum(axis=-1)

  def mean(outputs: Array) -> Array:
    logits, means, _ = parameters(outputs)
    return (jax.nn.softmax(logits) * means).sum(axis=-1).clip(-1.0, 1.0)

  return Likelihood(
    num_outputs=2 if num_mixtures == 1 else 3 * num_mixtures,
    observe=lambda image, key: image,
    log_prob=log_prob,
    fast_log_prob=log_prob,
    to_image=lambda x: x,
    mean=mean,
    of="256 levels",
  )


def rgb_logistic_pixels(*, num_mixtures: int = 10) -> Likelihood:
  """256 levels of red, green, blue under mixtures whose components are of pixels.

  Salimans et al. (2017), arXiv 1701.05517, as PixelCNN++ and VDVAE use it.

  Args:
    num_mixtures: K; the 10 K outputs of a pixel are K logits, and for each channel K
      means, K log scales, K raw coefficients (their tanh counts).
  """

  def parameters(outputs: Array) -> logistic.Mixture:
    logits, rest = jnp.split(outputs, [num_mixtures], axis=-1)
    rest = rest.reshape(*rest.shape[:-1], 3, 3 * num_mixtures)
    means, log_scales, raw = jnp.split(rest, 3, axis=-1)
    floored = jnp.maximum(log_scales, MIN_LOG_SCALE)
    return logistic.Mixture(logits, means, floored, jnp.tanh(raw))

  def log_prob(x: Array, outputs: Array) -> Array:
    return logistic.log_pixel(x, parameters(outputs)).sum(axis=(-2, -1))

  def mean(outputs: Array) -> Array:
    p = parameters(outputs)
    weights = jax.nn.softmax(p.logits)[..., None, :]
    return (weights * logistic.component_means(p)).sum(axis=-1).clip(-1.0, 1.0)

  return Likelihood(
    num_outputs=10 * num_mixtures,
    observe=lambda image, key: image,
    log_prob=log_prob,
    fast_log_prob=log_prob,
    to_image=lambda x: x,
    mean=mean,
    of="256 levels",
  )
