"""Char-RNN: a recurrent network over characters.

Alex Graves, "Generating Sequences With Recurrent Neural Networks" (2013), arXiv
1308.0850, Sections 2 and 3.1: text prediction with stacked LSTMs over one-hot tokens.
Andrej Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks" (2015)
and his code, char-rnn: characters, LSTM or GRU, dropout between layers.

Where this differs:
  - The state starts at zeros in every window; both carry it over from one window of a
    text to the next.
  - The LSTM has no peephole weights (Eqs. 7-9 of Graves), and as in char-rnn only the
    last layer feeds the output, not all of them by skip connections (Figure 1).
  - Gradients are clipped by `tx`, not within the cells.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax
import optax

from jaxgen.autoregressive.decoding import FROM_MODEL, Sampler
from jaxgen.autoregressive.tokens import text_model
from jaxgen.method import Array, Method
from jaxgen.nn.rnn import Carry, StackedRNN


class Network(nn.Module):
  """Logits of the next token, from all tokens so far.

  Attributes:
    layers: The recurrent layers.
    num_tokens: V.
  """

  layers: StackedRNN
  num_tokens: int

  def setup(self) -> None:
    self.head = nn.Dense(self.num_tokens)

  def embed(self, tokens: Array) -> Array:
    """int32 [B, T] -> one-hot f32 [B, T, V]."""
    return jax.nn.one_hot(tokens, self.num_tokens)

  def __call__(self, tokens: Array, train: bool = False) -> Array:
    """int32 [B, T] -> logits f32 [B, T, V]: entry i is of the token after the i-th."""
    return self.predict(self.embed(tokens), train)

  def predict(self, x: Array, train: bool = False) -> Array:
    """The same from one-hot tokens, f32 [B, T, V]."""
    return self.head(self.layers(x, train=train))

  def start(self, batch_size: int) -> Carry:
    """What `step` takes at position 0."""
    return self.layers.start(batch_size)

  def step(self, carry: Carry, tokens: Array, position: Array) -> tuple[Carry, Array]:
    """(states, int32 [B], unused) -> (states, logits of the next token f32 [B, V])."""
    carry, x = self.layers.step(carry, self.embed(tokens))
    return carry, self.head(x)


def char_rnn(
  net: Network,
  *,
  tx: optax.GradientTransformation,
  prompt: Sequence[int],
  sampler: Sampler = FROM_MODEL,
) -> Method:
  """Maximum likelihood of each token given those before it, by a recurrent network.

  Metrics: "loss" in nats per token; "grad_norm" before clipping; eval_step:
  "nats_per_token", "bits_per_token". Tools: complete, sample_uncached (`text_model`).

  Args:
    net: The network.
    tx: Its optimiser.
    prompt: How samples begin; at least one token.
    sampler: Temperature, top_k, top_p.

  Returns:
    A method over batch["tokens"], int32 [B, N]; `sample` returns {"samples":
    int32 [B, N]}. The network is "net".
  """
  return text_model(net, tx=tx, prompt=prompt, sampler=sampler)
