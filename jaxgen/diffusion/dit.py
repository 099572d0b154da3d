"""DiT: Scalable Diffusion Models with Transformers.

William Peebles, Saining Xie, 2022. https://arxiv.org/abs/2212.09748. Diffusion with a
transformer (`jaxgen.nn.dit`) on images or on the latents of a frozen autoencoder: the
noise by the simple loss, the variance by the bound (the hybrid loss of Nichol &
Dhariwal, 2021, arXiv 2102.09672, Eq. 16), labels that are dropped in training, and
classifier-free guidance (Ho & Salimans, 2022, arXiv 2207.12598) in sampling.

Where this differs from the paper and the authors' code:
  - Guidance acts on the noise of all channels; the authors' code, by default, on that
    of the first three of four.
  - On pixels, predicted images are clipped to [-1, 1] while sampling.
  - The average's decay rises with the steps, see `update_ema`.
  - Latents are computed in the step, by `encode`, and are not mirrored at random.
"""

from collections.abc import Callable, Sequence

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.diffusion import (
  editing,
  learned_variance,
  process,
  sampling,
  schedules,
  stochastic_samplers,
)
from jaxgen.diffusion.guidance import drop_labels, guided
from jaxgen.diffusion.noise_prediction import mean as mean_of
from jaxgen.diffusion.noise_prediction import spread_steps
from jaxgen.diffusion.sampling import Levels
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


