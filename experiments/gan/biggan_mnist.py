"""BigGAN on MNIST at 16x16, with narrow networks and attention at 8x8, on a CPU.

  jaxgen train gan/biggan_mnist --workdir=runs/biggan_mnist

Paper: Brock, Donahue & Simonyan, Large Scale GAN Training for High Fidelity Natural
  Image Synthesis (2018), arXiv 1809.11096.
Dataset: mnist (TFDS) resized to 16x16, 60,000 / 10,000 images.
Published: no number for MNIST samples.
Measure: label_accuracy --metrics=frechet,prdc,labels --features=classifier
  --weights=../rulers/mnist_16.npz --num_samples=5000
Ours: label_accuracy 0.992: of 5,000 samples a classifier (0.991 on the test set) sees
  99.2 % as the digit asked for. Frechet distance 3.46 [3.07, 3.85] (of the test
  set 0.97), precision 0.95, recall 0.70, confidence 0.992, label entropy 2.300 nats (at
  most 2.303), all 10 classes.
The grid of step 2,300 was looked at: clean digits in many hands, nearly every one of
its label. sngan_mnist, with labels as well, has 4.3 after 3,000 steps. The
discriminator is nearly undecided: its loss goes to 1.9 of 2 and `diversity` is 1.

What the statistics of batch norm are worth (an earlier run, another classifier, 2,000
samples at step 2,301): running averages under the averaged weights, as sampled here,
Frechet 4.7 and label accuracy 0.997; standing statistics of 100 passes 4.8 and 0.997,
images 0.004 apart on average; the trained weights' running averages, with the averaged
weights, 5.6 and 0.994. Truncation at 1.0: 25.1 and 1.000 (variety falls), 23.9 with
standing statistics at that threshold; at 0.5: 51.4 and 50.3.

Hardware: 2 cores of an AMD EPYC, shared with other jobs (load 6). Wall clock: 4.9 min
on one core. Seed 0.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.gan.biggan import biggan
from jaxgen.gan.biggan_networks import Discriminator, Generator
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 64,
      "num_steps": 2_300,
      "gen_lr": 5e-4,
      "disc_lr": 1e-3,
      "b1": 0.0,
      "b2": 0.99,
      "num_disc_steps": 1,  # as the script for ImageNet of BigGAN-PyTorch
      "ema_decay": 0.99,
      "orthogonal_weight": 1e-4,  # Eq. 3
      "latent_dim": 48,
      "shared_dim": 32,
      "gen_width": 16,
      "disc_width": 16,
      "attention_side": 8,
    }
  )


def build(config):
  gen = Generator(
    num_classes=10,
    channels=1,
    widths=tuple(config.gen_width * k for k in (2, 2, 1)),
    shared_dim=config.shared_dim,
    hierarchical=True,
    attention_side=config.attention_side,
  )
  disc = Discriminator(
    num_classes=10,
    widths=tuple(config.disc_width * k for k in (1, 2, 2)),
    num_halvings=2,
    attention_side=config.attention_side,
  )
  adam = lambda lr: optax.adam(lr, config.b1, config.b2)
  mnist = dict(batch_size=config.batch_size, image_size=16, channels=1)
  return dict(
    method=biggan(
      gen,
      disc,
      gen_tx=adam(config.gen_lr),
      disc_tx=adam(config.disc_lr),
      latent_dim=config.latent_dim,
      num_disc_steps=config.num_disc_steps,
      ema_decay=config.ema_decay,
      orthogonal_weight=config.orthogonal_weight,
    ),
    train_data=data.tfds_images("mnist", "train", **mnist),
    eval_data=data.tfds_images("mnist", "test", **mnist),  # for `jaxgen evaluate`
    num_steps=config.num_steps,
    every=Every(log=100, sample=1_000, save=1_000),
    num_samples=100,
  )


if __name__ == "__main__":
  cli.run(__file__)
