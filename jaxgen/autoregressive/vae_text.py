"""A VAE of sentences, with a recurrent decoder.

Samuel R. Bowman, Luke Vilnis, Oriol Vinyals, Andrew M. Dai, Rafal Jozefowicz, Samy
Bengio, "Generating Sentences from a Continuous Space" (2015), arXiv 1511.06349. An RNN
reads a sentence into a Gaussian over z, another writes it from z; two remedies keep z
in use, a weight of the divergence that rises from 0 to 1 and word dropout; homotopies
are sentences decoded between the codes of two others. It stands among autoregressive
models since its likelihood given z is one.

Where this differs (the paper's details from memory):
  - z joins the input of every step of the decoder, which starts from zeros; the paper's
    main decoder takes it as its first state.
  - Sequences have a fixed length, and no end. Start and dropped words are one input
    token, which is never predicted.
  - No highway layers around z; tokens may be characters as well as words.
"""

import functools

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.autoregressive.decoding import FROM_MODEL, Sampler, generate
from jaxgen.losses import gaussian
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
)
from jaxgen.nn.rnn import Carry, StackedRNN

NUM_POINTS = 7  # of a homotopy, with both ends


def sigmoid_annealing(middle: int, width: int) -> optax.Schedule:
  """A weight that rises from 0 to 1, 1/2 at step `middle`, 0.73 `width` steps later."""
  return lambda step: jax.nn.sigmoid((step - middle) / width)


class Network(nn.Module):
  """Encoder and decoder.

  Attributes:
    encoder: Reads embedded tokens.
    decoder: Reads [embedded token, z].
    num_tokens: V. Token V, of the input alone, stands for a start or a dropped word.
    embed_dim: Of tokens, shared by both.
    latent_dim: Of z.
  """

  encoder: StackedRNN
  decoder: StackedRNN
  num_tokens: int
  embed_dim: int
  latent_dim: int

  def setup(self) -> None:
    self.embed = nn.Embed(self.num_tokens + 1, self.embed_dim)
    self.posterior = nn.Dense(2 * self.latent_dim)
    self.head = nn.Dense(self.num_tokens)

  def encode(self, tokens: Array, train: bool = False) -> tuple[Array, Array]:
    """int32 [B, T] -> mean and log variance of q(z|x), each f32 [B, latent_dim]."""
    last = self.encoder(self.embed(tokens), train=train)[:, -1]
    return tuple(jnp.split(self.posterior(last), 2, axis=-1))

  def decode(self, z: Array, inputs: Array, train: bool = False) -> Array:
    """Logits of x: entry i given inputs 0, ..., i.

    Args:
      z: f32 [B, latent_dim].
      inputs: int32 [B, T] in 0..V, one position late: the start, then x_0, x_1, ...
      train: Whether dropout is on.

    Returns:
      f32 [B, T, V].
    """
    return self.predict(z, self.embed(inputs), train)

  def predict(self, z: Array, x: Array, train: bool = False) -> Array:
    """The same from embedded inputs, f32 [B, T, embed_dim]."""
    z = jnp.broadcast_to(z[:, None], (*x.shape[:2], z.shape[-1]))
    return self.head(self.decoder(jnp.concatenate([x, z], axis=-1), train=train))

  def start(self, batch_size: int) -> Carry:
    """The decoder's states before the first step."""
    return self.decoder.start(batch_size)

  def step(self, z: Array, carry: Carry, tokens: Array) -> tuple[Carry, Array]:
    """(z, states, inputs int32 [B]) -> (states, logits f32 [B, V])."""
    x = jnp.concatenate([self.embed(tokens), z], axis=-1)
    carry, x = self.decoder.step(carry, x)
    return carry, self.head(x)

  def __call__(self, tokens: Array) -> Array:
    """For initialisation: every part once."""
    return self.decode(self.encode(tokens)[0], tokens)