def dit(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  betas: np.ndarray | Sequence[float],
  encode: Callable[[Array, Array], Array] | None = None,
  decode: Callable[[Array], Array] | None = None,
  label_dropout: float = 0.1,
  guidance: float = 1.0,
  num_sampling_steps: int = 250,
  ema_decay: float = 0.9999,
) -> Method:
  """Diffusion with learned variances, conditional on labels.

  Metrics: "loss", the sum of "mse", the squared error of the noise averaged over
  values, at a random step per image, and "vlb", the term of the bound at that step, in
  bits per value, whose gradient reaches the variance only: the bound is T times its
  mean over steps. "grad_norm" before what `tx` does.

  `sample` takes `num_sampling_steps` steps, twice the rows each with guidance. Tools,
  on batch["image"]:
    unguided: `sample` with guidance 1.
    inpaint, img2img, interpolate, colourise: On pixels; see `editing.tools`. With the
      guidance, and the posterior's variances, not the learned ones.

  Args:
    net: Noise and variance. (x f32 [B, H, W, C], t i32 or f32 [B] counted from 0, label
      i32 [B], train) -> [B, H, W, 2 C]; a label below 0 is none. It has no variables
      but its parameters.
    tx: Optimiser of `net`.
    betas: Forward-process variances, [T] in (0, 1), T >= 2.
    encode: (images in [-1, 1], key) -> latents of variance about 1, and
    decode: latents -> images, by frozen networks; None for pixels. Both or neither.
    label_dropout: Share of the labels that `net` is not told in training.
    guidance: Scale of classifier-free guidance; 1 is none.
    num_sampling_steps: At most T, evenly spread.
    ema_decay: Decay per step of the averaged weights used to sample.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1], and batch["label"], i32
    [B]; `sample` returns as `sampling.reported`, samples in [-1, 1]. The network is
    "net".
  """
  if (encode is None) != (decode is None):
    raise ValueError(f"encode={encode}, decode={decode}: expected both or neither")
  if not 0 <= label_dropout <= 1:
    raise ValueError(f"label_dropout must be in [0, 1], got {label_dropout}")
  chain, num_steps = process.discrete(betas), len(betas)
  times = schedules.even_steps(num_steps, num_sampling_steps)

  def encoded(batch: Batch, key: Array) -> Array:
    return encode(batch["image"], key) if encode else batch["image"]

  def init(key: Array, batch: Batch) -> TrainState:
    image = jax.tree.map(jnp.zeros_like, {"image": batch["image"]})
    x, label = encoded(image, key), jnp.zeros_like(batch["label"])
    variables = net.init(key, x, jnp.zeros(len(x), jnp.int32), label, train=False)
    return create_state({"net": variables}, {"net": tx}, ema=("net",))

  # Training.

  def losses(
    params: PyTree, x: Array, t: Array, label: Array, key: Array, train: bool
  ) -> Metrics:
    """Each f32 [B]; t f32 [B] in 1 ... T."""
    noise = random.normal(key, x.shape)
    x_t = process.diffuse(chain, x, t, noise)
    steps = t.astype(jnp.int32) - 1
    outputs = net.apply({"params": params}, x_t, steps, label, train=train)
    predicted, v = learned_variance.split(outputs)
    fixed = jax.lax.stop_gradient(predicted)
    vlb = learned_variance.bound_term(chain, x, x_t, t, fixed, v)
    vlb = mean_of(vlb) / jnp.log(2.0)
    mse = mean_of((noise - predicted) ** 2)
    return {"loss": mse + vlb, "mse": mse, "vlb": vlb}

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    encode_key, t_key, label_key, noise_key = random.split(key, 4)
    x = encoded(batch, encode_key)
    t = random.randint(t_key, (len(x),), 1, num_steps + 1).astype(x.dtype)
    label = drop_labels(label_key, batch["label"], label_dropout)

    def loss_fn(params: PyTree) -> tuple[Array, Metrics]:
      found = losses(params, x, t, label, noise_key, train=True)
      means = {name: value.mean() for name, value in found.items()}
      return means["loss"], means

    grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params["net"])
    state = apply_gradients(state, "net", grads, tx)
    metrics = {**metrics, "grad_norm": optax.tree.norm(grads)}
    return update_ema(state, ema_decay), metrics

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    encode_key, t_key, order_key, noise_key = random.split(key, 4)
    x = encoded(batch, encode_key)
    t = spread_steps(t_key, order_key, len(x), num_steps) + 1.0
    return losses(state.params["net"], x, t, batch["label"], noise_key, train=False)

  # Sampling.

  def outputs_of(state: TrainState, batch: Batch, scale: float) -> Callable:
    """(x_t, t) -> noise and variance, of which the noise is guided."""

    def predict(x: Array, t: Array, label: Array) -> Array:
      params = {"params": state.params["net"]}
      return net.apply(params, x, t - 1.0, label, train=False)

    is_noise = lambda outputs: jnp.arange(outputs.shape[-1]) < outputs.shape[-1] // 2
    return guided(
      predict, batch["label"], scale, lambda o: is_noise(o)[None, None, None]
    )

  def model(
    state: TrainState, batch: Batch
  ) -> tuple[process.Denoiser, process.Process]:
    outputs = outputs_of(state, batch, guidance)
    noise = lambda x_t, t: learned_variance.split(outputs(x_t, t))[0]
    return process.clipped(process.denoiser(noise, chain, process.NOISE)), chain

  def sample_with(scale: float) -> Callable:
    def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
      init_key, prior_key, steps_key = random.split(key, 3)
      like = jax.eval_shape(encoded, batch, init_key)
      outputs = outputs_of(state, batch, scale)

      def reverse(x_t: Array, now: Levels, then: Levels) -> tuple[Array, Array]:
        noise, v = learned_variance.split(outputs(x_t, now.t))
        x = process.NOISE.to_x(chain, x_t, noise, now.t)
        x = x if encode else jnp.clip(x, -1.0, 1.0)
        mean = sampling.posterior_mean(x_t, x, now, then)
        bounds = learned_variance.extremes(chain, now, then)
        return mean, learned_variance.variance(v, *bounds)

      x = sampling.prior(process.edm(), prior_key, like, 1.0)
      found = stochastic_samplers.chain(reverse, chain, x, times, steps_key)
      x = decode(found.x) if decode else found.x
      return sampling.reported(found, jnp.clip(x, -1.0, 1.0))

    return sample

  tools = {"unguided": sample_with(1.0)}
  if not encode:
    tools |= editing.tools(model, times)
  return Method(init, train_step, eval_step, sample_with(guidance), tools)
