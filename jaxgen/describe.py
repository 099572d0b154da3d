"""What an experiment is, without running it: its sizes and costs."""

from collections.abc import Mapping
import json
from typing import Any

import jax
import numpy as np

from jaxgen import parallel, run
from jaxgen.method import PyTree


def parameters(tree: PyTree) -> int:
  """Number of scalars in a tree of arrays or abstract arrays."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def nbytes(tree: PyTree, fsdp: int = 1) -> int:
  """Bytes of a state on one of `fsdp` devices."""

  def size(x: Any) -> int:
    total = int(np.prod(x.shape)) * x.dtype.itemsize
    return total // (fsdp if any(parallel.state_spec(x.shape, fsdp)) else 1)

  return sum(map(size, jax.tree.leaves(tree)))


def describe(built: Mapping[str, Any], fsdp: int = 1) -> dict[str, Any]:
  """Sizes of an experiment's methods and batches, by `jax.eval_shape`.

  Args:
    built: What `build(config)` returned.
    fsdp: Devices that share a state.

  Returns:
    {"networks": {name: {"parameters": int, "shapes": {path: shape}}}, "batch":
    {name: shape}, "flops_per_step": float or None (an estimate of the lowered
    program, before optimisation, for the global batch), "memory": bytes per
    device of parameters, optimiser, averages, stats and batch, without activations}
    of the first phase; "then": a list of the same for those that follow.
  """
  first, *then = (describe_phase(phase, fsdp) for phase in run.phases_of(built))
  return {**first, "then": then}


def describe_phase(phase: run.Phase, fsdp: int) -> dict[str, Any]:
  """What `describe` says of one phase."""
  method, spec = phase.method, run.batch_spec(phase.train_data)
  state = parallel.abstract_state(method.init, spec)
  networks = {}
  for name, params in state.params.items():
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    shapes = {
      "/".join(str(k.key) for k in path): f"{x.dtype.name}{list(x.shape)}"
      for path, x in paths
    }
    networks[name] = {"parameters": parameters(params), "shapes": shapes}
  key = jax.eval_shape(lambda: jax.random.key(0))
  abstract = jax.eval_shape(parallel.as_float, spec)
  cost = jax.jit(method.train_step).lower(state, abstract, key).cost_analysis()
  memory = {
    "parameters": nbytes(state.params, fsdp),
    "optimiser": nbytes(state.opt, fsdp),
    "averages": nbytes(state.ema, fsdp),
    "stats": nbytes(state.stats, fsdp),
    "batch": nbytes(abstract) // jax.device_count(),
  }
  return {
    "networks": networks,
    "batch": {k: f"{x.dtype.name}{list(x.shape)}" for k, x in abstract.items()},
    "flops_per_step": (cost or {}).get("flops"),
    "memory": memory,
  }


def table(info: Mapping[str, Any]) -> str:
  """`describe`'s result for a reader."""
  parts = [_table(info)]
  for number, phase in enumerate(info["then"], 2):
    parts.append(f"\nphase {number}\n{_table(phase)}")
  return "\n".join([*parts, "activations: see --dry_run, which compiles"])


def _table(info: Mapping[str, Any]) -> str:
  lines = []
  for name, net in info["networks"].items():
    width = max(map(len, net["shapes"]))
    lines += [f"{name}", *(f"  {p:{width}}  {s}" for p, s in net["shapes"].items())]
  lines += [
    f"{n}: {net['parameters']:,} parameters" for n, net in info["networks"].items()
  ]
  lines += [f"batch/{name}: {shape}" for name, shape in info["batch"].items()]
  if info["flops_per_step"]:
    lines.append(
      f"FLOPs per train step, before optimisation: {info['flops_per_step']:.4g}"
    )
  for name, size in info["memory"].items():
    lines.append(f"{name}: {size / 2**20:,.1f} MiB per device")
  return "\n".join(lines)


def to_json(info: Mapping[str, Any]) -> str:
  """`describe`'s result for programs."""
  return json.dumps(info, indent=2)
