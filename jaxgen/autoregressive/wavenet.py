"""WaveNet: sound sample by sample, by dilated causal convolutions.

van den Oord, Dieleman, Zen, Simonyan, Vinyals, Graves, Kalchbrenner, Senior &
Kavukcuoglu, "WaveNet: A Generative Model for Raw Audio" (2016),
https://arxiv.org/abs/1609.03499: mu-law levels and their softmax (Section 2.2), gated
units (Eq. 2), residual and skip connections (Section 2.4, Figure 4), conditioned on
digits, speakers and the like (Eq. 3, what the paper calls global).

Drawing keeps, for each layer, what it saw one dilation ago in a queue, so that a sample
costs one product of each layer (Le Paine et al., "Fast Wavenet Generation Algorithm"
(2016), arXiv 1611.09482).

Numbers of sections, equations and figures are from memory.

Deviations from the paper:
  - No local conditioning (linguistic features), no context stacks.
  - What is conditioned on enters as a vector for each value and layer.
  - Samples after the end of a recording, by the mask, do not count: no end is ever
    learnt, and `sample` goes on as within a recording to the length of the batch.
"""

from collections.abc import Mapping

from flax import linen as nn
import jax
from jax import lax, random
import jax.numpy as jnp
import optax

from jaxgen.losses import categorical
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
  update_ema,
)
from jaxgen.ops import mu_law


def delayed(x: Array, steps: int) -> Array:
  """x [B, T, C], so many steps later, zeros at first."""
  return jnp.pad(x, ((0, 0), (steps, 0), (0, 0)))[:, : x.shape[1]]


class Layer(nn.Module):
  """A gated unit over an input and the one a dilation before it (Figure 4).

  Attributes:
    width: Channels of the residual path.
    skip_width: Channels of the skip connections.
    dilation: In samples.
    classes: (name, number of values) of what is conditioned on.
  """

  width: int
  skip_width: int
  dilation: int
  classes: tuple[tuple[str, int], ...]

  def setup(self) -> None:
    self.conv = nn.Dense(2 * self.width)
    self.tables = [nn.Embed(n, 2 * self.width) for _, n in self.classes]
    self.out = nn.Dense(self.width + self.skip_width)  # 1x1 convolutions, side by side

  def tell(self, conditions: Mapping[str, Array]) -> Array | float:
    """What the unit is told of the conditions: [B, 2 * width]."""
    known = zip(self.classes, self.tables, strict=True)
    return sum((table(conditions[name]) for (name, _), table in known), 0.0)

  def _unit(self, x: Array, before: Array, told: Array | float) -> tuple[Array, Array]:
    """The next layer's input and the skip connection."""
    h = self.conv(jnp.concatenate([before, x], axis=-1)) + told
    a, b = jnp.split(h, 2, axis=-1)
    out = self.out(nn.tanh(a) * nn.sigmoid(b))  # Eq. 2 and 3
    return x + out[..., : self.width], out[..., self.width :]

  def __call__(self, x: Array, conditions: Mapping[str, Array]) -> tuple[Array, Array]:
    """x f32 [B, T, width] -> [B, T, width], [B, T, skip_width]."""
    told = self.tell(conditions)
    told = told[:, None] if self.classes else told
    return self._unit(x, delayed(x, self.dilation), told)

  def step(self, x: Array, t: Array, told: Array | float) -> tuple[Array, Array]:
    """Sample t of the same, f32 [B, width] -> [B, width], [B, skip_width]."""
    # One place more than needed: what is read was then not just overwritten, and the
    # compiler does not copy the queue.
    size = self.dilation + 1
    queue = self.get_variable("cache", "queue", jnp.zeros((size, *x.shape), x.dtype))
    queue = lax.dynamic_update_index_in_dim(queue, x, t % size, 0)
    before = lax.dynamic_index_in_dim(queue, (t + 1) % size, keepdims=False)
    self.put_variable("cache", "queue", queue)
    return self._unit(x, before, told)


