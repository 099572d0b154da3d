"""EDM: Elucidating the Design Space of Diffusion-Based Generative Models.

Tero Karras, Miika Aittala, Timo Aila, Samuli Laine, 2022.
https://arxiv.org/abs/2206.00364. Training of config F of Table 2: the preconditioned
denoiser, noise levels of a log-normal distribution, their loss weights, augmentations
that do not leak, an average with a half-life; Heun's method of 18 steps, 35 calls of
the network (Algorithm 1), and its stochastic form (Algorithm 2). Networks are
`jaxgen.nn.song_unet` (DDPM++, NCSN++) and `jaxgen.nn.adm_unet`; learning rate and
warm-up belong to `tx`.

Equation numbers are the paper's.

Where this differs from the paper and the authors' code:
  - The loss is a mean over the values of an image, not their sum: Adam's epsilon is
    larger beside it.
  - Sampling in the precision of the images; theirs is in float64.
  - Samples are clipped to [-1, 1].
  - Classifier-free guidance and dropping of labels, for which their networks have an
    option that no experiment of theirs uses.
"""

from collections.abc import Callable

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
from jax.scipy.special import ndtri
import numpy as np
import optax

from jaxgen.diffusion import (
  editing,
  ode_samplers,
  process,
  sampling,
  schedules,
  stochastic_samplers,
)
from jaxgen.diffusion.guidance import drop_labels, guided
from jaxgen.diffusion.preconditioned import denoise, preconditioning
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  create_state,
  move_ema,
)

EMA_RAMP_UP = 0.05  # the half-life is at most this share of the steps done
PROCESS = process.edm()


def half_life_decay(step: Array, half_life: float) -> Array:
  """Decay of an average that forgets half in `half_life` steps; step i32 [] done."""
  ramp = jnp.maximum(EMA_RAMP_UP * step.astype(jnp.float32), 1e-8)
  return 0.5 ** (1 / jnp.minimum(half_life, ramp))


def edm(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  conditional: bool = False,
  augment: Callable[[Array, Array], tuple[Array, Array]] | None = None,
  label_dropout: float = 0.0,
  guidance: float = 1.0,
  sigma_data: float = 0.5,
  log_sigma: tuple[float, float] = (-1.2, 1.2),
  ema_half_life: float = 1000.0,
  levels: np.ndarray | None = None,
  sampler: Callable = ode_samplers.heun,
) -> Method:
  """A denoiser for all noise levels, trained by Eq. 8.

  Metrics: "loss", the weighted squared error averaged over values, at a random noise
  level per image: 1 is that of a network with output 0; "grad_norm" before what `tx`
  does.

  Tools, on batch["image"]:
    stochastic: `sample` by Heun's method with noise added before every step, with the
      numbers that the paper has for ImageNet-64 (Table 5): {"samples": as `sample`}.
    inpaint, img2img, interpolate, colourise: See `editing.tools`.

  Args:
    net: F. (x f32 [B, H, W, C], noise f32 [B], label i32 [B] or None, augment f32
      [B, 9] or None, train) -> [B, H, W, C]. It has no variables but its parameters.
    tx: Optimiser of `net`.
    conditional: Whether `net` is told batch["label"].
    augment: (x, key) -> images of the same shape, and the numbers for `net`.
    label_dropout: Share of the labels that `net` is not told in training.
    guidance: Scale of classifier-free guidance; 1 is none.
    sigma_data: Standard deviation of the images, about their mean.
    log_sigma: Mean and standard deviation of ln sigma in training.
    ema_half_life: Of the averaged weights used to sample, in steps.
    levels: Noise levels of a sampler, falling to 0; default 18 steps (Eq. 5).
    sampler: See `sampling`.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1], and batch["label"] if it
    is conditional; `sample` returns as `sampling.reported`, samples in [-1, 1]. The
    network is "net".
  """
  if not 0 <= label_dropout <= 1:
    raise ValueError(f"label_dropout must be in [0, 1], got {label_dropout}")
  if not conditional and (label_dropout or guidance != 1.0):
    raise ValueError(
      f"label_dropout={label_dropout}, guidance={guidance}: expected conditional=True"
    )
  if levels is None:
    levels = schedules.karras_levels(18)

  def label_of(batch: Batch) -> Array | None:
    return batch["label"] if conditional else None

  def init(key: Array, batch: Batch) -> TrainState:
    x = jnp.zeros_like(batch["image"])
    label = jnp.zeros_like(batch["label"]) if conditional else None
    variables = net.init(key, x, jnp.zeros(len(x)), label, train=False)
    return create_state({"net": variables}, {"net": tx}, ema=("net",))

  # Training.

  def losses(
    params: PyTree,
    x: Array,
    sigma: Array,
    key: Array,
    label: Array | None,
    **kwargs: object,
  ) -> Array:
    noisy = process.diffuse(PROCESS, x, sigma, random.normal(key, x.shape))
    error = denoise(net, params, noisy, sigma, sigma_data, label, **kwargs) - x
    weight = preconditioning(sigma, sigma_data).weight
    return weight * (error**2).reshape(len(x), -1).mean(axis=1)

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    sigma_key, noise_key, augment_key, label_key, dropout_key = random.split(key, 5)
    x, label, labels = batch["image"], label_of(batch), None
    if augment:
      x, labels = augment(x, augment_key)
    if label_dropout:
      label = drop_labels(label_key, label, label_dropout)
    mean, std = log_sigma
    sigma = jnp.exp(mean + std * random.normal(sigma_key, (len(x),)))
    told = dict(augment=labels, train=True, rngs={"dropout": dropout_key})
    loss_fn = lambda p: losses(p, x, sigma, noise_key, label, **told).mean()
    loss, grads = jax.value_and_grad(loss_fn)(state.params["net"])
    state = apply_gradients(state, "net", grads, tx)
    state = move_ema(state, half_life_decay(state.step, ema_half_life))
    return state, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    x = batch["image"]
    level_key, order_key, noise_key = random.split(key, 3)
    # One level in each of B strata: less variance than independent ones.
    strata = random.permutation(order_key, jnp.arange(len(x)))
    share = (strata + random.uniform(level_key, (len(x),), minval=1e-3)) / len(x)
    share = jnp.minimum(share, 1 - np.finfo(np.float32).epsneg)  # It may round to 1.
    mean, std = log_sigma
    sigma = jnp.exp(mean + std * ndtri(share))
    return {"loss": losses(state.params["net"], x, sigma, noise_key, label_of(batch))}

  # Sampling.

  def denoiser(state: TrainState, batch: Batch) -> process.Denoiser:
    label = label_of(batch)

    def told(x: Array, sigma: Array, label: Array | None) -> Array:
      return denoise(net, state.params["net"], x, sigma, sigma_data, label)

    if conditional:
      return guided(told, label, guidance)
    return lambda x, sigma: told(x, jnp.full(len(x), sigma), None)

  def sample_with(sampler: Callable) -> Callable:
    def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
      prior_key, steps_key = random.split(key)
      x = sampling.prior(PROCESS, prior_key, batch["image"], levels[0])
      found = sampler(denoiser(state, batch), PROCESS, x, levels, steps_key)
      return sampling.reported(found, jnp.clip(found.x, -1.0, 1.0))

    return sample

  tools = {"stochastic": sample_with(stochastic_samplers.stochastic_heun)}
  model = lambda state, batch: (denoiser(state, batch), PROCESS)
  tools |= editing.tools(model, levels, sampler=sampler)
  return Method(init, train_step, eval_step, sample_with(sampler), tools)
