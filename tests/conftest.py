"""Eight virtual CPU devices, strict JAX, and programs that are cheap to compile."""

import functools
import gc
from importlib.metadata import version
import io
import os
from pathlib import Path
from typing import Any

# Compiling is most of what the tests do. Processes that they start optimise fully.
# (xdist's workers inherit what is set here: the flags of the user are noted first.)
FLAGS_FOR_PROCESSES = os.environ.setdefault(
  "XLA_FLAGS_OF_USER", os.environ.get("XLA_FLAGS", "")
)
QUICK = "" if "FULL" in os.environ else "--xla_backend_optimization_level=0"
if QUICK and version("jax").startswith("0.10."):  # Later versions do not know them all.
  # Half of the time to compile, another quarter; the last two each about a tenth of the
  # rest, in noisy measurements.
  QUICK += " --xla_cpu_use_fusion_emitters=false"
  QUICK += " --xla_cpu_parallel_codegen_split_count=1"
  QUICK += " --xla_cpu_enable_concurrency_optimized_scheduler=false"
  QUICK += " --xla_llvm_disable_expensive_passes=true"
# Eight devices on two cores: one may be late where the others wait for it.
PATIENT = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
os.environ["XLA_FLAGS"] = f"{FLAGS_FOR_PROCESSES} {QUICK} {PATIENT}".strip()

import jax
import numpy as np
import pytest
from xdist.scheduler import LoadScopeScheduling

REPO = Path(__file__).resolve().parents[1]
CACHE = REPO / ".pytest_cache" / "xla"
MAX_MAPS = 55_000
LOWERED = ()  # Caches of what programs are compiled from; nothing public clears them.
COMPILED = {}  # Programs of this scope, by their text.
if version("jax").startswith("0.10."):
  from jax._src import compiler, pjit
  from jax._src.interpreters import mlir, pxla
  from jax._src.random.threefry2x32 import threefry2x32_p

  compile_anew = compiler.compile_or_get_cached

  def compile_once(
    client: Any, module: Any, devices: Any, options: Any, callbacks: Any, *rest: Any
  ) -> Any:
    """A run that is resumed, or compared to another, has the programs of the first."""
    fresh = lambda: compile_anew(client, module, devices, options, callbacks, *rest)
    if callbacks:  # Their addresses stand in the text.
      return fresh()
    text = io.BytesIO()
    module.operation.write_bytecode(text)
    ids = tuple(device.id for device in devices.flat)
    key = (text.getvalue(), ids, options.SerializeAsString())
    if key not in COMPILED:
      if QUICK:  # A tenth less; in XLA_FLAGS it does nothing.
        preset = ("xla_cpu_opt_preset", "CPU_OPT_PRESET_FAST_COMPILE")
        options.env_option_overrides = [*options.env_option_overrides, preset]
      COMPILED[key] = fresh()
    return COMPILED[key]

  compiler.compile_or_get_cached = compile_once

  def short_hash(key1: Any, key2: Any, x1: Any, x2: Any) -> Any:
    """Random numbers by a few steps of a hash instead of Threefry's 20 rounds.

    To compile what initialises the networks of five rows took 5.5 s in place of 9.5.
    Processes that tests start draw by Threefry, and so does FULL.
    """
    shifted = lambda x, by: jax.lax.shift_right_logical(x, jax.numpy.full_like(x, by))
    h = (x2 ^ key2) * np.uint32(0x9E3779B9) + (x1 ^ key1 ^ 0x3C6EF372)
    h = (h ^ shifted(h, 16)) * np.uint32(0x7FEB352D) + key2
    h = (h ^ shifted(h, 15)) * np.uint32(0x846CA68B)
    return h ^ shifted(h, 16), h * np.uint32(0x85EBCA6B) + x2

  if QUICK:
    rule = mlir.lower_fun(short_hash, multiple_results=True)
    mlir.register_lowering(threefry2x32_p, rule, platform="cpu")

  # A context of its own for every program is a quarter of what a small one costs.
  mlir.make_ir_context = functools.cache(mlir.make_ir_context)
  LOWERED = (
    *(pjit._pjit_lower, pxla._cached_lowering_to_hlo),
    mlir.make_ir_context,
  )
LONG = ("test_faults", "test_colab", "test_flow", "test_biggan")

gc.disable()
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Where in the source an operation stands costs a twentieth; to look up what is on disk,
# where a first run finds next to none, another: a developer may ask for it.
jax.config.update("jax_traceback_in_locations_limit", 0)
if "JAX_ENABLE_COMPILATION_CACHE" not in os.environ:
  jax.config.update("jax_enable_compilation_cache", False)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
# For processes that tests start. Where no bytecode may be written, each of them would
# compile the package anew, which takes it a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def scope(nodeid: str) -> str:
  """The file of a test, or its row of the generic table: they share programs."""
  file, _, test = nodeid.partition("::")
  return test.partition("[")[2] if file.endswith("test_methods.py") else file


class SharedPrograms(LoadScopeScheduling):
  """One worker takes all tests of a scope.

  (`--dist=loadgroup` of pytest-xdist 3.8 groups nothing under pytest 9.2: it writes
  names of tests that are no longer read.)
  """

  _split_scope = staticmethod(scope)


def pytest_xdist_make_scheduler(
  config: pytest.Config, log: object
) -> LoadScopeScheduling:
  """Asked by pytest-xdist."""
  config.option.loadscopereorder = False  # It puts files of few, long tests last.
  return SharedPrograms(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Scope by scope, and the longest first: no worker is left with one at the end."""
  order = {}
  for item in items:
    order.setdefault(scope(item.nodeid), (item.path.stem not in LONG, len(order)))
  items.sort(key=lambda item: order[scope(item.nodeid)])


@pytest.fixture(autouse=True, scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> None:
  """Keeps prepared data out of the user's home, and shared among workers."""
  folder = REPO / ".pytest_cache" / "tfds"
  os.environ.setdefault("TFDS_DATA_DIR", str(folder))


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
  """Between scopes, and only there, garbage is collected; compiling is cheap again.

  A million objects of cached programs need not be looked through again and again. And
  JAX keeps with each program the context in which it was built: the more contexts, the
  longer the next takes; after 2,500 programs, half as long again.

  Programs are memory maps, of which Linux lets a process have 65,530; the compiler ends
  in a segmentation fault where it gets no more.
  """
  if nextitem is None or scope(item.nodeid) == scope(nextitem.nodeid):
    return
  for cache in LOWERED:
    cache.cache_clear()
  COMPILED.clear()
  gc.collect()
  gc.freeze()
  maps = Path("/proc/self/maps")
  if maps.exists() and maps.read_bytes().count(b"\n") > MAX_MAPS:
    gc.unfreeze()
    jax.clear_caches()
