"""Drafts in a few steps, refined pixel by pixel, on 8x8 digits. No download.

  jaxgen train autoregressive/hybrid_digits --workdir=runs/hybrid
  jaxgen sample runs/hybrid --num=64 --seed=1 --mode=draft --out=drafts.png
  jaxgen sample runs/hybrid --num=64 --seed=1 --out=refined.png

The same seed shows drafts and what becomes of them. --config.parts=draft and
--config.parts=tokens train either part alone, with the same optimiser and steps:
maskgit with the drafting network, and vq_prior with a decoder as deep as both networks
of the refinement.

Paper: none is this method; see `jaxgen.autoregressive.hybrid` for Xia et al. (2017) and
  Ghazvininejad et al. (2019), arXiv 1904.09324, from which its two parts are.
Dataset: digits (scikit-learn's handwritten digits), 1,500 / 297 images.
Published: none.
Measure: frechet --metrics=frechet,prdc,labels,memorisation,eval --features=classifier
  --weights=../rulers/digits.npz --num_samples=1000
Ours: Frechet distance 21.7 [16.8, 26.6] of 1,000 samples; the 297 test images, which
  are few: 58.4. Label accuracy 0.867, bits_per_token, a bound, 2.039 [2.006, 2.071].
  Worse than either part alone:

                    calls of  Frechet            label     label    bits per
                    networks  distance           accuracy  entropy  token
  draft, refined    4 + 64    21.7 [16.8, 26.6]  0.867     2.299    2.039, a bound
  draft alone       4         17.9 [13.8, 22.0]  0.976     2.301    2.157, a bound
  tokens alone      64         8.3 [5.0, 11.6]   0.937     2.301    1.813

Parameters: 63,580 and 96,432; 63,580; 90,096. With drafts of fewer steps (the same
networks; num_draft_steps of a copied run's config.json changed, then jaxgen evaluate
with the flags above), Frechet distance refined and of the draft alone: 2 steps 24.9 and
14.1; 1 step 27.9 and 17.7.
So here the refinement does not pay: what it makes of drafts is worse than the drafts,
and than what a decoder of its size draws without any. Of a test image a draft that is
that image in part tells much (repair_nats_per_token 1.070), one drawn from nothing
misleads (nats_per_token 1.413; tokens alone 1.257). A draft from nothing says nothing
of the image, so the best that a refinement can do is not to heed it; this one cannot
tell such drafts well enough. Longer training was not tried.
The grids of 100 were looked at: refined digits have fewer single wrong pixels than
drafts, and smoother strokes, but more of them have become another digit, or none, most
of all among 1, 4, 7 and 8.
Hardware: one core of an AMD EPYC, shared with other jobs (load 14). Wall clock of
training: 11 min; 2.5 min of the draft alone, 7 min of tokens alone. Seed 0.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.autoregressive.hybrid import hybrid
from jaxgen.autoregressive.hybrid_networks import DraftReader, Refiner
from jaxgen.autoregressive.image_gpt import grey_levels
from jaxgen.autoregressive.maskgit import maskgit
from jaxgen.autoregressive.tokenizers import palette_tokenizer
from jaxgen.autoregressive.vq_prior import vq_prior
from jaxgen.nn.masked_transformer import MaskedTransformer
from jaxgen.nn.transformer import TokenTransformer, Transformer
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "parts": "both",  # or "draft", or "tokens"
      "batch_size": 32,
      "num_steps": 1_200,  # 26 epochs
      "lr": 3e-3,
      "warmup_steps": 100,
      "width": 48,
      "num_heads": 4,
      "num_draft_layers": 2,
      "num_reader_layers": 1,
      "num_decoder_layers": 2,
      "dropout": 0.0,
      "num_draft_steps": 4,
      "temperature": 4.5,
    }
  )


def method_of(config, tx):
  tokenizer = palette_tokenizer(grey_levels(17))
  num, length, num_classes = tokenizer.num_tokens, 64, 10
  draft_net = MaskedTransformer(
    num,
    length,
    config.width,
    config.num_draft_layers,
    config.num_heads,
    num_classes,
    config.dropout,
  )
  decoder = lambda num_layers: TokenTransformer(
    Transformer(num_layers, config.num_heads, dropout=config.dropout),
    num_tokens=num,
    num_inputs=num + num_classes,
    width=config.width,
    max_length=length,
    tie_weights=False,
  )
  if config.parts == "draft":
    return maskgit(
      draft_net,
      tx=tx,
      tokenizer=tokenizer,
      num_steps=config.num_draft_steps,
      temperature=config.temperature,
      label_smoothing=0.0,
    )
  if config.parts == "tokens":
    net = decoder(config.num_reader_layers + config.num_decoder_layers)
    return vq_prior(net, tx=tx, tokenizer=tokenizer, num_classes=num_classes)
  if config.parts != "both":
    raise ValueError(f"parts={config.parts!r}: expected 'both', 'draft' or 'tokens'")
  reader = DraftReader(
    num,
    length,
    config.width,
    config.num_reader_layers,
    config.num_heads,
    config.dropout,
  )
  return hybrid(
    draft_net,
    Refiner(reader, decoder(config.num_decoder_layers)),
    tx=tx,
    tokenizer=tokenizer,
    num_draft_steps=config.num_draft_steps,
    temperature=config.temperature,
  )


def build(config):
  lr = optax.warmup_cosine_decay_schedule(
    0.0, config.lr, config.warmup_steps, config.num_steps
  )
  digits = dict(batch_size=config.batch_size, channels=1)
  return dict(
    method=method_of(config, optax.adam(lr, b2=0.96)),
    train_data=data.tfds_images("digits", "train", **digits),
    eval_data=data.tfds_images("digits", "test", **digits),
    num_steps=config.num_steps,
    every=Every(log=100, eval=600, sample=config.num_steps, save=300),
    num_samples=100,
  )


if __name__ == "__main__":
  cli.run(__file__)
