"""Ordinary differential equations by adaptive Runge-Kutta steps, every row by itself.

For densities, `exact_trace` and `estimated_trace` make of a field that of (x, log_det).

Dormand & Prince's method of order 5 as diffrax has it (the extra `ode` of this
package). Gradients are those of the steps that were taken, not of a second equation
solved backwards: they are exact for the numbers that came out, and cost one evaluation
of the steps again, from the states that were kept at their ends.
"""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp

PyTree = Any
# (params, t [], y of one row, what else is of that row) -> dy/dt, like y.
Field = Callable[[PyTree, Array, PyTree, PyTree], PyTree]
# Gradients of params are kept apart for so many groups of rows until the loop ends:
# so many devices sum none of them inside of it.
MAX_GROUPS = 8
NUM_STAGES = 6  # Evaluations of a step; the seventh is the first of the next.


class Tolerance(NamedTuple):
  """How exact a solution is.

  Attributes:
    relative: Root mean square of a step's errors, as a share of y.
    absolute: Added to that share, where y is small.
    max_steps: Accepted and rejected ones. So many states of every row are kept.
  """

  relative: float = 1e-5
  absolute: float = 1e-5
  max_steps: int = 128


DEFAULT = Tolerance()


class Path(NamedTuple):
  """What was computed on the way.

  Attributes:
    times: [B, K + 1]: the start and the end of every accepted step, then inf.
    states: [B, K + 1, N]: y at these times, as vectors.
    num_accepted: int32 [B].
    num_steps: int32 [B]; with the rejected ones.
    arrived: bool [B]: whether K steps were enough.
  """

  times: Array
  states: Array
  num_accepted: Array
  num_steps: Array
  arrived: Array


def solve(
  field: Field,
  params: PyTree,
  y: PyTree,
  rows: PyTree = None,
  *,
  start: float,
  end: float,
  tolerance: Tolerance = DEFAULT,
) -> tuple[PyTree, Array]:
  """y(end) of dy/dt = field(params, t, y, row), from y(start), for every row.

  Each row has steps of its own, so that its result does not depend on the others of a
  batch. Devices that share a batch under jit exchange in every step whether a row is
  left on any of them (one bit), and gradients once, at the end; under pmap, nothing.

  Args:
    field: It may close over no array that gradients are wanted of.
    params: Shared by all rows; gradients flow to params, y and rows.
    y: Arrays [B, ...] of one float dtype, that of the computation.
    rows: Further arrays [B, ...] that the field reads.
    start: Time of y.
    end: Another one, before or after it.
    tolerance: See there.

  Returns:
    y at the end, of NaN in rows for which the steps were not enough; and the number of
    evaluations of the field in each row, int32 [B].

  Raises:
    ImportError: where diffrax is missing.
  """
  flat = lambda tree: ravel_pytree(tree)[0]
  _, restore = ravel_pytree(jax.tree.map(lambda v: v[0], y))
  slope = lambda params, t, y, row: flat(field(params, t, restore(y), row))
  step = _stepper(slope)

  @jax.custom_vjp
  def run(params: PyTree, y: Array, rows: PyTree) -> tuple[Array, Array]:
    return forward(params, y, rows)[0]

  def forward(params: PyTree, y: Array, rows: PyTree) -> tuple:
    one = lambda y, row: _adaptive(slope, params, y, row, start, end, tolerance)
    path = jax.vmap(one)(y, rows)
    last = path.num_accepted[:, None, None]
    found = jnp.take_along_axis(path.states, last, axis=1)[:, 0]
    found = jnp.where(path.arrived[:, None], found, jnp.nan)
    return (found, NUM_STAGES * path.num_steps + 1), (params, rows, path)

  backward = lambda kept, gradients: _pull_back(step, *kept, gradients[0])
  run.defvjp(forward, backward)
  found, num_evaluations = run(params, jax.vmap(flat)(y), rows)
  return jax.vmap(restore)(found), num_evaluations


Alone = Callable[[PyTree, Array, Array], Array]  # params, t [], x [D] -> dx/dt [D]


def exact_trace(field: Alone) -> Field:
  """The field of (x, log_det), the second of slope tr(df/dx), by D products."""

  def augmented(
    params: PyTree, t: Array, y: tuple[Array, Array], row: None
  ) -> tuple[Array, Array]:
    x, _ = y
    slope, push = jax.linearize(lambda x: field(params, t, x), x)
    return slope, jnp.trace(jax.vmap(push)(jnp.eye(len(x), dtype=x.dtype)))

  return augmented


