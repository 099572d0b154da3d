"""GPT: a causal transformer over tokens of text.

Alec Radford, Karthik Narasimhan, Tim Salimans, Ilya Sutskever, "Improving Language
Understanding by Generative Pre-Training" (2018), and Alec Radford, Jeffrey Wu, Rewon
Child, David Luan, Dario Amodei, Ilya Sutskever, "Language Models are Unsupervised
Multitask Learners" (2019), whose GPT-2 moves the normalisation in front of each
sub-block (neither is on arXiv). Pre-training by next-token likelihood (Eq. 1 of 2018),
sampling, and published weights of GPT-2. The network is
`jaxgen.nn.transformer.TokenTransformer`; its options cover GPT-2 and nanoGPT (Karpathy,
2022: no biases, exact GELU, 384 or 768 wide), whose recipes are the experiments.

Where this differs:
  - The first token of a sequence is given, not predicted: a window of N tokens gives
    N - 1 predictions. Samples begin with a prompt.
  - Samples are as long as the windows; nanoGPT goes on with a sliding context.
  - No byte-pair encoding: tokens are given as integers. Fine-tuning with task heads
    (Section 3.2 of 2018) is left out.
  - Attention sees all earlier positions in every layer, in one dtype with a float32
    softmax; weight decay, clipping and schedules belong to `tx`.
"""

from collections.abc import Sequence

import jax
import optax

from jaxgen.autoregressive.decoding import FROM_MODEL, Sampler
from jaxgen.autoregressive.tokens import text_model
from jaxgen.method import Array, Batch, Method, PyTree, TrainState
from jaxgen.nn.transformer import TokenTransformer


def gpt(
  net: TokenTransformer,
  *,
  tx: optax.GradientTransformation,
  prompt: Sequence[int],
  sampler: Sampler = FROM_MODEL,
  params: PyTree | None = None,
) -> Method:
  """Maximum likelihood of each token given those before it.

  Metrics: "loss" in nats per token; "grad_norm" before clipping; eval_step:
  "nats_per_token", "bits_per_token". Tools: complete, sample_uncached (`text_model`).

  Args:
    net: With max_length N - 1 or more.
    tx: Its optimiser.
    prompt: How samples begin; at least one token.
    sampler: Temperature, top_k, top_p.
    params: Where training starts, such as `load_gpt2_params`; default random.

  Returns:
    A method over batch["tokens"], int32 [B, N]; `sample` returns {"samples":
    int32 [B, N]}. The network is "net".
  """
  method = text_model(net, tx=tx, prompt=prompt, sampler=sampler)
  if params is None:
    return method

  def init(key: Array, batch: Batch) -> TrainState:
    state = method.init(key, batch)
    return state.replace(params={"net": jax.tree.map(lambda _, p: p, *(
      state.params["net"], params))})  # fmt: skip

  return method._replace(init=init)


def decayed(params: PyTree) -> PyTree:
  """Which parameters decay, for optax's `mask`: matrices and embeddings.

  nanoGPT's rule, that parameters of two axes decay; here layers are stacked, so that
  biases and scales have two axes as well.
  """
  matrix = lambda path, _: path[-1].key in ("kernel", "embedding")
  return jax.tree_util.tree_map_with_path(matrix, params)
