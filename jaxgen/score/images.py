"""Sets of images to be scored, streamed, as 8-bit files would hold them."""

from collections.abc import Callable, Iterator
import dataclasses
import hashlib
import os
from pathlib import Path
import shutil

import jax
import numpy as np
from PIL import Image

from jaxgen import data, evaluate, parallel
from jaxgen.data.decode import EXTENSIONS, decode_image
from jaxgen.method import Batch, averaged
from jaxgen.run import Run
from jaxgen.viz import to_uint8

CHUNK = 500  # Images read at a time.


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
  """A set of images that is read in order, as often as needed; it must not change.

  Attributes:
    name: For people.
    count: How many.
    batches: () -> dicts with "image" uint8 [b, H, W, C] and perhaps "label" int32 [b].
    mixed: Whether they have several sizes.
  """

  name: str
  count: int
  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  mixed: bool = False
  _digests: dict[bool, str] = dataclasses.field(default_factory=dict, repr=False)

  @property
  def shape(self) -> tuple[int, int, int]:
    """(H, W, C) of the first."""
    return next(iter(self.batches()))["image"].shape[1:]

  def chunks(self, size: int) -> Iterator[np.ndarray]:
    """All in arrays uint8 [size, H, W, C]; the last may be shorter."""
    self._check_size()
    waiting = []
    for batch in self.batches():
      waiting.append(batch["image"])
      while sum(map(len, waiting)) >= size:
        joined = np.concatenate(waiting)
        yield joined[:size]
        waiting = [joined[size:]]
    if rest := sum(map(len, waiting)):
      yield np.concatenate(waiting)[:rest]

  def some(self, num: int, seed: int = 0) -> dict[str, np.ndarray]:
    """`num` of them in memory, chosen at random and kept in order; all if fewer."""
    self._check_size()
    chosen = np.zeros(self.count, bool)
    chosen[np.random.default_rng(seed).permutation(self.count)[:num]] = True
    found, start = [], 0
    for batch in self.batches():
      rows = chosen[start : start + len(batch["image"])]
      found.append({k: v[rows] for k, v in batch.items()})
      start += len(rows)
    return {k: np.concatenate([b[k] for b in found]) for k in found[0]}

  def _check_size(self) -> None:
    if self.mixed:
      raise ValueError(
        f"{self.name}: its images have several sizes; bring them to one, or take "
        "features of a network that resizes each file (inception-clean-fid, "
        "squeezenet)"
      )

  def labels(self) -> np.ndarray | None:
    """int32 [N], or None without."""
    found = [batch.get("label") for batch in self.batches()]
    return None if found[0] is None else np.concatenate(found)

  def digest(self, *, labels: bool = False) -> str:
    """A hash of all images, their order and shape: 16 hexadecimal digits.

    The set is read the first time only.

    Args:
      labels: Whether their labels count, if they have any.
    """
    if labels not in self._digests:
      self._digests[labels] = self._read_digest(labels)
    return self._digests[labels]

  def _read_digest(self, labels: bool) -> str:
    found, shape = hashlib.sha256(), None
    for batch in self.batches():
      if shape not in (None, batch["image"].shape[1:]):
        found.update(str(shape).encode())
      shape = batch["image"].shape[1:]
      found.update(np.ascontiguousarray(batch["image"]).tobytes())
      if labels and "label" in batch:
        found.update(np.asarray(batch["label"], np.int32).tobytes())
    found.update(str(shape).encode())
    return found.hexdigest()[:16]


def of_source(source: data.Source, name: str) -> Images:
  """One pass over a data source, without flips."""
  source.check(training=False)

  def batches() -> Iterator[dict[str, np.ndarray]]:
    for batch in source.epoch():
      real = batch["row_mask"] > 0
      rows = {k: v[real] for k, v in batch.items() if k in ("image", "label")}
      image = rows["image"]
      yield {**rows, "image": image if image.dtype == np.uint8 else to_uint8(image)}

  return Images(name, source._cache["count"], batches)


def digest_of(source: data.Source) -> str:
  """A hash of one pass over data of any kind: 16 hexadecimal digits."""
  found = hashlib.sha256()
  for batch in source.epoch():
    for name in sorted(batch):
      found.update(name.encode() + np.ascontiguousarray(batch[name]).tobytes())
  return found.hexdigest()[:16]


def of_path(path: str | Path) -> Images:
  """A folder of image files, or an .npz with "image" (or "samples").

  Of files of several sizes only features can be had, if the network resizes each.
  """
  path = Path(path)
  if path.suffix == ".npz":
    with np.load(path, allow_pickle=False) as archive:
      found = {k: archive[k] for k in archive.files}
    if "samples" in found:
      found["image"] = found.pop("samples").clip(-1, 1)
    source = data.arrays(
      {k: v for k, v in found.items() if k in ("image", "label")}, batch_size=CHUNK
    )
  elif len({_size_of(p) for p in _paths(path)} - {None}) > 1:
    return dataclasses.replace(of_files(path), mixed=True)
  else:
    source = data.image_folder(
      str(path), batch_size=CHUNK, image_size=None, channels=_channels(path)
    )
  return of_source(source, str(path))


