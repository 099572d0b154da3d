"""Makes dit.npz: what a small DiT of diffusers computes, in float64.

  pip install torch==2.13.0 diffusers==0.42.1 numpy
  python tests/golden/make_dit.py

Weights are those of `weight`, by our names; diffusers embeds time and label anew in
every block, with the same weights here. y f64, NHWC, names of parameters, and grads [P,
6], numbers of the gradients of <direction, y>, in our layout.
"""

from pathlib import Path
import re

from diffusers import DiTTransformer2DModel
from diffusion_inputs import CHANNELS, CLASSES, LABEL, SIZE, arrays, inputs, weight
import numpy as np
import torch

HEADS, HEAD_DIM, DEPTH, PATCH = 2, 8, 2, 2


class Sinusoids(torch.nn.Module):
  """The authors' embedding in float64; diffusers has other frequencies."""

  def forward(self, t):
    frequencies = 10000.0 ** (-torch.arange(128, dtype=torch.float64) / 128)
    angles = t.double()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def positions(width, side):
  """Its table of positions in float64, which diffusers rounds: columns, then rows."""
  frequencies = 10000.0 ** (-np.arange(width // 4) / (width // 4))
  rows, columns = np.divmod(np.arange(side**2), side)
  angles = [np.outer(columns, frequencies), np.outer(rows, frequencies)]
  return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1)


def our_name(name):
  """ "transformer_blocks.0.attn1.to_q.weight" -> "block0/query/kernel"."""
  for pattern, replacement in [
    (r"^transformer_blocks\.\d+\.norm1\.emb\.timestep_embedder\.linear_", "time"),
    (r"^transformer_blocks\.\d+\.norm1\.emb\.class_embedder\.embedding_table", "label"),
    (r"^transformer_blocks\.(\d+)\.", r"block\1/"),
    (r"norm1\.linear|^proj_out_1", "modulation"),
    (r"^proj_out_2", "out"),
    (r"^pos_embed\.proj", "patches"),
    (r"attn1\.to_out\.0", "out"),
    (r"attn1\.to_q", "query"),
    (r"attn1\.to_k", "key"),
    (r"attn1\.to_v", "value"),
    (r"ff\.net\.0\.proj", "mlp1"),
    (r"ff\.net\.2", "mlp2"),
    (r"\.weight$", "/kernel"),
    (r"\.bias$", "/bias"),
    (r"^label/kernel", "label/embedding"),
  ]:
    name = re.sub(pattern, replacement, name)
  return name


def our_layout(name, array):
  if array.ndim == 4:  # patches: rows, columns, channels
    return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
  return array if name == "label/embedding" else array.T


def their_layout(name, ours, like):
  if like.ndim == 4:
    side = like.shape[-1]
    ours = ours.reshape(side, side, -1, like.shape[0]).transpose(3, 2, 0, 1)
    return np.ascontiguousarray(ours)
  return ours if name == "label/embedding" else np.ascontiguousarray(ours.T)


def main():
  net = DiTTransformer2DModel(
    num_attention_heads=HEADS,
    attention_head_dim=HEAD_DIM,
    in_channels=CHANNELS,
    out_channels=2 * CHANNELS,
    num_layers=DEPTH,
    sample_size=SIZE,
    patch_size=PATCH,
    num_embeds_ada_norm=CLASSES,
    norm_eps=1e-6,
  )
  net.double().eval()
  table = positions(HEADS * HEAD_DIM, SIZE // PATCH)
  np.testing.assert_allclose(table, net.pos_embed.pos_embed[0].numpy(), atol=1e-6)
  net.pos_embed.pos_embed = torch.as_tensor(table[None])
  for block in net.transformer_blocks:
    block.norm1.emb.time_proj = Sinusoids()
  with torch.no_grad():
    for name, parameter in net.named_parameters():
      ours = our_name(name)
      shape = our_layout(ours, parameter.numpy()).shape
      value = their_layout(ours, weight(ours, shape), parameter)
      parameter.copy_(torch.as_tensor(value))
  x, t, _, direction = inputs(steps=True)
  channels_first = lambda a: torch.as_tensor(a.transpose(0, 3, 1, 2))
  y = net(channels_first(x), torch.as_tensor(t), torch.as_tensor(LABEL)).sample
  (channels_first(direction) * y).sum().backward()
  grads = {}
  for name, parameter in net.named_parameters():
    ours = our_name(name)
    if parameter.grad is not None:
      found = our_layout(ours, parameter.grad.numpy())
      grads[ours] = grads.get(ours, 0) + found
  found = arrays(y.detach().numpy().transpose(0, 2, 3, 1), grads)
  np.savez_compressed(Path(__file__).with_name("dit.npz"), **found)


if __name__ == "__main__":
  main()