def vae_text(
  net: Network,
  *,
  tx: optax.GradientTransformation,
  kl_weight: optax.Schedule,
  word_dropout: float = 0.25,
  sampler: Sampler = FROM_MODEL,
) -> Method:
  """A VAE on batch["tokens"], int32 [B, T].

  Metrics, in nats per sequence: "elbo", "reconstruction" (log p(x|z)) and "kl", with
  elbo = reconstruction - kl; in training reconstruction is that of a decoder that does
  not see the dropped words. "loss" is -reconstruction + kl_weight(step) * kl per token.
  eval_step drops nothing and gives "nats_per_token" and "bits_per_token" too, upper
  bounds on those of the model.

  Tools, on batch["tokens"]:
    encode: {"z": f32 [B, latent_dim]}, means of q(z|x).
    reconstruct: {"reconstructions": int32 [B, T]}, the most likely tokens from z.
    interpolate: {"homotopies": int32 [B, K, T]}, the most likely tokens from K points
      between the codes of sequences i and i + 1 (cyclically).

  Args:
    net: Encoder and decoder.
    tx: Its optimiser.
    kl_weight: Completed steps -> weight of the divergence, such as `sigmoid_annealing`.
    word_dropout: Probability that the decoder does not see a token it should continue.
    sampler: How `sample` draws tokens; z is always drawn from the prior.

  Returns:
    A method; `sample` returns {"samples": int32 [B, T]}. The network is "net".
  """
  sampler.checked()
  if not 0 <= word_dropout <= 1:
    raise ValueError(f"word_dropout={word_dropout}: expected in [0, 1]")
  unknown = net.num_tokens
  most_likely = Sampler(top_k=1)

  def init(key: Array, batch: Batch) -> TrainState:
    tokens = jnp.zeros_like(batch["tokens"])
    return create_state({"net": net.init(key, tokens)}, {"net": tx})

  def terms(params: PyTree, tokens: Array, key: Array, train: bool) -> Metrics:
    z_key, word_key, encoder_key, decoder_key = random.split(key, 4)
    apply = lambda dropout_key, *args, method: net.apply(
      {"params": params}, *args, train, rngs={"dropout": dropout_key}, method=method
    )
    mean, log_var = apply(encoder_key, tokens, method="encode")
    z = gaussian.sample(mean, log_var, z_key)
    inputs = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=unknown)
    if train:
      dropped = random.bernoulli(word_key, word_dropout, inputs.shape)
      inputs = jnp.where(dropped, unknown, inputs)
    logits = apply(decoder_key, z, inputs, method="decode")
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    reconstruction = -nats.sum(axis=1)
    kl = gaussian.kl_to_standard(mean, log_var)
    return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    tokens = batch["tokens"]

    def objective(params: PyTree) -> tuple[Array, Metrics]:
      means = jax.tree.map(jnp.mean, terms(params, tokens, key, train=True))
      loss = -means["reconstruction"] + kl_weight(state.step) * means["kl"]
      return loss / tokens.shape[1], means

    (loss, means), grads = jax.value_and_grad(objective, has_aux=True)(
      state.params["net"]
    )
    return apply_gradients(state, "net", grads, tx), {"loss": loss, **means}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    tokens = batch["tokens"]
    found = terms(state.params["net"], tokens, key, train=False)
    nats = -found["elbo"] / tokens.shape[1]
    return {**found, "nats_per_token": nats, "bits_per_token": nats / jnp.log(2.0)}

  def write(params: PyTree, z: Array, length: int, key: Array, how: Sampler) -> Array:
    """Sequences from z, int32 [B, length]."""
    apply = functools.partial(net.apply, {"params": params})
    step = lambda carry, token, position: apply(z, carry, token, method="step")
    given = jnp.full((len(z), length + 1), unknown, jnp.int32)
    carry = apply(len(z), method="start")
    return generate(step, carry, given, 1, key, how)[:, 1:]

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    z_key, token_key = random.split(key)
    num, length = batch["tokens"].shape
    z = per_example(random.normal(z_key, (num, net.latent_dim)))
    return {"samples": write(state.params["net"], z, length, token_key, sampler)}

  def codes(state: TrainState, batch: Batch) -> Array:
    variables = {"params": state.params["net"]}
    return net.apply(variables, batch["tokens"], method="encode")[0]

  def encode(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    return {"z": codes(state, batch)}

  def reconstruct(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    z, length = codes(state, batch), batch["tokens"].shape[1]
    return {"reconstructions": write(state.params["net"], z, length, key, most_likely)}

  def interpolate(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    z, length = codes(state, batch), batch["tokens"].shape[1]
    other = jnp.roll(z, -1, axis=0)

    def between(weight: Array) -> Array:
      mixed = (1.0 - weight) * z + weight * other
      return write(state.params["net"], mixed, length, key, most_likely)

    weights = jnp.linspace(0.0, 1.0, NUM_POINTS)
    return {"homotopies": jax.vmap(between, out_axes=1)(weights)}

  tools = {"encode": encode, "reconstruct": reconstruct, "interpolate": interpolate}
  return Method(init, train_step, eval_step, sample, tools)
