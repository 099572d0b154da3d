"""Layers of flows: bijections that know their Jacobian's determinant.

A layer is a flax module with `__call__(x, train=False) -> z, log_det` and
`inverse(z) -> x, log_det`: x and z f32 [B, ..., C], log_det f32 [B], the natural log of
|det dz/dx| (of |det dx/dz| in `inverse`). With train=False one undoes the other.
"""

from collections.abc import Callable, Sequence
import math

from flax import linen as nn
import jax
from jax import Array, random
import jax.numpy as jnp

# The collection of what the first batch of training sets: whoever trains makes it
# mutable in the first step only.
FIRST_BATCH = "first_batch"
FIXED = "fixed"  # That of what never changes.


def forward(
  layers: Sequence[nn.Module], x: Array, train: bool = False
) -> tuple[Array, Array]:
  """x through all layers in order: z, and the sum of their log_det."""
  total = jnp.zeros(len(x), x.dtype)
  for layer in layers:
    x, log_det = layer(x, train)
    total += log_det
  return x, total


def backward(layers: Sequence[nn.Module], z: Array) -> tuple[Array, Array]:
  """The inverse of `forward` with train=False."""
  total = jnp.zeros(len(z), z.dtype)
  for layer in reversed(layers):
    z, log_det = layer.inverse(z)
    total += log_det
  return z, total


def affine(x: Array, shift: Array, log_scale: Array | None) -> tuple[Array, Array]:
  """x e^log_scale + shift and its log_det, f32 [B]; log_scale None counts as 0."""
  if log_scale is None:
    return x + shift, jnp.zeros(len(x), x.dtype)
  return x * jnp.exp(log_scale) + shift, row_sum(log_scale)


def inverse_affine(
  z: Array, shift: Array, log_scale: Array | None
) -> tuple[Array, Array]:
  """The inverse of `affine` for the same shift and log_scale."""
  if log_scale is None:
    return z - shift, jnp.zeros(len(z), z.dtype)
  return (z - shift) * jnp.exp(-log_scale), -row_sum(log_scale)


class Chain(nn.Module):
  """Layers one after another.

  Attributes:
    layers: The output of each is the input of the next.
  """

  layers: Sequence[nn.Module]

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    return forward(self.layers, x, train)

  def inverse(self, z: Array) -> tuple[Array, Array]:
    return backward(self.layers, z)


class Flattened(nn.Module):
  """Layers on images as vectors, row by row, channels last.

  Attributes:
    shape: (H, W, C) of an image; D = H W C.
    layers: On [B, D].
  """

  shape: tuple[int, int, int]
  layers: Sequence[nn.Module]

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    """x f32 [B, H, W, C] -> z f32 [B, D], log_det f32 [B]."""
    return forward(self.layers, x.reshape(len(x), -1), train)

  def inverse(self, z: Array) -> tuple[Array, Array]:
    """z f32 [B, D] -> x f32 [B, H, W, C], log_det f32 [B]."""
    x, log_det = backward(self.layers, z)
    return x.reshape(-1, *self.shape), log_det


class ActNorm(nn.Module):
  """(x - mean) / std * e^log_scale + shift, by channel.

  Kingma & Dhariwal (2018), arXiv 1807.03039, Section 3.1. mean and std are those of the
  first batch and constant after it, so that it leaves with mean 0 and variance 1; they
  are 0 and 1 before. The paper sets trained parameters by them instead; those here
  train relative to them, with the same range.

  Attributes:
    num_channels: C.
  """

  num_channels: int

  def setup(self) -> None:
    shape = (self.num_channels,)
    self.log_scale = self.param("log_scale", nn.initializers.zeros, shape)
    self.shift = self.param("shift", nn.initializers.zeros, shape)
    self.mean = self.variable(FIRST_BATCH, "mean", jnp.zeros, shape)
    self.std = self.variable(FIRST_BATCH, "std", jnp.ones, shape)

  def _affine(self, x: Array) -> tuple[Array, Array]:
    """shift and log_scale of x, each of its shape."""
    log_scale = self.log_scale - jnp.log(self.std.value)
    return _over(x, self.shift - self.mean.value * jnp.exp(log_scale), log_scale)

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    if self.is_mutable_collection(FIRST_BATCH) and not self.is_initializing():
      axes = tuple(range(x.ndim - 1))
      self.mean.value, self.std.value = x.mean(axes), x.std(axes) + 1e-6
    return affine(x, *self._affine(x))

  def inverse(self, z: Array) -> tuple[Array, Array]:
    return inverse_affine(z, *self._affine(z))


