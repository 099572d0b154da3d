"""Gradients of kernels of strided and transposed convolutions: XLA's rules, and ours.

  taskset -c 0 python tests/bench/convolutions.py

Prints times in ms, of the layers of DCGAN's generator at 64x64, of a penalty on the
gradient of the image (R1) through the layers of a strided discriminator, of the layers
of PacGAN whose kernels are larger than their images, and of kernels of one pixel.
"""

import time

import jax
import jax.numpy as jnp

from jaxgen.nn.strided_conv import (
  LAYOUT,
  conv_transpose,
  pixel_conv,
  same_pads,
  strided_conv,
)

BATCH, REPEATS = 16, 3
LAYERS = ((4, 512, 256), (8, 256, 128), (16, 128, 64), (32, 64, 3))


def milliseconds(fn, *args):
  jax.block_until_ready(fn(*args))
  start = time.perf_counter()
  for _ in range(REPEATS):
    jax.block_until_ready(fn(*args))
  return (time.perf_counter() - start) / REPEATS * 1e3


def row(name, theirs, ours, x, kernel, penalty=False):
  def loss(fn, x, kernel):
    return jnp.sum(fn(x, kernel) ** 2)

  def scalar(kernel, fn):
    by_x = jax.grad(loss, argnums=1)
    return jnp.sum(by_x(fn, x, kernel) ** 2) if penalty else loss(fn, x, kernel)

  slow, quick = (
    milliseconds(jax.jit(jax.grad(lambda k, fn=fn: scalar(k, fn))), kernel)
    for fn in (theirs, ours)
  )
  print(name, f"{slow:.1f}", f"{quick:.1f}", f"{slow / quick:.1f}", sep="\t")


def main():
  pads = (same_pads(4, 2),) * 2
  same = ((1, 1), (1, 1))
  print("layer", "XLA", "jaxgen", "ratio", sep="\t")
  for side, width, outputs in LAYERS:
    row(
      f"up {side}x{side}x{width} -> {outputs}",
      lambda x, k: jax.lax.conv_transpose(x, k, (2, 2), "SAME"),
      lambda x, k: conv_transpose(x, k, (2, 2), pads),
      jnp.ones((BATCH, side, side, width)),
      jnp.ones((4, 4, width, outputs)),
    )
  for side, width in ((32, 64), (16, 128), (8, 256)):
    row(
      f"R1 {side}x{side}x{width} -> {2 * width}",
      lambda x, k: jax.lax.conv_general_dilated(
        x, k, (2, 2), same, dimension_numbers=("NHWC", "HWIO", "NHWC")
      ),
      lambda x, k: strided_conv(x, k, (2, 2), same),
      jnp.ones((BATCH, side, side, width)),
      jnp.ones((4, 4, width, 2 * width)),
      penalty=True,
    )
  odd = ((1, 2), (1, 2))
  row(
    "small, down 4x4x256 -> 512",
    lambda x, k: jax.lax.conv_general_dilated(
      x, k, (2, 2), odd, dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    lambda x, k: strided_conv(x, k, (2, 2), odd),
    jnp.ones((BATCH, 4, 4, 256)),
    jnp.ones((5, 5, 256, 512)),
  )
  for side, width, wide in ((2, 512, ((3, 2), (3, 2))), (4, 256, ((2, 2), (2, 2)))):
    row(
      f"small, up {side}x{side}x{width} -> {width // 2}",
      lambda x, k, wide=wide: jax.lax.conv_transpose(x, k, (2, 2), wide),
      lambda x, k, wide=wide: conv_transpose(x, k, (2, 2), wide),
      jnp.ones((BATCH, side, side, width)),
      jnp.ones((5, 5, width, width // 2)),
    )
  for side, width in ((32, 64), (16, 128), (8, 512)):
    row(
      f"pixels {side}x{side}x{width} -> {width}",
      lambda x, k: jax.lax.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=LAYOUT
      ),
      lambda x, k: pixel_conv(x, k, (1, 1), "SAME"),
      jnp.ones((BATCH, side, side, width)),
      jnp.ones((1, 1, width, width)),
    )


if __name__ == "__main__":
  main()
