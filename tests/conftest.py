"""Eight virtual CPU devices, strict JAX, a compilation cache shared by all workers."""

from collections.abc import Iterator
import gc
from importlib.metadata import version
import itertools
import os
from pathlib import Path

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
import pytest
from xdist.scheduler import LoadScopeScheduling

REPO = Path(__file__).resolve().parents[1]
CACHE = REPO / ".pytest_cache" / "xla"
MAX_MAPS = 58_000
FINISHED = itertools.count()  # tests
LONG = ("test_faults", "test_colab", "test_flow", "test_biggan")

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
# For processes that tests start.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


class SharedPrograms(LoadScopeScheduling):
  """One worker takes all tests of a file, or of a row of the generic table.

  They share fixtures and compiled programs. (`--dist=loadgroup` of pytest-xdist 3.8
  groups nothing under pytest 9.2: it writes names of tests that are no longer read.)
  """

  def _split_scope(self, nodeid: str) -> str:
    file, _, test = nodeid.partition("::")
    return test.partition("[")[2] if file.endswith("test_methods.py") else file


def pytest_xdist_make_scheduler(
  config: pytest.Config, log: object
) -> LoadScopeScheduling:
  """Asked by pytest-xdist."""
  config.option.loadscopereorder = False  # It puts files of few, long tests last.
  return SharedPrograms(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """The longest files first, so that no worker is left with one at the end."""
  items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(autouse=True, scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> None:
  """Keeps prepared data out of the user's home, and shared among workers."""
  folder = REPO / ".pytest_cache" / "tfds"
  os.environ.setdefault("TFDS_DATA_DIR", str(folder))


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
  """Keeps the heap cheap to look through, and frees programs before there are too many.

  Programs are memory maps, of which Linux lets a process have 65,530; the compiler ends
  in a segmentation fault where it gets no more. Freeing them takes ten seconds, and
  counting them takes time, too.
  """
  yield
  if next(FINISHED) % 8:
    return
  gc.collect()
  gc.freeze()  # A million objects of cached programs stay: collections may skip them.
  maps = Path("/proc/self/maps")
  if maps.exists() and maps.read_bytes().count(b"\n") > MAX_MAPS:
    gc.unfreeze()
    jax.clear_caches()
