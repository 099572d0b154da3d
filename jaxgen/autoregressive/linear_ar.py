"""Linear autoregression: each value a weighted sum of those before it, and noise.

Yule, "On a Method of Investigating Periodicities in Disturbed Series" (1927), and
textbooks since; the baseline of this family: x_t = a_0 + a_1 x_{t-1} + ... +
a_p x_{t-p} + e_t with e_t ~ N(0, variance), along a sound, or along an image in raster
order, with zeros before the first value.

The weights are those of least squares over all training batches so far, which have the
greatest likelihood: a train step adds its part of the normal equations to sums that the
state keeps, and the equations are solved where weights are needed. There is no gradient
and nothing to tune but p. One pass over the data is all that training can give.

Deviations from the textbook:
  - What is modelled are the levels that pictures and sounds have: the probability of a
    level is that of the interval of numbers it stands for. The weights are those of the
    density; nothing is refitted.
  - The diagonal of the equations grows by 1e-6 of its mean, against rounding.
  - Values after the end of a recording, by the mask, do not count: no end is fitted,
    and `sample` goes on as within a recording to the length of the batch.
"""

from collections.abc import Callable
from typing import NamedTuple

from jax import lax, random
import jax.numpy as jnp

from jaxgen.losses import gaussian
from jaxgen.method import Array, Batch, Method, Metrics, TrainState, per_example
from jaxgen.ops import mu_law

RIDGE = 1e-6


class Cells(NamedTuple):
  """Intervals that cover the line, each with the value that stands for it.

  Attributes:
    observe: x f32 [...] in [-1, 1] -> the value of its cell.
    edges: Such values -> the lower and upper ends of their cells, outermost infinite.
  """

  observe: Callable[[Array], Array]
  edges: Callable[[Array], tuple[Array, Array]]


def _cells(level: Callable, value: Callable, last: int) -> Cells:
  """Cells that end half way, in levels, between 0, ..., last."""

  def edges(x: Array) -> tuple[Array, Array]:
    k = level(x)
    lower = jnp.where(k > 0, value(k - 0.5), -jnp.inf)
    return lower, jnp.where(k < last, value(k + 0.5), jnp.inf)

  return Cells(lambda x: value(level(x)), edges)


def linear_levels(num_levels: int = 256) -> Cells:
  """Of pictures: equally far apart from -1 to 1."""
  scale = (num_levels - 1) / 2.0
  level = lambda x: jnp.clip(jnp.round((x + 1.0) * scale), 0, num_levels - 1)
  return _cells(level, lambda k: k / scale - 1.0, num_levels - 1)


def mu_law_levels(num_levels: int = 256) -> Cells:
  """Of sound, those that WaveNet models."""
  return _cells(
    lambda x: mu_law.encode(x, num_levels).astype(x.dtype),
    lambda k: mu_law.decode(k, num_levels),
    num_levels - 1,
  )


def history(x: Array, order: int) -> Array:
  """f32 [B, T] -> [B, T, 1 + order]: 1, then x_{t-1}, ..., x_{t-order}, or zeros."""
  padded = jnp.pad(x, ((0, 0), (order, 0)))
  past = [padded[:, order - k : order - k + x.shape[1]] for k in range(1, order + 1)]
  return jnp.stack([jnp.ones_like(x), *past], axis=-1)


def fit(moments: Array, count: Array) -> tuple[Array, Array]:
  """The weights of least squares, [1 + p], and the variance that is left, [].

  Args:
    moments: f32 [2 + p, 2 + p]; the sum of z z^T, z the history, then x_t.
    count: f32 []; of how many. With none, weights are 0 and the variance is 1.
  """
  mean = moments / jnp.maximum(count, 1.0)
  a, b = mean[:-1, :-1], mean[:-1, -1]
  size = jnp.trace(a) / len(a)
  ridge = jnp.where(count > 0, RIDGE * size, 1.0)
  weights = jnp.linalg.solve(a + ridge * jnp.eye(len(a), dtype=a.dtype), b)
  var = mean[-1, -1] - 2 * weights @ b + weights @ a @ weights
  return weights, jnp.where(count > 0, jnp.maximum(var, 1e-8), 1.0)


