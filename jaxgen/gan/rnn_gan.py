"""C-RNN-GAN: a recurrent generator against a bidirectional judge (Mogren, 2016).

Mogren, "C-RNN-GAN: Continuous recurrent neural networks with adversarial training",
https://arxiv.org/abs/1611.09904. Implemented: both networks (Section 3), feature
matching and freezing (Section 4). A sequence is an image read row by row: each row of
pixels is one time step.

Deviations from the paper:
  - With `each_step` every step has a score of its own (paper: `mean_probability`).
  - Images in place of music; the generator ends in tanh, for pixels in [-1, 1].
  - The generator minimises -log D(G(z)), as the authors' code does (paper:
    log(1 - D(G(z)))).
  - No pretraining on the next step of the data, and no growing length of sequences.
    L2 regularisation (the paper has some) is the optimisers' business.
  - LSTM cells are Flax's, with no bias of 1 at the forget gate, and without the
    dropout of the authors' code.
  - Before the first step there is a row of zeros (authors' code: of random numbers).
  - Freezing compares the losses of one batch, before the update that it prevents
    (authors' code: of the batch before), and leaves the optimiser's moments alone.
    Under pmap each device decides for its rows.
  - The generator is never frozen. The paper freezes it below 70 % of the
    discriminator's loss, which has two terms: it is below wherever the two players are
    equal (log 2 against 2 log 2). The authors' code has that line commented out.
"""

from collections.abc import Callable
import math
from typing import Any

from flax import linen as nn
import jax
from jax import lax, random
import jax.numpy as jnp
import optax

from jaxgen.gan.adversarial import two_player
from jaxgen.losses.adversarial import AdversarialLoss, non_saturating
from jaxgen.method import Array, Method, PyTree


class _Step(nn.Module):
  """One time step of `Generator`: (cells, row before), noise -> the same, row."""

  row_size: int
  width: int
  num_layers: int
  dtype: Any

  @nn.compact
  def __call__(self, carry: tuple, noise: Array) -> tuple[tuple, Array]:
    cells, row = carry
    h = jnp.concatenate([noise, row], axis=-1)
    h = nn.relu(nn.Dense(self.width, dtype=self.dtype, name="first")(h))
    after = []
    for i in range(self.num_layers):
      cell = nn.OptimizedLSTMCell(self.width, dtype=self.dtype, name=f"lstm_{i}")
      state, h = cell(cells[i], h)
      after.append(state)
    row = nn.Dense(self.row_size, dtype=self.dtype, name="last")(h)
    row = jnp.tanh(row.astype(noise.dtype))
    return (tuple(after), row), row


class Generator(nn.Module):
  """Noise of every time step to rows, each of which the next step reads.

  Attributes:
    image_shape: (H, W, C); there are H steps.
    width: Units of each LSTM layer, and of the dense layer before them.
    num_layers: LSTM layers.
    dtype: Of the computation; parameters, rows and the returned images are float32.
  """

  image_shape: tuple[int, int, int] = (28, 28, 1)
  width: int = 350
  num_layers: int = 2
  dtype: Any = None

  @nn.compact
  def __call__(self, z: Array, label: Array | None = None, *, train: bool) -> Array:
    """z f32 [B, H * noise_dim] -> f32 [B, H, W, C] in [-1, 1]; the label is ignored.

    Step t reads z[:, t * noise_dim : (t + 1) * noise_dim].

    Raises:
      ValueError: If H does not divide the length of z.
    """
    num_rows, row_size = self.image_shape[0], math.prod(self.image_shape[1:])
    if z.shape[1] % num_rows:
      raise ValueError(
        f"z has {z.shape[1]} numbers; expected a multiple of {num_rows}, the rows"
      )
    scan = nn.scan(
      _Step,
      variable_broadcast="params",
      split_rngs={"params": False},
      in_axes=1,
      out_axes=1,
    )
    zeros = jnp.zeros((len(z), self.width), self.dtype or z.dtype)
    cells = tuple((zeros, zeros) for _ in range(self.num_layers))
    carry = cells, jnp.zeros((len(z), row_size), z.dtype)
    step = scan(row_size, self.width, self.num_layers, self.dtype, name="step")
    _, rows = step(carry, z.reshape(len(z), num_rows, -1))
    return rows.reshape(len(z), *self.image_shape)


def mean_probability(logits: Array) -> Array:
  """log D / (1 - D) of D, the mean of sigmoid(logits) over the last axis.

  The probability that a sequence is real is the mean of those of its steps (the paper).
  Finite where D rounds to 0 or 1. The generator's loss -log D saturates: a step judged
  real for sure holds D up, whatever the others are, and steps judged false for sure
  then have no gradient.

  Args:
    logits: f32 [..., T].

  Returns:
    f32 [...].
  """
  real = jax.nn.logsumexp(jax.nn.log_sigmoid(logits), axis=-1)
  fake = jax.nn.logsumexp(jax.nn.log_sigmoid(-logits), axis=-1)
  return real - fake


