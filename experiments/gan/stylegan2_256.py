"""StyleGAN2 at 256x256, configuration F, on a folder of images (LSUN in the paper).

  jaxgen train gan/stylegan2_256 --workdir=runs/stylegan2_256 --config.path=FOLDER

Images (.png, .jpg, .webp) below the folder are cropped to a centred square and resized.

Paper: Karras, Laine, Aittala, Hellsten, Lehtinen & Aila, Analyzing and Improving the
  Image Quality of StyleGAN (2019), arXiv 1912.04958.
Dataset: a folder of images; LSUN Church, 126,227 images, in the paper.
Published: FID 3.86 on LSUN Church at 256x256 (Table 3, configuration F; 50,000
  samples, no truncation). 30,034,338 generator and 28,864,129 discriminator parameters
  (authors' code).
Measure: fid (published 3.86) --features=inception --num_samples=50000
Ours: not measured (no accelerator; the paper trains for 48 M images). The counts are
  equal, and with equal weights so are the outputs of both networks (float64).
"""

from ml_collections import ConfigDict

from jaxgen import cli, data
from jaxgen.gan.stylegan2 import Lazy, lazy_adam, stylegan2
from jaxgen.nn.style import Mapping, StyleGenerator
from jaxgen.nn.stylegan2 import Discriminator, Synthesis
from jaxgen.train import Every


def get_config():
  return (
    ConfigDict(  # configuration F and the "stylegan2" settings of the authors' code
      {
        "path": "",  # a folder of images
        "on_error": "raise",  # "skip" leaves out files that cannot be read
        "image_size": 256,
        "batch_size": 32,
        "num_images": 48_000_000,
        "flip": True,
        "lr": 2e-3,
        "latent_dim": 512,
        "w_dim": 512,
        "num_mapping_layers": 8,
        "channel_base": 32768,
        "channel_max": 512,
        "group_size": 4,
        "r1_gamma": 100.0,  # Appendix B, for LSUN Church
        "r1_interval": 16,
        "path_weight": 2.0,
        "path_interval": 4,
        "mixing_probability": 0.9,
        "ema_images": 10_000,
        "dtype": "float32",
      }
    )
  )


def build(config):
  widths = dict(channel_base=config.channel_base, channel_max=config.channel_max)
  gen = StyleGenerator(
    Mapping(config.num_mapping_layers, config.w_dim, config.w_dim),
    Synthesis(config.image_size, dtype=config.dtype, **widths),
    w_dim=config.w_dim,
    mixing_probability=config.mixing_probability,
  )
  disc = Discriminator(group_size=config.group_size, dtype=config.dtype, **widths)
  images = dict(batch_size=config.batch_size, image_size=config.image_size, channels=3)
  return dict(
    method=stylegan2(
      gen,
      disc,
      gen_tx=lazy_adam(config.lr, config.path_interval),
      disc_tx=lazy_adam(config.lr, config.r1_interval),
      batch_size=config.batch_size,
      latent_dim=config.latent_dim,
      r1=Lazy(config.r1_gamma, config.r1_interval),
      path=Lazy(config.path_weight, config.path_interval),
      ema_images=config.ema_images,
    ),
    train_data=data.image_folder(
      config.path, on_error=config.on_error, flip=config.flip, **images
    ),
    num_steps=config.num_images // config.batch_size,
    every=Every(log=100, sample=5_000, save=5_000),
    num_samples=16,
  )


if __name__ == "__main__":
  cli.run(__file__)