def linear_ar(
  order: int, *, entry: str, cells: Cells, sample_rate: int | None = None
) -> Method:
  """AR(p) along the values of each example.

  Args:
    order: p, at least 1.
    entry: What is modelled: batch[entry], f32 [B, ...] in [-1, 1], of any shape.
    cells: Which levels its values have.
    sample_rate: Of sound, in samples per second; None: it is none.

  Returns:
    A method without parameters; its sums are in stats["net"]. batch["mask"], if there,
    is positive for values that count, of the shape of batch[entry]. The loss is in bits
    per value, over all that count, with the weights before the step, and `change` the
    length of the step of the weights; eval_step gives bits_per_dim, of each example
    over its own, and nll, their sum in nats. `sample` returns "samples", and with a
    `sample_rate` that as well, int32 [B].
  """
  if order < 1:
    raise ValueError(f"order={order}: expected at least 1")

  def observe(batch: Batch) -> tuple[Array, Array]:
    """Values and which of them count, f32 [B, T] each."""
    x = cells.observe(batch[entry]).reshape(len(batch[entry]), -1)
    if "mask" not in batch:
      return x, jnp.ones_like(x)
    return x, (batch["mask"] > 0).astype(x.dtype).reshape(x.shape)

  def known(state: TrainState) -> tuple[Array, Array]:
    return fit(**state.stats["net"]["sums"])

  def nats(state: TrainState, x: Array, counts: Array) -> Array:
    """-log P of each value that counts, f32 [B, T]."""
    weights, var = known(state)
    mean = history(x, order) @ weights
    return -gaussian.log_interval(*cells.edges(x), mean, var) * counts

  def init(key: Array, batch: Batch) -> TrainState:
    size = order + 2
    sums = {"moments": jnp.zeros((size, size)), "count": jnp.zeros(())}
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params={},
      opt={},
      stats={"net": {"sums": sums}},
      ema={},
    )

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    x, counts = observe(batch)
    lost = nats(state, x, counts).sum() / jnp.maximum(counts.sum(), 1.0)
    z = jnp.concatenate([history(x, order), x[..., None]], axis=-1)
    sums = state.stats["net"]["sums"]
    moments = jnp.einsum("bti,btj->ij", z * counts[..., None], z)
    sums = {
      "moments": sums["moments"] + moments,
      "count": sums["count"] + counts.sum(),
    }
    after = state.replace(stats={"net": {"sums": sums}})
    change = jnp.linalg.norm(known(after)[0] - known(state)[0])
    return after, {"loss": lost / jnp.log(2.0), "change": change}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    x, counts = observe(batch)
    nll = nats(state, x, counts).sum(axis=1)
    bits = nll / (jnp.maximum(counts.sum(axis=1), 1.0) * jnp.log(2.0))
    return {"bits_per_dim": bits, "nll": nll}

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    like = batch[entry]
    weights, var = known(state)
    num = len(like)
    noise = per_example(random.normal(key, (num, like.size // num)))

    def next_value(past: Array, e: Array) -> tuple[Array, Array]:
      mean = weights[0] + past @ weights[1:]
      x = cells.observe(jnp.clip(mean + jnp.sqrt(var) * e, -1.0, 1.0))
      return jnp.concatenate([x[:, None], past[:, :-1]], axis=1), x

    start = per_example(jnp.zeros((num, order), like.dtype))
    _, x = lax.scan(next_value, start, noise.T)
    out = {"samples": x.T.reshape(like.shape)}
    if sample_rate is not None:
      out["sample_rate"] = jnp.full(num, sample_rate, jnp.int32)
    return out

  return Method(init, train_step, eval_step, sample)