def each_step(logits: Array) -> Array:
  """The logits themselves: losses are means over steps, none of which hides another.

  As the recurrent GAN of Esteban, Hyland & Raetsch (2017), arXiv 1706.02633 (from
  memory).
  """
  return logits


class Discriminator(nn.Module):
  """Sequences of rows to (scores, features), read in both directions.

  One stack of LSTM layers reads forwards, one backwards; a dense layer shared by all
  steps reads both, and `score` turns its logits into scores.

  Attributes:
    width: Units of each LSTM layer.
    num_layers: LSTM layers of each direction.
    dtype: Of the computation; parameters and outputs are float32.
    score: Logits of all steps, f32 [B, H], to scores, f32 [B, ...]. The paper's is
      `mean_probability`; `each_step` judges every step by itself.
  """

  width: int = 350
  num_layers: int = 2
  dtype: Any = None
  score: Callable[[Array], Array] = mean_probability

  @nn.compact
  def __call__(
    self, x: Array, label: Array | None = None, *, train: bool
  ) -> tuple[Array, Array]:
    """x f32 [B, H, W, C] in [-1, 1] -> (scores, features f32 [B, H, 2 * width])."""
    rows = x.reshape(*x.shape[:2], -1)
    ends = []
    for name in ("forwards", "backwards"):
      h = rows
      for i in range(self.num_layers):
        cell = nn.OptimizedLSTMCell(self.width, dtype=self.dtype, name=f"{name}_{i}")
        backwards = name == "backwards"
        h = nn.RNN(cell, reverse=backwards, keep_order=True)(h)
      ends.append(h)
    features = jnp.concatenate(ends, axis=-1).astype(x.dtype)
    logits = nn.Dense(1, dtype=self.dtype, name="last")(features)[..., 0]
    return self.score(logits.astype(x.dtype)), features


def freezing(loss: AdversarialLoss, share: float) -> AdversarialLoss:
  """`loss`, whose gradient is 0 where the discriminator is too strong (Section 4).

  Args:
    loss: Of both players.
    share: Too strong is a loss below this share of the generator's.
  """

  def disc(real: Array, fake: Array) -> Array:
    value = loss.disc(real, fake)
    frozen = value < share * loss.gen(fake)
    return jnp.where(frozen, lax.stop_gradient(value), value)

  return loss._replace(disc=disc)


def match_pairs(judge: Callable, real: Array, fake: Array) -> Array:
  """E |R(x_i) - R(G(z_i))|^2 (Section 4), a `gen_loss` of `two_player`.

  Example by example, so that it also rewards fakes that are all alike; Salimans et al.
  (2016) match means over the batch.

  Args:
    judge: images -> (scores, features R, f32 [B, T, D]).
    real: f32 [B, H, W, C].
    fake: The same.

  Returns:
    f32 []: summed over features, averaged over steps and examples.
  """
  (_, real_features), (_, fake_features) = judge(real), judge(fake)
  return ((real_features - fake_features) ** 2).sum(axis=-1).mean()


def skip_no_gradient(tx: optax.GradientTransformation) -> optax.GradientTransformation:
  """`tx`, which on a gradient of zeros neither moves nor changes its state."""

  def update(
    grads: PyTree, state: PyTree, params: PyTree | None = None
  ) -> tuple[PyTree, PyTree]:
    moves = optax.tree.norm(grads) > 0
    updates, new_state = tx.update(grads, state, params)
    choose = lambda new, old: jnp.where(moves, new, old)
    updates = jax.tree.map(lambda u: choose(u, jnp.zeros_like(u)), updates)
    return updates, jax.tree.map(choose, new_state, state)

  return optax.GradientTransformation(tx.init, update)


def rnn_gan(
  gen: nn.Module,
  disc: nn.Module,
  *,
  gen_tx: optax.GradientTransformation,
  disc_tx: optax.GradientTransformation,
  latent_dim: int,
  match_features: bool = True,
  freeze_share: float = 0.7,
  ema_decay: float = 0.0,
  draw_latent: Callable = random.uniform,
) -> Method:
  """Two recurrent players, of whom the judge waits while it is too strong.

  Args:
    gen: As `Generator`.
    disc: As `Discriminator`.
    gen_tx: Optimiser of `gen`; the paper uses SGD at 0.1 with L2 regularisation.
    disc_tx: The same of `disc`.
    latent_dim: Length of z: steps times numbers per step.
    match_features: Whether the generator minimises `match_pairs`; else the
      non-saturating loss.
    freeze_share: See `freezing`; 0 never freezes.
    ema_decay: See `two_player`; the paper keeps no average.
    draw_latent: (key, shape, dtype) -> z; the paper's is U(0, 1).

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1]; see `two_player`. The
    metric disc_grad_norm is 0 where the discriminator is frozen.
  """
  return two_player(
    gen,
    disc,
    loss=freezing(non_saturating, freeze_share),
    gen_tx=gen_tx,
    disc_tx=skip_no_gradient(disc_tx),
    latent_dim=latent_dim,
    ema_decay=ema_decay,
    draw_latent=draw_latent,
    gen_loss=match_pairs if match_features else None,
  )
