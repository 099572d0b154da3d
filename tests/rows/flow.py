"""Rows of the generic table: flow."""

import optax

from jaxgen.flow import ffjord, glow, maf, neural_spline, nice, realnvp, residual_flow
from jaxgen.flow.dequantization import NoiseFlow
from rows import Row


def make_nice():
  return nice.nice(nice.Network((8, 8, 1), (16,)), tx=optax.adam(1e-2, eps=1e-3))


def make_realnvp():
  net = realnvp.network((8, 8, 1), num_scales=1, width=4, num_blocks=1)
  return realnvp.realnvp(net, tx=optax.adam(1e-2, eps=1e-3))


def make_glow():
  # LU: two triangles share one reduced gradient; test_flow has it on 2 devices.
  net = glow.network((8, 8, 1), num_scales=2, num_steps=1, width=8, lu=False)
  return glow.glow(net, tx=optax.adam(1e-2, eps=1e-4), ema_decay=0.9)


def make_variational():
  net = nice.Network((8, 8, 1), (8,))
  noise = NoiseFlow(4, num_steps=1)
  tx = optax.adam(1e-2, eps=1e-4)
  return nice.nice(net, tx=tx, dequantizer=noise, ema_decay=0.9)


def make_maf():
  net = maf.network((8, 8, 1), hidden_dim=16, num_layers=2, has_batch_norm=True)
  return maf.maf(net, tx=optax.adam(1e-2, eps=1e-4))


def make_neural_spline():
  net = neural_spline.network(
    (8, 8, 1), hidden_dim=8, num_layers=1, num_blocks=1, num_bins=4
  )
  return neural_spline.neural_spline(net, tx=optax.adam(1e-2, eps=1e-4))


def make_ffjord():
  tolerance = ffjord.Tolerance(1e-3, 1e-3, 32)
  net = ffjord.network((8, 8, 1), hidden_dims=(8,), tolerance=tolerance)
  return ffjord.ffjord(net, tx=optax.adam(1e-2, eps=1e-4))


def make_residual_flow():
  net = residual_flow.conv_network(
    (8, 8, 1), num_blocks=(0, 1), width=4, dense_dims=(16,), num_dense=1
  )
  return residual_flow.residual_flow(net, tx=optax.adam(1e-2, eps=1e-4))


ROWS = {
  "flow/nice": Row(make_nice, "loss"),
  "flow/realnvp": Row(make_realnvp, "loss"),
  "flow/glow": Row(make_glow, "loss"),
  "flow/nice (variational noise)": Row(make_variational, "loss"),
  "flow/maf": Row(make_maf, "loss"),
  "flow/neural_spline": Row(make_neural_spline, "loss", has_products=True),
  "flow/ffjord": Row(make_ffjord, "loss"),
  "flow/residual_flow": Row(make_residual_flow, "loss"),
}
