"""A consistency model on 8x8 handwritten digits, distilled from flow matching.

  jaxgen reproduce diffusion/flow_matching_digits --seeds=1
  jaxgen train diffusion/consistency_digits --workdir=runs/consistency_digits
  jaxgen train diffusion/consistency_digits --workdir=runs/ct --config.teacher=""

The second takes the first as its teacher, whose straight paths `process.rescaled` turns
into those of this paper. The third is consistency training, without a teacher.

Paper: Song, Dhariwal, Chen, Sutskever, Consistency Models (2023), arXiv 2303.01469.
Dataset: digits (scikit-learn's handwritten digits), 1,500 / 297 images, of 17 levels;
  the teacher saw 16 with uniform noise.
Published: none for this set.
Measure: frechet --metrics=frechet,prdc,labels,memorisation,eval --features=classifier
  --weights=../rulers/digits.npz --num_samples=1000
Ours: in one step, of 1,000 samples of one evaluation, frechet 78.1 [67.0, 89.1] (58.4
  of the test images); all in experiments/results/diffusion/consistency_digits.json.
  jaxgen reproduce diffusion/consistency_digits --seeds=1
The same run without rounding to the levels of the teacher's images, which had the noise
of a level in training: 129.8 [117.6, 142.0]. The teacher has 11.2 after 99 evaluations.
In two and four steps (48.4 with one noise level of 0.8, 38.8 with three):
experiments/results/diffusion/consistency_digits_levels.md, written by
  jaxgen evaluate runs/consistency_digits --metrics=frechet,prdc,labels \
    --features=classifier --num_samples=1000 "--config.levels=()" \
    "--config.levels=(0.8,)" ... --out=levels.md
Consistency training: not measured.
A grid of 64 in one step was looked at: about two in three are digits, with grey pixels
in the background. The loss was still falling.
Hardware: 2 cores of an AMD EPYC, shared with about 8 other processes. Wall clock: 9 min
of training. Seed 0.
"""

import jax
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data, run
from jaxgen.diffusion import flow_matching, likelihood
from jaxgen.diffusion.consistency import consistency, constant, progressive
from jaxgen.diffusion.process import rescaled
from jaxgen.nn.unet import UNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      # A workdir of flow_matching_digits; "" trains without a teacher.
      "teacher": "runs/diffusion/flow_matching_digits/seed_0",
      "batch_size": 64,
      "num_steps": 2_000,
      "lr": 1e-3,
      "clip_norm": 1.0,
      "num_levels": 18,  # Table 3, for CIFAR-10
      "decay": 0.95,  # of the target network
      "sigma_max": 80.0,
      "sigma_data": 0.75,  # of the training set
      "levels": (),  # at which a sample is made noisy and mapped again
      "channels": 16,
      "channel_mults": (1, 2),
      "num_res_blocks": 1,
      "num_groups": 8,
    }
  )


def network(config):
  return UNet(
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_res_blocks=config.num_res_blocks,
    attention_resolutions=(),  # the middle has it, at 4x4
    num_groups=config.num_groups,
    dropout_rate=0.0,
  )


def teacher(stage_one):
  params = jax.device_get(stage_one.state.ema["net"])
  denoise = flow_matching.denoiser(network(stage_one.config), params)
  return rescaled(denoise, flow_matching.straight())


def without_noise(method, num_levels):
  """Samples as images of exact levels: the teacher's have uniform noise of a level."""

  def sample(state, batch, key):
    x = method.sample(state, batch, key)["samples"]
    return {"samples": likelihood.restore(x, num_levels)}

  return method._replace(sample=sample)


def build(config):
  net = network(config)
  lr = optax.cosine_decay_schedule(config.lr, config.num_steps)
  tx = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(lr))
  scales = dict(sigma_data=config.sigma_data, sigma_max=config.sigma_max)
  schedule = progressive(config.num_steps, last=50)
  stage_one = None
  if config.teacher:
    flow = "diffusion/flow_matching_digits"
    stage_one = run.first_stage(config.teacher, flow, "teacher")
    schedule = constant(config.num_levels, config.decay)
  method = consistency(
    net,
    tx=tx,
    teacher=teacher(stage_one) if stage_one else None,
    schedule=schedule,
    levels=config.levels,
    **scales,
  )
  if stage_one:
    method = without_noise(method, stage_one.config.num_levels)
  digits = dict(batch_size=config.batch_size, image_size=8, channels=1)
  return dict(
    method=method,
    train_data=data.tfds_images("digits", "train", **digits),
    eval_data=data.tfds_images("digits", "test", **digits),
    num_steps=config.num_steps,
    every=Every(log=100, eval=1_000, sample=1_000, save=500),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
