"""beta-VAE: Learning Basic Visual Concepts (Higgins et al., ICLR 2017).

https://openreview.net/forum?id=Sy2fzU9gl: the KL of the VAE's bound times beta.
And Understanding disentangling in beta-VAE (Burgess et al., 2018),
https://arxiv.org/abs/1804.03599: gamma |KL - C|, with a capacity C that rises
linearly during training.

Deviations from the papers:
  - |KL - C| is of the KL's mean over the batch (paper: not said); under pmap, over a
    device's part of it.
  - Networks, optimiser and likelihood are the caller's.
"""

from flax import linen as nn
import jax.numpy as jnp
import optax

from jaxgen.method import Array, Batch, Method, Metrics, TrainState, create_state
from jaxgen.vae.likelihoods import Likelihood, bernoulli_pixels
from jaxgen.vae.training import bound_steps, elbo_terms
from jaxgen.vae.variational import ancestral, tools


def beta_vae(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  beta: float,
  capacity: float | None = None,
  capacity_steps: int = 1,
  likelihood: Likelihood | None = None,
) -> Method:
  """A beta-VAE on images in [-1, 1].

  Args:
    net: Module as in `jaxgen.vae.networks`, with the outputs of the likelihood.
    tx: Its optimiser.
    beta: Weight of the KL; with a capacity, gamma. 1 without one is the VAE.
    capacity: The last C, in nats; None: the KL itself is weighted.
    capacity_steps: Train steps after which C has risen from 0 to `capacity`.
    likelihood: p(x|z); default `bernoulli_pixels()`.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]. eval_step gives elbo
    (with a weight of 1, so that it compares), reconstruction and kl in nats per image.
    Images come back as means of the decoder. Tools: those of `variational.tools`.
  """
  if capacity_steps < 1:
    raise ValueError(f"capacity_steps={capacity_steps}: expected at least 1")
  likelihood = likelihood or bernoulli_pixels()
  levels_of = lambda state: (net.bind({"params": state.params["net"]}),)

  def init(key: Array, batch: Batch) -> TrainState:
    return create_state({"net": net.init(key, batch["image"])}, {"net": tx})

  def loss(means: Metrics, step: Array) -> Array:
    excess = means["kl"]
    if capacity is not None:
      excess = jnp.abs(excess - capacity * jnp.minimum(step / capacity_steps, 1.0))
    return beta * excess - means["reconstruction"]

  train_step, eval_step = bound_steps(elbo_terms(net, likelihood), loss, tx)

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    num = len(batch["image"])
    return {"samples": ancestral(levels_of(state), likelihood, num, key)}

  return Method(init, train_step, eval_step, sample, tools(levels_of, likelihood))
