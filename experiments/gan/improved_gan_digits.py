"""Feature matching on 8x8 digits. No download, no GPU.

  jaxgen train gan/improved_gan_digits --workdir=runs/improved_gan_digits
  jaxgen reproduce gan/improved_gan_digits --seeds=3

Paper: Salimans et al., Improved Techniques for Training GANs (2016), arXiv 1606.03498.
Dataset: digits (scikit-learn's handwritten digits), 1,500 / 297 images.
Published: none for this set (the paper's MNIST numbers are of classification).
Measure: frechet --metrics=frechet,prdc,labels,memorisation --features=classifier
  --weights=../rulers/digits.npz --num_samples=1000
Ours: frechet 34.6 [8.0, 61.2] over three seeds, which differ much (44.0, 36.8, 22.9);
  that of the 297 test images is 58.4 (fewer images, so a larger bias). Precision 0.60
  [0.55, 0.64], recall 0.97 [0.95, 0.99], confidence of a classifier 0.94, label entropy
  2.27 nats (2.26, 2.26, 2.28; of the data 2.30), 10 classes, no copies of training
  images.
Precision, recall and confidence are the same for every seed; the entropy of the labels
and the coverage (0.47, 0.49, 0.51) rise in the order in which the distance falls. That
points at how often each digit comes, more than at how samples look.
The grids of step 4,000 were looked at: with every seed most samples read as digits of
many hands, with speckled edges; a few are none.
Both techniques at once do not work: with 16 kernels of minibatch discrimination besides
and 15,000 steps the Frechet distance was 494, recall 0.03. By a script on the same
data, classifier and 1,000 samples, one seed, after 600 steps (average 0.99), Frechet
and recall:
  feature matching alone (this config)      116, 0.88
  minibatch discrimination alone            121, 0.88
  both                                     1077, 0.00
With both the discriminator is right on 0.97 of real images and on every fake: it can
tell by the closeness of a batch, which is none of the features that are matched, so
nothing makes the generator repair it. After 1,500 steps: 59.3, precision 0.56, recall
0.95 with feature matching; 100.5, 0.52, 0.94 with neither.
Hardware: 2 cores of an AMD EPYC, one used. Wall clock: 40 s a seed. Seeds 0, 1, 2.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.gan.improved_gan import Discriminator, Generator, improved_gan
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 100,
      "num_steps": 4_000,  # 267 epochs
      "match_features": True,
      "real_label": 0.9,
      "lr": 3e-4,
      "b1": 0.5,
      "latent_dim": 100,
      "gen_widths": (256, 256),
      "disc_widths": (256, 128),
      "num_kernels": 0,  # of minibatch discrimination: not with match_features
      "kernel_dim": 5,
      "ema_decay": 0.999,
    }
  )


def build(config):
  adam = optax.adam(config.lr, config.b1)
  digits = dict(batch_size=config.batch_size, image_size=8, channels=1)
  return dict(
    method=improved_gan(
      Generator((8, 8, 1), config.gen_widths),
      Discriminator(config.disc_widths, config.num_kernels, config.kernel_dim),
      gen_tx=adam,
      disc_tx=adam,
      match_features=config.match_features,
      real_label=config.real_label,
      latent_dim=config.latent_dim,
      ema_decay=config.ema_decay,
    ),
    train_data=data.tfds_images("digits", "train", **digits),
    eval_data=data.tfds_images("digits", "test", **digits),  # for `jaxgen evaluate`
    num_steps=config.num_steps,
    every=Every(log=500, sample=5_000, save=5_000),
    num_samples=100,
  )


if __name__ == "__main__":
  cli.run(__file__)
