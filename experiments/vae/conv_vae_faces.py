"""A convolutional VAE on a folder of grey images.

  jaxgen train vae/conv_vae_faces --workdir=runs/faces --config.path=FOLDER
  jaxgen sample runs/faces --mode=denoise --out=denoised.png
  jaxgen sample runs/faces --mode=traverse --num=1 --out=traversal.png

FOLDER is ./orl_faces if not given. Every tenth image of it, by name, is held out as the
test set. Images are cropped to a centred square and resized; for 128 pixels take
--config.image_size=128 --config.widths="(32, 32, 64, 64, 64)".

Paper: Kingma & Welling, Auto-Encoding Variational Bayes (2013), arXiv 1312.6114; the
  network is shaped as in Burgess et al. (2018), arXiv 1804.03599.
Dataset: a folder of images of your own; measured on the 400 ORL faces (40 people),
  named so that the test set has one picture of each person.
Published: none for this network and crop.
Measure: elbo --metrics=eval
Ours: ELBO -17,711 nats [-17,862, -17,559] over three seeds on the 40 test images, 6.24
  bits per pixel of 8 (reconstruction -17,616, KL 94.7). In a run of 4,000 steps it was
  best between 1,000 and 2,000 (-17,483) and fell to -18,459: 360 images are few.
The grid of 36 samples was looked at: all are heads, most with eyes and mouth, all are
blurred. Reconstructions of 8 images (also looked at) keep the pose, the outline and the
shade, not who it is.
Hardware: one core of an AMD EPYC, shared with other jobs. Wall clock: 65 s per seed.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import cli, data
from jaxgen.train import Every
from jaxgen.vae.likelihoods import bernoulli_pixels, gaussian_pixels, logistic_pixels
from jaxgen.vae.networks import Convolutional
from jaxgen.vae.vae import vae


def get_config():
  return ConfigDict(
    {
      "path": "orl_faces",  # a folder of images, see above
      "on_error": "raise",  # "skip" leaves out files that cannot be read
      "image_size": 64,
      "batch_size": 32,
      "num_steps": 900,  # 80 epochs
      "lr": 1e-3,
      "widths": (32, 32, 64, 64),
      "latent_dim": 32,
      "likelihood": "logistic",  # or gaussian, bernoulli (grey values for bits)
    }
  )


LIKELIHOODS = {
  "logistic": logistic_pixels(),
  "gaussian": gaussian_pixels(),
  "bernoulli": bernoulli_pixels(binarize=False),
}


def build(config):
  size, likelihood = config.image_size, LIKELIHOODS[config.likelihood]
  net = Convolutional(
    (size, size, 1),
    config.latent_dim,
    config.widths,
    num_outputs=likelihood.num_outputs,
  )
  images = dict(batch_size=config.batch_size, image_size=size, channels=1)
  return dict(
    method=vae(net, tx=optax.adam(config.lr), likelihood=likelihood),
    train_data=data.image_folder(
      config.path, on_error=config.on_error, split="train", **images
    ),
    eval_data=data.image_folder(
      config.path, on_error=config.on_error, split="test", **images
    ),
    num_steps=config.num_steps,
    every=Every(log=50, eval=200, sample=200, save=200),
    num_samples=36,
  )


if __name__ == "__main__":
  cli.run(__file__)
