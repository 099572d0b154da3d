"""Image GPT, small: 24 layers, 512 wide, 32x32 pixels in 512 colours.

  jaxgen train autoregressive/image_gpt_small --workdir=runs/image_gpt
  jaxgen sample runs/image_gpt --mode=complete --out=completed.png

The palette is a cube of 8 x 8 x 8 colours unless there is a better one, such as
jaxgen.ops.kmeans.kmeans(pixels, 512, key) of the training images, saved as .npy.

Paper: Chen et al., Generative Pretraining from Pixels (2020), ICML: iGPT-S, with the
  sizes of the released model: 76,682,240 parameters, embeddings and head included.
Dataset: cifar10 (TFDS), 50,000 / 10,000 images; the paper trains on ImageNet at 32x32.
Published: none for this data. Batch size, learning rate, its warm-up and the number of
  steps are from memory of the paper's Section 3.5.
Measure: bits_per_token --metrics=eval
Ours: not measured: needs an accelerator.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from jaxgen import cli, data
from jaxgen.autoregressive.decoding import Sampler
from jaxgen.autoregressive.image_gpt import colour_cube, image_gpt
from jaxgen.nn import transformer
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "palette": "",  # .npy of f32 [512, 3] in [-1, 1]; "" for the cube
      "batch_size": 128,
      "num_steps": 1_000_000,
      "lr": 3e-3,
      "b2": 0.95,
      "warmup_steps": 5_000,
      "num_layers": 24,
      "num_heads": 8,
      "width": 512,
      "dropout": 0.0,
      "dtype": "bfloat16",
      "temperature": 1.0,
      "top_k": 0,
      "top_p": 1.0,
    }
  )


def build(config):
  palette = np.load(config.palette) if config.palette else colour_cube(8)
  net = transformer.TokenTransformer(
    transformer.Transformer(
      config.num_layers,
      config.num_heads,
      dropout=config.dropout,
      activation=transformer.quick_gelu,
      norm=transformer.RMSNorm,
      attention=transformer.fused_attend,
      dtype=jnp.dtype(config.dtype),
    ),
    num_tokens=len(palette),
    num_inputs=len(palette) + 1,
    width=config.width,
    max_length=32 * 32,
    tie_weights=False,
  )
  lr = optax.warmup_cosine_decay_schedule(
    0.0, config.lr, config.warmup_steps, config.num_steps
  )
  tx = optax.adam(lr, b2=config.b2)
  sampler = Sampler(config.temperature, config.top_k, config.top_p)
  images = dict(batch_size=config.batch_size, image_size=32, channels=3)
  return dict(
    method=image_gpt(net, tx=tx, palette=palette, sampler=sampler),
    train_data=data.tfds_images("cifar10", "train", flip=True, **images),
    eval_data=data.tfds_images("cifar10", "test", **images),
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=10_000, save=10_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
