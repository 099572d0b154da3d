"""What methods and experiments say of themselves, read without importing any."""

import ast
from collections.abc import Sequence
from pathlib import Path
import re

FIELDS = ("Paper", "Dataset", "Published", "Budget", "Measure", "Ours")
UNSAID = "not said"


def notebook(path: Path, fields: Sequence[str] = FIELDS) -> dict[str, str]:
  """Entries of an experiment's docstring: "Paper:", "Dataset:" and so on."""
  doc = ast.get_docstring(ast.parse(path.read_text())) or ""
  entries = {}
  for field in fields:
    found = re.search(rf"^{field}:(.*(?:\n[ \t]+\S.*)*)", doc, re.MULTILINE)
    entries[field] = " ".join(found[1].split()) if found else UNSAID
  return entries


def list_all(experiments: Path, package: Path) -> str:
  """Every method file and every experiment."""
  lines = ["methods:"]
  for path in sorted(package.glob("*/*.py")):
    tree = ast.parse(path.read_text())
    names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    if path.stem in names:  # Factories carry the file's name.
      title = (ast.get_docstring(tree) or "").splitlines()[0]
      lines.append(f"  {path.parent.name}/{path.stem}: {title}")
  lines.append("experiments:")
  for path in sorted(experiments.glob("*/*.py")):
    lines.append(f"  {path.parent.name}/{path.stem}")
    told = notebook(path)
    if told["Budget"] == UNSAID:  # The published one, or none is.
      del told["Budget"]
    lines += [f"    {k}: {v}" for k, v in told.items()]
  return "\n".join(lines)
