"""What flows share: training by exact likelihood, sampling, and walks in z.

A flow's network is a bijection between images and vectors, a flax module with

  __call__(x, train=False) -> z, log_det: x f32 [B, H, W, C] -> f32 [B, D], f32 [B]
  inverse(z) -> x, log_det: the other way, each the inverse of the other

where D = H W C, the levels of a multi-scale network lie flat behind one another, and
log_det is the natural log of |det dz/dx| (of |det dx/dz| in `inverse`), so that
log p(x) = log base(z) + log_det. What a split prior knows is part of the bijection.

Collections of variables other than "params" live in `stats`. Those named `FIRST_BATCH`
(`jaxgen.nn.bijection`) are computed from the first batch of training, in the step where
`state.step` is 0, and never again: under jit from the whole batch; under pmap each
device normalises by its own rows in that one step, and the average over the devices is
kept. All others are updated in every step with train=True.

A dequantizer is q(u | image), the density of the noise that fills the levels, a module

  __call__(image, noise) -> v, log_det: f32 [B, H, W, C] each, log_det f32 [B]

where noise has standard logistic entries, v = logit(u), and log_det is of dv/dnoise.
`jaxgen.flow.dequantization` has one; without any, u is uniform.
"""

from collections.abc import Callable
import math
from typing import NamedTuple

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
from jax.scipy import stats as distributions
import optax

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
from jaxgen.nn.bijection import FIRST_BATCH, FIXED
from jaxgen.ops import dequantize
from jaxgen.ops.paths import NUM_POINTS, lerp

UNMOVED = ("params", FIRST_BATCH, FIXED)  # What an average of parameters may go with.
TEMPERATURES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Base(NamedTuple):
  """Independent variables of one distribution, with mean and mode 0.

  Attributes:
    log_prob: z f32 [...] -> f32 [...] in nats, elementwise.
    draw: (key, shape) -> f32 of that shape.
  """

  log_prob: Callable[[Array], Array]
  draw: Callable[[Array, tuple[int, ...]], Array]


normal = Base(distributions.norm.logpdf, random.normal)
logistic = Base(distributions.logistic.logpdf, random.logistic)


class Space(NamedTuple):
  """Images and their z, under a network's variables {"params": ..., ...}.

  Attributes:
    observe: (image f32 [B, H, W, C] in [-1, 1], key, the dequantizer's parameters) ->
      the network's input x, the image with its noise, f32 [B, H, W, C], and the log of
      |det dx/dy| / q(u | image) with y in [0, 1]^D, f32 [B].
    encode: (variables, image, key, the dequantizer's parameters) -> z, f32 [B, D], and
      a bound on log P(image) in nats, f32 [B], in expectation over the key.
    decode: (variables, z) -> images of exact levels, f32 [B, H, W, C] in [-1, 1].
  """

  observe: Callable[..., tuple[Array, Array]]
  encode: Callable[..., tuple[Array, Array]]
  decode: Callable[[PyTree, Array], Array]


def space(
  net: nn.Module,
  *,
  base: Base = normal,
  logit_alpha: float | None = None,
  num_levels: int = 256,
  dequantizer: nn.Module | None = None,
) -> Space:
  """The arguments are those of `density`."""

  def fill(image: Array, key: Array, noise: PyTree) -> tuple[Array, Array]:
    """y in [0, 1]^D and log q(u | image)."""
    if dequantizer is None:
      y = per_example(dequantize.uniform(image, key, num_levels))
      return y, jnp.zeros(len(y), y.dtype)
    draw = per_example(random.logistic(key, image.shape, image.dtype))
    v, log_det = dequantizer.apply({"params": noise}, image, draw)
    log_q = logistic.log_prob(draw).reshape(len(draw), -1).sum(-1) - log_det
    u, log_q = dequantize.variational(v, log_q)
    return dequantize.dequantize(image, u, num_levels), log_q

  def observe(image: Array, key: Array, noise: PyTree = None) -> tuple[Array, Array]:
    y, log_q = fill(image, key, noise)
    if logit_alpha is None:
      return y - 0.5, -log_q
    x, log_slope = dequantize.logit(y, logit_alpha)
    return x, log_slope - log_q

  def encode(
    variables: PyTree, image: Array, key: Array, noise: PyTree = None
  ) -> tuple[Array, Array]:
    x, log_slope = observe(image, key, noise)
    z, log_det = net.apply(variables, x, rngs={"draws": random.fold_in(key, 1)})
    log_density = base.log_prob(z).sum(-1) + log_det + log_slope
    return z, -dequantize.nats(log_density, z.shape[-1], num_levels)

  def decode(variables: PyTree, z: Array) -> Array:
    x, _ = net.apply(variables, z, method="inverse")
    y = x + 0.5 if logit_alpha is None else dequantize.inverse_logit(x, logit_alpha)
    return dequantize.quantize(y, num_levels)

  return Space(observe, encode, decode)


