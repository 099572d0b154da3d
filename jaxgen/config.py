"""Overrides of an experiment's configuration: checked keys, checked types."""

import ast
from collections.abc import Mapping
import contextlib
import difflib
from typing import Any

from ml_collections import ConfigDict


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"net": {"channels": 32}} -> {"net.channels": 32}."""
  flat = {}
  for key, value in config.items():
    if hasattr(value, "items"):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def override(config: ConfigDict, values: Mapping[str, Any]) -> None:
  """Sets entries of `config` in place.

  Args:
    config: What `get_config()` returned; its values fix the types.
    values: New values by dotted key ("net.channels") or nested; strings, as from
      a command line, are parsed as the type of the value they replace.

  Raises:
    KeyError: No such key; names the nearest one.
    TypeError: The value does not fit the type of the one it replaces.
  """
  known = flatten(config)
  for key, value in flatten(values).items():
    if key not in known:
      near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
      raise KeyError(f"no config.{key}; did you mean config.{near[0]}?")
    parent = config
    *path, last = key.split(".")
    for part in path:
      parent = parent[part]
    parent[last] = _convert(key, known[key], value)


def _convert(key: str, old: Any, new: Any) -> Any:
  expected = type(old)
  if isinstance(new, str) and expected is not str:
    with contextlib.suppress(ValueError, SyntaxError):  # Reported below, as a string.
      new = ast.literal_eval(new.capitalize() if expected is bool else new)
  if expected is float and type(new) is int:
    new = float(new)
  if expected is tuple and isinstance(new, list):
    new = tuple(new)
  if type(new) is not expected:
    raise TypeError(
      f"config.{key}={new!r} is of type {type(new).__name__}, "
      f"expected {expected.__name__} like {old!r}"
    )
  return new
