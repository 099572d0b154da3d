"""What autoregressive models of images share: training, exact likelihood, drawing.

Pixels are in raster order, row by row, the channels of a pixel behind one another. A
network is a flax module with

  __call__(x, label, train) -> outputs f32 [B, H, W, *P], where outputs (i, j) are
      parameters of p(pixel (i, j) | what is before it); x f32 [B, H, W, C] in [-1, 1],
      label int32 [B] or None
  row(above, label, i): begins row i; `above` is row i - 1, f32 [B, W, C], or zeros
  pixel(row, i, j) -> outputs (i, j), f32 [B, *P]; `row` is row i, f32 [B, W, C], as far
      as it is known, zeros after that

`row` and `pixel` keep what they know in the collection "cache", zeros at first.
"""

from collections.abc import Callable
import math
from typing import NamedTuple

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.losses import bernoulli, categorical
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  create_state,
  per_example,
  update_ema,
)


class Pixels(NamedTuple):
  """A family of p(pixel | what is before it), by a network's outputs.

  Attributes:
    num_draws: Of a pixel: its channels one after another, the network asked before
      each (C); or all at once (1).
    observe: (image f32 [B, H, W, C] in [-1, 1], key) -> the x that is modelled.
    log_prob: (x [B, H, W, C], outputs [B, H, W, *P]) -> f32 [B, H, W] in nats.
    draw: (outputs [B, *P], pixel f32 [B, C], n, key) -> the pixel with its n-th draw.
  """

  num_draws: int
  observe: Callable[[Array, Array], Array]
  log_prob: Callable[[Array, Array], Array]
  draw: Callable[[Array, Array, int, Array], Array]


def binary(channels: int = 1) -> Pixels:
  """-1 or 1, outputs [..., C] the log odds of 1.

  Every use of an image draws each value anew, 1 with the probability of its grey value
  ("dynamic binarisation"); one of two values stays as it is.
  """

  def observe(image: Array, key: Array) -> Array:
    grey = (image + 1.0) / 2.0
    return 2.0 * random.bernoulli(key, grey).astype(image.dtype) - 1.0

  def draw(outputs: Array, pixel: Array, n: int, key: Array) -> Array:
    one = random.bernoulli(key, jax.nn.sigmoid(outputs[:, n]))
    return pixel.at[:, n].set(jnp.where(one, 1.0, -1.0))

  log_prob = lambda x, outputs: bernoulli.log_prob((x + 1.0) / 2.0, outputs)
  return Pixels(channels, observe, log_prob, draw)


def levels(channels: int, num_levels: int = 256) -> Pixels:
  """`num_levels` levels from -1 to 1, outputs [..., C, num_levels] their logits.

  With fewer than 256 the nearest stands for a value of an image.
  """
  scale = (num_levels - 1) / 2.0
  level = lambda x: jnp.round((x + 1.0) * scale).astype(jnp.int32)

  def log_prob(x: Array, outputs: Array) -> Array:
    return categorical.log_prob(level(x), outputs).sum(axis=-1)

  def draw(outputs: Array, pixel: Array, n: int, key: Array) -> Array:
    drawn = categorical.draw(outputs[:, n], key)
    return pixel.at[:, n].set(drawn / scale - 1.0)

  return Pixels(channels, lambda x, key: level(x) / scale - 1.0, log_prob, draw)


