"""VDM: Variational Diffusion Models.

Diederik P. Kingma, Tim Salimans, Ben Poole, Jonathan Ho, 2021.
https://arxiv.org/abs/2107.00630. The bound on the likelihood of 8-bit images as it is,
in its three parts (reconstruction, latent, diffusion), in continuous or discrete time,
with a learned noise schedule gamma(t) = -log SNR(t), and ancestral sampling. Networks
are those of `jaxgen.nn.vdm_unet`.

With a schedule of more than end points, these follow the gradient of the bound, and the
rest that of the variance of its estimator (in continuous time the bound does not depend
on the rest): E[diffusion loss^2] at a random time, whose gradient costs no further pass
through the score network. `joint=True` has the plain gradient of the bound for all.

Where this differs from the paper and the authors' code:
  - No data augmentation (their cifar10_aug).
  - The average's decay rises with the steps, see `update_ema`.
  - p(x | z_0) is as theirs, a softmax over the 256 levels of N(z_0; level), for one
    channel too.
  - Evaluation shuffles the times among the rows, so that one row is unbiased as well.
"""

from collections.abc import Callable

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.diffusion import (
  editing,
  likelihood,
  process,
  sampling,
  schedules,
  stochastic_samplers,
)
from jaxgen.diffusion.learned_schedule import (
  END_POINTS,
  Levels,
  Network,
  levels_of,
  process_of,
)
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  create_state,
  update_ema,
)

NUM_LEVELS = 256


def quantised(x: Array) -> Array:
  """Images in [-1, 1] -> their levels, i32 in 0 ... 255."""
  return jnp.round((x + 1) * 127.5).astype(jnp.int32)


def centres(level: Array) -> Array:
  """Levels 0 ... 255 -> the middle of their bins in [-1, 1]."""
  return (2 * level + 1) / NUM_LEVELS - 1


def log_levels(z: Array, gamma: Array) -> Array:
  """log p(level | z_0) for all levels; z is z_0 / alpha_0: f32 [...] -> [..., 256]."""
  middles = centres(jnp.arange(NUM_LEVELS)).reshape((1,) * z.ndim + (-1,))
  return jax.nn.log_softmax(-0.5 * (z[..., None] - middles) ** 2 * jnp.exp(-gamma))


