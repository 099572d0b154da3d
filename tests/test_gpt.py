"""GPT: exact causality, cache, parity with transformers' GPT-2, published sizes."""

import functools
import json
from pathlib import Path
import shutil

from causality import check_causal, check_sums_to_one, far_from_zero, random_like
import chex
from flax import traverse_util
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import cli, parallel
from jaxgen.autoregressive import tokens as shared
from jaxgen.autoregressive.decoding import FROM_MODEL, Sampler
from jaxgen.autoregressive.gpt import decayed, gpt
from jaxgen.nn import gpt2_file, transformer
from jaxgen.nn.gpt2_file import load_gpt2_params
from jaxgen.nn.safetensors import load_safetensors
from jaxgen.nn.transformer import TokenTransformer, Transformer

GOLDEN = Path(__file__).parent / "golden"
NET = TokenTransformer(Transformer(2, 2), 3, 8, 5)
GPT2 = TokenTransformer(Transformer(2, 2), 7, 8, 6)
IMAGE_GPT = TokenTransformer(
  Transformer(2, 2, norm=transformer.RMSNorm, activation=transformer.quick_gelu),
  num_tokens=7,
  width=8,
  max_length=6,
  tie_weights=False,
  num_inputs=8,
)


@functools.cache
def random_params(net=NET):
  shapes = jax.eval_shape(net.init, random.key(0), jnp.zeros((1, 1), jnp.int32))
  return random_like(shapes["params"], 0.5)


def test_each_prediction_sees_all_earlier_tokens_and_no_others():
  params = random_params()
  x = random.normal(random.key(2), (5, 8))

  def predict(x):  # Entry i is of token i + 1: the first prediction sees x_0.
    logits = NET.apply({"params": params}, x[None], method="predict")[0]
    return jnp.concatenate([jnp.zeros((1, 3)), logits[:-1]])

  check_causal(predict, x)


def test_probabilities_of_all_sequences_sum_to_one():
  params = random_params()

  def log_prob(rest):
    first = jnp.full((len(rest), 1), 2, jnp.int32)
    tokens = jnp.concatenate([first, rest], axis=1)
    return -shared.nats(NET, params, tokens).sum(axis=1)

  check_sums_to_one(log_prob, num_values=3, length=5)


def test_blocks_may_be_computed_several_in_one_turn():
  tokens = random.randint(random.key(1), (2, 5), 0, 3)
  unrolled = NET.clone(layers=NET.layers.clone(unroll=NET.layers.num_layers))
  loss = lambda net: lambda p: shared.nats(net, p, tokens).mean()
  one, all_ = (jax.jit(jax.grad(loss(net)))(random_params()) for net in (NET, unrolled))
  chex.assert_trees_all_close(all_, one, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["gpt2", "image_gpt"])
def test_parity_with_transformers(name):
  net = {"gpt2": GPT2, "image_gpt": IMAGE_GPT}[name]
  params = load_gpt2_params(GOLDEN / f"{name}.safetensors", net)
  golden = np.load(GOLDEN / f"{name}.npz")
  with jax.enable_x64(True):
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
    tokens = jnp.asarray(golden["tokens"])
    logits = jax.jit(net.apply)({"params": params}, tokens)
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-8, atol=1e-9)
    loss = lambda p: shared.nats(net, p, tokens).mean()
    grads = traverse_util.flatten_dict(jax.jit(jax.grad(loss))(params))
  for key, value in grads.items():
    names = gpt2_file._names(key, 2)
    expected = [golden[f"grads/{n}"] for n in names]
    expected = np.stack(expected) if key[1] == "layers" else expected[0]
    expected = expected.T if key[0] == "head" else expected
    np.testing.assert_allclose(value, expected, rtol=1e-8, atol=1e-9, err_msg=str(key))


def test_files_with_other_contents_are_refused(tmp_path):
  path = GOLDEN / "gpt2.safetensors"
  deeper = GPT2.clone(layers=Transformer(3, 2))
  with pytest.raises(ValueError, match=r"12 arrays are missing.*h\.2\.attn\.c_attn"):
    load_gpt2_params(path, deeper)
  with pytest.raises(ValueError, match=r"no place for .*h\.1\.attn"):
    load_gpt2_params(path, GPT2.clone(layers=Transformer(1, 2)))
  with pytest.raises(ValueError, match=r"'wpe.weight' gives positions/.*\[9, 8\]"):
    load_gpt2_params(path, GPT2.clone(max_length=9))
  with pytest.raises(FileNotFoundError):
    load_gpt2_params(tmp_path / "none.safetensors", GPT2)
  cut = tmp_path / "cut.safetensors"
  for length in (4, 100, 4000):
    cut.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="cut off"):
      load_safetensors(cut)
  cut.write_bytes((8).to_bytes(8, "little") + b"no JSON!")
  with pytest.raises(ValueError, match="no .safetensors file"):
    load_safetensors(cut)


