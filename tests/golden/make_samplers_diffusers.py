"""Writes what diffusers' schedulers make of one denoiser, for tests/test_samplers.py.

  pip install torch==2.13.0 diffusers==0.42.1 numpy
  python make_samplers_diffusers.py samplers_diffusers.npz

Data are a mixture of two Gaussians in every pixel; the schedulers get its exact
E[noise | x_t]. The chain has 1000 steps, betas 1e-4 ... 0.02; 10 of them are taken. For
each scheduler NAME the file holds NAME/times, the steps as they count them (from 0);
NAME/path, f64 [11, 1, 6], x_t at these steps, then the result (Euler's and Heun's,
after the first, are x_t / alpha_t); and NAME/noise, f64 [N, 1, 6], for those that draw.

Their tables are float32 whatever the samples are; here they are replaced by the same in
float64, so that formulas are compared and not rounding. The steps of Euler and of
DPM-Solver++ convert samples to float32.
"""

import sys

from diffusers import (
  DDIMScheduler,
  DDPMScheduler,
  DPMSolverMultistepScheduler,
  EulerDiscreteScheduler,
  HeunDiscreteScheduler,
)
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm
import numpy as np
import torch

WEIGHTS, MEANS, STDS = np.array([(0.3, -1.0, 0.25), (0.7, 0.6, 0.4)]).T
BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHA_BAR = np.cumprod(1.0 - BETAS)
NUM_STEPS = 10


def exact_noise(x, alpha, sigma):
  """E[noise | x_t = x], f64 of the shape of x."""
  variances = alpha**2 * STDS**2 + sigma**2
  gaps = x[..., None] - alpha * MEANS
  logits = np.log(WEIGHTS) - 0.5 * np.log(variances) - 0.5 * gaps**2 / variances
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  clean = (weights * (MEANS + alpha * STDS**2 / variances * gaps)).sum(-1)
  return (x - alpha * clean) / sigma


def level_at(t):
  """alpha and sigma at a step, from 0."""
  alpha_bar = ALPHA_BAR[round(float(t))]
  return np.sqrt(alpha_bar), np.sqrt(1.0 - alpha_bar)


def exact_tables(scheduler):
  """The scheduler with its tables in float64."""
  scheduler.betas = torch.from_numpy(BETAS)
  scheduler.alphas = torch.from_numpy(1.0 - BETAS)
  scheduler.alphas_cumprod = torch.from_numpy(ALPHA_BAR)
  scheduler.one = torch.tensor(1.0, dtype=torch.float64)
  if hasattr(scheduler, "final_alpha_cumprod"):
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
  if hasattr(scheduler, "alpha_t"):
    scheduler.alpha_t = torch.sqrt(scheduler.alphas_cumprod)
    scheduler.sigma_t = torch.sqrt(1 - scheduler.alphas_cumprod)
    scheduler.lambda_t = torch.log(scheduler.alpha_t) - torch.log(scheduler.sigma_t)
  return scheduler


def path_of(scheduler, scaled, **options):
  """Steps, x_t on the way, and noise drawn."""
  scheduler.set_timesteps(NUM_STEPS)
  times = [float(t) for t in scheduler.timesteps]
  if scaled:  # Coordinates x_t / alpha_t at the level sigma_t / alpha_t.
    a, s = np.array([level_at(t) for t in times]).T
    scheduler.sigmas = torch.from_numpy(np.append(s / a, 0.0))
  x = np.linspace(-1.7, 1.7, 6)[None]
  path, noises = [x], []
  if scaled:
    x = x / level_at(times[0])[0]
  for t in scheduler.timesteps:
    alpha, sigma = level_at(t)
    model_input = alpha * x if scaled else x
    noise = torch.from_numpy(exact_noise(model_input, alpha, sigma))
    x = scheduler.step(noise, t, torch.from_numpy(x), **options).prev_sample.numpy()
    path.append(x)
  return times, path, noises


def recorded(module, seed):
  """Makes a scheduler's module draw from numpy, and keeps what it drew."""
  drawn, rng = [], np.random.default_rng(seed)

  def randn(shape, **_):
    drawn.append(rng.standard_normal(tuple(shape)))
    return torch.from_numpy(drawn[-1])

  module.randn_tensor = randn
  return drawn


def main(path):
  common = dict(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02)
  linear = dict(beta_schedule="linear", prediction_type="epsilon", **common)
  arrays = {}

  def keep(name, found, drawn=None):
    arrays[f"{name}/times"], arrays[f"{name}/path"] = map(np.array, found[:2])
    if drawn:
      arrays[f"{name}/noise"] = np.array(drawn)
    assert arrays[f"{name}/path"].dtype == np.float64, name

  for kind in ("fixed_small", "fixed_large"):
    drawn = recorded(scheduling_ddpm, 0)
    scheduler = DDPMScheduler(variance_type=kind, clip_sample=False, **linear)
    keep(f"ddpm_{kind}", path_of(exact_tables(scheduler), False), drawn)
  for eta in (0.0, 0.5):
    drawn = recorded(scheduling_ddim, 1)
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **linear)
    keep(f"ddim_{eta}", path_of(exact_tables(scheduler), False, eta=eta), drawn)
  spacing = dict(timestep_spacing="leading", steps_offset=0)
  keep("euler", path_of(EulerDiscreteScheduler(**linear, **spacing), True))
  keep("dpm_solver_pp_2m", path_dpm(linear, spacing))
  keep("heun", path_heun(linear, spacing))
  np.savez_compressed(path, **arrays)


def path_dpm(linear, spacing):
  scheduler = DPMSolverMultistepScheduler(
    algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint",
    lower_order_final=False, euler_at_final=True, final_sigmas_type="zero",
    **linear, **spacing,
  )  # fmt: skip
  scheduler = exact_tables(scheduler)
  scheduler.set_timesteps(NUM_STEPS)
  times = [float(t) for t in scheduler.timesteps]
  a, s = np.array([level_at(t) for t in times]).T
  scheduler.sigmas = torch.from_numpy(np.append(s / a, 0.0))
  x = np.linspace(-1.7, 1.7, 6)[None]
  path = [x]
  for t in scheduler.timesteps:
    noise = torch.from_numpy(exact_noise(x, *level_at(t)))
    x = scheduler.step(noise, t, torch.from_numpy(x)).prev_sample.numpy()
    path.append(x)
  return times, path


def path_heun(linear, spacing):
  """Heun's scheduler has two calls a step, at both of its ends."""
  scheduler = HeunDiscreteScheduler(**linear, **spacing)
  scheduler.set_timesteps(NUM_STEPS)
  every = [float(t) for t in scheduler.timesteps]
  a, s = np.array([level_at(t) for t in every]).T
  # sigmas are of step 0, then twice each of the others, then 0.
  scheduler.sigmas = torch.from_numpy(np.append(s / a, 0.0))
  x = np.linspace(-1.7, 1.7, 6)[None]
  path = [x]
  x = x / a[0]
  for i, t in enumerate(scheduler.timesteps):
    alpha, sigma = level_at(t)
    level = sigma / alpha
    assert abs(float(scheduler.sigmas[i]) - level) < 1e-12 * level
    noise = torch.from_numpy(exact_noise(alpha * x, alpha, sigma))
    x = scheduler.step(noise, t, torch.from_numpy(x)).prev_sample.numpy()
    if i % 2 or i == len(every) - 1:
      path.append(x)
  return [every[0], *every[1::2]], path


if __name__ == "__main__":
  main(sys.argv[1])
