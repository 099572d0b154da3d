"""Stacked recurrent networks over sequences, or one step at a time."""

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

Carry = tuple


class StackedRNN(nn.Module):
  """Layers of LSTM, GRU or another cell, with dropout on what each layer gives.

  Attributes:
    num_layers: How many.
    width: Of every layer.
    cell: nn.OptimizedLSTMCell, nn.GRUCell, ...; takes features and name.
    dropout: Of the outputs of every layer, not of what passes through time (Zaremba
      et al. 2014).
  """

  num_layers: int
  width: int
  cell: type[nn.RNNCellBase] = nn.OptimizedLSTMCell
  dropout: float = 0.0

  def setup(self) -> None:
    self.cells = [self.cell(self.width) for _ in range(self.num_layers)]
    self.rnns = [nn.RNN(cell) for cell in self.cells]
    self.drop = nn.Dropout(self.dropout)

  def __call__(
    self, x: Array, carry: Carry | None = None, train: bool = False
  ) -> Array:
    """[B, T, D] -> [B, T, width]; `carry` from `start`, or other first states."""
    for i, rnn in enumerate(self.rnns):
      x = rnn(x, initial_carry=None if carry is None else carry[i])
      x = self.drop(x, deterministic=not train)
    return x

  def start(self, batch_size: int) -> Carry:
    """The first states of every layer: zeros."""
    zero = jnp.zeros((batch_size, self.width))
    if issubclass(self.cell, nn.GRUCell | nn.SimpleCell):
      return (zero,) * self.num_layers
    return ((zero, zero),) * self.num_layers

  def step(self, carry: Carry, x: Array) -> tuple[Carry, Array]:
    """(states, [B, D]) -> (states, [B, width]), as one position of a call."""
    states = []
    for cell, state in zip(self.cells, carry, strict=True):
      state, x = cell(state, x)
      states.append(state)
    return tuple(states), x