class Network(nn.Module):
  """Levels -> logits of each, given those before it.

  Attributes:
    width: Channels of the residual path.
    skip_width: Channels of the skip connections and after them.
    dilations: Of the layers, in samples.
    classes: (name, number of values) of what is conditioned on; ("label", 10), say.
    num_levels: Of the mu-law.
  """

  width: int
  skip_width: int
  dilations: tuple[int, ...]
  classes: tuple[tuple[str, int], ...] = ()
  num_levels: int = 256

  def setup(self) -> None:
    # A causal convolution of two samples, each one of num_levels.
    self.last = nn.Embed(self.num_levels, self.width)
    self.second_last = nn.Embed(self.num_levels, self.width)
    self.layers = [
      Layer(self.width, self.skip_width, d, self.classes) for d in self.dilations
    ]
    self.head = nn.Dense(self.skip_width)
    self.logits = nn.Dense(self.num_levels, kernel_init=nn.initializers.zeros)

  @property
  def receptive_field(self) -> int:
    """How many of the samples before it one depends on."""
    return sum(self.dilations) + 2

  def _outputs(self, skips: list[Array]) -> Array:
    return self.logits(nn.relu(self.head(nn.relu(sum(skips)))))

  def __call__(self, x: Array, conditions: Mapping[str, Array]) -> Array:
    """int32 [B, T], each condition int32 [B] -> f32 [B, T, num_levels].

    Entry t depends on levels before t.
    """
    h, skips = delayed(self.last(x), 1) + delayed(self.second_last(x), 2), []
    for layer in self.layers:
      h, skip = layer(h, conditions)
      skips.append(skip)
    return self._outputs(skips)

  def tell(self, conditions: Mapping[str, Array]) -> list[Array | float]:
    """What each layer is told of the conditions."""
    return [layer.tell(conditions) for layer in self.layers]

  def step(self, last: Array, t: Array, told: list[Array | float]) -> Array:
    """Level t - 1, int32 [B], any for t = 0 -> logits of level t, [B, num_levels].

    Every t in order, from 0; what lies before is in the collection "cache".
    """
    empty = jnp.zeros((len(last), self.width))
    earlier = self.get_variable("cache", "second_last", empty)
    self.put_variable(
      "cache", "second_last", jnp.where(t > 0, self.second_last(last), 0.0)
    )
    h, skips = jnp.where(t > 0, self.last(last), 0.0) + earlier, []
    for layer, known in zip(self.layers, told, strict=True):
      h, skip = layer.step(h, t, known)
      skips.append(skip)
    return self._outputs(skips)


