"""Which results of a mapped function can differ between devices: read off its jaxpr.

A proof where running it is an example, and nothing is compiled.
"""

import jax
from jax.extend import core

from jaxgen import parallel

REDUCE = {"psum", "pmax", "pmin"}


def bodies(eqn):
  """The jaxprs inside an equation."""
  for value in eqn.params.values():
    for x in value if isinstance(value, tuple | list) else (value,):
      if isinstance(x, core.ClosedJaxpr | core.Jaxpr):
        yield getattr(x, "jaxpr", x)


def settled(carry, turn):
  """What varies in the carry of a loop, whatever the number of its turns."""
  while True:
    new = [a or b for a, b in zip(carry, turn(carry), strict=True)]
    if new == carry:
      return carry
    carry = new


def outputs(eqn, given):
  """[bool]: whether each result of `eqn` varies, where its arguments do or do not."""
  name, params = eqn.primitive.name, eqn.params
  whole = parallel.AXIS in params.get("axes", ())
  if name in REDUCE and whole and not params["axis_index_groups"]:
    return [False] * len(eqn.outvars)
  if name == "axis_index":
    return [True]
  inside = list(bodies(eqn))
  if name == "cond":
    which, *rest = given
    found = zip(*(varying(body, rest) for body in inside), strict=True)
    return [which or any(branches) for branches in found]
  if name == "while":
    num_cond, num_body = params["cond_nconsts"], params["body_nconsts"]
    cond, body = params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr
    consts, carry = given[num_cond : num_cond + num_body], given[num_cond + num_body :]

    def turn(carry):
      (goes_on,) = varying(cond, given[:num_cond] + carry)
      return [goes_on or x for x in varying(body, consts + carry)]

    return settled(carry, turn)
  if name == "scan":
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    turn = lambda carry: varying(inside[0], given[:first] + carry + given[last:])
    num_carry = last - first
    carry = settled(given[first:last], lambda carry: turn(carry)[:num_carry])
    return carry + turn(carry)[num_carry:]
  if len(inside) == 1 and len(inside[0].invars) == len(given):
    return varying(inside[0], given)
  return [any(given)] * len(eqn.outvars)


def varying(jaxpr, given):
  """[bool]: whether each result of `jaxpr` varies over devices, for its arguments."""
  known = dict(zip(jaxpr.invars, given, strict=True))
  read = lambda v: not isinstance(v, core.Literal) and known.get(v, False)
  for eqn in jaxpr.eqns:
    found = outputs(eqn, [read(v) for v in eqn.invars])
    known.update(zip(eqn.outvars, found, strict=True))
  return [read(v) for v in jaxpr.outvars]


def apart(method, state, spec):
  """Paths of results in which equal replicas part in one step under pmap.

  Args:
    method: Whose train step.
    state: Equal on both devices. Only shapes are read, as of `spec`.
    spec: The global batch; its halves differ.
  """
  backend = parallel.pmap_backend(jax.devices()[:2])
  step = jax.make_jaxpr(backend.compile_train(method.train_step), return_shape=True)
  shaped = lambda shape, x: jax.ShapeDtypeStruct(shape, x.dtype)
  replicas = jax.tree.map(lambda x: shaped((2, *x.shape), x), state)
  halves = jax.tree.map(lambda x: shaped((2, len(x) // 2, *x.shape[1:]), x), spec)
  traced, results = step(replicas, halves, jax.random.key(0))
  alike = [False] * len(jax.tree.leaves(state))
  found = varying(traced.jaxpr, alike + [True] * len(jax.tree.leaves(spec)) + [False])
  paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(results)]
  return [path for path, parts in zip(paths, found, strict=True) if parts]
