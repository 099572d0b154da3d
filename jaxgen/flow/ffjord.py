"""FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models.

Will Grathwohl, Ricky T. Q. Chen, Jesse Bettencourt, Ilya Sutskever, David Duvenaud,
2018. https://arxiv.org/abs/1810.01367. z = x(T) of dx/dt = f(t, x) with a free f; the
change of log-density is the integral of tr(df/dx), in training of Hutchinson's unbiased
estimate of it with one draw of noise for a whole solution (Section 3.1); the solver
adapts its steps (Dormand & Prince's method); the inverse is the solution backwards.

Deviations from the paper:
  - Gradients are those of the steps taken, by reverse mode from states kept at the ends
    of the steps. (Paper: a second equation solved backwards, in constant memory.)
    They are exact for the computed loss, whatever the tolerance, and sum over a batch
    in matrix products; kept are max_steps states of D + 1 numbers for each example.
  - Every example has steps of its own: its density does not depend on the
    others, nor on the number of devices. (Code: one step size for a whole batch.)
  - Of `network` (dense, images as vectors, one solution, actnorm before it, tanh) the
    evaluation integrates the trace of the whole Jacobian, in D products at every
    evaluation of f: exact up to the solver, for tens or hundreds of dimensions.
    `conv_network`, that for images, is evaluated by the estimate, as in their code.
  - The noise is of signs. (Code: also Gaussian.)
  - T is fixed. (So it is in the authors' code: theirs is a parameter that no gradient
    reaches.)
  - The number of evaluations is not among the metrics: `solve` returns it, but a
    bijection of `likelihood.density` has no place for more than z and log_det.
"""

from collections.abc import Callable
import math
from typing import Any

from flax import linen as nn
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.flow.likelihood import density
from jaxgen.method import Array, Method, PyTree, per_example
from jaxgen.nn.bijection import ActNorm, Flattened
from jaxgen.nn.multi_scale import MultiScale, Squeeze, check_sides
from jaxgen.ops.ode import Alone, Field, Tolerance, estimated_trace, exact_trace, solve


class Dynamics(nn.Module):
  """f(t, x): dense layers that time gates and shifts, with tanh between them.

  Every layer is (W x + b) sigmoid(u t + c) + w t (the authors' "concatsquash").

  Attributes:
    hidden_dims: Of the layers between.
  """

  hidden_dims: tuple[int, ...]

  @nn.compact
  def __call__(self, t: Array, x: Array) -> Array:
    """t [], x f32 [..., D] -> f32 [..., D]."""
    time = jnp.asarray(t, x.dtype).reshape(1)
    spread = lambda v: v.reshape(*(1,) * (x.ndim - 1), -1)
    dims = (*self.hidden_dims, x.shape[-1])
    for i, dim in enumerate(dims):
      gate = nn.sigmoid(nn.Dense(dim)(time))
      shift = nn.Dense(dim, use_bias=False)(time)
      x = nn.Dense(dim)(x) * spread(gate) + spread(shift)
      x = nn.tanh(x) if i < len(dims) - 1 else x
    return x


class ConvDynamics(nn.Module):
  """f(t, x): 3x3 convolutions that see time as a channel, with softplus between them.

  Attributes:
    hidden_dims: Channels of the layers between.
  """

  hidden_dims: tuple[int, ...]

  @nn.compact
  def __call__(self, t: Array, x: Array) -> Array:
    """t [], x f32 [..., H, W, C] -> f32 [..., H, W, C]."""
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's
    dims = (*self.hidden_dims, x.shape[-1])
    for i, dim in enumerate(dims):
      time = jnp.full((*x.shape[:-1], 1), t, x.dtype)
      x = nn.Conv(dim, (3, 3), kernel_init=init)(jnp.concatenate([time, x], axis=-1))
      x = nn.softplus(x) if i < len(dims) - 1 else x
    return x


