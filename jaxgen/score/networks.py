"""The feature network that `--features` asks for."""

from collections.abc import Callable
import functools
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import jax

from jaxgen.metrics.features import (
  FeatureNetwork,
  file_hash,
  inception_features,
  squeezenet_features,
)
from jaxgen.score.cache import classifier_network
from jaxgen.score.images import Images
from jaxgen.score.task import Ruler

MAKERS = {  # name: path of the weights -> network
  "squeezenet": squeezenet_features,
  "inception": inception_features,
  "inception-clean-fid": functools.partial(inception_features, convention="clean-fid"),
  "inception-pytorch-fid": functools.partial(
    inception_features, convention="pytorch-fid"
  ),
}


def network_of(
  ruler: Ruler, train: Images | None, test: Images | None
) -> FeatureNetwork | None:
  """The network of a ruler; None if it asks for none.

  Args:
    ruler: `features` is "classifier", one of `MAKERS`, or a maker of the user's:
      MODULE:FUNCTION or FILE.py:FUNCTION.
    train: What a classifier is trained on, and
    test: judged by.
  """
  name, weights = ruler.features, ruler.weights
  if name is None:
    return None
  if name == "classifier":
    return classifier_network(train, test, weights)
  if ":" in name:
    return _own(name, weights)
  if name not in MAKERS:
    have = ["classifier", *MAKERS, "MODULE:FUNCTION"]
    raise ValueError(f"no features {name!r}; there are {have}")
  if weights is None:
    raise ValueError(
      f"--features={name} needs --weights=FILE; no weights are downloaded "
      "(see the README for the file)"
    )
  return MAKERS[name](weights)


def _own(text: str, weights: str | None) -> FeatureNetwork:
  """The user's network, under its maker's name and with a hash of the maker's file.

  It is never "inception-v3": no score of it is called FID. What the file imports is in
  no hash but the maker's own fingerprint.
  """
  place, _, function = text.rpartition(":")
  module = _module(place)
  maker: Callable | None = getattr(module, function, None)
  if not callable(maker):
    raise ValueError(f"--features={text}: {place} has no function {function!r}")
  found = maker(weights)
  if not isinstance(found, FeatureNetwork):
    raise TypeError(
      f"--features={text} must map the path of --weights (or None) to a "
      f"jaxgen.metrics.features.FeatureNetwork, got {type(found).__name__}"
    )
  name = f"{Path(place).stem if place.endswith('.py') else place}:{function}"
  is_tree = isinstance(found.apply, jax.tree_util.Partial)
  return found._replace(
    name=name,
    fingerprint=f"{name}-{found.fingerprint}-{file_hash(module.__file__)}",
    apply=found.apply if is_tree else jax.tree_util.Partial(found.apply),
  )


def _module(place: str) -> ModuleType:
  """A module by its name, or a file by its path."""
  if not place.endswith(".py"):
    if importlib.util.find_spec(place.partition(".")[0]) is None:
      raise ValueError(f"no module {place!r} is installed; a file ends in .py")
    return importlib.import_module(place)
  if not Path(place).is_file():
    raise FileNotFoundError(f"no file {place!r}")
  spec = importlib.util.spec_from_file_location(Path(place).stem, place)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
