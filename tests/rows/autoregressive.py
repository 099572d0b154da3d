"""Rows of the generic table: autoregressive models."""

import functools

from flax import linen as nn
import numpy as np
import optax

from jaxgen.autoregressive import char_rnn, vae_text
from jaxgen.autoregressive.gpt import gpt
from jaxgen.autoregressive.image_gpt import grey_levels, image_gpt
from jaxgen.data.source import zeros
from jaxgen.nn.rnn import StackedRNN
from jaxgen.nn.transformer import RMSNorm, TokenTransformer, Transformer, quick_gelu
from rows import Row

TEXT = {"tokens": zeros((8, 6), np.int32)}
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


ROWS = {
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
}
