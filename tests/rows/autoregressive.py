"""Rows of the generic table: autoregressive models."""

import functools

from flax import linen as nn
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.autoregressive import char_rnn, pixels, vae_text
from jaxgen.autoregressive.dalle import dalle
from jaxgen.autoregressive.dalle_dvae import dalle_dvae
from jaxgen.autoregressive.dalle_networks import Decoder, Encoder
from jaxgen.autoregressive.gpt import gpt
from jaxgen.autoregressive.hybrid import hybrid
from jaxgen.autoregressive.hybrid_networks import DraftReader, Refiner
from jaxgen.autoregressive.image_gpt import grey_levels, image_gpt
from jaxgen.autoregressive.linear_ar import linear_ar, linear_levels
from jaxgen.autoregressive.maskgit import maskgit
from jaxgen.autoregressive.pixel_cnn import Network as PixelCNN
from jaxgen.autoregressive.pixel_cnn import pixel_cnn
from jaxgen.autoregressive.pixel_cnn_pp import Network as PixelCNNpp
from jaxgen.autoregressive.pixel_cnn_pp import pixel_cnn_pp
from jaxgen.autoregressive.pixel_rnn import DiagonalBiLSTM, RowLSTM, pixel_rnn
from jaxgen.autoregressive.pixel_rnn import Network as PixelRNN
from jaxgen.autoregressive.tokenizers import palette_tokenizer
from jaxgen.autoregressive.vq_prior import vq_prior
from jaxgen.autoregressive.wavenet import Network as WaveNet
from jaxgen.autoregressive.wavenet import wavenet
from jaxgen.data.source import zeros
from jaxgen.nn.masked_transformer import MaskedTransformer
from jaxgen.nn.rnn import StackedRNN
from jaxgen.nn.transformer import RMSNorm, TokenTransformer, Transformer, quick_gelu
from rows import Row

TEXT = {"tokens": zeros((8, 6), np.int32)}
SOUND = {"audio": zeros((8, 12), np.float32), "label": zeros((8,), np.int32)}
TokenRow = functools.partial(Row, spec=TEXT, samples="tokens", num_tokens=3)


def make_gpt():
  # One layer: of several, the test of communication sees one turn of the loop.
  net = TokenTransformer(Transformer(1, 2, dropout=0.1), 3, 8, 5)
  return gpt(net, tx=optax.adam(1e-2), prompt=(2,))


def make_char_rnn(cell):
  net = char_rnn.Network(StackedRNN(2, 4, cell, dropout=0.1), 3)
  return char_rnn.char_rnn(net, tx=optax.adam(3e-2), prompt=(0, 1))


def make_image_gpt():
  layers = Transformer(1, 2, norm=RMSNorm, activation=quick_gelu)
  net = TokenTransformer(layers, 4, 8, 64, tie_weights=False, num_inputs=5)
  return image_gpt(net, tx=optax.adam(1e-2), palette=grey_levels(4))


def make_vae_text():
  net = vae_text.Network(StackedRNN(1, 4), StackedRNN(1, 4, dropout=0.1), 3, 3, 2)
  return vae_text.vae_text(
    net, tx=optax.adam(3e-2), kl_weight=vae_text.sigmoid_annealing(50, 10)
  )


def make_pixel_cnn():
  net = PixelCNN(1, 4, 4, 2, first_size=3, head_width=8, num_classes=2)
  return pixel_cnn(
    net, tx=optax.adam(3e-2, eps=1e-3), pixels=pixels.levels(1, 4), is_conditional=True
  )


def make_pixel_cnn_pp():
  net = PixelCNNpp(1, 4, num_blocks=1, num_mixtures=2, num_levels=1, dropout=0.1)
  return pixel_cnn_pp(net, tx=optax.adam(1e-2, eps=1e-3), ema_decay=0.9)


def make_pixel_rnn(layer):
  net = PixelRNN(1, 4, layer, 4, num_layers=1, first_size=3, head_width=8)
  return pixel_rnn(net, tx=optax.adam(3e-2, eps=1e-3), pixels=pixels.levels(1, 4))


