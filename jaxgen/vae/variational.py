"""What methods with a latent and an approximate posterior share.

A model is a sequence of levels, the first nearest the image: level i has `encode`,
z_i -> q(z_{i+1} | z_i), and `decode`, z_{i+1} -> p(z_i | z_{i+1}), with z_0 = x and a
standard normal above the last. Most have one. Levels are modules as in
`jaxgen.vae.networks`, bound to their parameters (`net.bind({"params": params})`), or
whatever else has these two functions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import random
import jax.numpy as jnp

from jaxgen.losses import gaussian
from jaxgen.losses.importance import (
  WeightSum,
  merge_weights,
  nll_of_weights,
  sum_weights,
)
from jaxgen.method import Array, Batch, PyTree, TrainState, per_example
from jaxgen.ops.paths import NUM_POINTS, lerp
from jaxgen.vae.likelihoods import Likelihood, split

Levels = Sequence[Any]  # Of encode and decode.
Gaussian = tuple[Array, Array]  # mean, log variance

NUM_DRAWS = 5_000  # Importance samples of an NLL (Burda et al., Section 5).
CHUNK = 2**22  # Values of x that are decoded at a time: 16 MiB.
CORRUPTION = 0.25  # Share of pixels that `denoise` replaces.
TRAVERSAL = (-3.0, 3.0, 9)  # From, to, number of images.


def elbo(
  level: Any, log_prob: Callable, x: Array, key: Array
) -> tuple[Array, Array, Array]:
  """A one-draw estimate of the bound on log p(x), in nats, of one level.

  Kingma & Welling (2013), Eq. 7: the divergence in closed form.

  Args:
    level: Bound module.
    log_prob: (x, outputs of the decoder) -> log p(x|z), [B].
    x: f32 [B, H, W, C] as the likelihood observes it.
    key: Draws z ~ q(z|x).

  Returns:
    elbo, reconstruction E log p(x|z) and KL(q(z|x) || N(0, I)), each f32 [B], with
    elbo = reconstruction - kl.
  """
  mean, log_var = level.encode(x)
  z = gaussian.sample(mean, log_var, key)
  reconstruction = log_prob(x, level.decode(z))
  kl = gaussian.kl_to_standard(mean, log_var)
  return reconstruction - kl, reconstruction, kl


def _rows(fn: Callable, z: Array) -> PyTree:
  """fn, a function of [N, ...], over the first two axes of z at once."""
  outputs = fn(z.reshape(-1, *z.shape[2:]))
  return jax.tree.map(lambda a: a.reshape(*z.shape[:2], *a.shape[1:]), outputs)


def log_weights(
  levels: Levels,
  log_prob: Callable,
  x: Array,
  num_draws: int,
  key: Array,
  prior: Gaussian | None = None,
) -> Array:
  """log p(x, z) - log q(z|x) in nats for draws of z = (z_1, ..., z_L) ~ q.

  All draws are one batch of B * K rows; an image is encoded once.

  Args:
    levels: Bound modules.
    log_prob: (x [B, 1, ...], outputs [B, K, ...]) -> log p(x|z_1), [B, K].
    x: f32 [B, H, W, C] as the likelihood observes it.
    num_draws: K.
    key: Draws z.
    prior: p(z_L) of every image, [B, D] each; default standard normal.

  Returns:
    f32 [K, B].
  """
  repeat = lambda a: jnp.repeat(a[:, None], num_draws, axis=1)
  total, z = jnp.zeros((len(x), num_draws)), []
  for i, (level, level_key) in enumerate(
    zip(levels, random.split(key, len(levels)), strict=True)
  ):
    if i == 0:
      mean, log_var = map(repeat, level.encode(x))  # [B, K, D]
    else:
      mean, log_var = _rows(level.encode, z[-1])
    z.append(gaussian.sample(mean, log_var, level_key))
    total -= gaussian.log_prob(z[-1], mean, log_var)
  zeros = jnp.zeros_like(z[-1])
  prior = tuple(map(repeat, prior)) if prior else (zeros, zeros)
  total += gaussian.log_prob(z[-1], *prior)
  for level, upper, lower in zip(levels[:0:-1], z[:0:-1], z[-2::-1], strict=True):
    total += gaussian.log_prob(lower, *split(_rows(level.decode, upper), 2))
  outputs = _rows(levels[0].decode, z[0])
  return (total + log_prob(x[:, None], outputs)).T


def nll(
  levels: Levels,
  log_prob: Callable,
  x: Array,
  key: Array,
  num_draws: int = NUM_DRAWS,
  prior: Gaussian | None = None,
) -> Array:
  """-log p(x) by importance sampling from q, in nats; too large in expectation.

  Chunks of draws of at most `CHUNK` values bound the memory, whatever their number.

  Args:
    levels: Bound modules.
    log_prob: As in `log_weights`; it needs no gradient.
    x: f32 [B, H, W, C] as the likelihood observes it.
    key: Draws z.
    num_draws: Importance samples for each image.
    prior: As in `log_weights`.

  Returns:
    f32 [B].
  """

  def weights_of(chunk: int, draw_key: Array) -> Array:
    return log_weights(levels, log_prob, x, chunk, draw_key, prior)

  return nll_in_chunks(weights_of, len(x), x[0].size, key, num_draws)


def nll_settings(target: str, num_draws: int) -> str:
  """What a tool nll says of itself: of what, by how many draws for each image."""
  return f"of {target}, {num_draws} importance samples"


def nll_in_chunks(
  weights_of: Callable[[int, Array], Array],
  num: int,
  num_values: int,
  key: Array,
  num_draws: int = NUM_DRAWS,
) -> Array:
  """-log p(x) in nats from chunks of importance weights, f32 [B].

  Args:
    weights_of: (K, key) -> log p(x, z) - log q(z|x) in nats of K draws, [K, B].
    num: B.
    num_values: That one draw needs at a time; chunks have at most `CHUNK`.
    key: Chunk i uses `fold_in(key, i)`.
    num_draws: Importance samples for each image.
  """
  most = max(1, CHUNK // (num * num_values))
  chunk = max(d for d in range(1, most + 1) if num_draws % d == 0)

  def add(i: Array, total: WeightSum) -> WeightSum:
    weights = weights_of(chunk, random.fold_in(key, i))
    return merge_weights(total, sum_weights(weights))

  nothing = WeightSum(jnp.zeros(()), jnp.full(num, -jnp.inf))
  return nll_of_weights(jax.lax.fori_loop(0, num_draws // chunk, add, nothing))


def corrupt(image: Array, key: Array) -> Array:
  """A quarter of the pixels black or white, at random: of the image's shape."""
  where_key, noise_key = random.split(key)
  noise = random.rademacher(noise_key, image.shape, image.dtype)
  hit = random.bernoulli(where_key, CORRUPTION, (*image.shape[:-1], 1))
  return jnp.where(hit, noise[..., :1], image)


