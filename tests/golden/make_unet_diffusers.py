"""Writes what diffusers' port of the DDPM U-Net computes, for tests/test_unet.py.

  pip install torch==2.13.0 diffusers==0.42.1 numpy
  python make_unet_diffusers.py small unet_diffusers.npz
  python make_unet_diffusers.py cifar10 /tmp/cifar10.npz  # 200 MB, to look at by hand

Every parameter is drawn anew, also those that start at zero. The file holds, in the
names and layouts of `jaxgen.nn.unet.UNet`: params/NAME f16, the inputs x f32
[B, H, W, C] and t i32 [B], the output y, and grads/NAME, the gradient of
sum(y ** 2) / 2. `small` computes in float64, `cifar10` in float32.
"""

import argparse
import re

from diffusers import UNet2DModel
import numpy as np
import torch


def build(size):
  """The network of google/ddpm-cifar10-32, or one of 3 levels and 4 channels."""
  levels = {
    "small": {"block_out_channels": (4, 8, 8), "layers_per_block": 1, "groups": 2},
    "cifar10": {"block_out_channels": (128, 256, 256, 256), "groups": 32},
  }[size]
  groups = levels.pop("groups")
  kinds = [""] * len(levels["block_out_channels"])
  kinds[1] = "Attn"  # the second level: 16x16 of 32x32, 4x4 of 8x8
  return UNet2DModel(
    sample_size=8 if size == "small" else 32,
    down_block_types=[kind + "DownBlock2D" for kind in kinds],
    up_block_types=[kind + "UpBlock2D" for kind in reversed(kinds)],
    norm_num_groups=groups,
    norm_eps=1e-6,
    attention_head_dim=None,
    act_fn="silu",
    downsample_padding=0,
    flip_sin_to_cos=False,
    freq_shift=1,
    dropout=0.0,
    **levels,
  )


class Sinusoids(torch.nn.Module):
  """The time embedding in float64; diffusers computes it in float32."""

  def __init__(self, dim):
    super().__init__()
    self.dim = dim

  def forward(self, t):
    half = self.dim // 2
    exponents = torch.arange(half, dtype=torch.float64) / (half - 1)
    angles = t.double()[:, None] * 10000.0**-exponents
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)


def our_name(name, num_levels):
  """ "down_blocks.1.resnets.0.conv1.weight" -> "down1_0_res/conv1/kernel"."""
  module, leaf = name.rsplit(".", 1)
  module = module.replace("to_out.0", "to_out")
  for pattern, replacement in [
    (r"down_blocks\.(\d+)\.downsamplers\.0\.conv", r"down\1_conv"),
    (r"up_blocks\.(\d+)\.upsamplers\.0\.conv", r"up\1_conv"),
    (r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.", r"\1\2_\3_res/"),
    (r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.", r"\1\2_\3_attention/"),
    (r"mid_block\.resnets\.(\d+)\.", r"middle_\1_res/"),
    (r"mid_block\.attentions\.0\.", r"middle_attention/"),
    (r"time_embedding\.linear_(\d)", r"time\1"),
    (r"conv_norm_out", "norm_out"),
    (r"/time_emb_proj", "/time"),
    (r"/conv_shortcut", "/shortcut"),
    (r"/group_norm", "/norm"),
    (r"/to_q", "/query"),
    (r"/to_k", "/key"),
    (r"/to_v", "/value"),
    (r"/to_out", "/out"),
  ]:
    module = re.sub(pattern, replacement, module)
  # Up blocks are counted from the lowest resolution there, by level here.
  module = re.sub(r"^up(\d)", lambda m: f"up{num_levels - 1 - int(m[1])}", module)
  scale = "scale" if "norm" in module.rsplit("/", 1)[-1] else "kernel"
  return f"{module}/{scale if leaf == 'weight' else 'bias'}"


def our_layout(name, array):
  array = array.detach().numpy()
  if name.endswith("shortcut/kernel"):
    return array[:, :, 0, 0].T
  return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def main(size, path):
  torch.manual_seed(0)
  net = build(size).eval()
  t = torch.tensor([3, 977])
  embed = Sinusoids(net.config.block_out_channels[0])
  torch.testing.assert_close(
    net.time_proj(t), embed(t).float(), rtol=0, atol=1e-4
  )  # 977 radians in float32
  with torch.no_grad():
    for parameter in net.parameters():
      fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
      parameter.copy_(torch.randn_like(parameter) / fan_in**0.5)
      parameter.add_(1.0 if parameter.ndim == 1 else 0.0)
      parameter.copy_(parameter.half())  # a value that float16 holds, to store it so
  x = torch.randn(2, 3, net.config.sample_size, net.config.sample_size)
  params = {name: p.detach().clone() for name, p in net.named_parameters()}
  dtype = torch.float64 if size == "small" else torch.float32
  net.time_proj = embed
  net.to(dtype)
  y = net(x.to(dtype), t).sample
  (y**2).sum().div(2).backward()

  arrays = {
    "x": x.permute(0, 2, 3, 1).numpy(),
    "t": t.numpy().astype(np.int32),
    "y": y.detach().permute(0, 2, 3, 1).numpy(),
  }
  for name, parameter in net.named_parameters():
    ours = our_name(name, len(net.config.block_out_channels))
    arrays[f"params/{ours}"] = our_layout(ours, params[name].half())
    arrays[f"grads/{ours}"] = our_layout(ours, parameter.grad)
  np.savez_compressed(path, **arrays)
  print(sum(p.numel() for p in net.parameters()), "parameters")


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("size", choices=("small", "cifar10"))
  parser.add_argument("path")
  main(**vars(parser.parse_args()))
