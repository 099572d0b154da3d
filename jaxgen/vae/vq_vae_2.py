"""VQ-VAE-2: Generating Diverse High-Fidelity Images with VQ-VAE-2 (2019).

Razavi, van den Oord & Vinyals, https://arxiv.org/abs/1906.00446. The first stage,
with two levels: the top codes are of half the resolution of
the bottom ones, which are encoded given the top ones, and the image is decoded from
both. Code books by moving averages, commitments summed over the levels.

Deviations from the paper:
  - No second stage: the priors over codes are another method's, which
    reads the tool `encode` and draws images with the tool `decode_codes`.
    `sample` draws every code of either level by itself, by its frequency in training:
    nothing learned, and poor images. No rejection by a classifier.
  - Two levels (the paper's FFHQ model has three).
  - Layers that the paper does not give are those of rosinality/vq-vae-2-pytorch, whose
    outputs and gradients these are: how the top codes reach the bottom encoder (a
    decoder of one doubling, then a 1x1 convolution of its output and the bottom
    features) and the image's decoder (a transposed convolution of their vectors).
  - Scales, restarts of dead codes and moving averages of shares: as in
    `jaxgen.vae.vq_vae` and `jaxgen.nn.vector_quantizer`.
"""

from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import optax

from jaxgen.method import Array, Method
from jaxgen.nn.strided_conv import Conv1x1, ConvTranspose
from jaxgen.nn.strided_residual import Decoder, Encoder
from jaxgen.nn.vector_quantizer import Quantized, VectorQuantizer
from jaxgen.vae import quantized
from jaxgen.vae.likelihoods import Likelihood


class Network(nn.Module):
  """Encoders and code books of two levels, and a decoder of both.

  Attributes:
    top: Code book of the codes of lower resolution.
    bottom: Code book of the others; vectors of the same length.
    channels: Of the images.
    strided: Channels of each convolution of stride 2 from the image to the bottom
      level; from there to the top one is one more, of half the width.
    width: Channels of residual blocks.
    residual_width: Channels inside of them.
    num_blocks: Residual blocks of each encoder and decoder.
    num_outputs: Parameters of p(x|codes) for each value of x.
    dtype: Of the convolutions.
  """

  top: VectorQuantizer
  bottom: VectorQuantizer
  channels: int
  strided: tuple[int, ...] = (64, 128)
  width: int = 128
  residual_width: int = 32
  num_blocks: int = 2
  num_outputs: int = 1
  dtype: Any = None

  def setup(self) -> None:
    if self.top.dim != self.bottom.dim:
      raise ValueError(
        f"code books of dim {self.top.dim} (top) and {self.bottom.dim} (bottom): "
        "expected one length"
      )
    dim, half = self.top.dim, (self.width // 2,)
    shape = (self.width, self.residual_width, self.num_blocks, self.dtype)
    self.bottom_encoder = Encoder(self.strided, *shape)
    self.top_encoder = Encoder(half, *shape)
    self.to_top = Conv1x1(dim, dtype=self.dtype)
    self.top_decoder = Decoder(dim, half, *shape)
    self.to_bottom = Conv1x1(dim, dtype=self.dtype)
    self.upsample_top = ConvTranspose(dim, (4, 4), (2, 2), dtype=self.dtype)
    self.decoder = Decoder(self.channels * self.num_outputs, self.strided, *shape)

  def _quantize(self, x: Array, train: bool) -> dict[str, Quantized]:
    features = self.bottom_encoder(x)
    top = self.top(self.to_top(self.top_encoder(features)), train)
    given = self.top_decoder(top.vectors)
    bottom = self.to_bottom(jnp.concatenate([given, features], axis=-1))
    return {"top": top, "bottom": self.bottom(bottom, train)}

  def _decode(self, top: Array, bottom: Array) -> Array:
    vectors = jnp.concatenate([self.upsample_top(top), bottom], axis=-1)
    outputs = self.decoder(vectors)
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))

  def __call__(self, x: Array, train: bool) -> tuple[Array, dict[str, Quantized]]:
    """x f32 [B, H, W, C] -> outputs f32 [B, H, W, C * num_outputs], top and bottom."""
    levels = self._quantize(x, train)
    return self._decode(levels["top"].vectors, levels["bottom"].vectors), levels

  def encode(self, x: Array) -> dict[str, Array]:
    """Codes by level: int32 [B, h, w] of the top, [B, 2 h, 2 w] of the bottom."""
    return {name: q.codes for name, q in self._quantize(x, False).items()}

  def decode(self, codes: dict[str, Array]) -> Array:
    """Inverse of `encode`, up to what codes lose: outputs of the decoder."""
    return self._decode(
      self.top.lookup(codes["top"]), self.bottom.lookup(codes["bottom"])
    )

  def frequencies(self) -> dict[str, Array]:
    """How often each code was used lately, f32 [K] by level."""
    return {"top": self.top.frequencies(), "bottom": self.bottom.frequencies()}


def vq_vae_2(
  net: nn.Module,
  *,
  tx: optax.GradientTransformation,
  beta: float = 0.25,
  likelihood: Likelihood | None = None,
) -> Method:
  """A VQ-VAE-2 of two levels on images in [-1, 1].

  Args:
    net: `Network`, with the outputs of the likelihood.
    tx: Its optimiser.
    beta: Weight of the commitments.
    likelihood: p(x|codes); default Gaussian, -log p the squared error and a constant.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]. The loss: see
    `jaxgen.vae.quantized.autoencoder`. Metrics of a step: loss, nats_per_dim (its first
    term), mse, and for each level, "top" and "bottom", {level}_commitment and
    {level}_perplexity in the batch (under pmap of each device's part). eval_step: mse,
    of values in [-1, 1]; reconstruction, log p(x|codes) in nats per image; elbo, with a
    uniform prior over all codes; {level}_nats, -log of a code's frequency late in
    training, mean over positions. sample: not a learned prior, see above. Tools:
    encode (codes by level), reconstruct, decode_codes (images of batch["top"] and
    batch["bottom"]).
  """
  return quantized.autoencoder(net, tx=tx, beta=beta, likelihood=likelihood)
