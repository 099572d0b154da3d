"""Exact likelihoods by the ODE of a process, and images as continuous values.

dx_t / dt = v(x_t, t) takes the data to the prior, and along it the log-density falls by
tr(dv / dx) (Song et al., 2021, arXiv 2011.13456, Appendix D.2; Lipman et al., 2023,
arXiv 2210.02747, Appendix C; both from memory). The trace is Hutchinson's estimate with
one draw of signs for each example, which is unbiased, or exact. The solver adapts its
steps.

Images of n levels are x = 2 (level + u) / n - 1 with u uniform in [0, 1): the bits are
then a bound on those of the levels, on average (see `ops.dequantize`).
"""

from collections.abc import Callable
import functools
import math

from jax import random
import jax.numpy as jnp
from jax.scipy import stats

from jaxgen.diffusion.process import Process
from jaxgen.method import Array, PyTree, per_example
from jaxgen.ops import dequantize
from jaxgen.ops.ode import Tolerance, estimated_trace, exact_trace, solve

Velocity = Callable[[PyTree, Array, Array], Array]  # params, x_t [B, ...], t [] -> x_t
LIKELIHOOD = Tolerance(1e-4, 1e-4, 512)


def log_prob(
  velocity: Velocity,
  params: PyTree,
  x: Array,
  key: Array | None,
  *,
  process: Process,
  start: float,
  tolerance: Tolerance = LIKELIHOOD,
) -> tuple[Array, Array]:
  """log p(x) in nats, of x = x_t at t = `start`, under the prior at process.end.

  Args:
    velocity: dx_t / dt of each example, whatever the others are.
    params: Its parameters.
    x: float [B, ...], in the precision of the computation.
    key: Of the draws of the trace; None computes the exact one, in D products.
    process: Whose prior is N(0, sigma^2) at its end.
    start: Time of x.
    tolerance: Of the solver.

  Returns:
    [B], of NaN where the steps were not enough; and the evaluations of the velocity
    with its derivative for each example, int32 [B].

  Raises:
    ImportError: where diffrax is missing (the extra `ode`).
  """
  y = x.reshape(len(x), -1)

  def field(params: PyTree, t: Array, row: Array) -> Array:
    return velocity(params, row.reshape(1, *x.shape[1:]), t).reshape(-1)

  augmented, signs = exact_trace(field), None
  if key is not None:
    augmented = estimated_trace(field)
    signs = per_example(random.rademacher(key, y.shape, y.dtype))
  (z, fallen), count = solve(
    augmented,
    params,
    (y, jnp.zeros_like(y[:, 0])),
    signs,
    start=start,
    end=process.end,
    tolerance=tolerance,
  )
  scale = process.sigma(jnp.asarray(process.end, y.dtype))
  return stats.norm.logpdf(z, scale=scale).sum(-1) + fallen, count


def bits_per_dim(
  velocity: Velocity,
  params: PyTree,
  image: Array,
  key: Array,
  *,
  process: Process,
  start: float,
  num_levels: int = 256,
  tolerance: Tolerance = LIKELIHOOD,
) -> dict[str, Array]:
  """Of images with uniform noise, one draw of it and of the trace for each.

  Args:
    velocity: And so on, as in `log_prob`.
    image: f32 [B, ...] in [-1, 1], of 256 levels.
    key: Of the draws.
    num_levels: Images are reduced to so many levels; bits are of those levels.

  Returns:
    {"bits_per_dim", "nll" (nats per image), "evaluations"}, each f32 [B].
  """
  noise_key, trace_key = random.split(key)
  x = observe(image, noise_key, num_levels)
  log_density, count = log_prob(
    velocity, params, x, trace_key, process=process, start=start, tolerance=tolerance
  )
  num_values = math.prod(image.shape[1:])
  of_unit_cube = log_density + num_values * math.log(2)
  nats = dequantize.nats(of_unit_cube, num_values, num_levels)
  return {
    "bits_per_dim": nats / (num_values * math.log(2)),
    "nll": nats,
    "evaluations": count.astype(jnp.float32),
  }


def settings(num_levels: int, tolerance: Tolerance) -> str:
  """What a tool that calls `bits_per_dim` says of itself."""
  rest = f"rtol {tolerance.relative:g}, atol {tolerance.absolute:g}"
  return f"of {num_levels} levels, one draw of noise and trace each, {rest}"


def observe(image: Array, key: Array, num_levels: int = 256) -> Array:
  """x in [-1, 1) of an image, with its noise."""
  return 2.0 * per_example(dequantize.uniform(image, key, num_levels)) - 1.0


def centre(image: Array, num_levels: int = 256) -> Array:
  """x in (-1, 1) of an image, in the middle of its noise."""
  return 2.0 * dequantize.dequantize(image, jnp.float32(0.5), num_levels) - 1.0


def ways(num_levels: int = 256) -> dict[str, Callable[[Array], Array]]:
  """From images to x and back, for `editing.tools`."""
  return {
    "observe": functools.partial(centre, num_levels=num_levels),
    "restore": functools.partial(restore, num_levels=num_levels),
  }


def restore(x: Array, num_levels: int = 256) -> Array:
  """The image of exact levels of an x, in [-1, 1]."""
  return dequantize.quantize(0.5 * (x + 1.0), num_levels)
