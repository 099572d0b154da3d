"""VQ-VAE: Neural Discrete Representation Learning (van den Oord et al., 2017).

van den Oord, Vinyals & Kavukcuoglu, https://arxiv.org/abs/1711.00937. The first stage:
encoder, code book and decoder, trained by Eq. 3 with a straight-through gradient; the
book by its loss or by moving averages with Laplace smoothing (Appendix A.1).

Deviations from the paper:
  - No second stage: the prior over codes (Section 3.3) is another method, which reads
    the tool `encode` and draws images with the tool `decode_codes`.
    `sample` draws every code by itself, by its frequency in training: nothing learned,
    and poor images.
  - Scale of Eq. 3: -log p(x|z) is divided by the number of values of x, and squared
    distances are means over the D values of a vector, as in the authors' example
    (Sonnet's vqvae_example; paper: a sum over D).
  - Restarts of dead codes (paper: none), which `dead_below=0` turns off.
  - The moving averages are of shares of a batch in place of counts, and so is their
    epsilon; the book starts with a usage of 1 / K. See `jaxgen.nn.vector_quantizer`.
  - The network has the 3x3 convolutions of the authors' example before both stacks of
    residual blocks, and a 1x1 one before the code book.
"""

from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import optax

from jaxgen.method import Array, Method
from jaxgen.nn.strided_conv import Conv1x1
from jaxgen.nn.strided_residual import Decoder, Encoder
from jaxgen.nn.vector_quantizer import Quantized, VectorQuantizer
from jaxgen.vae import quantized
from jaxgen.vae.likelihoods import Likelihood

LEVEL = "codes"


class Network(nn.Module):
  """An encoder, a code book, a decoder.

  Attributes:
    quantizer: The code book.
    channels: Of the images.
    strided: Channels of each convolution of stride 2, from the image inwards.
    residual_width: Channels inside of residual blocks; their own are strided[-1].
    num_blocks: Residual blocks on either side.
    num_maps: Codes of one position, all of the same book; the paper's 8x8x10 latents
      for CIFAR-10 (Section 3.2) are 10.
    num_outputs: Parameters of p(x|z) for each value of x.
    dtype: Of the convolutions.
  """

  quantizer: VectorQuantizer
  channels: int
  strided: tuple[int, ...] = (64, 128)
  residual_width: int = 32
  num_blocks: int = 2
  num_maps: int = 1
  num_outputs: int = 1
  dtype: Any = None

  def setup(self) -> None:
    width = self.strided[-1]
    shape = (self.strided, width, self.residual_width, self.num_blocks, self.dtype)
    self.encoder = Encoder(*shape)
    self.to_codes = Conv1x1(self.num_maps * self.quantizer.dim, dtype=self.dtype)
    self.decoder = Decoder(self.channels * self.num_outputs, *shape)

  def _quantize(self, x: Array, train: bool) -> Quantized:
    z = self.to_codes(self.encoder(x))
    if self.num_maps > 1:
      z = z.reshape(*z.shape[:-1], self.num_maps, -1)
    return self.quantizer(z, train)

  def __call__(self, x: Array, train: bool) -> tuple[Array, dict[str, Quantized]]:
    """x f32 [B, H, W, C] -> outputs f32 [B, H, W, C * num_outputs], {LEVEL: ...}."""
    q = self._quantize(x, train)
    return self._decode(q.vectors), {LEVEL: q}

  def encode(self, x: Array) -> dict[str, Array]:
    """Codes int32 [B, h, w], or [B, h, w, num_maps] if these are several."""
    return {LEVEL: self._quantize(x, False).codes}

  def decode(self, codes: dict[str, Array]) -> Array:
    """Inverse of `encode`, up to what codes lose: outputs of the decoder."""
    return self._decode(self.quantizer.lookup(codes[LEVEL]))

  def frequencies(self) -> dict[str, Array]:
    """How often each code was used lately, f32 [K]."""
    return {LEVEL: self.quantizer.frequencies()}

  def _decode(self, vectors: Array) -> Array:
    outputs = self.decoder(vectors.reshape(*vectors.shape[:3], -1))
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))


def vq_vae(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  beta: float = 0.25,
  likelihood: Likelihood | None = None,
) -> Method:
  """A VQ-VAE on images in [-1, 1].

  Args:
    net: `Network`, with the outputs of the likelihood.
    tx: Its optimiser; of the code book too if that is `learned`.
    beta: Weight of the commitment, 0.25 in the paper for a -log p(x|z) in nats.
    likelihood: p(x|z); default Gaussian, -log p the squared error and a constant.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]. The loss: see
    `jaxgen.vae.quantized.autoencoder`. Metrics of a step: loss, nats_per_dim (its first
    term), mse, and the code book's commitment and perplexity in the batch (under pmap
    of each device's part). eval_step: mse, of values in [-1, 1]; reconstruction,
    log p(x|z) in nats per image; elbo, with a uniform prior over codes, N log K less
    (Section 3.2); codes_nats, -log of a code's frequency late in training, mean over
    positions: e^(its mean over images) is the perplexity of their codes under these
    frequencies, from which `sample` draws. That is no learned prior, see above. Tools:
    encode (codes), reconstruct, decode_codes (images of batch["codes"]).
  """
  return quantized.autoencoder(net, tx=tx, beta=beta, likelihood=likelihood)