def wavenet(
  net: Network,
  *,
  tx: optax.GradientTransformation,
  sample_rate: int,
  ema_decay: float | None = None,
) -> Method:
  """A WaveNet on sound in [-1, 1].

  Args:
    net: `Network`.
    tx: Its optimiser.
    sample_rate: Samples per second, which outputs carry.
    ema_decay: Of averaged parameters; None keeps no average.

  Returns:
    A method over batch["audio"], f32 [B, T] in [-1, 1]; batch["mask"] f32 [B, T], if
    there, is positive for samples that count; for each of net.classes an entry of its
    name, int32 [B]. The loss is in bits per sample (of num_levels mu-law levels), over
    all samples that count; eval_step gives bits_per_sample, of each row over its own.
    `sample` returns {"samples": f32 [B, T] in [-1, 1], "sample_rate": int32 [B]}.
    Tools: sample_uncached, which draws what `sample` draws with the same key, each
    sample by a pass over the whole receptive field: for comparison.
  """

  def conditions_of(batch: Batch) -> dict[str, Array]:
    if missing := [name for name, _ in net.classes if name not in batch]:
      raise ValueError(f"batches of {sorted(batch)}: expected {missing} as well")
    return {name: batch[name] for name, _ in net.classes}

  def init(key: Array, batch: Batch) -> TrainState:
    levels = jnp.zeros(batch["audio"].shape, jnp.int32)
    conditions = jax.tree.map(jnp.zeros_like, conditions_of(batch))
    ema = ("net",) if ema_decay is not None else ()
    return create_state({"net": net.init(key, levels, conditions)}, {"net": tx}, ema)

  def bits(params: PyTree, batch: Batch) -> tuple[Array, Array]:
    """Of every sample, and which of them count: f32 [B, T] each."""
    levels = mu_law.encode(batch["audio"], net.num_levels)
    logits = net.apply({"params": params}, levels, conditions_of(batch))
    counts = (batch["mask"] > 0) if "mask" in batch else jnp.ones(levels.shape, bool)
    counts = counts.astype(logits.dtype)
    return -categorical.log_prob(levels, logits) / jnp.log(2.0) * counts, counts

  def train_step(
    state: TrainState, batch: Batch, key: Array
  ) -> tuple[TrainState, Metrics]:
    def loss_fn(params: PyTree) -> Array:
      lost, counts = bits(params, batch)
      return lost.sum() / jnp.maximum(counts.sum(), 1.0)

    loss, grads = jax.value_and_grad(loss_fn)(state.params["net"])
    state = apply_gradients(state, "net", grads, tx)
    if ema_decay is not None:
      state = update_ema(state, ema_decay)
    return state, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

  def eval_step(state: TrainState, batch: Batch, key: Array) -> Metrics:
    lost, counts = bits(state.params["net"], batch)
    return {"bits_per_sample": lost.sum(1) / jnp.maximum(counts.sum(1), 1.0)}

  def uniforms(batch: Batch, key: Array) -> Array:
    """For the draws of all samples, f32 [T, B]."""
    return per_example(random.uniform(key, batch["audio"].shape)).T

  def sound(levels: Array) -> dict[str, Array]:
    """int32 [T, B] -> what `sample` returns."""
    x = mu_law.decode(levels.T, net.num_levels)
    return {"samples": x, "sample_rate": jnp.full(len(x), sample_rate, jnp.int32)}

  def sample(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    params, num = state.params["net"], len(batch["audio"])
    told = net.apply({"params": params}, conditions_of(batch), method="tell")

    def ask(cache: PyTree, last: Array, t: Array | int) -> tuple[Array, PyTree]:
      variables = {"params": params, "cache": cache}
      step = dict(method="step", mutable=["cache"])
      logits, changed = net.apply(variables, last, t, told, **step)
      return logits, changed["cache"]

    def next_sample(carry: tuple, u: Array) -> tuple[tuple, Array]:
      *known, t = carry
      logits, cache = ask(*known, t)
      drawn = categorical.quantile(logits, u)
      return (cache, drawn, t + 1), drawn

    first = per_example(jnp.zeros(num, jnp.int32))
    shapes = jax.eval_shape(lambda: ask({}, first, 0)[1])
    cache = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    start = cache, first, jnp.int32(0)
    return sound(lax.scan(next_sample, start, uniforms(batch, key))[1])

  def sample_uncached(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    conditions, u = conditions_of(batch), uniforms(batch, key)
    num, length = batch["audio"].shape
    field = min(net.receptive_field + 1, length)

    def next_sample(t: Array, levels: Array) -> Array:
      start = jnp.maximum(t - field + 1, 0)
      near = lax.dynamic_slice_in_dim(levels, start, field, axis=1)
      logits = net.apply({"params": state.params["net"]}, near, conditions)
      drawn = categorical.quantile(logits[:, t - start], u[t])
      return levels.at[:, t].set(drawn)

    levels = per_example(jnp.zeros((num, length), jnp.int32))
    return sound(lax.fori_loop(0, length, next_sample, levels).T)

  return Method(
    init, train_step, eval_step, sample, {"sample_uncached": sample_uncached}
  )
