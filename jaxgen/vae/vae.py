"""VAE: Auto-Encoding Variational Bayes (Kingma & Welling, 2013).

https://arxiv.org/abs/1312.6114. Gaussian encoder, the second estimator of the bound
(Eq. 7, KL in closed form) with one draw of z per example; Bernoulli, Gaussian
(Appendix C) or discretised logistic decoder.

Deviations from the paper:
  - The network of the experiments is the one-layer model of Burda et al. (2015), arXiv
    1509.00519: two tanh layers of 200 in each half and 50 latents, 425,284 parameters
    for 28x28 images. The paper has one layer of 500 in each half (Section 5).
  - No weight decay (paper: a prior N(0, I) on the decoder's weights).
  - The optimiser is the caller's (paper: Adagrad); the loss is a mean over the
    batch (paper: the sum scaled to the data set, Eq. 8).
  - Flax default initialisation (paper: N(0, 0.01)).
  - Discretised logistic decoders are not the paper's, but Kingma et al.'s (2016), arXiv
    1606.04934, Section 5.2.
"""

from flax import linen as nn
import optax

from jaxgen.method import Array, Batch, Method, TrainState, create_state
from jaxgen.vae.likelihoods import Likelihood, bernoulli_pixels
from jaxgen.vae.training import bound_steps, elbo_terms
from jaxgen.vae.variational import ancestral, tools


def vae(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  binarize: bool = True,
  likelihood: Likelihood | None = None,
) -> Method:
  """A VAE on images in [-1, 1].

  Args:
    net: Module as in `jaxgen.vae.networks`, with the outputs of the likelihood.
    tx: Its optimiser.
    binarize: Of the default likelihood; see there.
    likelihood: p(x|z); default `bernoulli_pixels(binarize=binarize)`.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]. eval_step gives
    elbo, reconstruction and kl in nats per image. Images come back as means of the
    decoder in [-1, 1]. Tools: those of `variational.tools`.
  """
  likelihood = likelihood or bernoulli_pixels(binarize=binarize)

  def init(key: Array, batch: Batch) -> TrainState:
    return create_state({"net": net.init(key, batch["image"])}, {"net": tx})

  train_step, eval_step = bound_steps(
    elbo_terms(net, likelihood), lambda means, _: -means["elbo"], tx
  )
  levels_of = lambda state: (net.bind({"params": state.params["net"]}),)

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    num = len(batch["image"])
    return {"samples": ancestral(levels_of(state), likelihood, num, key)}

  return Method(init, train_step, eval_step, sample, tools(levels_of, likelihood))
