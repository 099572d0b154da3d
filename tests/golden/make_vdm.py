"""Makes vdm.npz: what a small network of VDM computes, in float64.

  git clone https://github.com/google-research/vdm  (Apache 2.0; seen at dc27b98)
  pip install jax flax chex numpy
  python tests/golden/make_vdm.py vdm

It imports model_vdm.py of that checkout. Weights are those of `weight`, by our names: y
f64, NHWC, names of parameters, and grads [P, 6], numbers of the gradients of
<direction, y>. Of the decoder: log_p, the log-probabilities of `levels`.
"""

import functools
from pathlib import Path
import re
import sys

from diffusion_inputs import CHANNELS, arrays, inputs, weight
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, sys.argv[1])
import model_vdm

GAMMA_0 = -5.0


def our_name(name):
  """ "down.block_0/cond_proj/kernel" -> "down_0/time/kernel"."""
  for pattern, replacement in [
    (r"^dense(\d)", lambda m: f"time{int(m[1]) + 1}"),
    (r"^(down|up)\.block_(\d)", r"\1_\2"),
    (r"^mid\.block_(\d)", lambda m: f"middle_{int(m[1]) - 1}"),
    (r"^mid\.attn_1", "middle_attention"),
    (r"^GroupNorm_0", "norm_out"),
    (r"attention/GroupNorm_0", "attention/norm"),
    (r"/GroupNorm_(\d)", lambda m: f"/norm{int(m[1]) + 1}"),
    (r"/cond_proj", "/time"),
    (r"/nin_shortcut", "/shortcut"),
    (r"/q/", "/query/"),
    (r"/k/", "/key/"),
    (r"/v/", "/value/"),
    (r"/proj_out", "/out"),
  ]:
    name = re.sub(pattern, replacement, name)
  return name


def main():
  for name in ("get_timestep_embedding", "dot_product_attention"):  # in float32 there
    wide = functools.partial(getattr(model_vdm, name), dtype=jnp.float64)
    setattr(model_vdm, name, wide)
  config = model_vdm.VDMConfig(
    vocab_size=256,
    sample_softmax=False,
    antithetic_time_sampling=True,
    with_fourier_features=True,
    with_attention=False,
    gamma_type="fixed",
    gamma_min=-13.3,
    gamma_max=5.0,
    sm_n_timesteps=0,
    sm_n_embd=64,  # more than the 32 groups: a norm of one channel hides the time
    sm_n_layer=1,
    sm_pdrop=0.0,
  )
  net = model_vdm.ScoreUNet(config)
  z, gamma, augment, direction = inputs()
  condition = jnp.asarray(augment[:, 0])
  variables = net.init(jax.random.key(0), z, jnp.asarray(gamma), condition)
  flat = traverse_util.flatten_dict(variables["params"], sep="/")
  params = {
    name: jnp.asarray(weight(our_name(name), p.shape)) for name, p in flat.items()
  }

  def loss(params):
    tree = {"params": traverse_util.unflatten_dict(params, sep="/")}
    y = net.apply(tree, z, jnp.asarray(gamma), condition)
    return jnp.sum(direction[..., :CHANNELS] * y), y

  grads, y = jax.grad(loss, has_aux=True)(params)
  found = arrays(np.asarray(y), {our_name(k): v for k, v in grads.items()})
  levels = np.random.default_rng(1).integers(0, 256, z.shape)
  decoder = model_vdm.EncDec(config)
  log_p = decoder.apply({}, z, jnp.asarray([GAMMA_0]), method="decode")
  log_p = np.take_along_axis(np.asarray(log_p), levels[..., None], axis=-1)[..., 0]
  path = Path(__file__).with_name("vdm.npz")
  np.savez_compressed(path, **found, levels=levels, log_p=log_p)


if __name__ == "__main__":
  with jax.enable_x64(True):
    main()
