"""Monotonic rational-quadratic splines with linear tails.

Durkan, Bekasov, Murray & Papamakarios (2019), arXiv 1906.04032, after Gregory &
Delbourgo (1982). Everything is elementwise over the leading axes.
"""

import math
from typing import NamedTuple

import jax
from jax import Array
import jax.numpy as jnp

MIN_BIN = 1e-3  # Of widths and heights, as a part of the interval.
MIN_SLOPE = 1e-3


class Knots(NamedTuple):
  """Where a spline passes through, and how steeply. Outside it is the identity.

  Attributes:
    x: [..., K + 1], ascending.
    y: Of that shape, ascending; its first and last are those of x.
    slope: Of that shape, positive; 1 at the ends lets the derivative be continuous.
  """

  x: Array
  y: Array
  slope: Array


def num_parameters(num_bins: int) -> int:
  """Of one spline as `knots` takes them: 3 K - 1."""
  return 3 * num_bins - 1


def knots(raw: Array, bound: float) -> Knots:
  """Any numbers as knots of a bijection of [-bound, bound].

  Args:
    raw: f32 [..., 3 K - 1]: K for widths and K for heights of bins, through a softmax,
      and K - 1 for slopes at the inner knots, through a softplus. Zeros give the
      identity. No bin is narrower than 1e-3 of the interval, no slope below 1e-3.
    bound: Half of the interval's length.

  Raises:
    ValueError: for a number of parameters that is not 3 K - 1.
  """
  num_bins, rest = divmod(raw.shape[-1] + 1, 3)
  if rest or num_bins < 1:
    raise ValueError(f"raw.shape={raw.shape}: expected a last axis of 3 K - 1")
  widths, heights, slopes = jnp.split(raw, (num_bins, 2 * num_bins), axis=-1)
  offset = math.log(math.expm1(1 - MIN_SLOPE))  # A slope of 1 for 0.
  inner = MIN_SLOPE + jax.nn.softplus(slopes + offset)
  ends = jnp.ones((*raw.shape[:-1], 1), raw.dtype)
  slope = jnp.concatenate([ends, inner, ends], axis=-1)
  return Knots(_edges(widths, bound), _edges(heights, bound), slope)


def _edges(raw: Array, bound: float) -> Array:
  """[..., K] -> edges of bins from -bound to bound, [..., K + 1]."""
  sizes = MIN_BIN + (1 - MIN_BIN * raw.shape[-1]) * jax.nn.softmax(raw, axis=-1)
  inner = bound * (2 * jnp.cumsum(sizes, axis=-1)[..., :-1] - 1)
  end = jnp.full((*raw.shape[:-1], 1), bound, raw.dtype)
  return jnp.concatenate([-end, inner, end], axis=-1)


class _Bin(NamedTuple):
  """What of the knots counts for one value: each [...]."""

  x: Array
  y: Array
  width: Array
  height: Array
  slope: Array
  next_slope: Array


def _bin(v: Array, edges: Array, of: Knots) -> _Bin:
  """The bin between two of the edges, one of x and y, that holds v; v is inside."""
  above = v[..., None] >= edges[..., 1:-1]  # Of all bins but the last, the end.
  yes = jnp.ones((*v.shape, 1), bool)
  here = jnp.concatenate([yes, above], -1) & ~jnp.concatenate([above, ~yes], -1)
  # One of K: sums are faster than gathers, above all their gradients.
  pick = lambda values: jnp.where(here, values, 0).sum(-1)
  return _Bin(
    x=pick(of.x[..., :-1]),
    y=pick(of.y[..., :-1]),
    width=pick(jnp.diff(of.x)),
    height=pick(jnp.diff(of.y)),
    slope=pick(of.slope[..., :-1]),
    next_slope=pick(of.slope[..., 1:]),
  )


def forward(x: Array, of: Knots) -> tuple[Array, Array]:
  """The spline at x, and the natural log of its derivative.

  Args:
    x: f32 [...].
    of: Knots with those leading axes.

  Returns:
    f32 [...] twice.
  """
  inside = (x >= of.x[..., 0]) & (x <= of.x[..., -1])
  x_inside = jnp.where(inside, x, of.x[..., 0])
  bin_ = _bin(x_inside, of.x, of)
  xi = (x_inside - bin_.x) / bin_.width
  s = bin_.height / bin_.width
  between = xi * (1 - xi)
  rise = bin_.height * (s * xi**2 + bin_.slope * between)
  y = bin_.y + rise / (s + (bin_.next_slope + bin_.slope - 2 * s) * between)
  return jnp.where(inside, y, x), jnp.where(inside, _log_slope(xi, bin_), 0)


def inverse(y: Array, of: Knots) -> tuple[Array, Array]:
  """The x of which `forward` is y (Eqs. 6 to 8), and the log of its derivative in y.

  Args:
    y: f32 [...].
    of: Knots with those leading axes.

  Returns:
    f32 [...] twice.
  """
  inside = (y >= of.y[..., 0]) & (y <= of.y[..., -1])
  y_inside = jnp.where(inside, y, of.y[..., 0])
  bin_ = _bin(y_inside, of.y, of)
  s, rise = bin_.height / bin_.width, y_inside - bin_.y
  curve = rise * (bin_.next_slope + bin_.slope - 2 * s)
  a = bin_.height * (s - bin_.slope) + curve
  b = bin_.height * bin_.slope - curve
  c = -s * rise
  # Of the two forms of the root the one that does not cancel. Below 0 is rounding.
  xi = 2 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0)))
  x = bin_.x + xi * bin_.width
  return jnp.where(inside, x, y), jnp.where(inside, -_log_slope(xi, bin_), 0)


def _log_slope(xi: Array, bin_: _Bin) -> Array:
  """Log of the derivative at the part xi of the bin's width."""
  s, between = bin_.height / bin_.width, xi * (1 - xi)
  above = bin_.next_slope * xi**2 + 2 * s * between + bin_.slope * (1 - xi) ** 2
  below = s + (bin_.next_slope + bin_.slope - 2 * s) * between
  return 2 * jnp.log(s) + jnp.log(above) - 2 * jnp.log(below)
