"""Parameters and first states without compiling what would draw them."""

import jax
import numpy as np


def normals(shapes, seed=0):
  """N(0, 1) for every number of a tree of shapes: biases are not zero."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: np.asarray(rng.standard_normal(x.shape), x.dtype), shapes
  )


def params_of(net, *inputs, **kwargs):
  """`normals` for the parameters of `net.init(key, *inputs, **kwargs)`."""
  key = jax.random.key(0)
  keys = {"params": key, "noise": key}
  return normals(jax.eval_shape(lambda: net.init(keys, *inputs, **kwargs))["params"])


def first_state(method, batch, seed=0):
  """As `method.init`: kernels of a spectral norm of 1, scales and variances of 1.

  All else is 0 but the vectors of spectral norm, and averages are their networks.
  """
  rng = np.random.default_rng(seed)

  def draw(path, x):
    if x.ndim > 1:
      matrix = rng.standard_normal((x.size // x.shape[-1], x.shape[-1]))
      return np.asarray(matrix / np.linalg.norm(matrix, 2), x.dtype).reshape(x.shape)
    is_one = any(n in jax.tree_util.keystr(path) for n in ("scale", "var", "sigma"))
    return np.full(x.shape, float(is_one), x.dtype)

  shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
  drawn = lambda tree: jax.tree_util.tree_map_with_path(draw, tree)
  params, stats = drawn(shapes.params), drawn(shapes.stats)
  averages = {f"averaged_{name}": stats[name] for name in shapes.ema}
  zeros = lambda tree: jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)
  return shapes.replace(
    step=np.zeros((), np.int32),
    params=params,
    opt=zeros(shapes.opt),
    stats={**stats, **averages},
    ema={name: params[name] for name in shapes.ema},
  )
