"""Layers whose Lipschitz constant is kept below 1: g of a residual flow's x + g(x).

Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen (2018), "Invertible Residual Networks",
arXiv 1811.00995; Chen, Behrmann, Duvenaud & Jacobsen (2019), "Residual Flows for
Invertible Generative Modeling", arXiv 1906.02735.
"""

from collections.abc import Callable

from flax import linen as nn
import jax
from jax import Array, lax, random
import jax.numpy as jnp

from jaxgen.nn.strided_conv import pixel_conv

STATISTICS = "power_iteration"
STEEPEST = 1.1  # Above the largest slope of swish, 1.0998.


def lip_swish(x: Array, beta: Array) -> Array:
  """x sigmoid(softplus(beta) x) / 1.1, of slopes in [-1, 1] (Chen et al., 3.3)."""
  return x * jax.nn.sigmoid(jax.nn.softplus(beta) * x) / STEEPEST


def _held(
  module: nn.Module,
  kernel: Array,
  product: Callable[[Array, Array], Array],
  shape: tuple[int, ...],
  train: bool,
) -> Array:
  """A kernel whose product has a 2-norm of `module.bound` at most, as far as is known.

  Behrmann et al. (2018), Section 2.1: W times min(1, bound / sigma), sigma = |W^T v|
  for v after `num_iterations` of v = normalize(W W^T v) in every step with train=True,
  kept in the collection `STATISTICS`. sigma comes from below: with |W| = (1 + e) sigma
  the norm is (1 + e) bound. So v belongs to these weights and to no others.

  Args:
    module: Keeps v; has `bound` and `num_iterations`.
    kernel: W.
    product: (W, v) -> W^T v, linear in v.
    shape: Of v.
    train: Whether v moves on.
  """
  first = lambda: random.normal(module.make_rng("params"), shape)
  v = module.variable(STATISTICS, "v", first)
  length = lambda a: jnp.linalg.norm(a.reshape(-1))
  direction, forth = v.value, lambda v: product(lax.stop_gradient(kernel), v)
  if train or module.is_initializing():
    back = jax.linear_transpose(forth, direction)

    def move(_: Array, v: Array) -> Array:
      (v,) = back(forth(v))
      return v / (length(v) + 1e-12)

    direction = lax.fori_loop(0, module.num_iterations, move, direction)
  if train and not module.is_initializing():
    v.value = direction
  direction = direction / (length(direction) + 1e-12)
  sigma = length(product(kernel, direction))
  return kernel * jnp.minimum(1.0, module.bound / sigma)


class LipschitzDense(nn.Module):
  """A dense layer of a 2-norm of `bound` at most, as far as is known: see `_held`.

  Attributes:
    num_outputs: Of the layer.
    bound: Below 1, with room for e.
    num_iterations: Per step.
  """

  num_outputs: int
  bound: float = 0.97
  num_iterations: int = 5

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    shape = (x.shape[-1], self.num_outputs)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = self.param("bias", nn.initializers.zeros, (self.num_outputs,))
    product = lambda kernel, v: v @ kernel
    return x @ _held(self, kernel, product, shape[:1], train) + bias[None]


class LipschitzConv(nn.Module):
  """A convolution of a 2-norm of `bound` at most, as far as is known: see `_held`.

  The norm is that of the map from images to images with its border of zeros (Gouk et
  al., 2018, arXiv 1804.04368), not that of the kernel as a matrix; so v is an image of
  the size seen in `init`, or one pixel where the kernel is.

  Attributes:
    num_outputs: Channels of the output.
    kernel_size: Side of the kernel, odd.
    bound: Below 1, with room for e.
    num_iterations: Per step.
  """

  num_outputs: int
  kernel_size: int
  bound: float = 0.97
  num_iterations: int = 5

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """f32 [B, H, W, C] -> f32 [B, H, W, num_outputs]."""
    size, (height, width, c) = self.kernel_size, x.shape[1:]
    init = nn.initializers.lecun_normal()
    kernel = self.param("kernel", init, (size, size, c, self.num_outputs))
    bias = self.param("bias", nn.initializers.zeros, (self.num_outputs,))

    product = lambda kernel, v: pixel_conv(v, kernel, (1, 1), "SAME")
    shape = (1, height, width, c) if size > 1 else (1, 1, 1, c)
    held = _held(self, kernel, product, shape, train)
    return product(held, x) + bias[None, None, None]


class LipschitzMlp(nn.Module):
  """Activation and dense layer in turn, back to the first width.

  Its slopes are below 1 where `bound` leaves room enough, see `LipschitzDense`.

  Attributes:
    hidden_dims: Widths between the layers.
    bound: Of every layer.
  """

  hidden_dims: tuple[int, ...]
  bound: float

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """f32 [B, D] -> f32 [B, D]."""
    h = x
    for i, dim in enumerate((*self.hidden_dims, x.shape[-1])):
      beta = self.param(f"beta_{i}", nn.initializers.constant(0.5), ())
      h = LipschitzDense(dim, self.bound)(lip_swish(h, beta), train)
    return h


class LipschitzConvNet(nn.Module):
  """Activation and convolution in turn, back to the first number of channels.

  Attributes:
    width: Channels between the layers.
    bound: Of every layer.
    kernel_sizes: Of the layers.
    activated_first: Else the first convolution sees x itself.
  """

  width: int
  bound: float
  kernel_sizes: tuple[int, ...] = (3, 1, 3)
  activated_first: bool = True

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """f32 [B, H, W, C] -> f32 [B, H, W, C]."""
    h, last = x, len(self.kernel_sizes) - 1
    for i, size in enumerate(self.kernel_sizes):
      if i or self.activated_first:
        beta = self.param(f"beta_{i}", nn.initializers.constant(0.5), ())
        h = lip_swish(h, beta)
      dim = self.width if i < last else x.shape[-1]
      h = LipschitzConv(dim, size, self.bound)(h, train)
    return h
