"""DALL-E: the relaxation, logit-Laplace, the text-image likelihood, published sizes."""

import functools
import json

from causality import all_sequences, check_causal, far_from_zero
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import cli, commands, run
from jaxgen.autoregressive.captions import spell
from jaxgen.autoregressive.dalle import dalle
from jaxgen.autoregressive.dalle_dvae import dalle_dvae
from jaxgen.autoregressive.dalle_networks import Decoder, Encoder
from jaxgen.autoregressive.decoding import Sampler
from jaxgen.autoregressive.tokenizers import palette_tokenizer
from jaxgen.losses import logit_laplace
from jaxgen.losses.categorical import kl_to_uniform, relaxed_one_hot
from jaxgen.metrics import classifier
from jaxgen.nn.transformer import TokenTransformer, Transformer

LOGITS = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))


def test_cold_relaxed_tokens_are_one_hot_draws():
  noise = random.gumbel(random.key(0), (20_000, 4))
  cold = relaxed_one_hot(LOGITS[None], noise, 1e-6)
  assert set(np.unique(np.round(cold, 5))) == {0.0, 1.0}
  np.testing.assert_array_equal(cold.argmax(-1), (LOGITS[None] + noise).argmax(-1))
  np.testing.assert_allclose(cold.mean(axis=0), jnp.exp(LOGITS), atol=0.01)
  warm = relaxed_one_hot(LOGITS[None], noise, 1.0)
  np.testing.assert_allclose(warm.sum(-1), 1.0, rtol=1e-5)
  assert 0.1 < warm.max(-1).min() < 0.5


def test_kl_to_the_uniform_distribution():
  p = np.exp(LOGITS)
  np.testing.assert_allclose(
    kl_to_uniform(LOGITS), (p * np.log(4 * p)).sum(), rtol=1e-5
  )
  np.testing.assert_allclose(kl_to_uniform(jnp.full(4, 3.0)), 0.0, atol=1e-6)
  sure = jnp.array([200.0, 0, 0, 0])
  np.testing.assert_allclose(kl_to_uniform(sure), np.log(4), rtol=1e-6)


@pytest.mark.parametrize(("location", "scale"), [(0.3, 0.2), (-2.0, 0.5), (1.0, 0.9)])
def test_logit_laplace_is_a_distribution_with_its_median(location, scale):
  x = (np.arange(400_000) + 0.5) / 400_000
  with jax.enable_x64(True):
    log_prob = logit_laplace.log_prob(jnp.asarray(x), location, np.log(scale))
  density = np.exp(log_prob)
  np.testing.assert_allclose(density.mean(), 1.0, atol=1e-3)
  below = x < 1 / (1 + np.exp(-location))
  np.testing.assert_allclose((density * below).mean(), 0.5, atol=1e-3)


def test_pixels_are_moved_off_the_ends_and_back():
  image = jnp.linspace(-1, 1, 9)
  x = logit_laplace.from_image(image)
  np.testing.assert_allclose(x[jnp.array([0, 4, 8])], [0.1, 0.5, 0.9], rtol=1e-6)
  back = logit_laplace.to_image(jnp.log(x) - jnp.log1p(-x))
  np.testing.assert_allclose(back, image, atol=1e-6)
  ends = logit_laplace.to_image(jnp.array([-9.0, 9.0]))
  np.testing.assert_array_equal(ends, [-1.0, 1.0])


@functools.cache
def dvae_and_state():
  method = dalle_dvae(
    Encoder(5, 16, (1, 2), 1),
    Decoder(1, 8, 16, (1, 2), 1),
    tx=optax.sgd(0.0),
    temperature=optax.linear_schedule(2.0, 0.5, 3),
    kl_weight=optax.constant_schedule(3.0),
  )
  batch = {"image": random.uniform(random.key(0), (2, 4, 4, 1), minval=-1.0)}
  return method, jax.jit(method.init)(random.key(1), batch), batch


