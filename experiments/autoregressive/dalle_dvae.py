"""The discrete VAE of DALL-E: 256x256 pixels as 32x32 tokens of 8,192.

  jaxgen train autoregressive/dalle_dvae --workdir=runs/dvae --config.path=FOLDER
  jaxgen describe autoregressive/dalle_dvae

FOLDER holds images, of any sizes.

Paper: Ramesh et al., Zero-Shot Text-to-Image Generation (2021), arXiv 2102.12092.
  Networks are those of the authors' release (github.com/openai/DALL-E); figures of
  training are from memory of Appendix A.2, not looked up.
Dataset: 250 million pairs of images and captions in the paper; none is included.
Published: 53,786,240 parameters of the encoder, 43,829,766 of the decoder (counted in
  the release). The paper gives no score of the reconstructions.
Measure: mse --metrics=eval
Ours: not measured: needs accelerators and the data.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from jaxgen import cli, data
from jaxgen.autoregressive.dalle_dvae import dalle_dvae
from jaxgen.autoregressive.dalle_networks import Decoder, Encoder
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "path": "",  # a folder of images; "" only describes
      "on_error": "raise",  # "skip" leaves out files that cannot be read
      "image_size": 256,
      "batch_size": 512,
      "num_steps": 3_000_000,
      "lr": 1e-4,
      "last_lr": 1.25e-6,
      "lr_steps": 1_200_000,
      "weight_decay": 1e-4,
      "temperature": 1.0,
      "last_temperature": 1 / 16,  # Section 2.1
      "temperature_steps": 150_000,
      "kl_weight": 6.6,  # Section 2.1
      "kl_steps": 5_000,
      "ema_decay": 0.999,
      "num_tokens": 8192,
      "width": 256,
      "first_width": 128,
      "num_blocks": 2,
      "dtype": "bfloat16",
    }
  )


def build(config):
  shape = dict(
    width=config.width, num_blocks=config.num_blocks, dtype=jnp.dtype(config.dtype)
  )
  lr = optax.cosine_decay_schedule(
    config.lr, config.lr_steps, config.last_lr / config.lr
  )
  size = config.image_size
  images = dict(batch_size=config.batch_size, image_size=size, channels=3)
  if config.path:
    train_data = data.image_folder(
      config.path, on_error=config.on_error, split="train", **images
    )
    eval_data = data.image_folder(
      config.path, on_error=config.on_error, split="test", **images
    )
  else:
    spec = data.source.zeros((config.batch_size, size, size, 3), np.uint8)
    train_data, eval_data = data.synthetic({"image": spec}), None
  return dict(
    method=dalle_dvae(
      Encoder(config.num_tokens, **shape),
      Decoder(3, config.first_width, **shape),
      tx=optax.adamw(lr, b2=0.999, weight_decay=config.weight_decay),
      temperature=optax.cosine_decay_schedule(
        config.temperature,
        config.temperature_steps,
        config.last_temperature / config.temperature,
      ),
      kl_weight=optax.linear_schedule(0.0, config.kl_weight, config.kl_steps),
      ema_decay=config.ema_decay,
    ),
    train_data=train_data,
    eval_data=eval_data,
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=10_000, save=10_000),
    num_samples=16,
  )


if __name__ == "__main__":
  cli.run(__file__)
