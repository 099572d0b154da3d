"""Writes schedules of diffusers, for tests/test_samplers.py.

  pip install torch==2.13.0 diffusers==0.42.1 numpy
  python make_schedules_diffusers.py schedules_diffusers.npz

Chains of 1000 steps with betas 1e-4 ... 0.02 ("linear") or of a cosine: every 111th
alpha_bar, f32 as they are there. 7 and 10 of these steps, evenly from the last to the
first ("linspace") or every 1000 // N-th ("leading"), counted from 0. Noise levels of 7
steps by the rule of Karras et al., between those of the linear chain, f32; their last
is 0.
"""

import sys

from diffusers import DDPMScheduler, EulerDiscreteScheduler
import numpy as np

CHAIN = dict(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02)


def main(path):
  found = {}
  for name, theirs in (("linear", "linear"), ("cosine", "squaredcos_cap_v2")):
    scheduler = DDPMScheduler(beta_schedule=theirs, **CHAIN)
    found[f"alpha_bar/{name}"] = scheduler.alphas_cumprod.numpy()[::111]
  for spacing in ("linspace", "leading"):
    for num in (7, 10):
      scheduler = DDPMScheduler(timestep_spacing=spacing, **CHAIN)
      scheduler.set_timesteps(num)
      found[f"{spacing}/{num}"] = scheduler.timesteps.numpy()
  scheduler = EulerDiscreteScheduler(use_karras_sigmas=True, **CHAIN)
  scheduler.set_timesteps(7)
  found["karras"] = scheduler.sigmas.numpy()
  np.savez(path, **found)


if __name__ == "__main__":
  main(sys.argv[1])