def density(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  base: Base = normal,
  logit_alpha: float | None = None,
  num_levels: int = 256,
  dequantizer: nn.Module | None = None,
  temperature: float = 1.0,
  ema_decay: float | None = None,
) -> Method:
  """A flow trained by maximum likelihood of dequantised images.

  Args:
    net: A bijection as in this module's docstring. What it draws, for an estimate of
      log_det, it draws from the stream "draws".
    tx: Its optimiser.
    base: Distribution of every entry of z.
    logit_alpha: None: the network sees y - 0.5 with y in [0, 1]; else the logit of
      alpha + (1 - 2 alpha) y.
    num_levels: Images are reduced to so many levels; bits are of those levels.
    dequantizer: q(u | image) as in this module's docstring, trained with the network,
      by the same `tx`; None: uniform.
    temperature: Samples are decoded from z times this (Glow, Section 6).
    ema_decay: Of averaged parameters; None keeps no average, and is expected of
      networks whose other variables (averages of batches, directions of power
      iterations) follow the parameters themselves.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1] of 256 levels. The train
    loss is in bits per dimension; eval_step gives bits_per_dim and nll (nats per
    image), bounds on the negative log-likelihood with one draw of noise per image.
    Tools: encode, log_prob, interpolate, temperatures.
  """
  known = space(
    net,
    base=base,
    logit_alpha=logit_alpha,
    num_levels=num_levels,
    dequantizer=dequantizer,
  )
  names = ("net",) if dequantizer is None else ("net", "noise")

  def variables(state: TrainState) -> PyTree:
    return {"params": state.params["net"], **state.stats["net"]}

  def bits(nats: Array, num_values: int) -> Array:
    return nats / (num_values * math.log(2))

  def init(key: Array, batch: Batch) -> TrainState:
    image = batch["image"]
    found = {"net": net.init(key, image)}
    if ema_decay is not None and (told := set(found["net"]) - set(UNMOVED)):
      raise ValueError(
        f"ema_decay={ema_decay}: expected None, as {sorted(told)} of this network "
        "belong to its parameters and not to their average"
      )
    if dequantizer is not None:
      found["noise"] = dequantizer.init(random.fold_in(key, 1), image, image)
    ema = names if ema_decay is not None else ()
    return create_state(found, dict.fromkeys(names, tx), ema=ema)

  def encoded(state: TrainState, image: Array, key: Array) -> tuple[Array, Array]:
    return known.encode(variables(state), image, key, state.params.get("noise"))

  def first_statistics(state: TrainState, x: Array, rngs: PyTree) -> PyTree:
    """FIRST_BATCH as it is, or in the first step, of x."""
    stats = state.stats["net"]
    if FIRST_BATCH not in stats:
      return stats
    given = dict(mutable=[FIRST_BATCH], rngs=rngs)
    measure = lambda: net.apply(variables(state), x, **given)[1]
    found = jax.lax.cond(
      state.step == 0, measure, lambda: {FIRST_BATCH: stats[FIRST_BATCH]}
    )
    return {**stats, **found}

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    image = batch["image"]
    same_key = random.clone(key)  # The statistics are of what the first step trains on.
    rngs = {"draws": random.fold_in(key, 1)}
    x, _ = known.observe(image, same_key, state.params.get("noise"))
    stats = first_statistics(state, x, rngs)
    moving = [name for name in stats if name != FIRST_BATCH]

    def loss_fn(params: PyTree) -> tuple[Array, PyTree]:
      x, log_slope = known.observe(image, key, params.get("noise"))
      given = {"params": params["net"], **stats}
      (z, log_det), moved = net.apply(given, x, train=True, mutable=moving, rngs=rngs)
      log_density = base.log_prob(z).sum(-1) + log_det + log_slope
      nll = dequantize.nats(log_density, z.shape[-1], num_levels)
      return bits(nll, z.shape[-1]).mean(), moved

    (loss, moved), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    for name in names:
      state = apply_gradients(state, name, grads[name], tx)
    state = state.replace(stats={**state.stats, "net": {**stats, **moved}})
    if ema_decay is not None:
      state = update_ema(state, ema_decay)
    return state, {"loss": loss}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    z, log_prob = encoded(state, batch["image"], key)
    return {"bits_per_dim": bits(-log_prob, z.shape[-1]), "nll": -log_prob}

  def draw(batch: Batch, key: Array) -> Array:
    image = batch["image"]
    return per_example(base.draw(key, (len(image), math.prod(image.shape[1:]))))

  def decode_many(state: TrainState, z: Array) -> Array:
    """f32 [B, K, D] -> images, f32 [B, K, H, W, C]."""
    images = known.decode(variables(state), z.reshape(-1, z.shape[-1]))
    return images.reshape(*z.shape[:2], *images.shape[1:])

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    z = temperature * draw(batch, key)
    return {"samples": known.decode(variables(state), z)}

  def encode(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """z of each image with its noise, f32 [B, D]."""
    return {"z": encoded(state, batch["image"], key)[0]}

  def log_prob(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """A bound on log P(image) in nats, with one draw of noise: f32 [B]."""
    return {"log_prob": encoded(state, batch["image"], key)[1]}

  def interpolate(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """From each image to the next of the batch through z: f32 [B, 8, H, W, C]."""
    start = encoded(state, batch["image"], key)[0]
    t = jnp.linspace(0.0, 1.0, NUM_POINTS, dtype=start.dtype)
    z = lerp(start, jnp.roll(start, -1, axis=0), t)
    return {"interpolations": decode_many(state, z)}

  def temperatures(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """One draw of z per row, times each of TEMPERATURES: f32 [B, 8, H, W, C]."""
    z = jnp.asarray(TEMPERATURES)[None, :, None] * draw(batch, key)[:, None]
    return {"temperatures": decode_many(state, z)}

  tools = {
    "encode": encode,
    "log_prob": log_prob,
    "interpolate": interpolate,
    "temperatures": temperatures,
  }
  return Method(init, train_step, eval_step, sample, tools)