def test_safetensors_of_every_kind(tmp_path):
  header = {
    "a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
    "b": {"dtype": "I64", "shape": [], "data_offsets": [4, 12]},
    "c": {"dtype": "F32", "shape": [0, 3], "data_offsets": [12, 12]},
    "__metadata__": {"format": "pt"},
  }
  text = json.dumps(header).encode()
  body = np.array([1.5, -2], jnp.bfloat16).tobytes() + np.int64(7).tobytes()
  path = tmp_path / "x.safetensors"
  path.write_bytes(len(text).to_bytes(8, "little") + text + body)
  found = load_safetensors(path)
  assert found["a"].astype(np.float32).tolist() == [1.5, -2.0]
  assert found["b"] == 7
  assert found["c"].shape == (0, 3)


def test_training_starts_from_given_parameters():
  params = load_gpt2_params(GOLDEN / "gpt2.safetensors", GPT2)
  method = gpt(GPT2, tx=optax.adam(1e-3), prompt=(0,), params=params)
  state = jax.jit(method.init)(random.key(0), {"tokens": jnp.zeros((2, 6), jnp.int32)})
  assert jax.tree.all(jax.tree.map(jnp.array_equal, state.params["net"], params))


@functools.cache
def drawn(tool, sampler=FROM_MODEL, length=6):
  method = gpt(NET, tx=optax.sgd(0.0), prompt=(2, 1), sampler=sampler)
  batch = {"tokens": random.randint(random.key(3), (32, length), 0, 3)}
  state = far_from_zero(method, batch, 0.5)
  fn = {"sample": method.sample, **method.tools}[tool]
  return batch["tokens"], jax.jit(fn)(state, batch, random.key(4))


def test_the_cache_changes_no_sample():
  sampler = Sampler(1.3, 2, 0.99)
  _, cached = drawn("sample", sampler)
  _, uncached = drawn("sample_uncached", sampler)
  np.testing.assert_array_equal(cached["samples"], uncached["samples"])
  assert np.all(np.asarray(cached["samples"])[:, :2] == [2, 1])
  assert len(np.unique(cached["samples"], axis=0)) > 4


def test_steps_give_the_logits_of_the_whole():
  params = {"params": random_params()}
  tokens = random.randint(random.key(5), (4, 5), 0, 3)
  whole = jax.jit(NET.apply)(params, tokens)
  cache = NET.apply(params, 4, method="start")
  step = jax.jit(functools.partial(NET.apply, method="step"))
  for i in range(5):
    cache, logits = step(params, cache, tokens[:, i], i)
    np.testing.assert_allclose(logits, whole[:, i], rtol=1e-4, atol=1e-5)


def test_samples_have_the_probabilities_of_the_model():
  """Of the token after the prompt, over many draws."""
  method = gpt(NET, tx=optax.sgd(0.0), prompt=(2, 1))
  batch = {"tokens": jnp.zeros((20_000, 3), jnp.int32)}
  state = far_from_zero(method, batch, 0.5)
  last = jax.jit(method.sample)(state, batch, random.key(0))["samples"][:, 2]
  params = {"params": state.params["net"]}
  logits = jax.jit(NET.apply)(params, jnp.array([[2, 1]]))[0, -1]
  found = np.bincount(np.asarray(last), minlength=3) / len(last)
  np.testing.assert_allclose(found, jax.nn.softmax(logits), atol=0.015)


def test_complete_keeps_the_first_half():
  given, out = drawn("complete")
  found = np.asarray(out["completions"])
  np.testing.assert_array_equal(found[:, :3], given[:, :3])
  assert not np.array_equal(found[:, 3:], given[:, 3:])


def test_prompts_and_lengths_that_do_not_fit():
  with pytest.raises(ValueError, match="at least one token"):
    gpt(NET, tx=optax.sgd(0.0), prompt=())
  with pytest.raises(ValueError, match="prompt of 2 tokens: expected at most 1"):
    drawn("sample", length=1)
  with pytest.raises(ValueError, match="6 tokens: expected at most max_length=5"):
    NET.init(random.key(0), jnp.zeros((1, 6), jnp.int32))
  with pytest.raises(ValueError, match="num_heads=3 must divide the width, 8"):
    NET.clone(layers=Transformer(1, 3)).init(random.key(0), jnp.zeros((1, 2), int))


def test_dropout_is_for_training_only():
  net = NET.clone(layers=Transformer(2, 2, dropout=0.5))
  params, tokens = random_params(), jnp.zeros((2, 4), jnp.int32)
  trained = jax.jit(functools.partial(shared.nats, net, params, tokens))
  still, without = (
    jax.jit(functools.partial(shared.nats, n))(params, tokens) for n in (net, NET)
  )
  np.testing.assert_allclose(still, without, rtol=1e-6)
  a, b = trained(random.key(0)), trained(random.key(1))
  assert not np.allclose(a, still, rtol=1e-3)
  assert not np.allclose(a, b, rtol=1e-3)


