"""`jaxgen import`: runs made of what others have trained."""

import os
from pathlib import Path

import jax
import numpy as np

from jaxgen import run
from jaxgen.checkpoint import Checkpoints
from jaxgen.method import TrainState
from jaxgen.nn.diffusers_file import read_ddpm

NUM_EXAMPLES = 64  # rows of conditioning.npz


def import_diffusers(folder: str | os.PathLike, out: Path, experiment: Path) -> int:
  """A run of DDPM with the weights of a folder of diffusers' files.

  It has the weights as parameters and averages, at step 0.

  Args:
    folder: See `jaxgen.nn.diffusers_file`.
    out: The workdir, which must not exist.
    experiment: The file of diffusion/ddpm_diffusers.

  Returns:
    The number of parameters.
  """
  if out.exists():
    raise FileExistsError(f"{out} exists; choose another --out")
  found = read_ddpm(folder)
  module = run.load_experiment(experiment)
  config = module.get_config()
  config.update({**found.net, **found.chain, "image_size": found.image_size})
  config.image_channels = found.channels
  built = module.build(config)
  spec = run.batch_spec(built["train_data"])

  def make(key: jax.Array) -> TrainState:
    fresh = built["method"].init(key, {"image": np.zeros(spec["image"].shape, "f4")})
    return fresh.replace(params={"net": found.params}, ema={"net": found.params})

  state = jax.jit(make)(jax.random.key(0))
  run.record(out, experiment, config, seed=0)
  shape = (NUM_EXAMPLES, *spec["image"].shape[1:])
  np.savez(out / "conditioning.npz", image=np.zeros(shape, np.uint8))
  with Checkpoints(out) as checkpoints:
    checkpoints.save(0, state)
  return sum(x.size for x in jax.tree.leaves(found.params))
