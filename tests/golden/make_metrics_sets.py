"""Makes metrics_sets.npz: values of the reference implementations of set metrics.

  pip install pytorch-fid==0.3.0 torch-fidelity==0.4.0 torchmetrics==1.9.0 prdc==0.2
  pip install scipy
  python tests/golden/make_metrics_sets.py

Inputs are drawn by `inputs` (float64), which the test repeats; only results are stored.

Keys:
  fid_pytorch_fid, fid_torch_fidelity   of `x` and `y`
  fid_singular                          torch-fidelity, of 10 rows each: rank 9 of 12
  kid_torch_fidelity, kid_torchmetrics  of the same rows of `x` and `y`
  isc_mean, isc_std                     torch-fidelity, 10 splits, not shuffled
  precision_K, recall_K                 torch-fidelity, `x` real, K = 3, 5
  density_K, coverage_K                 prdc, `x` real, K = 3, 5
  pyramid_I                             level I of 3 of `images` (NHWC), scipy, float64
  slices                                scipy.stats, mean Wasserstein-1 distance of `x`
                                        and `y` along `directions`
"""

from pathlib import Path

import numpy as np


def inputs():
  """Features x [60, 12] and y [60, 12], correlated and shifted; logits; images."""
  rng = np.random.default_rng(0)
  x, y = rng.standard_normal((2, 60, 12))
  x = x @ rng.standard_normal((12, 12)) + 1.0
  y = 0.5 * x[::-1] + y @ rng.standard_normal((12, 12))
  return {
    "x": x,
    "y": y,
    "logits": 2 * rng.standard_normal((103, 7)),
    "images": rng.uniform(-1, 1, (2, 32, 28, 2)),
    "directions": rng.standard_normal((20, 12)),
  }


def frechet(x, y):
  from pytorch_fid.fid_score import calculate_frechet_distance
  import torch
  from torch_fidelity.metric_fid import (
    fid_features_to_statistics,
    fid_statistics_to_metric,
  )

  statistics = lambda a: fid_features_to_statistics(torch.tensor(a))
  of = lambda a, b: fid_statistics_to_metric(statistics(a), statistics(b), False)
  moments = [f(a) for a in (x, y) for f in (lambda a: a.mean(0), lambda a: np.cov(a.T))]
  return {
    "fid_pytorch_fid": calculate_frechet_distance(*moments),
    "fid_torch_fidelity": of(x, y)["frechet_inception_distance"],
    "fid_singular": of(x[:10], y[:10])["frechet_inception_distance"],
  }


def kernel(x, y):
  import torch
  from torch_fidelity.metric_kid import kid_features_to_metric
  from torchmetrics.image.kid import poly_mmd

  x, y = torch.tensor(x), torch.tensor(y)
  whole = {"kid_subsets": 1, "kid_subset_size": len(x), "verbose": False}
  fidelity = kid_features_to_metric(x, y, **whole)
  return {
    "kid_torch_fidelity": fidelity["kernel_inception_distance_mean"],
    "kid_torchmetrics": poly_mmd(x, y).item(),
  }


def scores(logits, x, y):
  import torch
  from torch_fidelity.metric_isc import isc_features_to_metric
  from torch_fidelity.metric_prc import calculate_precision_recall_full

  isc = isc_features_to_metric(torch.tensor(logits), 10, shuffle=False)
  out = {f"isc_{name}": isc[f"inception_score_{name}"] for name in ("mean", "std")}
  for k in (3, 5):
    generated, real = torch.tensor(y), torch.tensor(x)
    precision, recall = calculate_precision_recall_full(generated, real, k)
    out |= {f"precision_{k}": precision, f"recall_{k}": recall}
  return out


def neighbours(x, y):
  from prdc import compute_prdc

  out = {}
  for k in (3, 5):
    found = compute_prdc(x, y, k)
    out |= {f"{name}_{k}": found[name] for name in ("density", "coverage")}
  return out


def slices(images, x, y, directions):
  from scipy.ndimage import convolve1d
  from scipy.stats import wasserstein_distance

  def blur(image):
    for axis in (1, 2):
      image = convolve1d(
        image, [0.0625, 0.25, 0.375, 0.25, 0.0625], axis, mode="mirror"
      )
    return image

  levels = [images]
  for _ in range(2):
    levels += [blur(levels[-1])[:, ::2, ::2]]
  for i in range(2):
    wide = np.zeros_like(levels[i])
    wide[:, ::2, ::2] = levels[i + 1]
    levels[i] = levels[i] - 4 * blur(wide)
  units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
  distances = [wasserstein_distance(x @ u, y @ u) for u in units]
  return {f"pyramid_{i}": v for i, v in enumerate(levels)} | {
    "slices": np.mean(distances)
  }


if __name__ == "__main__":
  a = inputs()
  x, y = a["x"], a["y"]
  golden = frechet(x, y) | kernel(x, y) | scores(a["logits"], x, y)
  golden |= neighbours(x, y)
  golden |= slices(a["images"], x, y, a["directions"])
  np.savez_compressed(Path(__file__).parent / "metrics_sets.npz", **golden)
  print({k: v if np.ndim(v) == 0 else v.shape for k, v in golden.items()})
