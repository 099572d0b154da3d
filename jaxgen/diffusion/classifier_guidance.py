"""Classifier guidance: Diffusion Models Beat GANs on Image Synthesis.

Prafulla Dhariwal, Alex Nichol, 2021. https://arxiv.org/abs/2105.05233. Section 4: a
classifier of noisy images is trained beside a diffusion model that may know no labels;
its gradient, times a scale, leads the samples to a class. The paper's classifier is
`jaxgen.nn.adm_classifier`, its U-Net `jaxgen.nn.adm_unet`.

Where this differs from the paper:
  - The gradient moves E[x | x_t] (`guidance.classifier_guided`). With DDIM that is the
    paper's Algorithm 2. In ancestral sampling (Algorithm 1) the mean of a step moves by
    beta_t / sqrt(1 - beta_t) times the gradient at x_t, whatever the variance is; the
    paper has that variance in place of the factor.
  - No augmentation of what the classifier sees (theirs: random crops).
"""

from collections.abc import Callable

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.diffusion import editing, sampling, schedules, stochastic_samplers
from jaxgen.diffusion.guidance import classifier_guided
from jaxgen.diffusion.noise_prediction import spread
from jaxgen.diffusion.process import Denoiser, Process, diffuse
from jaxgen.method import (
  Array,
  Batch,
  Method,
  Metrics,
  PyTree,
  TrainState,
  apply_gradients,
  create_state,
)

NUM_STEPS = 250  # as the paper samples where it does not use DDIM
TIME_SCALE = 1000.0  # what the classifier is told at the end of the process


def classifier_guidance(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  denoise: Denoiser,
  process: Process,
  scale: float = 1.0,
  sampler: Callable = stochastic_samplers.ancestral,
  times: np.ndarray | None = None,
) -> Method:
  """Trains log p(label | x_t), to guide a denoiser that stays as it is.

  Metrics: "loss", the cross-entropy in nats at a random time per image; "accuracy" of
  the likeliest class, 0 or 1; in training also "grad_norm" before what `tx` does.

  Tools, on batch["image"] and batch["label"]:
    classify: log p(label | x) without noise, of every class: {"log_prob": f32 [B, K]}.
    inpaint, img2img, interpolate, colourise: See `editing.tools`; guided.

  Args:
    net: The classifier. (x f32 [B, H, W, C], t f32 [B] in [0, 1000]) -> logits f32
      [B, K]. It has no variables but its parameters.
    tx: Its optimiser.
    denoise: A trained one. It is no part of the state.
    process: What `denoise` was trained for; alpha > 0, end finite.
    scale: Of the gradient; 0 samples without guidance, 1 is Bayes' rule.
    sampler: See `sampling`.
    times: Its grid; default 250 even steps.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1], and batch["label"], i32
    [B]; `sample` returns as `sampling.reported`, samples in [-1, 1], without guidance
    where the label is below 0. The network is "classifier".
  """
  times = schedules.uniform(NUM_STEPS, process.end) if times is None else times

  def log_probs(params: PyTree, x_t: Array, t: Array) -> Array:
    """f32 [B, K]; t [B]."""
    logits = net.apply({"params": params}, x_t, TIME_SCALE / process.end * t)
    return jax.nn.log_softmax(logits)

  def guided(params: PyTree, label: Array) -> Denoiser:
    def log_prob(x_t: Array, t: Array) -> Array:
      rows = log_probs(params, x_t, jnp.full(len(x_t), t))
      return jnp.where(label < 0, 0.0, _of_label(rows, label))

    return classifier_guided(denoise, process, log_prob, scale)

  def init(key: Array, batch: Batch) -> TrainState:
    x = jnp.zeros_like(batch["image"])
    variables = net.init(key, x, jnp.zeros(len(x)))
    return create_state({"classifier": variables}, {"classifier": tx})

  def scores(params: PyTree, batch: Batch, share: Array, key: Array) -> Metrics:
    """Metrics at the times share end, share f32 [B] in (0, 1]."""
    x, label, t = batch["image"], batch["label"], process.end * share
    x_t = diffuse(process, x, t, random.normal(key, x.shape))
    rows = log_probs(params, x_t, t)
    right = (rows.argmax(axis=1) == label).astype(jnp.float32)
    return {"loss": -_of_label(rows, label), "accuracy": right}

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    time_key, noise_key = random.split(key)
    share = 1.0 - random.uniform(time_key, (len(batch["image"]),))

    def loss_fn(params: PyTree) -> tuple[Array, Metrics]:
      found = scores(params, batch, share, noise_key)
      means = {name: values.mean() for name, values in found.items()}
      return means["loss"], means

    gradient = jax.grad(loss_fn, has_aux=True)
    grads, metrics = gradient(state.params["classifier"])
    state = apply_gradients(state, "classifier", grads, tx)
    return state, {**metrics, "grad_norm": optax.tree.norm(grads)}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    offset_key, order_key, noise_key = random.split(key, 3)
    share = 1.0 - spread(offset_key, order_key, len(batch["image"]))
    return scores(state.params["classifier"], batch, share, noise_key)

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    prior_key, steps_key = random.split(key)
    x_t = sampling.prior(process, prior_key, batch["image"], times[0])
    toward = guided(state.params["classifier"], batch["label"])
    found = sampler(toward, process, x_t, times, steps_key)
    return sampling.reported(found, jnp.clip(found.x, -1.0, 1.0))

  def classify(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    del key
    x = batch["image"]
    return {"log_prob": log_probs(state.params["classifier"], x, jnp.zeros(len(x)))}

  def model(state: TrainState, batch: Batch) -> tuple[Denoiser, Process]:
    return guided(state.params["classifier"], batch["label"]), process

  tools = {"classify": classify, **editing.tools(model, times, sampler=sampler)}
  return Method(init, train_step, eval_step, sample, tools)


def _of_label(rows: Array, label: Array) -> Array:
  """rows [B, K], label i32 [B] -> [B]; the last class where the label is below 0."""
  return jnp.take_along_axis(rows, label[:, None], axis=1)[:, 0]
