"""k-means clustering.

Products are exact to f32: an accelerator's default would round differences of distances
away, and name the wrong centre.
"""

import functools

import jax
from jax import Array, random
import jax.numpy as jnp

product = functools.partial(jnp.matmul, precision="highest")


def squared_distances(points: Array, centres: Array) -> Array:
  """|points_i - centres_k|^2; f32 [N, D], [K, D] -> [N, K], at least 0."""
  products = product(points, centres.T)
  norms = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)[None]
  return jnp.maximum(norms - 2.0 * products, 0.0)


def nearest(points: Array, centres: Array) -> Array:
  """The centre that is nearest to each point; [..., D], [K, D] -> int32 [...]."""
  flat = points.reshape(-1, points.shape[-1])
  # The norm of a point is the same for all centres.
  scores = product(flat, centres.T) - 0.5 * (centres**2).sum(axis=1)[None]
  return jnp.argmax(scores, axis=1).astype(jnp.int32).reshape(points.shape[:-1])


def kmeans(points: Array, num: int, key: Array, iterations: int = 50) -> Array:
  """Centres by Lloyd's algorithm, started by k-means++ (Arthur & Vassilvitskii 2007).

  Args:
    points: f32 [N, D]; N * num distances are held in memory.
    num: Centres, at most N.
    key: Of the start.
    iterations: Of assigning and averaging. A centre without points takes the place of
      the point that is farthest from its own.

  Returns:
    f32 [num, D].
  """
  if not 1 <= num <= len(points):
    raise ValueError(f"num={num} centres of {len(points)} points")
  first_key, rest_key = random.split(key)
  first = points[random.randint(first_key, (), 0, len(points))]

  def add(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
    centres, distance = state
    logits = jnp.log(distance)  # none of those that are centres already
    chosen = points[random.categorical(random.fold_in(rest_key, i), logits)]
    distance = jnp.minimum(distance, ((points - chosen[None]) ** 2).sum(axis=1))
    return centres.at[i].set(chosen), distance

  def move(centres: Array, _: None) -> tuple[Array, None]:
    distances = squared_distances(points, centres)
    member = jax.nn.one_hot(distances.argmin(axis=1), num)
    counts = member.sum(axis=0)
    means = product(member.T, points) / jnp.maximum(counts, 1.0)[:, None]
    _, farthest = jax.lax.top_k(distances.min(axis=1), num)
    empty = counts == 0
    rank = jnp.cumsum(empty) - 1  # each empty one gets another point
    return jnp.where(empty[:, None], points[farthest[rank]], means), None

  centres = jnp.zeros((num, points.shape[1])).at[0].set(first)
  distance = ((points - first[None]) ** 2).sum(axis=1)
  centres, _ = jax.lax.fori_loop(1, num, add, (centres, distance))
  return jax.lax.scan(move, centres, length=iterations)[0]