def make_wavenet():
  net = WaveNet(4, 4, (1, 2), (("label", 2),), num_levels=4)
  return wavenet(net, tx=optax.adam(1e-2, eps=1e-3), sample_rate=8000)


def make_linear_ar():
  return linear_ar(9, entry="image", cells=linear_levels())


def make_maskgit():
  net = MaskedTransformer(4, 64, 8, 1, 2, num_classes=2)
  tokenizer = palette_tokenizer(grey_levels(4))
  return maskgit(net, tx=optax.adam(1e-2), tokenizer=tokenizer, num_steps=3)


def make_hybrid():
  reader = DraftReader(4, 64, 8, 1, 2)
  layers = Transformer(1, 2)
  decoder = TokenTransformer(layers, 4, 8, 64, tie_weights=False, num_inputs=6)
  return hybrid(
    MaskedTransformer(4, 64, 8, 1, 2, num_classes=2),
    Refiner(reader, decoder),
    tx=optax.adam(1e-2),
    tokenizer=palette_tokenizer(grey_levels(4)),
    num_draft_steps=2,
  )


def make_vq_prior():
  net = TokenTransformer(Transformer(1, 2), 4, 8, 64, tie_weights=False, num_inputs=6)
  tokenizer = palette_tokenizer(grey_levels(4))
  return vq_prior(net, tx=optax.adam(1e-2), tokenizer=tokenizer, num_classes=2)


def make_dalle_dvae():
  # Wide enough that no unit of a quarter of the channels is dead.
  shape = dict(width=16, multiples=(1, 2), num_blocks=1)
  return dalle_dvae(
    Encoder(4, **shape),
    Decoder(1, 8, **shape),
    tx=optax.adam(3e-3),
    temperature=optax.linear_schedule(1.0, 0.5, 10),
    kl_weight=optax.constant_schedule(0.1),
  )


def make_dalle():
  net = TokenTransformer(Transformer(1, 2), 6, 8, 66, tie_weights=False, num_inputs=7)
  return dalle(
    net,
    tx=optax.adam(1e-2),
    tokenizer=palette_tokenizer(grey_levels(4)),
    text=lambda batch: jnp.array([[0, 0], [0, 1]])[batch["label"]],
    num_text_tokens=2,
  )


ROWS = {
  "autoregressive/linear_ar": Row(make_linear_ar, "change"),
  "autoregressive/pixel_cnn": Row(make_pixel_cnn, "loss"),
  "autoregressive/pixel_cnn_pp": Row(make_pixel_cnn_pp, "loss", has_products=True),
  "autoregressive/pixel_rnn (rows)": Row(
    functools.partial(make_pixel_rnn, RowLSTM), "loss"
  ),
  "autoregressive/pixel_rnn (diagonals)": Row(
    functools.partial(make_pixel_rnn, DiagonalBiLSTM), "loss"
  ),
  "autoregressive/wavenet": Row(make_wavenet, "loss", spec=SOUND, samples="audio"),
  # The embedding, tied to the head, is in two passes.
  "autoregressive/gpt": TokenRow(make_gpt, "loss", passes=2),
  "autoregressive/char_rnn": TokenRow(
    functools.partial(make_char_rnn, nn.OptimizedLSTMCell), "loss"
  ),
  "autoregressive/char_rnn (GRU)": TokenRow(
    functools.partial(make_char_rnn, nn.GRUCell), "loss"
  ),
  "autoregressive/vae_text": TokenRow(make_vae_text, "loss"),
  "autoregressive/image_gpt": Row(make_image_gpt, "loss"),
  # Two passes: the embedding is at both ends, and its gradients are reduced apart.
  "autoregressive/maskgit": Row(make_maskgit, "nats", passes=2),
  "autoregressive/hybrid": Row(make_hybrid, "refine_nats", passes=2),
  "autoregressive/vq_prior": Row(make_vq_prior, "loss"),
  "autoregressive/dalle_dvae": Row(make_dalle_dvae, "loss"),
  "autoregressive/dalle": Row(make_dalle, "loss"),
}
