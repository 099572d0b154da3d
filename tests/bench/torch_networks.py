"""Seconds of a train step here and in PyTorch, as `torch_ratios.py`: larger networks.

  pip install torch diffusers transformers
  python tests/bench/torch_networks.py                  # all, on all cores
  taskset -c 0 python tests/bench/torch_networks.py gpt   # one, on one core

  unet  DDPM's U-Net of 32, 64, 64 channels, 16x16x1, batch 32: UNet2DModel of diffusers
  dit   DiT of 6 blocks, 192 wide, 64 tokens, batch 32: DiTTransformer2DModel of
        diffusers, which embeds time and label in every block (more parameters, hardly
        more work) and has the loss of the noise only
  gpt   4 layers, 128 wide, 12 sequences of 64 characters: GPT2LMHeadModel of
        transformers
  unet_compiled, dit_compiled, gpt_compiled  against torch.compile of the same

float32, Adam, no dropout; the average of the weights that our methods keep is counted.
"""

import sys

import numpy as np
import optax
import torch_ratios
from torch_ratios import THREADS, stepper, torch_stepper

from jaxgen.autoregressive.gpt import gpt
from jaxgen.diffusion.ddpm import ddpm
from jaxgen.diffusion.dit import dit
from jaxgen.diffusion.schedules import linear_betas
from jaxgen.nn import transformer
from jaxgen.nn.dit import DiT
from jaxgen.nn.unet import UNet

BETAS = linear_betas(1_000, 1e-4, 0.02)


def noise_loss(net, x):
  """The loss of DDPM for net(x_t, t), of images in torch."""
  import torch

  kept = torch.from_numpy(np.cumprod(1 - BETAS).astype(np.float32))

  def loss():
    t = torch.randint(len(BETAS), (len(x),))
    noise, a = torch.randn_like(x), kept[t].reshape(-1, 1, 1, 1)
    found = net(a.sqrt() * x + (1 - a).sqrt() * noise, t)
    return torch.nn.functional.mse_loss(found, noise)

  return loss


def images(num, side, channels):
  import torch

  x = np.random.default_rng(0).uniform(-1, 1, (num, side, side, channels))
  x = x.astype(np.float32)
  return x, torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def bench_unet(compiled):
  from diffusers import UNet2DModel

  here, there = images(32, 16, 1)
  net = UNet(
    channels=32, channel_mults=(1, 2, 2), num_res_blocks=1, dropout_rate=0.0,
    attention_resolutions=(8,), num_groups=8,
  )  # fmt: skip
  theirs = compiled(
    UNet2DModel(
      sample_size=16, in_channels=1, out_channels=1, layers_per_block=1,
      block_out_channels=(32, 64, 64), norm_num_groups=8, attention_head_dim=None,
      down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
      up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )
  )  # fmt: skip
  method = ddpm(net, tx=optax.adam(1e-3), betas=BETAS, ema_decay=0.999)
  predict = lambda x, t: theirs(x, t, return_dict=False)[0]
  ours = stepper(method, {"image": here})
  return ours, torch_stepper(theirs, noise_loss(predict, there))


def bench_dit(compiled):
  from diffusers import DiTTransformer2DModel
  import torch

  here, there = images(32, 16, 4)
  label = np.arange(32, dtype=np.int32) % 10
  net = DiT(patch_size=2, depth=6, width=192, num_heads=3, num_classes=10)
  theirs = compiled(
    DiTTransformer2DModel(
      num_attention_heads=3, attention_head_dim=64, in_channels=4, out_channels=8,
      num_layers=6, sample_size=16, patch_size=2, num_embeds_ada_norm=10,
    )
  )  # fmt: skip
  labels = torch.from_numpy(label).long()
  predict = lambda x, t: theirs(x, t, labels, return_dict=False)[0][:, :4]
  method = dit(net, tx=optax.adam(1e-3), betas=BETAS, ema_decay=0.999)
  ours = stepper(method, {"image": here, "label": label})
  return ours, torch_stepper(theirs, noise_loss(predict, there))


def bench_gpt(compiled):
  import torch
  from transformers import GPT2Config, GPT2LMHeadModel

  tokens = np.random.default_rng(0).integers(0, 65, (12, 65)).astype(np.int32)
  layers = transformer.Transformer(4, 4, activation=transformer.gelu_tanh, unroll=4)
  net = transformer.TokenTransformer(layers, num_tokens=65, width=128, max_length=64)
  config = GPT2Config(
    vocab_size=65, n_positions=64, n_embd=128, n_layer=4, n_head=4, resid_pdrop=0.0,
    embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
  )  # fmt: skip
  theirs, there = compiled(GPT2LMHeadModel(config)), torch.from_numpy(tokens).long()

  def loss():
    logits = theirs(there[:, :-1]).logits
    return torch.nn.functional.cross_entropy(
      logits.flatten(0, 1), there[:, 1:].flatten()
    )

  method = gpt(net, tx=optax.adam(1e-3), prompt=[0])
  return stepper(method, {"tokens": tokens}), torch_stepper(theirs, loss)


BENCHES = {"unet": bench_unet, "dit": bench_dit, "gpt": bench_gpt}


def main(names):
  import torch

  torch.set_num_threads(THREADS)
  for name in names:
    kind, _, compiled = name.partition("_")
    ours, theirs = BENCHES[kind](torch.compile if compiled else lambda net: net)
    torch_ratios.show(name, ours, theirs)


if __name__ == "__main__":
  main(sys.argv[1:] or [*BENCHES, *(f"{name}_compiled" for name in BENCHES)])