def test_the_loss_of_the_first_stage_by_hand():
  method, state, batch = dvae_and_state()
  state = state.replace(step=jnp.array(2))
  _, metrics = jax.jit(method.train_step)(state, batch, random.key(2))
  assert float(metrics["temperature"]) == pytest.approx(1.0)
  x = batch["image"]
  params = {k: {"params": v} for k, v in state.params.items()}
  logits = jax.jit(Encoder(5, 16, (1, 2), 1).apply)(params["encoder"], x)
  assert logits.shape == (2, 2, 2, 5)
  z = jax.nn.softmax((logits + random.gumbel(random.key(2), logits.shape)) / 1.0)
  out = np.asarray(jax.jit(Decoder(1, 8, 16, (1, 2), 1).apply)(params["decoder"], z))
  location, log_scale = out[..., :1], out[..., 1:]
  y = 0.5 + 0.4 * np.asarray(x)
  distance = np.abs(np.log(y / (1 - y)) - location) / np.exp(log_scale)
  nats = distance + np.log(2 * np.exp(log_scale) * y * (1 - y))
  p = np.asarray(jax.nn.softmax(logits))
  kl = (p * np.log(5 * p)).sum(-1)
  np.testing.assert_allclose(metrics["nats_per_dim"], nats.mean(), rtol=1e-4)
  np.testing.assert_allclose(metrics["kl"], kl.mean(), rtol=1e-3, atol=1e-6)
  # 4 values to a token.
  np.testing.assert_allclose(
    metrics["loss"], nats.mean() + 3.0 * kl.mean() / 4, rtol=1e-4
  )


def test_codes_are_the_most_likely_tokens_and_are_decoded_again():
  method, state, batch = dvae_and_state()
  run = lambda tool, batch: jax.jit(method.tools[tool])(state, batch, random.key(0))
  codes = run("encode", batch)["codes"]
  assert codes.shape == (2, 2, 2)
  images = run("decode_codes", {"codes": codes})["images"]
  for again in (
    run("reconstruct", batch)["reconstructions"],
    run("decode_codes", batch)["images"],
  ):
    np.testing.assert_array_equal(images, again)
  other = run("decode_codes", {"codes": (codes + 1) % 5})["images"]
  assert np.abs(other - images).max() > 1e-4


NET = TokenTransformer(
  Transformer(1, 2), 2 + 3, 8, 2 + 2, tie_weights=False, num_inputs=6
)
LEVELS = np.linspace(-1, 1, 3, dtype=np.float32)[:, None]


def make(**kwargs):
  options = dict(tx=optax.sgd(1.0), tokenizer=palette_tokenizer(LEVELS))
  text = lambda batch: batch["text"]
  return dalle(NET, text=text, num_text_tokens=2, **{**options, **kwargs})


def pairs(num=1):
  """Every caption with every image, so many times."""
  rows = [(t, x) for t in all_sequences(2, 2) for x in all_sequences(3, 2)]
  text, tokens = (np.repeat(np.stack(a), num, axis=0) for a in zip(*rows, strict=True))
  return {"text": jnp.asarray(text), "image": jnp.asarray(LEVELS[tokens])[:, None]}


@functools.cache
def random_state():
  return far_from_zero(make(), pairs())


@functools.cache
def evaluated():
  return jax.jit(make().eval_step)(random_state(), pairs(), random.key(0))


def test_captions_and_images_together_sum_to_one():
  out = evaluated()
  text, image = -2 * out["text_nats_per_token"], -2 * out["nats_per_token"]
  np.testing.assert_allclose(np.exp(text + image).sum(), 1.0, rtol=1e-5)
  of_each_caption = np.exp(image).reshape(4, 9).sum(axis=1)
  np.testing.assert_allclose(of_each_caption, 1.0, rtol=1e-5)
  assert np.exp(image).reshape(4, 9).std(axis=0).max() > 0.01  # captions count


def test_tokens_see_captions_and_earlier_tokens_only():
  params = {"params": random_state().params["net"]}
  start = NET.apply(params, jnp.array([5]), method="embed")

  def predict(x):
    x = jnp.concatenate([start, x[:-1]])
    return NET.apply(params, x[None], method="predict")[0]

  check_causal(predict, random.normal(random.key(2), (4, 8)))


def test_the_loss_weighs_captions_and_images():
  method = make(image_weight=0.75)
  _, metrics = jax.jit(method.train_step)(random_state(), pairs(), random.key(0))
  text, image = (
    float(evaluated()[k].mean()) for k in ("text_nats_per_token", "nats_per_token")
  )
  np.testing.assert_allclose(metrics["loss"], 0.25 * text + 0.75 * image, rtol=1e-5)


def test_images_are_drawn_from_their_distribution_given_the_caption():
  method, num = make(), 300  # for each of 9 images of a caption
  draw = lambda fn: jax.jit(fn)(random_state(), pairs(num), random.key(3))["samples"]
  out = draw(method.sample)
  np.testing.assert_array_equal(out, draw(method.tools["sample_uncached"]))
  codes = np.round(np.asarray(out)[:, 0, :, 0]).astype(int) + 1
  found = (codes @ [3, 1]).reshape(4, 9 * num)
  shares = np.stack([np.bincount(f, minlength=9) for f in found]) / (9 * num)
  expected = np.exp(-2 * evaluated()["nats_per_token"]).reshape(4, 9)
  np.testing.assert_allclose(shares, expected, atol=0.035)


