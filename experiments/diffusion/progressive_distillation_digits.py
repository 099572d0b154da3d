"""Progressive distillation on 8x8 handwritten digits: 16, 8, 4, 2, 1 steps.

  jaxgen train diffusion/progressive_distillation_digits --workdir=runs/halving

Phases: a teacher, then a student for each number of steps, which is the next teacher.
The last phase's sampler takes one step; the samples of every phase are in samples/.

Paper: Salimans, Ho, Progressive Distillation for Fast Sampling of Diffusion Models
  (2022), arXiv 2202.00512.
Dataset: digits (scikit-learn's handwritten digits), 1,500 / 297 images.
Published: none for this set.
Measure: frechet --metrics=frechet,prdc,labels,memorisation,eval --features=classifier
  --weights=../rulers/digits.npz --num_samples=1000
Ours: in one step, of 1,000 samples of one evaluation, frechet 33.5 [23.2, 43.8] (58.4
  of the test images), precision 0.80, recall 0.96, no copies.
  jaxgen reproduce diffusion/progressive_distillation_digits --seeds=1
Students of two steps, 26.7 [16.7, 36.8], and of four, 21.6 [11.6, 31.5], are the run's
checkpoints of step 5,000 and 4,500:
  jaxgen evaluate runs/halving --step=4500 --metrics=frechet,prdc,labels \
    --features=classifier --num_samples=1000
The grids of 64 of four steps and of one were looked at: nearly all are digits, those of
one step with a few dark grey pixels in the background.
Hardware: a third of one core of an AMD EPYC, shared with many jobs (load 6 to 20). Wall
clock: 26 min of training. Seed 0.
"""

from ml_collections import ConfigDict
import optax

from jaxgen import Phase, cli, data
from jaxgen.diffusion.progressive_distillation import (
  distil,
  progressive_distillation,
  teacher,
)
from jaxgen.nn.unet import UNet
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "batch_size": 64,
      "num_steps": 3_000,  # of the teacher
      "steps_per_round": 500,
      "rounds": (16, 8, 4, 2, 1),  # sampling steps of every student
      "lr": 2e-3,
      "round_lr": 1e-3,  # falls to 0 in every round
      "clip_norm": 1.0,
      "ema_decay": 0.99,
      "channels": 16,
      "channel_mults": (1, 2),
      "num_res_blocks": 1,
      "num_groups": 8,
    }
  )


def build(config):
  net = UNet(
    channels=config.channels,
    channel_mults=config.channel_mults,
    num_res_blocks=config.num_res_blocks,
    attention_resolutions=(),  # the middle has it, at 4x4
    num_groups=config.num_groups,
    dropout_rate=0.0,
  )
  digits = dict(batch_size=config.batch_size, image_size=8, channels=1)
  train_data = data.tfds_images("digits", "train", **digits)

  def tx(lr, steps):
    falling = optax.cosine_decay_schedule(lr, steps)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(falling))

  def student(num_steps):
    method = progressive_distillation(
      net,
      tx=tx(config.round_lr, config.steps_per_round),
      num_steps=num_steps,
      ema_decay=config.ema_decay,
    )
    return Phase(method, train_data, config.steps_per_round, distil)

  first = teacher(
    net,
    tx=tx(config.lr, config.num_steps),
    num_steps=2 * config.rounds[0],
    ema_decay=config.ema_decay,
  )
  return dict(
    method=first,
    train_data=train_data,
    eval_data=data.tfds_images("digits", "test", **digits),
    num_steps=config.num_steps,
    then=[student(n) for n in config.rounds],
    every=Every(log=100, eval=500, sample=500, save=500),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
