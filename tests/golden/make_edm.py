"""Makes edm.npz: what small networks of EDM compute, in float64.

  git clone https://github.com/NVlabs/edm  (CC BY-NC-SA 4.0; seen at 008a4e5)
  pip install torch==2.13.0 numpy scipy requests
  python tests/golden/make_edm.py edm

It imports training/networks.py of that checkout. Weights are those of `weight`, by our
names. For each of ddpmpp, ncsnpp and adm: MODEL/y f64, NHWC, MODEL/names of parameters,
and MODEL/grads [P, 6], numbers of the gradients of <direction, y>, in our layout.
"""

from pathlib import Path
import re
import sys

from diffusion_inputs import (
  AUGMENT_DIM,
  CHANNELS,
  CLASSES,
  LABEL,
  SIZE,
  arrays,
  inputs,
  weight,
)
import numpy as np
import torch

sys.path.insert(0, sys.argv[1])
from training import networks

SONG = dict(model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4])
NCSN = dict(
  embedding_type="fourier",
  encoder_type="residual",
  channel_mult_noise=2,
  resample_filter=[1, 3, 3, 1],
)
ADM = {**SONG, "model_channels": 32, "channel_mult": [1, 4]}
MODELS = {
  "ddpmpp": (networks.SongUNet, SONG),
  "ncsnpp": (networks.SongUNet, {**SONG, **NCSN}),
  "adm": (networks.DhariwalUNet, ADM),
}


class Attention:
  """Weights of attention in the precision of the inputs; theirs are in float32."""

  @staticmethod
  def apply(query, key):
    scores = torch.einsum("ncq,nck->nqk", query, key / key.shape[1] ** 0.5)
    return scores.softmax(dim=2)


class Sinusoids(torch.nn.Module):
  """Their embedding of noise levels in float64; they compute frequencies in float32."""

  def __init__(self, frequencies):
    super().__init__()
    self.frequencies = torch.as_tensor(frequencies)

  def forward(self, x):
    angles = x[:, None] * self.frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def our_name(name):
  """ "enc.8x8_block0.conv0.weight" -> "down0_0/conv0/kernel"."""
  module, leaf = name.rsplit(".", 1)
  level = lambda m: str(int(np.log2(SIZE // int(m[1]))))
  for pattern, replacement in [
    (r"map_layer0", "noise1"),
    (r"map_layer1", "noise2"),
    (r"map_(\w+)", r"\1"),
    (r"dec\.\d+x\d+_aux_(\w+)", r"\1_out"),
    (r"out_(norm|conv)", r"\1_out"),
    (r"enc\.\d+x\d+_conv", "conv_in"),
    (r"dec\.\d+x\d+_in(\d)", r"middle_\1"),
    (r"enc\.(\d+)x\d+_block(\d)", lambda m: f"down{level(m)}_{m[2]}"),
    (r"enc\.(\d+)x\d+_down", lambda m: f"down{level(m)}_resample"),
    (r"enc\.(\d+)x\d+_aux_residual", lambda m: f"down{level(m)}_image"),
    (r"dec\.(\d+)x\d+_block(\d)", lambda m: f"up{level(m)}_{m[2]}"),
    (r"dec\.(\d+)x\d+_up", lambda m: f"up{level(m)}_resample"),
  ]:
    module = re.sub(f"^{pattern}", replacement, module)
  module = module.replace(".", "/")
  scale = "scale" if re.match("norm", module.rsplit("/", 1)[-1]) else "kernel"
  return f"{module}/{scale if leaf == 'weight' else 'bias'}"


def our_layout(name, array, heads):
  """Kernels as Flax has them; queries, keys, values behind one another, not mixed."""
  if "/qkv/" in name:
    array = array.reshape(heads, -1, 3, *array.shape[1:])
    array = np.moveaxis(array, 2, 0).reshape(-1, *array.shape[3:])
  if array.ndim == 4 and array.shape[2] == 1:
    array = array[:, :, 0, 0]
  return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def their_layout(name, ours, like, heads):
  array = ours.transpose(3, 2, 0, 1) if ours.ndim == 4 else ours.T
  if "/qkv/" in name:
    array = np.moveaxis(array.reshape(3, heads, -1, *array.shape[1:]), 0, 2)
  return np.ascontiguousarray(array).reshape(like.shape)


def run(model):
  make, options = MODELS[model]
  net = make(
    SIZE, CHANNELS, CHANNELS, label_dim=CLASSES, augment_dim=AUGMENT_DIM, **options
  )
  net.double().eval()
  half = options["model_channels"] // 2
  kinds = {
    "ddpmpp": 10000.0 ** (-np.arange(half) / (half - 1)),
    "ncsnpp": 32 * np.pi * np.random.default_rng(0).standard_normal(2 * half),
    "adm": 10000.0 ** (-np.arange(half) / half),
  }
  net.map_noise = Sinusoids(kinds[model])
  heads = 2 if model == "adm" else 1
  with torch.no_grad():
    for name, parameter in net.named_parameters():
      ours = our_name(name)
      shape = our_layout(ours, parameter.numpy(), heads).shape
      value = their_layout(ours, weight(ours, shape), parameter, heads)
      parameter.copy_(torch.as_tensor(value))
  x, t, augment, direction = inputs()
  channels_first = lambda a: torch.as_tensor(a.transpose(0, 3, 1, 2))
  label = torch.nn.functional.one_hot(torch.as_tensor(LABEL), CLASSES).double()
  y = net(channels_first(x), torch.as_tensor(t), label, torch.as_tensor(augment))
  (channels_first(direction[..., :CHANNELS]) * y).sum().backward()
  grads = {}
  for name, parameter in net.named_parameters():
    ours = our_name(name)
    grads[ours] = our_layout(ours, parameter.grad.numpy(), heads)
  return arrays(y.detach().numpy().transpose(0, 2, 3, 1), grads)


if __name__ == "__main__":
  networks.AttentionOp = Attention
  found = {f"{model}/{k}": v for model in MODELS for k, v in run(model).items()}
  np.savez_compressed(Path(__file__).with_name("edm.npz"), **found)
