"""StyleGAN2 on MNIST at 16x16: demodulation, R1, skips.

  jaxgen train gan/stylegan2_mnist --workdir=runs/stylegan2_mnist

Paper: Karras, Laine, Aittala, Hellsten, Lehtinen & Aila, Analyzing and Improving the
  Image Quality of StyleGAN (2019), arXiv 1912.04958.
Dataset: mnist (TFDS), 60,000 / 10,000 images, resized to 16x16.
Published: no number for plain MNIST.
Measure: frechet --metrics=frechet,prdc,labels --features=classifier
  --weights=../rulers/mnist_16.npz
Ours: frechet 52 [-54, 159] over three seeds: 4.0, 86 and 66 (test set 0.73), recall
  0.43, 0.00 and 0.00, precision 0.92, 0.82 and 0.94, coverage 0.72, 0.05 and 0.09,
  label entropy 2.29, 2.24 and 2.16 nats (2.30).
So it works in one seed of three; the settings were found on that one. The grids of step
15,000 were looked at. Seed 0 has digits of many hands, thin and bold, upright and
slanted; about one in eight is broken, mostly faint. Seeds 1 and 2 have some twenty
shapes, most of them clean digits, that come again and again. `diversity` does not see
that (0.8 to 1.1 from step 2,000 on in all three): the shapes differ enough.
An earlier config (both rates 2e-3, r1_gamma 5, labels, wider networks, 2,500 steps) had
94.9 and recall 0.00: one clean digit per label. What differs here, from runs of seed 0,
so that none of it is certain:
  - Higher rates. With an equalised learning rate and narrow layers 2e-3 moves little:
    `diversity` is 0.46 after 1,000 steps, with 6e-3 0.77 (labels, r1_gamma 0.01, twice
    the channels).
  - A discriminator faster than the generator. At equal rates samples become a few clean
    prototypes, each always the same; seeds 1 and 2 end there with this rate, too.
  - No labels: with them the spread within a class shrinks, at these rates, too.
  - More and smaller steps: half of the channels, six times as many images.
By a script, one seed, 2,000 samples of an average over 3,000 to 5,000 images; `spread`
is the deviation of pixels within a class, as the classifier sees it, over the data's:
  rates (generator, discriminator)     steps   frechet, recall, spread
  6e-3, 6e-3, r1_gamma 0.01, labels    1,200   252, 0.000, 0.40
  1.5e-2, 1.5e-2, 0.05, labels         1,200   102, 0.000, 0.14
  1.5e-2, 1.5e-2, 0.5, labels          2,400    71, 0.000, 0.15
  4e-3, 1.5e-2, 0.2, labels            1,800    99, 0.001, 0.19
  2e-3, 2e-2, 0.05, labels             1,800    87, 0.001, 0.31
  1.5e-2, 1.5e-2, 0.5                  1,200   181, 0.000, 0.57
  1.5e-2, 1.5e-2, 2                    2,000   125, 0.000, 0.60
  1.5e-2, 1.5e-2, 0.5, path lengths    1,500   233, 0.000, 0.54
  4e-3, 1.5e-2, 0.2 (this config)      1,500   243, 0.004, 0.72
Some of these stop early: they tell how a run starts, not where it ends. Style mixing of
0.9 does not mend seed 1: after 5,000 steps Frechet 148 and recall 0.000 with rates 4e-3
and 1.2e-2, 213 and 0.000 with 4e-3 and 8e-3 (10,000 samples).
The networks equal the authors' to 4e-15 (float64).
Hardware: one core of an AMD EPYC a seed. Wall clock: 9 to 12 min each, 3 min to score
all three.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.gan.stylegan2 import Lazy, lazy_adam, stylegan2
from jaxgen.nn.style import Mapping, StyleGenerator
from jaxgen.nn.stylegan2 import Discriminator, Synthesis
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 32,
      "num_steps": 15_000,
      "image_size": 16,
      "gen_lr": 4e-3,  # Appendix B: 2e-3, for both
      "disc_lr": 1.5e-2,
      "num_classes": 0,  # 10 for labels
      "latent_dim": 64,
      "w_dim": 64,
      "num_mapping_layers": 2,  # of both networks; the paper: 8
      "mapping_lr_multiplier": 1.0,  # the paper: 0.01
      "channel_base": 128,
      "channel_max": 32,
      "r1_gamma": 0.2,  # the paper: 10, at 1024x1024
      "r1_interval": 1,  # the paper: 16; on a CPU a rarer R1 costs the same
      "ema_images": 10_000,
    }
  )


def build(config):
  widths = dict(channel_base=config.channel_base, channel_max=config.channel_max)
  gen = StyleGenerator(
    Mapping(
      *(config.num_mapping_layers, config.w_dim, config.w_dim),
      num_classes=config.num_classes,
      lr_multiplier=config.mapping_lr_multiplier,
    ),
    Synthesis(config.image_size, channels=1, **widths),
    w_dim=config.w_dim,
    mixing_probability=0.0,
  )
  disc = Discriminator(
    num_classes=config.num_classes,
    num_label_layers=config.num_mapping_layers,
    **widths,
  )
  mnist = dict(batch_size=config.batch_size, image_size=config.image_size, channels=1)
  return dict(
    method=stylegan2(
      *(gen, disc),
      gen_tx=optax.adam(config.gen_lr, b1=0.0, b2=0.99),
      disc_tx=lazy_adam(config.disc_lr, config.r1_interval),
      batch_size=config.batch_size,
      latent_dim=config.latent_dim,
      r1=Lazy(config.r1_gamma, config.r1_interval),
      path=None,  # neither this nor mixing: as the authors' cfg=cifar
      ema_images=config.ema_images,
    ),
    train_data=data.tfds_images("mnist", "train", **mnist),
    eval_data=data.tfds_images("mnist", "test", **mnist),  # for `jaxgen evaluate`
    num_steps=config.num_steps,
    every=Every(log=250, sample=1_500, save=3_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
