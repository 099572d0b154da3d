"""The discrete VAE of DALL-E on 8x8 digits: 4x4 tokens of 64. No download.

  jaxgen train autoregressive/dalle_dvae_digits --workdir=runs/dvae_digits
  jaxgen sample runs/dvae_digits --mode=reconstruct --out=reconstructions.png

The first stage of autoregressive/dalle_digits.

Paper: Ramesh et al., Zero-Shot Text-to-Image Generation (2021), arXiv 2102.12092.
Dataset: digits (scikit-learn's handwritten digits), 1,500 / 297 images.
Published: none for this set.
Measure: mse --metrics=eval
Ours: not measured.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.autoregressive.dalle_dvae import dalle_dvae
from jaxgen.autoregressive.dalle_networks import Decoder, Encoder
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 64,
      "num_steps": 800,  # 34 epochs
      "lr": 3e-3,
      "temperature": 1.0,
      "last_temperature": 1 / 16,  # Section 2.1
      "temperature_steps": 700,
      "kl_weight": 1.0,  # 6.6 in the paper, at 192 values to a token; here 4
      "kl_steps": 200,
      "ema_decay": 0.99,
      "num_tokens": 64,
      "width": 32,
      "first_width": 32,
      "num_blocks": 1,
    }
  )


def build(config):
  shape = dict(width=config.width, multiples=(1, 2), num_blocks=config.num_blocks)
  lr = optax.cosine_decay_schedule(config.lr, config.num_steps)
  digits = dict(batch_size=config.batch_size, channels=1)
  return dict(
    method=dalle_dvae(
      Encoder(config.num_tokens, **shape),
      Decoder(1, config.first_width, **shape),
      tx=optax.adam(lr),
      temperature=optax.cosine_decay_schedule(
        config.temperature,
        config.temperature_steps,
        config.last_temperature / config.temperature,
      ),
      kl_weight=optax.linear_schedule(0.0, config.kl_weight, config.kl_steps),
      ema_decay=config.ema_decay,
    ),
    train_data=data.tfds_images("digits", "train", **digits),
    eval_data=data.tfds_images("digits", "test", **digits),
    num_steps=config.num_steps,
    every=Every(log=100, eval=400, sample=800, save=200),
    num_samples=100,
  )


if __name__ == "__main__":
  cli.run(__file__)
