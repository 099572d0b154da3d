"""Arrays of a .safetensors file, read without the library of that name.

The format: the length of a header as 8 bytes, little-endian; the header, JSON of names
with dtype, shape and range of bytes; the bytes of the arrays, C order. Nothing in such
a file is executed.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

_DTYPES = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": jnp.bfloat16,
  "I64": np.int64,
  "I32": np.int32,
  "I16": np.int16,
  "I8": np.int8,
  "U8": np.uint8,
  "BOOL": np.bool_,
}


def load_safetensors(path: str | Path) -> dict[str, np.ndarray]:
  """The arrays of a file by name, read from disk where they are used.

  Raises:
    FileNotFoundError: There is no such file.
    ValueError: It is no such file, or is cut off.
  """
  size = Path(path).stat().st_size
  with open(path, "rb") as file:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
      raise ValueError(f"{path}: no .safetensors file, or cut off ({size} bytes)")
    try:
      header = json.loads(file.read(length))
      header.pop("__metadata__", None)
      entries = {
        name: (np.dtype(_DTYPES[e["dtype"]]), tuple(e["shape"]), e["data_offsets"])
        for name, e in header.items()
      }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      raise ValueError(f"{path}: no .safetensors file ({error!r})") from error
  start = 8 + length
  arrays = {}
  for name, (dtype, shape, (first, last)) in entries.items():
    count = int(np.prod(shape))
    inside = 0 <= first <= last <= size - start
    if last - first != count * dtype.itemsize or not inside:
      raise ValueError(
        f"{path}: {name!r}, {dtype} {list(shape)}, cannot be bytes {first}..{last} of "
        f"{size - start}: the file is cut off or corrupt"
      )
    mapped = lambda: np.memmap(path, dtype, "r", start + first, (count,))  # noqa: B023
    arrays[name] = (mapped() if count else np.zeros(0, dtype)).reshape(shape)
  return arrays