def test_reranking_keeps_the_best_of_the_candidates():
  score = lambda images, batch: images.sum(axis=(1, 2, 3)) * batch["sign"]
  hot = Sampler(temperature=30.0)  # all images nearly alike: 1 in 9 is the best
  method = make(score=score, num_candidates=60, sampler=hot)
  sign = jnp.tile(jnp.array([1.0, -1.0]), 18)
  batch = {**pairs(), "sign": sign}
  out = jax.jit(method.tools["rerank"])(random_state(), batch, random.key(0))["best"]
  total = lambda images: np.asarray(images).sum(axis=(1, 2, 3)) * np.asarray(sign)
  assert (total(out) == 2.0).mean() > 0.9
  assert "rerank" not in make().tools


def test_a_prompt_is_drawn_and_reranked_after_a_real_first_stage(tmp_path, capsys):
  """By the command line: both stages trained for a step, then text in, images out."""
  first, second = tmp_path / "first", tmp_path / "second"
  small = ["--config.num_steps=1", "--config.batch_size=8", "--config.width=16"]
  train = lambda name, workdir, *flags: cli.main(
    ["train", f"autoregressive/{name}", f"--workdir={workdir}", *small, *flags]
  )
  train("dalle_dvae_digits", first)
  heads = [f"--config.{x}" for x in ("num_layers=1", "num_heads=1", "warmup_steps=0")]
  train("dalle_digits", second, f"--config.stage_one={first}", *heads)

  def sample(name, *flags):
    out = tmp_path / f"{name}.npz"
    cli.main(["sample", str(second), "--num=8", f"--out={out}", *flags])
    return dict(np.load(out))

  prompt = sample("a", "--config.prompt=a seven")["samples"]
  assert prompt.shape == (8, 8, 8, 1)
  rulers = commands.experiments_dir() / "rulers"
  judge = [f"--config.judge={rulers / 'digits.npz'}", "--config.num_candidates=2"]
  best = sample("c", "--mode=rerank", "--config.prompt=a seven", *judge)["best"]
  seen = classifier.load(rulers / "digits.npz")
  sure = lambda x: np.asarray(jax.nn.log_softmax(seen.logits(x)))[:, 7].mean()
  assert sure(best) > sure(prompt)
  with pytest.raises(SystemExit, match="caption 'a cat': expected at most 8 letters"):
    sample("d", "--config.prompt=a cat")

  # What the method is given as text: the prompt for all, or each label's words.
  module = run.load_experiment(second / "experiment.py")
  module.dalle = lambda net, text, **_: text
  text_of = lambda text: np.asarray(text({"label": np.array([7, 7])}))
  config = module.get_config()
  config.stage_one = str(first)
  by_label = text_of(module.build(config)["method"])
  config.prompt = "a seven"
  prompted = module.build(config)["method"]
  np.testing.assert_array_equal(text_of(prompted), by_label)
  np.testing.assert_array_equal(prompted({"label": np.array([0, 3])}), by_label)
  config.prompt, config.judge = "seven", str(rulers / "digits.npz")
  with pytest.raises(ValueError, match="prompt='seven': the judge knows"):
    module.build(config)


def test_captions_are_spelt():
  table, alphabet = spell(["a one", "an ox"])
  assert ["".join(alphabet[i] for i in row) for row in table] == ["a one", "an ox"]
  assert alphabet == " aenox"
  assert spell(["a", "abc"])[0].tolist() == [[1, 0, 0], [1, 2, 3]]
  with pytest.raises(ValueError, match="at least one letter"):
    spell([""])


def test_what_does_not_fit_is_refused(tmp_path):
  with pytest.raises(ValueError, match="num_inputs=6: expected 6.*, and 7"):
    dalle(
      NET, tx=optax.sgd(0.0), tokenizer=palette_tokenizer(LEVELS),
      text=lambda batch: batch["text"], num_text_tokens=3,
    )  # fmt: skip
  with pytest.raises(ValueError, match=r"image_weight=1\.5"):
    make(image_weight=1.5)
  with pytest.raises(ValueError, match="sides that 8 divides"):
    jax.eval_shape(Encoder().init, random.key(0), jnp.zeros((1, 12, 12, 3)))
  flags = ["describe", "autoregressive/dalle_digits", f"--config.stage_one={tmp_path}"]
  with pytest.raises((SystemExit, FileNotFoundError), match=r"no first stage.*dvae"):
    cli.main(flags)


def test_published_parameter_counts(capsys):
  cli.main(["describe", "autoregressive/dalle_dvae", "--json"])
  networks = json.loads(capsys.readouterr().out)["networks"]
  assert networks["encoder"]["parameters"] == 53_786_240
  assert networks["decoder"]["parameters"] == 43_829_766
