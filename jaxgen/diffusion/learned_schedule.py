"""Noising processes whose schedule is learned with the network.

Kingma, Salimans, Poole & Ho, "Variational Diffusion Models" (2021), arXiv 2107.00630:
the logarithm of the noise-to-signal ratio is a function gamma(t) with parameters.
"""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from jaxgen.diffusion.process import Process

NUM_HALVINGS = 24  # of [0, 1]: what float32 resolves
END_POINTS = ("start", "slope")  # of a schedule, by the names of its parameters


class Network(nn.Module):
  """The score network and the schedule: all that is learned.

  Attributes:
    score: (z f32 [B, H, W, C], gamma f32 [B], train=...) -> the noise in z.
    schedule: t f32 [...] in [0, 1] -> gamma f32 [...], rising. The parameters in
      `END_POINTS` fix gamma(0) and gamma(1).
  """

  score: nn.Module
  schedule: nn.Module

  def __call__(self, z: Array, t: Array, train: bool = False) -> Array:
    """The noise in z of time t, f32 [B, H, W, C]."""
    return self.noise(z, self.schedule(t), train)

  def noise(self, z: Array, gamma: Array, train: bool = False) -> Array:
    """The noise in z of noise level gamma, f32 [B, H, W, C]."""
    return self.score(z, gamma, train=train)

  def gamma(self, t: Array) -> Array:
    """The schedule."""
    return self.schedule(t)


class Levels(NamedTuple):
  """What a step reads of the schedule.

  Attributes:
    first: gamma(0), f32 [].
    last: gamma(1), f32 [].
    at: gamma(t), f32 [B].
    rate: The weight of the squared error in twice the diffusion loss, f32 [B]:
      d gamma / dt, or T expm1(gamma(t) - gamma(t - 1 / T)) in T steps.
  """

  first: Array
  last: Array
  at: Array
  rate: Array


def levels_of(
  gamma: Callable[[Array], Array], t: Array, num_steps: int | None
) -> Levels:
  """Reads a schedule at times t, f32 [B], in `num_steps` steps or continuously."""
  if num_steps:
    at = gamma(t)
    rate = num_steps * jnp.expm1(at - gamma(t - 1 / num_steps))
  else:
    at, rate = jax.jvp(gamma, (t,), (jnp.ones_like(t),))
  return Levels(gamma(jnp.zeros(())), gamma(jnp.ones(())), at, rate)


def process_of(gamma: Callable[[Array], Array]) -> Process:
  """The variance-preserving process of a schedule, t in [0, 1].

  There is noise at t = 0 too. `time` is found by bisection.
  """

  def time(level: Array) -> Array:
    goal = 2.0 * jnp.log(level)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
      low, high = ends
      middle = 0.5 * (low + high)
      is_below = gamma(middle) < goal
      return jnp.where(is_below, middle, low), jnp.where(is_below, high, middle)

    ends = jnp.zeros_like(goal), jnp.ones_like(goal)
    return jax.lax.fori_loop(0, NUM_HALVINGS, halve, ends)[0]

  return Process(
    alpha=lambda t: jnp.sqrt(nn.sigmoid(-gamma(t))),
    sigma=lambda t: jnp.sqrt(nn.sigmoid(gamma(t))),
    time=time,
    end=1.0,
  )
