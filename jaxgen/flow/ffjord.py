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
  - The evaluation integrates the trace of the whole Jacobian, in D products at every
    evaluation of f: exact up to the solver, for tens or hundreds of dimensions.
  - Dense networks of images as vectors, one solution, actnorm before it. (Paper:
    several in a row, for images convolutions and several scales, logits of pixels.)
  - tanh. (Paper: chosen by data set.) The noise is of signs. (Code: also Gaussian.)
  - T is fixed. (Code: also trained.)
  - The number of evaluations is not among the metrics: `solve` returns it, but a
    bijection of `likelihood.density` has no place for more than z and log_det.
"""

import math
from typing import Any

from flax import linen as nn
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.flow.likelihood import density
from jaxgen.method import Array, Method, PyTree, per_example
from jaxgen.nn.bijection import ActNorm, Flattened
from jaxgen.ops.ode import Alone, Tolerance, estimated_trace, exact_trace, solve


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


class ContinuousFlow(nn.Module):
  """z = x(T) of dx/dt = f(t, x), a layer as in `jaxgen.nn.bijection`, on [B, D].

  With train=True log_det is estimated, with draws from the stream "draws".

  Attributes:
    dynamics: f, (t [], x f32 [..., D]) -> f32 [..., D].
    time: T.
    tolerance: Of the solver.
  """

  dynamics: nn.Module
  time: float = 1.0
  tolerance: Tolerance = Tolerance()

  def _field(self) -> tuple[Alone, PyTree]:
    net, variables = self.dynamics.unbind()
    return (lambda variables, t, x: net.apply(variables, t, x)), variables

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
    if self.is_initializing():
      return self.dynamics(jnp.zeros(()), x), jnp.zeros_like(x[:, 0])
    field, variables = self._field()
    augmented, v = exact_trace(field), None
    if train:
      augmented = estimated_trace(field)
      v = per_example(random.rademacher(self.make_rng("draws"), x.shape, x.dtype))
    start = x, jnp.zeros_like(x[:, 0])
    return solve(augmented, variables, start, v, **self._span(0.0, self.time))[0]

  def inverse(self, z: Array) -> tuple[Array, Array]:
    """From T back to 0; log_det is of the way forth, which samples do not compute."""
    field, variables = self._field()
    alone = lambda variables, t, x, _: field(variables, t, x)
    x, _ = solve(alone, variables, z, **self._span(self.time, 0.0))
    return x, -self(x)[1]

  def _span(self, start: float, end: float) -> dict[str, Any]:
    return dict(start=start, end=end, tolerance=self.tolerance)


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


def ffjord(
  net: nn.Module, *, tx: optax.GradientTransformation, **options: Any
) -> Method:
  """`likelihood.density`, trained on estimates of the trace and evaluated exactly.

  Args:
    net: As from `network`.
    tx: Its optimiser.
    **options: Of `likelihood.density`.
  """
  return density(net, tx=tx, **options)