def autoregression(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  pixels: Pixels,
  is_conditional: bool = False,
  ema_decay: float | None = None,
) -> Method:
  """A network as above, trained by maximum likelihood.

  Args:
    net: See this module; what it drops out it draws from the stream "dropout".
    tx: Its optimiser.
    pixels: What its outputs mean.
    is_conditional: Whether it is given batch["label"].
    ema_decay: Of averaged parameters; None keeps no average.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]. The train loss is in bits
    per dimension; eval_step gives bits_per_dim and nll (nats per image), exact for the
    x that `pixels` observes. `sample` draws images, in one loop that computes nothing
    twice. Tools: log_prob; complete, which keeps the upper half of batch["image"] and
    draws the rest; sample_uncached, which draws what `sample` draws with the same key,
    by one pass over the whole image for each draw: for comparison.
  """
  label_of = lambda batch: batch["label"] if is_conditional else None

  def init(key: Array, batch: Batch) -> TrainState:
    x = jnp.zeros_like(batch["image"])
    label = jnp.zeros(len(x), jnp.int32) if is_conditional else None
    variables = net.init(key, x, label, train=False)
    ema = ("net",) if ema_decay is not None else ()
    return create_state({"net": {"params": variables["params"]}}, {"net": tx}, ema=ema)

  def nats(params: PyTree, x: Array, batch: Batch, dropout_key: Array | None) -> Array:
    """-log p(x), f32 [B]."""
    train = dropout_key is not None
    rngs = {"dropout": dropout_key} if train else {}
    outputs = net.apply({"params": params}, x, label_of(batch), train=train, rngs=rngs)
    return -pixels.log_prob(x, outputs).sum(axis=(1, 2))

  def bits(nll: Array, batch: Batch) -> Array:
    return nll / (math.prod(batch["image"].shape[1:]) * math.log(2))

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    observe_key, dropout_key = random.split(key)
    x = pixels.observe(batch["image"], observe_key)
    loss_fn = lambda p: bits(nats(p, x, batch, dropout_key), batch).mean()
    loss, grads = jax.value_and_grad(loss_fn)(state.params["net"])
    state = apply_gradients(state, "net", grads, tx)
    if ema_decay is not None:
      state = update_ema(state, ema_decay)
    return state, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    x = pixels.observe(batch["image"], key)
    nll = nats(state.params["net"], x, batch, None)
    return {"bits_per_dim": bits(nll, batch), "nll": nll}

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    x = draw_images(
      net, state.params["net"], pixels, batch["image"], label_of(batch), key
    )
    return {"samples": x}

  def log_prob(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    x = pixels.observe(batch["image"], key)
    return {"log_prob": -nats(state.params["net"], x, batch, None)}

  def complete(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    observe_key, draw_key = random.split(key)
    x = pixels.observe(batch["image"], observe_key)
    known = x.shape[1] // 2
    drawn = draw_images(
      net, state.params["net"], pixels, x, label_of(batch), draw_key, known
    )
    return {"completions": jnp.stack([x, drawn], axis=1)}

  def sample_uncached(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    x = draw_by_whole_images(
      net, state.params["net"], pixels, batch["image"], label_of(batch), key
    )
    return {"samples": x}

  tools = {
    "log_prob": log_prob,
    "complete": complete,
    "sample_uncached": sample_uncached,
  }
  return Method(init, train_step, eval_step, sample, tools)


def draw_images(
  net: nn.Module,
  params: PyTree,
  pixels: Pixels,
  like: Array,
  label: Array | None,
  key: Array,
  num_known_rows: int = 0,
) -> Array:
  """Images like `like`, f32 [B, H, W, C], whose first rows are `like`'s own."""
  rows = jnp.moveaxis(like, 1, 0)
  num_rows, batch, width, channels = rows.shape

  def ask(method: str, cache: PyTree, *args: Array) -> tuple[Array, PyTree]:
    variables = {"params": params, "cache": cache}
    out, changed = net.apply(variables, *args, method=method, mutable=["cache"])
    return out, changed["cache"]

  def fresh() -> PyTree:
    _, cache = ask("row", {}, rows[0], label, 0)
    return ask("pixel", cache, rows[0], 0, 0)[1]

  def next_pixel(carry: tuple, j: Array) -> tuple[tuple, None]:
    cache, row, i = carry
    for n in range(pixels.num_draws):
      outputs, cache = ask("pixel", cache, row, i, j)
      place = ((i * width) + j) * pixels.num_draws + n
      drawn = pixels.draw(outputs, row[:, j], n, random.fold_in(key, place))
      row = row.at[:, j].set(jnp.where(i < num_known_rows, rows[i, :, j], drawn))
    return (cache, row, i), None

  def next_row(carry: tuple, i: Array) -> tuple[tuple, Array]:
    cache, above = carry
    _, cache = ask("row", cache, above, label, i)
    empty = per_example(jnp.zeros_like(above))
    (cache, row, _), _ = jax.lax.scan(next_pixel, (cache, empty, i), jnp.arange(width))
    return (cache, row), row

  zeros = lambda s: jnp.zeros(s.shape, s.dtype)
  cache = jax.tree.map(zeros, jax.eval_shape(fresh))
  above = per_example(jnp.zeros((batch, width, channels), like.dtype))
  _, image = jax.lax.scan(next_row, (cache, above), jnp.arange(num_rows))
  return jnp.moveaxis(image, 0, 1)


def draw_by_whole_images(
  net: nn.Module,
  params: PyTree,
  pixels: Pixels,
  like: Array,
  label: Array | None,
  key: Array,
) -> Array:
  """What `draw_images` draws, by one pass of the network for each draw."""
  _, num_rows, width, _ = like.shape

  def next_draw(x: Array, place: Array, n: int) -> Array:
    i, j = place // width, place % width
    outputs = net.apply({"params": params}, x, label, train=False)
    at = place * pixels.num_draws + n
    drawn = pixels.draw(outputs[:, i, j], x[:, i, j], n, random.fold_in(key, at))
    return x.at[:, i, j].set(drawn)

  def next_pixel(place: Array, x: Array) -> Array:
    for n in range(pixels.num_draws):
      x = next_draw(x, place, n)
    return x

  start = per_example(jnp.zeros_like(like))
  return jax.lax.fori_loop(0, num_rows * width, next_pixel, start)