def test_fused_attention_is_attention():
  net = NET.clone(layers=Transformer(2, 2, attention=transformer.fused_attend))
  tokens = random.randint(random.key(5), (2, 5), 0, 3)
  variables = {"params": random_params()}
  fused, plain = (jax.jit(n.apply)(variables, tokens) for n in (net, NET))
  np.testing.assert_allclose(fused, plain, rtol=1e-4, atol=1e-5)


def test_half_precision_has_logits_in_float32():
  layers = Transformer(2, 2, attention=transformer.fused_attend, dtype=jnp.bfloat16)
  net, variables = NET.clone(layers=layers), {"params": random_params()}
  tokens = random.randint(random.key(5), (2, 5), 0, 3)
  expected = jax.jit(NET.apply)(variables, tokens)
  whole = jax.jit(net.apply)(variables, tokens)
  assert whole.dtype == jnp.float32
  np.testing.assert_allclose(whole, expected, atol=0.1 * np.abs(expected).max())
  cache = net.apply(variables, 2, method="start")
  assert cache["key"].dtype == jnp.bfloat16
  step = jax.jit(functools.partial(net.apply, method="step"))
  for i in range(5):
    cache, logits = step(variables, cache, tokens[:, i], i)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, whole[:, i], atol=0.1 * np.abs(whole).max())


def test_the_program_of_a_train_step_does_not_grow_with_the_depth():
  def length(num_layers):
    net = NET.clone(layers=Transformer(num_layers, 2, dropout=0.1))
    method = gpt(net, tx=optax.sgd(1.0), prompt=(0,))
    batch = {"tokens": jnp.zeros((2, 5), jnp.int32)}
    state = jax.eval_shape(method.init, random.key(0), batch)
    text = jax.jit(method.train_step).lower(state, batch, random.key(0)).as_text()
    return text.count("\n")

  assert length(3) == length(6)


def test_initial_weights_and_what_decays():
  net = TokenTransformer(Transformer(8, 2, bias=True), 50, 64, 30)
  params = jax.jit(net.init)(random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
  layers = params["layers"]["layers"]
  std = lambda x: float(x["kernel"].std())
  assert std(layers["qkv"]) == pytest.approx(0.02, rel=0.05)
  for name in ("out", "mlp2"):  # 16 of them add to the residual path
    assert std(layers[name]) == pytest.approx(0.02 / 4, rel=0.05)
  assert np.abs(layers["qkv"]["kernel"][0] - layers["qkv"]["kernel"][1]).max() > 0
  flags = traverse_util.flatten_dict(decayed(params))
  kept = {key[-1] for key, flag in flags.items() if not flag}
  assert kept == {"bias", "scale"}
  assert {key[-1] for key, flag in flags.items() if flag} == {"kernel", "embedding"}


def test_several_devices_change_nothing():
  """Of two layers, which the row of the generic table has not."""
  method = gpt(NET, tx=optax.sgd(1.0), prompt=(0,))
  batch = {"tokens": np.asarray(random.randint(random.key(0), (8, 6), 0, 3))}
  results = []
  for devices, fsdp in ((1, 1), (2, 2)):
    backend = parallel.jit_backend(jax.devices()[:devices], fsdp=fsdp)
    state = backend.init(method.init, random.key(0), batch)
    step = backend.compile_train(method.train_step)
    state, metrics = step(state, backend.put_batch(batch), random.key(1))
    results.append(jax.device_get((state.params, metrics)))
  for a, b in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
  ("name", "parameters"),
  [
    ("gpt_shakespeare", 10_745_088),  # with positions; nanoGPT prints 10.65M, without
    ("gpt_shakespeare_cpu", 804_096),
    ("gpt2_124m", 124_373_760),
    ("image_gpt_small", 76_682_240),
  ],
)
def test_published_parameter_counts(name, parameters, capsys):
  cli.main(["describe", f"autoregressive/{name}", "--json"])
  info = json.loads(capsys.readouterr().out)
  assert info["networks"]["net"]["parameters"] == parameters


def test_bench_compares_cached_and_uncached(capsys, tmp_path):
  shrink = ["context=6", "width=8", "num_layers=1", "num_heads=2"]
  flags = [f"--config.{item}" for item in shrink]
  name = "autoregressive/gpt_shakespeare_cpu"
  cli.main(["bench", name, "--sample", "--num=2", *flags])
  out = capsys.readouterr().out
  assert "sample_uncached" in out
  assert "speed-up: " in out
  assert "equal values: 100.00 %" in out
  toy = shutil.copy(Path(__file__).parent / "toy.py", tmp_path)
  with pytest.raises(SystemExit, match="no tool 'sample_uncached'"):
    cli.main(["bench", str(toy), "--sample"])
