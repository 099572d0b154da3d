"""Writes a DDPM pipeline as diffusers saves it, for tests/test_diffusers_file.py.

  pip install torch==2.13.0 diffusers==0.42.1 safetensors numpy
  python make_ddpm_diffusers.py ddpm_diffusers

The folder holds unet/ and scheduler/ as diffusers wrote them, of a network with random
weights, and outputs.npz: inputs x f32 [B, H, W, C] and t i32 [B], its output y, and of
one reverse step of the scheduler: step_t, step_x, step_noise (what the network said)
and step_mean.
"""

import sys

from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
import numpy as np
import torch


def main(path):
  torch.manual_seed(0)
  net = UNet2DModel(
    sample_size=8,
    in_channels=1,
    out_channels=1,
    block_out_channels=(4, 8),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    norm_num_groups=2,
    norm_eps=1e-6,
    attention_head_dim=None,
    downsample_padding=0,
    flip_sin_to_cos=False,
    freq_shift=1,
  ).eval()
  with torch.no_grad():
    for parameter in net.parameters():
      fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
      parameter.copy_(torch.randn_like(parameter) / fan_in**0.5)
      parameter.add_(1.0 if parameter.ndim == 1 else 0.0)
  scheduler = DDPMScheduler(20, 0.005, 0.2, variance_type="fixed_small")
  DDPMPipeline(net, scheduler).save_pretrained(path)
  x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 17])
  last = lambda a: a.detach().permute(0, 2, 3, 1).numpy()
  with torch.no_grad():
    y = net(x, t).sample
    step = scheduler.step(y, 17, x, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    mean = step.prev_sample - scheduler._get_variance(17) ** 0.5 * noise
  np.savez(
    f"{path}/outputs.npz",
    x=last(x),
    t=t.numpy().astype(np.int32),
    y=last(y),
    step_mean=last(mean),
    step_variance=scheduler._get_variance(17).numpy(),
  )


if __name__ == "__main__":
  main(sys.argv[1])