def vdm(
  net: Network,
  *,
  tx: optax.GradientTransformation,
  num_steps: int | None = None,
  num_sampling_steps: int = 1000,
  ema_decay: float = 0.9999,
  joint: bool = False,
) -> Method:
  """Diffusion trained on the bound itself.

  Metrics, in bits per value of x: "loss", the bound on -log2 p(x), again as
  "bits_per_dim" where it is evaluated, and its parts: "reconstruction",
  -log p(x | z_0); "latent", the KL of q(z_1 | x) from the prior; "diffusion". Of a
  train step also "gamma_0" and "gamma_1". Reconstruction is estimated with one draw of
  z_0, diffusion at one random time per image; latent is exact.

  Tools, on batch["image"]:
    bits_per_dim: The bound by num_sampling_steps steps in discrete time, every one of
      them computed, and its parts. {"bits_per_dim", "reconstruction", "latent",
      "diffusion"}, each f32 [B].
    inpaint, img2img, interpolate, colourise: See `editing.tools`; on the steps of
      sampling.

  Args:
    net: A `Network`. It has no variables but its parameters.
    tx: Optimiser of all of it.
    num_steps: T of the discrete-time loss; None is continuous time.
    num_sampling_steps: Of ancestral sampling, in continuous time; else it is T.
    ema_decay: Decay per step of the averaged weights used to sample.
    joint: Whether the whole schedule follows the gradient of the bound.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1] of 256 levels; `sample`
    returns as `sampling.reported`, samples in [-1, 1]. The network is "net".
  """
  if num_steps is not None and num_steps < 1:
    raise ValueError(f"num_steps must be None or at least 1, got {num_steps}")
  steps = num_steps or num_sampling_steps

  def schedule(params: PyTree) -> Callable[[Array], Array]:
    return lambda t: net.apply({"params": params}, t, method="gamma")

  def init(key: Array, batch: Batch) -> TrainState:
    x = jnp.zeros_like(batch["image"])
    variables = net.init(key, x, jnp.zeros(len(x)))
    return create_state({"net": variables}, {"net": tx}, ema=("net",))

  # The bound, in nats per image.

  def reconstruction(level: Array, gamma: Array, key: Array) -> Array:
    x = centres(level)
    z = x + jnp.exp(0.5 * gamma) * random.normal(key, x.shape)
    log_p = jnp.take_along_axis(log_levels(z, gamma), level[..., None], axis=-1)
    return -_sum(log_p)

  def latent(x: Array, gamma: Array) -> Array:
    var = nn.sigmoid(gamma)
    log_var = -nn.softplus(-gamma)
    return 0.5 * _sum((1 - var) * x**2 + var - log_var - 1)

  def error(
    params: PyTree, x: Array, gamma: Array, key: Array, dropout_key: Array | None
  ) -> Array:
    """|noise - predicted noise|^2, f32 [B]."""
    noise = random.normal(key, x.shape)
    train = dropout_key is not None
    rngs = {"dropout": dropout_key} if train else {}
    z = process.diffuse(process_of(lambda gamma: gamma), x, gamma, noise)
    variables = {"params": params}
    predicted = net.apply(variables, z, gamma, train, rngs=rngs, method="noise")
    return _sum((noise - predicted) ** 2)

  def bound(
    params: PyTree, levels: Levels, level: Array, key: Array, dropout_key: Array | None
  ) -> Metrics:
    first_key, noise_key = random.split(key)
    x = centres(level)
    squares = error(params, x, levels.at, noise_key, dropout_key)
    parts = {
      "reconstruction": reconstruction(level, levels.first, first_key),
      "latent": latent(x, levels.last),
      "diffusion": 0.5 * levels.rate * squares,
    }
    return {"loss": sum(parts.values()), **parts}

  def times(key: Array, size: int) -> Array:
    """One draw in each of `size` strata of [0, 1); in T steps, of 1 / T, ..., 1."""
    t = (random.uniform(key) + jnp.arange(size) / size) % 1.0
    return (jnp.floor(t * num_steps) + 1) / num_steps if num_steps else t

  def bits(metrics: Metrics, x: Array) -> Metrics:
    dims = x[0].size
    return {name: v / (dims * jnp.log(2.0)) for name, v in metrics.items()}

  # Training.

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    time_key, noise_key, dropout_key = random.split(key, 3)
    params, level = state.params["net"], quantised(batch["image"])
    t = times(time_key, len(level))
    read = lambda params: levels_of(schedule(params), t, num_steps)
    levels, pull_back = jax.vjp(read, params)

    def loss_fn(params: PyTree, levels: Levels) -> tuple[Array, Metrics]:
      parts = bits(bound(params, levels, level, noise_key, dropout_key), level)
      return parts["loss"].mean(), parts

    gradient = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)
    (grads, pull), parts = gradient(params, levels)
    (of_bound,) = pull_back(pull)
    # d E[L^2] = E[2 L dL], at a fixed time, by what is known of every example.
    weight = 2 * parts["diffusion"]
    none = jnp.zeros(())
    (of_variance,) = pull_back(Levels(none, none, pull.at * weight, pull.rate * weight))
    of_schedule = {
      name: (of_bound if joint or name in END_POINTS else of_variance)["schedule"][name]
      for name in params.get("schedule", {})
    }
    grads = {**grads, "schedule": of_schedule} if of_schedule else grads
    state = apply_gradients(state, "net", grads, tx)
    metrics = {name: part.mean() for name, part in parts.items()}
    metrics |= {"gamma_0": levels.first, "gamma_1": levels.last}
    return update_ema(state, ema_decay), metrics

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    time_key, order_key, noise_key = random.split(key, 3)
    params, level = state.params["net"], quantised(batch["image"])
    t = random.permutation(order_key, times(time_key, len(level)))
    levels = levels_of(schedule(params), t, num_steps)
    found = bits(bound(params, levels, level, noise_key, None), level)
    return {**found, "bits_per_dim": found["loss"]}

  def bits_per_dim(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    first_key, steps_key = random.split(key)
    params, level = state.params["net"], quantised(batch["image"])
    x, gamma = centres(level), schedule(params)

    def term(i: Array) -> Array:
      before, after = gamma(i / steps), gamma((i + 1) / steps)
      squares = error(
        params, x, jnp.full(len(x), after), random.fold_in(steps_key, i), None
      )
      return 0.5 * jnp.expm1(after - before) * squares

    parts = {
      "reconstruction": reconstruction(level, gamma(jnp.zeros(())), first_key),
      "latent": latent(x, gamma(jnp.ones(()))),
      "diffusion": jax.lax.map(term, jnp.arange(steps)).sum(axis=0),
    }
    return bits({"bits_per_dim": sum(parts.values()), **parts}, x)

  # Sampling.

  grid = schedules.uniform(steps, 1.0)

  def model(
    state: TrainState, batch: Batch
  ) -> tuple[process.Denoiser, process.Process]:
    params, gamma = {"params": state.params["net"]}, schedule(state.params["net"])
    noising = process_of(gamma)

    def predict(z: Array, t: Array) -> Array:
      return net.apply(params, z, jnp.full(len(z), gamma(t)), method="noise")

    return process.denoiser(predict, noising, process.NOISE), noising

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    prior_key, steps_key = random.split(key)
    denoise, noising = model(state, batch)
    z = sampling.prior(process.edm(), prior_key, batch["image"], 1.0)
    found = stochastic_samplers.ancestral(denoise, noising, z, grid, steps_key)
    # The likeliest level given z_0 is the nearest.
    x = found.x / noising.alpha(jnp.zeros(()))
    level = jnp.clip(jnp.floor((x + 1) * NUM_LEVELS / 2), 0, NUM_LEVELS - 1)
    return sampling.reported(found, level / 127.5 - 1)

  tools = {"bits_per_dim": bits_per_dim}
  tools |= editing.tools(model, grid, **likelihood.ways(NUM_LEVELS))
  return Method(init, train_step, eval_step, sample, tools)


def _sum(x: Array) -> Array:
  """Sum over all axes but the first."""
  return x.reshape(len(x), -1).sum(axis=1)
