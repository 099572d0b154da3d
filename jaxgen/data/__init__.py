"""Batches of numpy arrays: TFDS, image folders, text, sound, arrays, noise.

Every function returns a `Source`: call it with the first step for an endless
iterator of training batches, call `epoch()` for one pass with a mask, read `spec`
for the shapes. Nothing is read before one of these needs it. No part uses JAX.
"""

from jaxgen.data.array import arrays, synthetic
from jaxgen.data.audio import spoken_digits
from jaxgen.data.folder import given_entries, given_images, image_folder, read_images
from jaxgen.data.source import Source
from jaxgen.data.stacked import stacked_mnist
from jaxgen.data.text import Alphabet, characters_of, text, token_file
from jaxgen.data.tfds import tfds_images

__all__ = [
  "Alphabet",
  "Source",
  "arrays",
  "characters_of",
  "given_entries",
  "given_images",
  "image_folder",
  "read_images",
  "spoken_digits",
  "stacked_mnist",
  "synthetic",
  "text",
  "tfds_images",
  "token_file",
]