def ancestral(levels: Levels, likelihood: Likelihood, num: int, key: Array) -> Array:
  """Images f32 [num, H, W, C] in [-1, 1]: means of p(x|z_1), z drawn from the top."""
  z = per_example(random.normal(key, (num, levels[-1].latent_dim)))
  for i, level in enumerate(levels[:0:-1]):
    mean, log_var = split(level.decode(z), 2)
    z = gaussian.sample(mean, log_var, random.fold_in(key, i))
  return likelihood.mean(levels[0].decode(z))


def tools(
  levels_of: Callable[[TrainState], Levels],
  likelihood: Likelihood,
  num_draws: int = NUM_DRAWS,
) -> dict[str, Callable]:
  """What an encoder and a decoder can do with images, as tools of a method.

  Args:
    levels_of: State -> bound modules; all but `nll` use the first alone.
    likelihood: Of the images.
    num_draws: Importance samples for each image of `nll`.

  Returns:
    encode, reconstruct, denoise, interpolate, traverse, nll.
  """
  observe = lambda batch, key: likelihood.observe(batch["image"], key)
  decode = lambda state, z: likelihood.mean(levels_of(state)[0].decode(z))
  posterior = lambda state, x: levels_of(state)[0].encode(x)

  def encode(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """q(z|x) of each image: mean and log_var, f32 [B, D]."""
    mean, log_var = posterior(state, observe(batch, key))
    return {"mean": mean, "log_var": log_var}

  def reconstruct(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """The images as observed, and decoded from the mean of q(z|x)."""
    x = observe(batch, key)
    mean, _ = posterior(state, x)
    return {
      "observed": likelihood.to_image(x),
      "reconstructions": decode(state, mean),
    }

  def denoise(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """Images with a quarter of their pixels made black or white, and decoded."""
    pixel_key, noise_key = random.split(key)
    x = likelihood.observe(corrupt(batch["image"], noise_key), pixel_key)
    mean, _ = posterior(state, x)
    return {"corrupted": likelihood.to_image(x), "denoised": decode(state, mean)}

  def interpolate(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """From each image to the next of the batch: f32 [B, K, H, W, C], K = 8.

    Straight lines between posterior means, both ends included.
    """
    start, _ = posterior(state, observe(batch, key))
    t = jnp.linspace(0.0, 1.0, NUM_POINTS, dtype=start.dtype)
    z = lerp(start, jnp.roll(start, -1, axis=0), t)
    return {"interpolations": _rows(lambda z: decode(state, z), z)}

  def traverse(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """A grid for each image: a row for each latent, which moves from -3 to 3.

    The others stay at the mean of q(z|x). f32 [B, D H, 9 W, C].
    """
    start, _ = posterior(state, observe(batch, key))
    rows, dim = start.shape
    values = jnp.linspace(*TRAVERSAL)
    chosen = jnp.eye(dim, dtype=bool)[None, :, None]  # [1, D, 1, D]
    z = jnp.where(chosen, values[None, None, :, None], start[:, None, None])
    images = decode(state, z.reshape(-1, dim))
    _, height, width, channels = images.shape
    grid = images.reshape(rows, dim, len(values), height, width, channels)
    grid = grid.transpose(0, 1, 3, 2, 4, 5)
    return {"traversals": grid.reshape(rows, dim * height, -1, channels)}

  def nll_tool(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """-log p(x) of each image in nats by `num_draws` importance samples, f32 [B].

    Also a score of anomaly: large for images that the model finds improbable.
    """
    pixel_key, z_key = random.split(key)
    x = observe(batch, pixel_key)
    log_prob = likelihood.fast_log_prob
    return {"nll": nll(levels_of(state), log_prob, x, z_key, num_draws)}

  nll_tool.settings = nll_settings(likelihood.of, num_draws)
  return {
    "encode": encode,
    "reconstruct": reconstruct,
    "denoise": denoise,
    "interpolate": interpolate,
    "traverse": traverse,
    "nll": nll_tool,
  }