def estimated_trace(field: Alone) -> Field:
  """The same of slope v^T (df/dx) v, v [D] for each row: its mean is the trace.

  v is the same for all of a solve, which keeps the equation one without noise.
  """

  def augmented(
    params: PyTree, t: Array, y: tuple[Array, Array], v: Array
  ) -> tuple[Array, Array]:
    slope, along_v = jax.jvp(lambda x: field(params, t, x), (y[0],), (v,))
    return slope, (v * along_v).sum()

  return augmented


def _pull_back(
  step: Callable, params: PyTree, rows: PyTree, path: Path, of_end: Array
) -> tuple[PyTree, Array, PyTree]:
  """Gradients of params, of y at the start and of rows, given those of y at the end."""
  at = lambda a, k: jax.lax.dynamic_index_in_dim(a, k, axis=1, keepdims=False)
  add = lambda a, b: jax.tree.map(jnp.add, a, b)
  groups = math.gcd(len(of_end), MAX_GROUPS)
  apart = lambda v: v.reshape(groups, -1, *v.shape[1:])
  together = lambda v: v.reshape(-1, *v.shape[2:])

  def back(t0: Array, t1: Array, y: Array, rows: PyTree, of_y: Array) -> tuple:
    """Of one step, for a group of rows."""
    return jax.vjp(lambda *args: step(t0, t1, *args), params, y, rows)[1](of_y)

  def undo(carry: tuple) -> tuple:
    k, of_params, of_y, of_rows = carry
    # Steps that a row did not take are steps of length 0 at its start.
    taken = k <= path.num_accepted
    past = lambda a, k: jnp.where(
      taken.reshape(-1, *(1,) * (a.ndim - 2)), at(a, k), a[:, 0]
    )
    now = past(path.times, k - 1), past(path.times, k), past(path.states, k - 1)
    found = jax.vmap(back)(*jax.tree.map(apart, (*now, rows, of_y)))
    of_y, more_rows = jax.tree.map(together, found[1:])
    return k - 1, add(of_params, found[0]), of_y, add(of_rows, more_rows)

  none = jax.tree.map(lambda v: jnp.zeros((groups, *v.shape), v.dtype), params)
  carry = path.num_accepted.max(), none, of_end, jax.tree.map(jnp.zeros_like, rows)
  _, of_params, of_y, of_rows = jax.lax.while_loop(lambda c: c[0] > 0, undo, carry)
  return jax.tree.map(lambda v: v.sum(0), of_params), of_y, of_rows


def _diffrax() -> Any:
  try:
    import diffrax
  except ImportError as error:
    raise ImportError(
      "differential equations need diffrax; expected it from: pip install 'jaxgen[ode]'"
    ) from error
  return diffrax


def _adaptive(
  slope: Field,
  params: PyTree,
  y: Array,
  row: PyTree,
  start: float,
  end: float,
  tolerance: Tolerance,
) -> Path:
  """The path of one row, y [N]; has no gradient."""
  diffrax = _diffrax()
  found = diffrax.diffeqsolve(
    diffrax.ODETerm(lambda t, y, args: slope(args[0], t, y, args[1])),
    diffrax.Dopri5(),
    *(start, end, (end - start) / 8, y),
    args=(params, row),
    saveat=diffrax.SaveAt(t0=True, steps=True),
    stepsize_controller=diffrax.PIDController(tolerance.relative, tolerance.absolute),
    adjoint=diffrax.ForwardMode(),
    max_steps=tolerance.max_steps,
    throw=False,
  )
  return Path(
    found.ts,
    found.ys,
    found.stats["num_accepted_steps"],
    found.stats["num_steps"],
    found.result == diffrax.RESULTS.successful,
  )


def _stepper(slope: Field) -> Callable:
  """(t0 [B], t1 [B], params, y [B, N], rows) -> y at t1 by one step: [B, N]."""
  tableau = _diffrax().Dopri5.tableau

  def one(t0: Array, t1: Array, params: PyTree, y: Array, row: PyTree) -> Array:
    h, slopes = t1 - t0, []
    move = lambda weights: (
      y + h * sum(float(w) * k for w, k in zip(weights, slopes, strict=False))
    )
    for c, weights in zip((0.0, *tableau.c), ((), *tableau.a_lower), strict=True):
      if len(slopes) < NUM_STAGES:
        slopes.append(slope(params, t0 + float(c) * h, move(weights), row))
    return move(tableau.b_sol)

  return jax.vmap(one, in_axes=(0, 0, None, 0, 0))
