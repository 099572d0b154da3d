"""Flow matching on 8x8 handwritten digits of 16 levels.

  jaxgen train diffusion/flow_matching_digits --workdir=runs/flow_matching_digits
  jaxgen train diffusion/flow_matching_digits --workdir=runs/ot_digits --config.pairs=ot
  jaxgen train diffusion/flow_matching_digits --workdir=runs/reflow_digits \
    --config.pairs=reflow --config.teacher=runs/flow_matching_digits

Paper: Lipman, Chen, Ben-Hamu, Nickel, Le, Flow Matching for Generative Modeling (2022),
  arXiv 2210.02747.
Dataset: digits (scikit-learn's handwritten digits), 1,500 / 297 images, 4 bits, uniform
  noise.
Published: none for this set.
Measure: bits_per_dim --metrics=nll,frechet,prdc,labels,memorisation
  --features=classifier --weights=../rulers/digits.npz --num_samples=1000
Ours: 1.925 bits/dim of 4 [1.893, 1.956] on the test set, with 43 evaluations by the
  solver for an image (FFJORD on these levels, flow/ffjord_digits: 2.602); of 1,000
  samples frechet 11.2 [4.0, 18.4] (58.4 of the test images); all in
  experiments/results/diffusion/flow_matching_digits.json.
  jaxgen reproduce diffusion/flow_matching_digits --seeds=1
By steps of Euler's method: experiments/results/diffusion/flow_matching_digits_steps.md
  jaxgen evaluate runs/flow_matching_digits --metrics=frechet,prdc,labels \
    --features=classifier --num_samples=1000 --config.sampler=euler \
    --config.num_sampling_steps={1,2,4,8,16,64} --out=steps.md
Pairs by optimal transport are straighter: both at step 2,000 of their 4,000, in 1, 2, 4
and 8 steps of Euler's method frechet 412, 93, 39, 27, of independent pairs 1979, 329,
92, 44: experiments/results/diffusion/flow_matching_digits_pairs.md. Reflow, and optimal
transport to its end: not measured.
163,985 parameters. The grid of 64 was looked at: all but three or four are digits, with
a few dark grey pixels in the background.
Needs the extra `ode` of jaxgen (diffrax) for the likelihood.
Hardware: 2 cores of an AMD EPYC, shared with about 25 other processes. Wall clock: 41
min there, of 1 to 9 steps/s. Seed 0.
"""

import jax
from ml_collections import ConfigDict
import optax

from jaxgen import cli, data, run
from jaxgen.diffusion import flow_matching, ode_samplers, schedules
from jaxgen.nn.unet import UNet
from jaxgen.train import Every

SAMPLERS = {"euler": ode_samplers.euler, "heun": ode_samplers.heun}


def get_config():
  return ConfigDict(
    {
      "batch_size": 64,
      "num_steps": 4_000,  # 171 epochs
      "lr": 2e-3,
      "warmup_steps": 100,
      "clip_norm": 1.0,
      "ema_decay": 0.998,
      "num_levels": 16,
      "pairs": "independent",  # or "ot", "reflow"
      "teacher": "",  # of "reflow": the workdir of stage one
      "sampler": "heun",  # or "euler"
      "num_sampling_steps": 50,
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


def pairs(config):
  if config.pairs == "reflow":
    flow = "diffusion/flow_matching_digits"
    stage_one = run.first_stage(config.teacher, flow, "teacher")
    params = jax.device_get(stage_one.state.ema["net"])
    teacher = flow_matching.denoiser(network(stage_one.config), params)
    return flow_matching.reflow(teacher, num_steps=16)
  known = {
    "independent": flow_matching.independent,
    "ot": flow_matching.optimal_transport,
  }
  if config.pairs not in known:
    raise ValueError(f"pairs {config.pairs!r}: expected {[*known, 'reflow']}")
  return known[config.pairs]


def build(config):
  lr = optax.join_schedules(
    [
      optax.linear_schedule(0.0, config.lr, config.warmup_steps),
      optax.cosine_decay_schedule(config.lr, config.num_steps - config.warmup_steps),
    ],
    [config.warmup_steps],
  )
  digits = dict(batch_size=config.batch_size, image_size=8, channels=1)
  method = flow_matching.flow_matching(
    network(config),
    tx=optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(lr)),
    couple=pairs(config),
    ema_decay=config.ema_decay,
    num_levels=config.num_levels,
    sampler=SAMPLERS[config.sampler],
    times=schedules.uniform(config.num_sampling_steps, 1.0),
  )
  return dict(
    method=method,
    train_data=data.tfds_images("digits", "train", **digits),
    eval_data=data.tfds_images("digits", "test", **digits),
    num_steps=config.num_steps,
    every=Every(log=100, eval=1_000, sample=2_000, save=1_000),
    num_samples=64,
  )


if __name__ == "__main__":
  cli.run(__file__)