class ContinuousFlow(nn.Module):
  """z = x(T) of dx/dt = f(t, x), a layer as in `jaxgen.nn.bijection`.

  With train=True log_det is estimated, with draws from the stream "draws"; so it is
  without, unless `exact`.

  Attributes:
    dynamics: f, (t [], x f32 [..., D] or images) -> of the shape of x.
    time: T.
    tolerance: Of the solver.
    exact: Whether the trace is that of the whole Jacobian in evaluations; in the
      inverse it always is.
  """

  dynamics: nn.Module
  time: float = 1.0
  tolerance: Tolerance = Tolerance()
  exact: bool = True

  def _solve(
    self,
    x: Array,
    augment: Callable[[Alone], Field] | None = None,
    v: Array | None = None,
    backwards: bool = False,
  ) -> PyTree:
    """Vectors from x, with log_det if augmented; v f32 [B, D] is the noise of that."""
    net, variables = self.dynamics.unbind()
    shape, rows = x.shape[1:], x.reshape(len(x), -1)
    field = lambda given, t, x: net.apply(given, t, x.reshape(shape)).reshape(-1)
    whole, y = (lambda given, t, x, _: field(given, t, x)), rows
    if augment is not None:
      whole, y = augment(field), (rows, jnp.zeros_like(rows[:, 0]))
    start, end = (self.time, 0.0) if backwards else (0.0, self.time)
    options = dict(start=start, end=end, tolerance=self.tolerance)
    return solve(whole, variables, y, v, **options)[0]

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    if self.is_initializing():
      return self.dynamics(jnp.zeros(()), x), jnp.zeros(len(x), x.dtype)
    augment, v = exact_trace, None
    if train or not self.exact:
      shape = len(x), math.prod(x.shape[1:])
      v = per_example(random.rademacher(self.make_rng("draws"), shape, x.dtype))
      augment = estimated_trace
    z, log_det = self._solve(x, augment, v)
    return z.reshape(x.shape), log_det

  def inverse(self, z: Array) -> tuple[Array, Array]:
    """From T back to 0; log_det is of the way forth, which samples do not compute."""
    x = self._solve(z, backwards=True).reshape(z.shape)
    return x, -self._solve(x, exact_trace)[1]


def network(
  shape: tuple[int, int, int],
  *,
  tolerance: Tolerance,
  hidden_dims: tuple[int, ...] = (64, 64),
  time: float = 1.0,
) -> Flattened:
  """Actnorm and a continuous flow.

  Args:
    shape: (H, W, C) of an image.
    tolerance: Of the solver.
    hidden_dims: Of the dynamics.
    time: T.
  """
  flow = ContinuousFlow(Dynamics(hidden_dims), time, tolerance)
  return Flattened(shape, [ActNorm(math.prod(shape)), flow])


def conv_network(
  shape: tuple[int, int, int],
  *,
  tolerance: Tolerance,
  hidden_dims: tuple[int, ...] = (64, 64, 64),
  num_flows: int = 2,
  num_scales: int = 3,
  exact: bool = False,
) -> MultiScale:
  """Flows of convolutions in several scales, of which half the channels leave.

  Args:
    shape: (H, W, C) of an image; H and W divisible by 2^(num_scales - 1).
    tolerance: Of the solver.
    hidden_dims: Of the dynamics.
    num_flows: In a row, before and after each squeeze.
    num_scales: Their number.
    exact: See `ContinuousFlow`.
  """
  check_sides(shape, num_scales - 1)

  def flows() -> list[nn.Module]:
    flow = lambda: ContinuousFlow(ConvDynamics(hidden_dims), 1.0, tolerance, exact)
    return [flow() for _ in range(num_flows)]

  levels = [[*flows(), Squeeze(), *flows()] for _ in range(num_scales - 1)]
  return MultiScale([*levels, flows()], shape)


def ffjord(
  net: nn.Module, *, tx: optax.GradientTransformation, **options: Any
) -> Method:
  """`likelihood.density`, trained on estimates of the trace.

  Args:
    net: As from `network` or `conv_network`.
    tx: Its optimiser.
    **options: Of `likelihood.density`.
  """
  return density(net, tx=tx, **options)
