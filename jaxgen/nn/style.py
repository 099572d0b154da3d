"""What style-based generators share: mapping network, noise, styles, truncation.

Karras, Laine & Aila (2018), arXiv 1812.04948, and Karras et al. (2019), arXiv
1912.04958; conditional mapping as in Karras et al. (2020), arXiv 2006.06676.
"""

import math
from typing import Any

from flax import linen as nn
import jax
from jax import Array, random
import jax.numpy as jnp

from jaxgen.nn.equalized import EqualDense, pixel_norm


class Mapping(nn.Module):
  """z to the intermediate latent w (1812.04948, Section 2 and Appendix C).

  z is divided by its root mean square; so is the embedding of the label, if there are
  classes, and both are concatenated.

  Attributes:
    num_layers: Dense layers, each followed by a leaky ReLU of slope 0.2.
    width: Of all layers but the last, and of the label's embedding.
    out_dim: Length of w.
    num_classes: 0 ignores the label.
    lr_multiplier: Learning rate of these layers divided by the optimiser's.
    dtype: Of the computation; parameters and w are float32.
  """

  num_layers: int = 8
  width: int = 512
  out_dim: int = 512
  num_classes: int = 0
  lr_multiplier: float = 0.01
  dtype: Any = None

  @nn.compact
  def __call__(self, z: Array, label: Array | None = None) -> Array:
    """z f32 [B, D], label i32 [B] if there are classes -> w f32 [B, out_dim].

    Raises:
      ValueError: If there are classes and no label.
    """
    x = pixel_norm(z)
    if self.num_classes:
      if label is None:
        raise ValueError(f"num_classes={self.num_classes}: expected labels, got None")
      one_hot = jax.nn.one_hot(label, self.num_classes, dtype=z.dtype)
      embedded = EqualDense(self.width, dtype=self.dtype, name="label")(one_hot)
      x = jnp.concatenate([x, pixel_norm(embedded.astype(z.dtype))], axis=-1)
    for i in range(self.num_layers):
      x = EqualDense(
        self.out_dim if i == self.num_layers - 1 else self.width,
        gain=math.sqrt(2),
        lr_multiplier=self.lr_multiplier,
        dtype=self.dtype,
        name=f"dense_{i}",
      )(x)
      x = nn.leaky_relu(x, 0.2)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class NoiseInput(nn.Module):
  """Adds N(0, 1) noise, one map for all channels, times a learned strength.

  The strength is zero at the start. Noise comes from the stream "noise".

  Attributes:
    per_channel: One strength per channel (StyleGAN) or one for all (StyleGAN2).
  """

  per_channel: bool = True

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, H, W, C] -> [B, H, W, C]."""
    shape = (x.shape[-1],) if self.per_channel else ()
    strength = self.param("strength", nn.initializers.zeros, shape)
    noise = random.normal(self.make_rng("noise"), (*x.shape[:-1], 1), strength.dtype)
    return x + (noise * strength.reshape(1, 1, 1, -1)).astype(x.dtype)


def truncate(w: Array, average: Array, psi: float | Array) -> Array:
  """average + psi (w - average): nearer to the mean style (1812.04948, Appendix B).

  Args:
    w: f32 [..., D].
    average: f32 [D].
    psi: 1 changes nothing, 0 gives the average; or one per layer, f32 [num_ws], for
      w [B, num_ws, D].
  """
  average = average.reshape((1,) * (w.ndim - 1) + (-1,))
  psi = jnp.asarray(psi, w.dtype)
  psi = psi.reshape((1,) * (w.ndim - 2) + (-1, 1)) if psi.ndim else psi
  return average + psi * (w - average)


def mix_styles(
  w: Array, other: Array, num_ws: int, probability: float, key: Array
) -> Array:
  """Styles of all layers: w, crossed with another from some layer on.

  Mixing regularisation (1812.04948, Section 3.1): each example is mixed with the given
  probability, at a layer 1 ... num_ws - 1 drawn uniformly; layer 0 is always w's.

  Args:
    w: f32 [B, D].
    other: f32 [B, D].
    num_ws: Number of layers, at least 2.
    probability: In [0, 1].
    key: Of the draws.

  Returns:
    f32 [B, num_ws, D].
  """
  if num_ws < 2:
    raise ValueError(f"num_ws={num_ws}: expected at least 2 layers to mix styles")
  layer_key, mixed_key = random.split(key)
  crossover = random.randint(layer_key, (len(w),), 1, num_ws)
  mixed = random.bernoulli(mixed_key, probability, (len(w),))
  crossover = jnp.where(mixed, crossover, num_ws)
  own = jnp.arange(num_ws)[None, :] < crossover[:, None]
  return jnp.where(own[:, :, None], w[:, None], other[:, None])


class StyleGenerator(nn.Module):
  """A mapping network and a synthesis network, and the styles between them.

  The running average of w is the variable "value", f32 [w_dim], of the collection
  "w_average"; passes in training move it, by the mean over the batch.

  Attributes:
    mapping: (z, label or None) -> w f32 [B, w_dim], as `Mapping`.
    synthesis: (ws f32 [B, num_ws, w_dim], train) -> images f32 [B, H, W, C], with a
      property `num_ws`, the number of its layers that read a style.
    w_dim: Length of w.
    average_decay: Of the running average of w, per training pass: 0.995 in the
      authors' code of StyleGAN, StyleGAN2 and StyleGAN2-ADA.
    mixing_probability: Of `mix_styles` in training.
    truncation_psi: Of `truncate` outside of training.
  """

  mapping: nn.Module
  synthesis: nn.Module
  w_dim: int = 512
  average_decay: float = 0.995
  mixing_probability: float = 0.9
  truncation_psi: float = 1.0

  @property
  def num_ws(self) -> int:
    """How many layers read a style."""
    return self.synthesis.num_ws

  def setup(self) -> None:
    self.w_average = self.variable("w_average", "value", jnp.zeros, (self.w_dim,))

  def __call__(
    self, z: Array, label: Array | None = None, train: bool = False
  ) -> Array:
    """z f32 [B, latent_dim] -> images f32 [B, H, W, C], see `synthesize`."""
    return self.synthesize(self.styles(z, label, train), train)

  def map(self, z: Array, label: Array | None = None, train: bool = False) -> Array:
    """z f32 [B, latent_dim] -> w f32 [B, w_dim], not truncated."""
    w = self.mapping(z, label)
    if train and not self.is_initializing():
      average, mean = self.w_average.value, w.mean(0)
      self.w_average.value = mean + self.average_decay * (average - mean)
    return w

  def styles(self, z: Array, label: Array | None = None, train: bool = False) -> Array:
    """z -> ws f32 [B, num_ws, w_dim]: mixed in training, truncated otherwise."""
    w = self.map(z, label, train)
    if train and self.mixing_probability:
      z_key, mix_key = random.split(self.make_rng("noise"))
      other = self.mapping(random.normal(z_key, z.shape, z.dtype), label)
      return mix_styles(w, other, self.num_ws, self.mixing_probability, mix_key)
    if not train and self.truncation_psi != 1.0:
      w = truncate(w, self.w_average.value, self.truncation_psi)
    return jnp.repeat(w[:, None], self.num_ws, axis=1)

  def synthesize(self, ws: Array, train: bool = False) -> Array:
    """ws f32 [B, num_ws, w_dim] -> images f32 [B, H, W, C].

    They are clipped to [-1, 1], but not in training.
    """
    images = self.synthesis(ws, train)
    return images if train else jnp.clip(images, -1.0, 1.0)
