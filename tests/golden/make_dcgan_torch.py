"""Makes dcgan_torch.npz: one step of a narrow DCGAN of 64x64 pixels in PyTorch.

  pip install torch==2.13.0 numpy
  python tests/golden/make_dcgan_torch.py

Everything is float64. The networks follow the text of Radford et al. (2015) with the
sizes of the common reference (4x4 kernels, one width for both). The step is the usual
one: the discriminator on real and fake batches, the generator against the
discriminator just updated; plain SGD, so that the updates show the gradients.

Keys: z, image (NHWC), fake (every third pixel), disc_loss, gen_loss, and per network
  NET/weight/K   weights before, in order of use, in Flax's layout
  NET/grad/K     gradients used by NET's own update, likewise
  NET/norm/K/*   scale, bias and their gradients, running mean, running variance
                 (unbiased, as PyTorch keeps it)
"""

import itertools
from pathlib import Path

import numpy as np
import torch
from torch import nn

WIDTH, LATENT, BATCH, LR = 3, 5, 2, 0.05


def generator(width, latent):
  layers, sizes = [], [latent, 8 * width, 4 * width, 2 * width, width]
  for i, (a, b) in enumerate(itertools.pairwise(sizes)):
    stride, pad = (1, 0) if i == 0 else (2, 1)
    layers += [nn.ConvTranspose2d(a, b, 4, stride, pad, bias=False)]
    layers += [nn.BatchNorm2d(b), nn.ReLU()]
  layers += [nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh()]
  return nn.Sequential(*layers)


def discriminator(width):
  layers = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
  for scale in (1, 2, 4):
    a, b = scale * width, 2 * scale * width
    layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b)]
    layers += [nn.LeakyReLU(0.2)]
  return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, bias=False), nn.Flatten(0))


def to_flax(net, layer, weight):
  """A kernel of `layer` in Flax's layout and orientation.

  The first layer of a generator and the last of a discriminator see a map of one
  pixel on one side: they become dense, [latent, H*W*C] and [H*W*C, 1].
  """
  weight = weight.detach().numpy().copy()
  if isinstance(layer, nn.ConvTranspose2d):  # IOHW
    if layer is net[0]:
      return weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
    return weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
  if layer is net[-2]:  # OIHW
    return weight.transpose(2, 3, 1, 0).reshape(-1, 1)
  return weight.transpose(2, 3, 1, 0)


def convs(net):
  kinds = nn.Conv2d, nn.ConvTranspose2d
  return [layer for layer in net if isinstance(layer, kinds)]


def record(out, name, net):
  for k, layer in enumerate(convs(net)):
    weight = to_flax(net, layer, layer.weight)
    out[f"{name}/weight/{k}"] = weight.astype(np.float32)
  for k, norm in enumerate(norms(net)):
    out[f"{name}/norm/{k}/scale"] = norm.weight.detach().numpy().copy()
    out[f"{name}/norm/{k}/bias"] = norm.bias.detach().numpy().copy()


def record_grads(out, name, net):
  for k, layer in enumerate(convs(net)):
    out[f"{name}/grad/{k}"] = to_flax(net, layer, layer.weight.grad)
  for k, norm in enumerate(norms(net)):
    out[f"{name}/norm/{k}/scale_grad"] = norm.weight.grad.numpy().copy()
    out[f"{name}/norm/{k}/bias_grad"] = norm.bias.grad.numpy().copy()


def record_averages(out, name, net):
  for k, norm in enumerate(norms(net)):
    out[f"{name}/norm/{k}/mean"] = norm.running_mean.numpy().copy()
    out[f"{name}/norm/{k}/var"] = norm.running_var.numpy().copy()


def norms(net):
  return [layer for layer in net if isinstance(layer, nn.BatchNorm2d)]


def randomize(net, rng):
  for p in net.parameters():
    values = 0.2 * rng.standard_normal(p.shape) + (1.0 if p.ndim == 1 else 0.0)
    p.data = torch.from_numpy(values.astype(np.float32).astype(np.float64))


def main():
  count = lambda net: sum(p.numel() for p in net.parameters())
  print("parameters at width 64:", count(generator(64, 100)), count(discriminator(64)))

  rng = np.random.default_rng(0)
  gen, disc = generator(WIDTH, LATENT).double(), discriminator(WIDTH).double()
  randomize(gen, rng)
  randomize(disc, rng)
  z = rng.standard_normal((BATCH, LATENT))
  pixels = rng.integers(0, 256, (BATCH, 64, 64, 3), dtype=np.uint8)
  image = torch.from_numpy(pixels.transpose(0, 3, 1, 2) / 127.5 - 1.0)
  out = {"z": z, "pixels": pixels, "lr": np.float64(LR)}
  record(out, "gen", gen)
  record(out, "disc", disc)

  cross_entropy = nn.functional.binary_cross_entropy_with_logits
  real, false = torch.ones(BATCH).double(), torch.zeros(BATCH).double()
  fake = gen(torch.from_numpy(z)[:, :, None, None])
  disc_loss = cross_entropy(disc(image), real)
  disc_loss = disc_loss + cross_entropy(disc(fake.detach()), false)
  disc_loss.backward()
  record_grads(out, "disc", disc)
  record_averages(out, "disc", disc)  # before the generator's turn moves them again
  torch.optim.SGD(disc.parameters(), LR).step()

  gen_loss = cross_entropy(disc(fake), real)
  gen_loss.backward()
  record_grads(out, "gen", gen)
  record_averages(out, "gen", gen)
  out["fake"] = fake.detach().numpy().transpose(0, 2, 3, 1)[:, ::3, ::3]
  out["disc_loss"], out["gen_loss"] = disc_loss.item(), gen_loss.item()

  path = Path(__file__).with_name("dcgan_torch.npz")
  np.savez_compressed(path, **out)
  print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
  main()
