"""Linear autoregression on MNIST: the baseline of this family.

  jaxgen train autoregressive/linear_ar_mnist --workdir=runs/linear_ar_mnist
  jaxgen reproduce autoregressive/linear_ar_mnist --seeds=1

Paper: Yule (1927); textbooks.
Dataset: mnist (TFDS), 60,000 / 10,000 images of 28x28, 256 levels, in raster order.
Published: none for these data.
Measure: bits_per_dim --metrics=eval
Ours: 2.730 bits/dim [2.722, 2.737], exact, over the 10,000 test images. A seed changes
  nothing: the fit draws nothing, and the data have one order (0, 1 and 2 agree to all
  digits).
Of 36 samples that were looked at none has a figure: slanted flecks of the thickness of
strokes, which is what correlations of neighbours say.
Hardware: one core of an AMD EPYC, the other busy. Wall clock: 20 s. Seed 0.
"""

from ml_collections import ConfigDict

from jaxgen import cli, data
from jaxgen.autoregressive.linear_ar import linear_ar, linear_levels
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 100,
      "num_steps": 100,  # 10,000 images for 86 weights and a variance
      "order": 85,  # three rows and a pixel
    }
  )


def build(config):
  mnist = dict(batch_size=config.batch_size, image_size=28, channels=1)
  return dict(
    method=linear_ar(config.order, entry="image", cells=linear_levels()),
    train_data=data.tfds_images("mnist", "train", **mnist),
    eval_data=data.tfds_images("mnist", "test", **mnist),
    num_steps=config.num_steps,
    every=Every(log=20, eval=config.num_steps, sample=config.num_steps, save=100),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
