"""The discrete VAE of DALL-E, its first stage (Ramesh et al., 2021).

Aditya Ramesh, Mikhail Pavlov, Gabriel Goh, Scott Gray, Chelsea Voss, Alec Radford, Mark
Chen, Ilya Sutskever, "Zero-Shot Text-to-Image Generation",
https://arxiv.org/abs/2102.12092, Section 2.1: q(z|x) is a categorical distribution for
each position of a grid, trained by the Gumbel-softmax relaxation, with a uniform prior
and a logit-Laplace likelihood. Networks are in `jaxgen.autoregressive.dalle_networks`,
the second stage in `jaxgen.autoregressive.dalle`.

Where this differs:
  - The average's decay rises with the steps, see `update_ema`.
  - No mixed precision with scaled gradients; images are cropped by rules of the data.
The division of the loss by the number of values is from memory of Appendix A.2, not
looked up.
"""

import math

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.losses import logit_laplace
from jaxgen.losses.categorical import kl_to_uniform, relaxed_one_hot
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

Outputs = dict[str, Array]


def dalle_dvae(
  encoder: nn.Module,
  decoder: nn.Module,
  *,
  tx: optax.GradientTransformation,
  temperature: optax.Schedule,
  kl_weight: optax.Schedule,
  ema_decay: float = 0.999,
) -> Method:
  """A discrete VAE: an image is a grid of tokens, a priori all alike.

  The loss is (-log p(x|z) + kl_weight KL(q(z|x) || uniform)) / (H W C), in nats, with
  relaxed tokens z. Metrics: "loss"; "nats_per_dim", its first term; "kl", nats per
  token; "mse", of relaxed reconstructions in [-1, 1]; "temperature".
  eval_step: "elbo" of one draw of hard tokens, in nats per image, for densities of
  pixels mapped to [0.1, 0.9]; "kl", nats per image; "mse", from the most likely tokens.

  Tools:
    encode: {"codes": int32 [B, h, w]}, the most likely tokens.
    decode_codes: {"images"} of batch["codes"], else of batch["image"]'s codes.
    reconstruct: {"reconstructions"}.

  Args:
    encoder: Images -> logits f32 [B, h, w, K].
    decoder: f32 [B, h, w, K] -> locations and log scales, f32 [B, H, W, 2 C].
    tx: Of each network by itself.
    temperature: Of the relaxation, by step; 1 down to 1/16 in the paper.
    kl_weight: By step; 0 up to 6.6 in the paper.
    ema_decay: Of both networks' averages.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]. `sample` decodes tokens
    drawn uniformly, as the prior says: no digits come of that, only of a second stage.
    The networks are "encoder" and "decoder".
  """

  def init(key: Array, batch: Batch) -> TrainState:
    encoder_key, decoder_key = random.split(key)
    variables = {"encoder": encoder.init(encoder_key, batch["image"])}
    logits = jnp.zeros_like(encoder.apply(variables["encoder"], batch["image"]))
    variables["decoder"] = decoder.init(decoder_key, logits)
    return create_state(variables, {"encoder": tx, "decoder": tx}, tuple(variables))

  encode = lambda params, x: encoder.apply({"params": params["encoder"]}, x)

  def decode(params: PyTree, tokens: Array) -> tuple[Array, Array]:
    outputs = decoder.apply({"params": params["decoder"]}, tokens)
    return tuple(jnp.split(outputs, 2, axis=-1))

  def log_prob(x: Array, outputs: tuple[Array, Array]) -> Array:
    x = logit_laplace.from_image(x)
    return logit_laplace.log_prob(x, *outputs).sum(axis=(1, 2, 3))

  gumbel = lambda key, x: per_example(random.gumbel(key, x.shape, x.dtype))
  error = lambda x, y: ((x - y) ** 2).mean(axis=(1, 2, 3))

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    x, tau = batch["image"], temperature(state.step)

    def loss_fn(params: PyTree) -> tuple[Array, Metrics]:
      logits = encode(params, x)
      outputs = decode(params, relaxed_one_hot(logits, gumbel(key, logits), tau))
      nats, kl = -log_prob(x, outputs).mean(), kl_to_uniform(logits)
      total = nats + kl_weight(state.step) * kl.sum(axis=(1, 2)).mean()
      num = math.prod(x.shape[1:])
      mse = error(x, logit_laplace.to_image(outputs[0])).mean()
      found = {"nats_per_dim": nats / num, "kl": kl.mean(), "mse": mse}
      return total / num, found

    (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    for name in ("encoder", "decoder"):
      state = apply_gradients(state, name, grads[name], tx)
    metrics = {"loss": loss, **metrics, "temperature": jnp.asarray(tau, jnp.float32)}
    return update_ema(state, ema_decay), metrics

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    x, params = batch["image"], state.params
    logits = encode(params, x)
    hard = lambda values: jax.nn.one_hot(values.argmax(axis=-1), values.shape[-1])
    drawn = decode(params, hard(logits + gumbel(key, logits)))
    kl = kl_to_uniform(logits).sum(axis=(1, 2))
    likely = logit_laplace.to_image(decode(params, hard(logits))[0])
    return {"elbo": log_prob(x, drawn) - kl, "kl": kl, "mse": error(x, likely)}

  def codes_of(state: TrainState, batch: Batch, key: Array) -> Outputs:
    codes = encode(state.params, batch["image"]).argmax(axis=-1)
    return {"codes": codes.astype(jnp.int32)}

  def images_of(state: TrainState, batch: Batch, key: Array) -> Outputs:
    codes = batch["codes"] if "codes" in batch else codes_of(state, batch, key)["codes"]
    outputs = decode(state.params, jax.nn.one_hot(codes, encoder.num_tokens))
    return {"images": logit_laplace.to_image(outputs[0])}

  def reconstruct(state: TrainState, batch: Batch, key: Array) -> Outputs:
    codes = codes_of(state, batch, key)
    return {"reconstructions": images_of(state, codes, key)["images"]}

  def sample(state: TrainState, batch: Batch, key: Array) -> Outputs:
    *grid, num = jax.eval_shape(encode, state.params, batch["image"]).shape
    codes = per_example(random.randint(key, grid, 0, num))
    return {"samples": images_of(state, {"codes": codes}, key)["images"]}

  tools = {"encode": codes_of, "decode_codes": images_of, "reconstruct": reconstruct}
  return Method(init, train_step, eval_step, sample, tools)
