"""IWAE: Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2015).

https://arxiv.org/abs/1509.00519. The bound L_k with its gradient, k draws of the
posterior as one batch; models of one or several stochastic layers.

Deviations from the paper:
  - Biases start at zero (paper: not said). `kernel_init` of the networks is the
    caller's (paper: Glorot & Bengio's).
  - Test images are binarised once for each evaluation, from the seed.
"""

from collections.abc import Sequence

from flax import linen as nn
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.losses.importance import importance_weighted_nll
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  create_state,
)
from jaxgen.vae.likelihoods import Likelihood, bernoulli_pixels
from jaxgen.vae.networks import FullyConnected
from jaxgen.vae.training import bound_steps
from jaxgen.vae.variational import (
  NUM_DRAWS,
  Levels,
  ancestral,
  log_weights,
  tools,
)


def one_layer(image_shape: tuple[int, int, int]) -> tuple[nn.Module, ...]:
  """Two tanh layers of 200, 50 latents; 425,284 parameters at 28x28x1."""
  init = nn.initializers.glorot_uniform()
  return (FullyConnected(image_shape, (200, 200), 50, kernel_init=init),)


def two_layers(image_shape: tuple[int, int, int]) -> tuple[nn.Module, ...]:
  """Two of 200 to 100 latents, two of 100 to 50.

  521,084 parameters at 28x28x1: 237,400 + 30,300 in the encoder (784-200-200-100
  twice at the end, 100-100-100-50 twice), 35,400 + 217,984 in the decoder (50-100-100-
  100 twice, 100-200-200-784).
  """
  init = nn.initializers.glorot_uniform()
  return (
    FullyConnected(image_shape, (200, 200), 100, kernel_init=init),
    FullyConnected((100,), (100, 100), 50, num_outputs=2, kernel_init=init),
  )


def stages(
  steps_per_epoch: int, num_stages: int = 8, lr: float = 1e-3
) -> tuple[optax.Schedule, int]:
  """The paper's schedule: stage i has 3^i epochs at rate lr * 10^(-i / 7).

  Args:
    steps_per_epoch: 3,000 for 60,000 images in batches of 20.
    num_stages: The paper's 8 are 3,280 epochs, down to a tenth of the first rate.
    lr: Of the first stage.

  Returns:
    The schedule and its number of steps.
  """
  ends = [steps_per_epoch * (3 ** (i + 1) - 1) // 2 for i in range(num_stages)]
  schedule = optax.piecewise_constant_schedule(
    lr, {end: 10 ** (-1 / 7) for end in ends[:-1]}
  )
  return schedule, ends[-1]


def iwae(
  nets: Sequence[nn.Module],
  *,
  tx: optax.GradientTransformation,
  num_draws: int,
  likelihood: Likelihood | None = None,
  nll_draws: int = NUM_DRAWS,
) -> Method:
  """An importance weighted autoencoder, on images in [-1, 1].

  Args:
    nets: Its stochastic layers, the first nearest the image (`one_layer`,
      `two_layers`): modules as in `jaxgen.vae.networks`, the first with the outputs of
      the likelihood, the others with two for each latent below.
    tx: Optimiser of all.
    num_draws: k. With 1 the bound is the VAE's, by its first estimator.
    likelihood: p(x|z); default `bernoulli_pixels()`, binarised dynamically.
    nll_draws: Importance samples for each image of the tool nll; the fewer, the larger
      an NLL comes out.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]. eval_step gives, in nats
    per image, bound (L_k) and elbo (the mean of the same log weights, L_1). Samples are
    means of the decoder. Tools: those of `variational.tools`; all but nll work with the
    latents nearest the image.
  """
  likelihood = likelihood or bernoulli_pixels()
  names = [f"level_{i}" for i in range(len(nets))]

  def bound_to(params: PyTree) -> Levels:
    return tuple(
      net.bind({"params": params[name]}) for net, name in zip(nets, names, strict=True)
    )

  def init(key: Array, batch: Batch) -> TrainState:
    params, x = {}, batch["image"]
    for net, name, net_key in zip(
      nets, names, random.split(key, len(nets)), strict=True
    ):
      params[name] = net.init(net_key, x)["params"]
      x = jnp.zeros((len(x), net.latent_dim))
    return create_state({"net": {"params": params}}, {"net": tx})

  def terms(params: PyTree, batch: Batch, key: Array) -> Metrics:
    pixel_key, z_key = random.split(key)
    x = likelihood.observe(batch["image"], pixel_key)
    weights = log_weights(bound_to(params), likelihood.log_prob, x, num_draws, z_key)
    return {"bound": -importance_weighted_nll(weights), "elbo": weights.mean(axis=0)}

  train_step, eval_step = bound_steps(terms, lambda means, _: -means["bound"], tx)
  levels_of = lambda state: bound_to(state.params["net"])

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    num = len(batch["image"])
    return {"samples": ancestral(levels_of(state), likelihood, num, key)}

  shared = tools(levels_of, likelihood, nll_draws)
  return Method(init, train_step, eval_step, sample, shared)
