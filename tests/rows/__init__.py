"""The rows of the generic table (`test_methods.py`), a file per family.

Networks are tiny and images 8x8, since compiling is what takes the time.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxgen.data.source import zeros

IMAGES = {
  "image": zeros((8, 8, 8, 1), np.uint8),
  "label": zeros((8,), np.int32),
}


class Row(NamedTuple):
  """A method that the table tests.

  Attributes:
    make: () -> the method.
    metric: What must fall on one fixed batch.
    passes: The most passes with gradients that a network is in: each is reduced on
      its own.
    has_products: Whether parameters are factors of a product (the L and U of a 1x1
      convolution, a direction and its length): gradients of both are reduced as one.
    atol: Of the states on several devices against that on one.
    spec: The batches, of 8 examples: zero-memory arrays. Integers are 0 or 1.
    samples: The entry of `spec` that samples look like: f32 in [-1, 1] of its shape,
      or int32 tokens.
    num_tokens: Samples are below it, if they are tokens.
  """

  make: Callable
  metric: str
  passes: int = 1
  has_products: bool = False
  atol: float = 2e-5
  spec: Mapping[str, np.ndarray] = IMAGES
  samples: str = "image"
  num_tokens: int | None = None