class FlowBatchNorm(nn.Module):
  """(x - mean) / sqrt(variance + eps) * e^log_scale + shift, by channel.

  Dinh et al. (2016), arXiv 1605.08803, Section 3.7 and Appendix E. With train=True the
  statistics are the batch's and gradients pass through them; otherwise and in `inverse`
  they are running averages, collection "batch_stats", in which each batch has the
  weight 1 - momentum.

  Attributes:
    num_channels: C.
    momentum: Of the running averages.
    eps: Added to the variance.
  """

  num_channels: int
  momentum: float = 0.9
  eps: float = 1e-5

  def setup(self) -> None:
    shape = (self.num_channels,)
    self.log_scale = self.param("log_scale", nn.initializers.zeros, shape)
    self.shift = self.param("shift", nn.initializers.zeros, shape)
    self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
    self.var = self.variable("batch_stats", "var", jnp.ones, shape)

  def _affine(self, x: Array, mean: Array, var: Array) -> tuple[Array, Array]:
    log_scale = self.log_scale - 0.5 * jnp.log(var + self.eps)
    return _over(x, self.shift - mean * jnp.exp(log_scale), log_scale)

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    if not train:
      return affine(x, *self._affine(x, self.mean.value, self.var.value))
    axes = tuple(range(x.ndim - 1))
    mean, var = x.mean(axes), x.var(axes)
    if not self.is_initializing():
      for running, new in ((self.mean, mean), (self.var, var)):
        running.value = self.momentum * running.value + (1 - self.momentum) * new
    return affine(x, *self._affine(x, mean, var))

  def inverse(self, z: Array) -> tuple[Array, Array]:
    return inverse_affine(z, *self._affine(z, self.mean.value, self.var.value))


def permutation(key: Array, shape: tuple[int, int]) -> Array:
  """A random permutation matrix, f32 [C, C]: an initialiser."""
  return jnp.eye(*shape)[random.permutation(key, shape[0])]


class Invertible1x1(nn.Module):
  """Every pixel's channels times one matrix W.

  Kingma & Dhariwal (2018), arXiv 1807.03039, Section 3.2. The products are in full
  precision on accelerators too, since `inverse` has to undo them.

  Attributes:
    num_channels: C.
    lu: W = P L (U + diag(sign e^log_s)), Eq. 10, with P and sign fixed, collection
      "fixed"; L and U are kept as full matrices of which one triangle has an effect.
      Else W is one matrix, whose determinant costs C^3.
    kernel_init: Of W, (key, (C, C)) -> f32 [C, C]: a random rotation, or `permutation`.
  """

  num_channels: int
  lu: bool = True
  kernel_init: Callable = nn.initializers.orthogonal()

  def setup(self) -> None:
    c = self.num_channels
    if not self.lu:
      self.weight = self.param("weight", self.kernel_init, (c, c))
      return
    # Shapes are all that is asked for after the start.
    if self.is_initializing():
      w = self.kernel_init(self.make_rng("params"), (c, c))
      p, lower, upper = jax.scipy.linalg.lu(w)
    else:
      p = lower = upper = jnp.zeros((c, c))
    diagonal = jnp.diag(upper)
    self.lower = self.param("lower", lambda _: lower)
    self.upper = self.param("upper", lambda _: upper)
    self.log_s = self.param("log_s", lambda _: jnp.log(jnp.abs(diagonal)))
    self.order = self.variable(FIXED, "order", lambda: jnp.argmax(p, axis=1))
    self.sign = self.variable(FIXED, "sign", lambda: jnp.sign(diagonal))

  def _triangles(self) -> tuple[Array, Array]:
    lower = jnp.tril(self.lower, -1) + jnp.eye(
      self.num_channels, dtype=self.lower.dtype
    )
    diagonal = jnp.diag(self.sign.value * jnp.exp(self.log_s))
    return lower, jnp.triu(self.upper, 1) + diagonal

  def _log_det(self, x: Array) -> Array:
    log_det = self.log_s.sum() if self.lu else jnp.linalg.slogdet(self.weight)[1]
    num_pixels = math.prod(x.shape[1:-1])
    return jnp.full(len(x), num_pixels, x.dtype) * log_det

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    if self.lu:
      lower, upper = self._triangles()
      weight = _product("ij,jk->ik", lower, upper)[self.order.value]
    else:
      weight = self.weight
    return _product("...j,ij->...i", x, weight), self._log_det(x)

  def inverse(self, z: Array) -> tuple[Array, Array]:
    if self.lu:
      lower, upper = self._triangles()
      solve = jax.scipy.linalg.solve_triangular
      eye = jnp.eye(self.num_channels, dtype=z.dtype)[:, self.order.value]
      inverse = solve(upper, solve(lower, eye, lower=True, unit_diagonal=True))
    else:
      inverse = jnp.linalg.inv(self.weight)
    return _product("...j,ij->...i", z, inverse), -self._log_det(z)


def row_sum(x: Array) -> Array:
  """f32 [B, ...] -> f32 [B]."""
  return x.reshape(len(x), -1).sum(-1)


def _over(x: Array, *rows: Array) -> tuple[Array, ...]:
  """Each [C] at every place of x."""
  return tuple(jnp.broadcast_to(v, x.shape) for v in rows)


def _product(form: str, a: Array, b: Array) -> Array:
  return jnp.einsum(form, a, b, precision="highest")
