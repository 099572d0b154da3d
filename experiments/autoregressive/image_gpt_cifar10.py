"""Image GPT on CIFAR-10 at 16x16, small: 64 colours that k-means finds in the data.

  jaxgen train autoregressive/image_gpt_cifar10 --workdir=runs/image_gpt_cifar10
  jaxgen sample runs/image_gpt_cifar10 --mode=complete --out=completed.png

The palette is of the pixels of the first batch of training images, which the seed of
the data fixes: a run finds it again, as long as its images are there.

Paper: Chen et al., Generative Pretraining from Pixels (2020), ICML; its palette has 512
  colours.
Dataset: cifar10's images as files in a folder (`path`), resized to 16x16.
Published: none for this size.
Measure: bits_per_token --metrics=eval
Ours: not measured.
"""

from jax import random
from ml_collections import ConfigDict
import numpy as np
import optax

from jaxgen import cli, data, parallel
from jaxgen.autoregressive.decoding import Sampler
from jaxgen.autoregressive.image_gpt import image_gpt
from jaxgen.nn import transformer
from jaxgen.ops.kmeans import kmeans
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "path": "cifar10",  # a folder of images
      "num_colours": 64,
      "image_size": 16,
      "batch_size": 32,
      "num_steps": 1_500,
      "lr": 3e-3,
      "warmup_steps": 100,
      "num_layers": 3,
      "num_heads": 4,
      "width": 64,
      "dropout": 0.1,
      "temperature": 1.0,
      "top_k": 0,
      "top_p": 1.0,
    }
  )


def build(config):
  images = dict(batch_size=config.batch_size, image_size=config.image_size, channels=3)
  train_data = data.image_folder(config.path, split="train", **images)
  pixels = parallel.as_float(next(iter(train_data(0))))["image"].reshape(-1, 3)
  palette = np.clip(kmeans(pixels, config.num_colours, random.key(0)), -1, 1)
  net = transformer.TokenTransformer(
    transformer.Transformer(
      config.num_layers,
      config.num_heads,
      dropout=config.dropout,
      activation=transformer.quick_gelu,
      norm=transformer.RMSNorm,
    ),
    num_tokens=len(palette),
    num_inputs=len(palette) + 1,
    width=config.width,
    max_length=config.image_size**2,
    tie_weights=False,
  )
  lr = optax.warmup_cosine_decay_schedule(
    0.0, config.lr, config.warmup_steps, config.num_steps
  )
  sampler = Sampler(config.temperature, config.top_k, config.top_p)
  return dict(
    method=image_gpt(net, tx=optax.adam(lr, b2=0.95), palette=palette, sampler=sampler),
    train_data=train_data,
    eval_data=data.image_folder(config.path, split="test", **images),
    num_steps=config.num_steps,
    every=Every(log=100, eval=500, sample=500, save=500),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