def of_files(folder: str | Path) -> Images:
  """The images of a folder one by one, in order of their paths, of whatever sizes."""
  paths = _paths(Path(folder))

  def batches() -> Iterator[dict[str, np.ndarray]]:
    for path in paths:
      options = dict(channels=_channels_of(path), image_size=None)
      yield {"image": decode_image(str(path), str(path), **options)[None]}

  return Images(str(folder), len(paths), batches)


def _paths(folder: Path) -> list[Path]:
  found = sorted(
    path
    for path in folder.rglob("*")
    if path.suffix.lower() in EXTENSIONS
    and not any(part[0] == "." for part in path.relative_to(folder).parts)
  )
  if not found:
    raise FileNotFoundError(f"{folder}: no images ending in {', '.join(EXTENSIONS)}")
  return found


def _channels(folder: Path) -> int:
  """1 or 3, as the first image of a folder has it."""
  return _channels_of(_paths(folder)[0])


def _size_of(path: Path) -> tuple[int, int] | None:
  """As the header says; None if it cannot be read, of which decoding will tell."""
  try:
    with Image.open(path) as image:
      return image.size
  except OSError:
    return None


def _channels_of(path: Path) -> int:
  with Image.open(path) as image:
    return 1 if image.mode in ("L", "1") else 3


def drawn(
  loaded: Run, num: int, *, seed: int = 0, backend: parallel.Backend | None = None
) -> Images:
  """`num` samples of a run, drawn once and kept in its workdir.

  Batch i is drawn for batch i of the training data (its labels), with `fold_in(key,
  i)`, from the averaged parameters. There are labels if they make a difference. Samples
  by other weights, another config or other code are kept beside them (`_origin`).
  """
  backend = backend or parallel.jit_backend()
  if loaded.method.sample is None:
    raise ValueError(f"{loaded.workdir}: its method draws no samples")
  step = int(loaded.state.step)
  name = f"step_{step:08d}_seed_{seed}_{num}_{_origin(loaded)}"
  folder = loaded.workdir / "evaluation" / name
  if not folder.exists():
    _draw(loaded, num, seed, backend, folder)
  image = np.load(folder / "image.npy", mmap_mode="r")
  rows = {"image": image}
  if (folder / "label.npy").exists():
    rows["label"] = np.load(folder / "label.npy")

  def batches() -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, num, CHUNK):
      yield {k: np.asarray(v[start : start + CHUNK]) for k, v in rows.items()}

  return Images(f"{loaded.workdir} at step {step}", num, batches)


def _origin(loaded: Run) -> str:
  """A hash of what samples are a function of, beside the seed and their number.

  That is the compiler's input for `sample`, which any change of code, config or JAX
  that could alter them alters, the weights, and the first batch they are drawn for.
  """
  batch = next(iter(loaded.phase.train_data(0)))
  state = averaged(loaded.state)
  sample = lambda state, batch, key: loaded.method.sample(
    state, parallel.as_float(batch), key
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  found = hashlib.sha256(jax.jit(sample).lower(state, batch, key).as_text().encode())
  for value in jax.tree.leaves((state.params, state.stats, batch)):
    found.update(np.ascontiguousarray(value).tobytes())
  return found.hexdigest()[:16]


def _draw(
  loaded: Run, num: int, seed: int, backend: parallel.Backend, folder: Path
) -> None:
  fn = backend.compile_eval(loaded.method.sample)
  state = backend.put_state(averaged(loaded.state))
  key, labels, done = jax.random.key(seed), [], 0

  def draw(batch: Batch, i: int) -> np.ndarray:
    outputs = evaluate.draw(fn, state, batch, jax.random.fold_in(key, i), backend)
    return to_uint8(outputs["samples"])

  temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
  temporary.mkdir(parents=True)
  with evaluate.progress(num, "drawing") as bar:
    for i, batch in enumerate(loaded.phase.train_data(0)):
      samples = draw(batch, i)[: num - done]
      if i == 0:
        shape = (num, *samples.shape[1:])
        file = np.lib.format.open_memmap(
          temporary / "image.npy", "w+", dtype=np.uint8, shape=shape
        )
        # An unconditional method draws the same for every label: it has none.
        others = (
          {**batch, "label": np.roll(batch["label"], 1)} if _labels(batch) else {}
        )
        conditional = others and (draw(others, i)[:num] != samples).any()
      file[done : done + len(samples)] = samples
      if conditional:
        labels.append(batch["label"][: len(samples)])
      done += len(samples)
      bar.update(len(samples))
      if done == num:
        break
  file.flush()
  if labels:
    np.save(temporary / "label.npy", np.concatenate(labels))
  put_in_place(temporary, folder)


def put_in_place(temporary: Path, folder: Path) -> None:
  """Gives a finished folder its name, unless another process made the same before."""
  try:
    temporary.rename(folder)
  except OSError:
    if not folder.is_dir():
      raise
    shutil.rmtree(temporary)


def _labels(batch: Batch) -> bool:
  """Whether a batch has labels, of more than one class."""
  return "label" in batch and len(np.unique(batch["label"])) > 1
