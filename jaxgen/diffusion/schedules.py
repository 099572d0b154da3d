"""Variances of steps, and grids of times to sample on.

A grid falls from noise to data, so that a sampler of N steps takes N + 1 times.
`levels` are noise levels sigma / alpha; `Process.time` of them are times.
"""

import numpy as np


def linear_betas(
  num_steps: int = 1000, start: float = 1e-4, end: float = 0.02
) -> np.ndarray:
  """Variances rising linearly (Ho et al., 2020, arXiv 2006.11239, Section 4).

  The end points suit 1000 steps; for fewer, scale both by 1000 / num_steps.

  Returns:
    f64 [num_steps].
  """
  return np.linspace(start, end, num_steps)


def cosine_betas(
  num_steps: int = 1000, offset: float = 0.008, largest: float = 0.999
) -> np.ndarray:
  """Those of alpha_bar = cos^2 (Nichol & Dhariwal, 2021, arXiv 2102.09672, Eq. 17).

  Args:
    num_steps: T.
    offset: Keeps the first variances from vanishing.
    largest: Variances are clipped to it (Section 3.2): the last would be 1.

  Returns:
    f64 [num_steps].
  """
  t = np.arange(num_steps + 1) / num_steps
  alpha_bar = np.cos(0.5 * np.pi * (t + offset) / (1.0 + offset)) ** 2
  return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], largest)


def uniform(num_steps: int, start: float, end: float = 0.0) -> np.ndarray:
  """Times evenly from `start` down to `end`; f64 [num_steps + 1]."""
  return np.linspace(start, end, num_steps + 1)


def karras_levels(
  num_steps: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0
) -> np.ndarray:
  """Levels even in level^(1 / rho) from `high` to `low`, then 0.

  (Karras et al., 2022, arXiv 2206.00364, Eq. 5.)

  Returns:
    f64 [num_steps + 1].
  """
  roots = np.linspace(high ** (1.0 / rho), low ** (1.0 / rho), num_steps)
  return np.append(roots**rho, 0.0)


def log_levels(num_steps: int, low: float = 0.002, high: float = 80.0) -> np.ndarray:
  """Levels even in log-SNR from `high` to `low`, then 0; f64 [num_steps + 1]."""
  return np.append(np.geomspace(high, low, num_steps), 0.0)


def linear_steps(total: int, num_steps: int) -> np.ndarray:
  """Every (total // num_steps)-th step from step 1, downwards, then 0 (DDIM's code).

  (Song et al., 2020, arXiv 2010.02502, Appendix D.2.) The last steps, up to
  total // num_steps - 1 of them, are left out.

  Returns:
    f64 [num_steps + 1] of whole numbers.
  """
  _check_subset(total, num_steps)
  steps = 1 + np.arange(num_steps) * (total // num_steps)
  return np.append(steps[::-1], 0).astype(np.float64)


def quadratic_steps(total: int, num_steps: int) -> np.ndarray:
  """Steps close together near the data: floor(c i^2) + 1 (Song et al., 2020, D.2).

  The largest is about 0.8 total, as in the authors' code. Where squares are closer
  than 1, steps are the next ones that are free.

  Returns:
    f64 [num_steps + 1] of whole numbers, falling to 0.
  """
  _check_subset(total, num_steps)
  steps = 1 + np.floor(np.linspace(0.0, np.sqrt(0.8 * total), num_steps) ** 2)
  steps = np.minimum(steps, total - np.arange(num_steps)[::-1])
  for i in range(1, num_steps):
    steps[i] = max(steps[i], steps[i - 1] + 1)
  if steps[-1] > total:
    raise ValueError(f"num_steps={num_steps}: too many squares for {total} steps")
  return np.append(steps[::-1], 0).astype(np.float64)


def even_steps(total: int, num_steps: int) -> np.ndarray:
  """Evenly from the last step to the first, rounded, then 0 (Nichol & Dhariwal, 4).

  Returns:
    f64 [num_steps + 1] of whole numbers.
  """
  _check_subset(total, num_steps)
  # Halves are rounded as in their code, where steps are counted from 0.
  rest = np.round(np.linspace(total - 1, 0, num_steps))
  return np.append(1 + rest, 0).astype(np.float64)


def _check_subset(total: int, num_steps: int) -> None:
  if not 1 <= num_steps <= total:
    raise ValueError(f"num_steps must be from 1 to {total}, got {num_steps}")
