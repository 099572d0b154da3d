"""Who may import what: imports go downwards only."""

import ast
from pathlib import Path
import sys

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "jaxgen"
FAMILIES = {"vae", "gan", "flow", "diffusion", "autoregressive"}
LIBRARIES = {"jax", "flax", "optax", "numpy"}
LAYERS = {  # folder or module: what of jaxgen it may import
  "ops": {"ops"},
  "nn": {"ops", "nn"},
  "losses": {"ops", "losses"},
  "metrics": {"ops", "nn", "metrics"},
  "data": {"data"},
  "parallel": set(),
  "method": {"parallel"},
  "sound": set(),
  "viz": {"sound"},
  "config": set(),
  "checkpoint": {"method"},
  "run": {"checkpoint", "config", "method", "parallel"},
  "chart": set(),
  "report": {"chart", "config"},
  "log": {"run"},
  "evaluate": {"method", "parallel", "run"},
  "seeds": {"checkpoint", "data", "method", "parallel", "run"},
  "score": {"data", "evaluate", "method", "metrics", "parallel", "run", "score", "viz"},
  "train": {"checkpoint", "evaluate", "log", "method", "parallel", "run", "viz"},
  "describe": {"method", "parallel", "run"},
  "listing": set(),
  "cli": {"commands"},
  "bench": {
    *("checkpoint", "data", "evaluate", "method", "parallel", "run", "train"),
  },
}
THIRD = {  # what else a folder or module may import, beside the standard library
  # diffrax: an extra, imported when it is used; scipy: tables of the entropy coder
  "ops": {"jax", "numpy", "diffrax", "scipy"},
  "losses": {"jax", "numpy", "optax"},
  "nn": {"jax", "flax", "numpy"},
  "data": {
    *("absl", "numpy", "PIL", "grain", "tensorflow_datasets", "sklearn", "tqdm"),
  },
  "parallel": {"jax", "numpy"},
  "method": {"jax", "flax", "optax"},
  "train": {"jax", "numpy", "tqdm"},
  "evaluate": {"jax", "numpy", "tqdm"},
  "run": {"jax", "numpy", "ml_collections"},
  "listing": set(),
  "cli": set(),
}
FORBIDDEN = {
  *("tensorflow", "tensorflow_hub", "tensorflow_probability", "clu", "distrax"),
  *("transformers", "torch"),
}


def imports(path):
  """Absolute names of everything a file imports, also inside functions."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      if (PACKAGE.parent / node.module.replace(".", "/")).is_dir():  # of a package
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
      else:
        yield node.module


def violations(path, layer, relative):
  """What a file imports that its layer may not."""
  paper_may = {"jaxgen", *LIBRARIES, *sys.stdlib_module_names}
  for name in imports(path):
    top, *rest = name.split(".")
    own = rest[0] if top == "jaxgen" and rest else None
    bad = top in FORBIDDEN or name.startswith(("flax.training", "jax.tools"))
    bad |= layer == "data" and top == "jax"
    if layer in FAMILIES:
      bad |= top not in paper_may
      bad |= own not in {None, "method", "nn", "losses", "ops", layer}
      bad |= own == layer and is_paper(PACKAGE / layer / f"{rest[1]}.py")
    elif own and layer in LAYERS:
      bad |= own not in LAYERS[layer]
    elif top != "jaxgen" and layer in THIRD:
      bad |= top not in THIRD[layer] | set(sys.stdlib_module_names)
    if bad:
      yield f"{relative} imports {name}"


def is_paper(path):
  """Whether a file holds a factory that carries its name."""
  functions = [
    n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)
  ]
  return path.stem in {n.name for n in functions}


@pytest.mark.smoke
def test_imports_go_downwards_only():
  found = []
  for path in PACKAGE.rglob("*.py"):
    relative = path.relative_to(PACKAGE)
    found += violations(path, relative.parts[0].removesuffix(".py"), relative)
  assert not found, "\n".join(found)


@pytest.mark.parametrize(
  ("layer", "text"),
  [
    ("gan", "from jaxgen.gan.dcgan import dcgan"),
    ("gan", "from jaxgen import train"),
    ("vae", "import jaxgen.data"),
    ("nn", "from jaxgen.losses import gaussian"),
    ("data", "import jax"),
    ("method", "def f():\n  from jaxgen import run"),
    ("diffusion", "import tensorflow_probability as tfp"),
    ("cli", "from flax.training import train_state"),
    ("ops", "import flax"),
    ("losses", "import flax"),
    ("data", "from flax import linen"),
    ("method", "import orbax.checkpoint"),
    ("train", "import grain"),
    ("describe", "from jaxgen.gan.dcgan import dcgan"),
    ("bench", "from jaxgen import cli"),
    ("cli", "import jax"),
  ],
)
def test_the_rules_catch_what_they_forbid(layer, text, tmp_path):
  path = tmp_path / "x.py"
  path.write_text(text)
  assert list(violations(path, layer, "x.py"))


def test_nothing_under_jaxgen_reads_a_config_but_the_runner():
  readers = {
    str(p.relative_to(PACKAGE))
    for p in PACKAGE.rglob("*.py")
    if any(n.startswith("ml_collections") for n in imports(p))
  }
  assert readers <= {"config.py", "run.py", "template.py"}
