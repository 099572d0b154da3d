"""What a run says while it trains: files, TensorBoard, the progress bar."""

from collections.abc import Mapping
import json
import math
from pathlib import Path
import sys
from typing import Any
import warnings

import jax
from tqdm import tqdm

from jaxgen.run import write_text


class Log:
  """metrics.jsonl, timing.jsonl, TensorBoard and the progress bar, from `start` on.

  What an interrupted run logged after its last checkpoint is cut, and logged again.
  Only process 0 writes.
  """

  def __init__(self, workdir: Path, start: int, total: int) -> None:
    main = jax.process_index() == 0
    self.files, self.events = {}, None
    self.bar = tqdm(
      total=total, initial=start, unit="step", desc="compiling", disable=not main
    )
    if not main:
      return
    from tensorboardX import SummaryWriter  # Imports torch where that is installed.

    for name in ("metrics", "timing"):
      path = workdir / f"{name}.jsonl"
      lines = path.read_text().splitlines(keepends=True) if path.exists() else []
      kept = [line for line in lines if _step(line, path) <= start]
      write_text(path, "".join(kept))
      self.files[name] = path.open("a")
    self.events = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

  def write(
    self, step: int, values: Mapping[str, float], file: str = "metrics"
  ) -> None:
    """Appends one line {"step": step, **values}, and the same as scalars."""
    if self.events:
      self.files[file].write(json.dumps({"step": step, **values}) + "\n")
      self.files[file].flush()
      for name, value in values.items():
        self.events.add_scalar(name, value, step)

  def images(self, step: int, grids: Mapping[str, Any]) -> None:
    """Adds pictures, uint8 [H, W, C], to the events."""
    for name, image in grids.items():
      self.events.add_image(name, image, step, dataformats="HWC")

  def text(self, step: int, texts: list[str]) -> None:
    """Prints one line of the first text, and adds all of them to the events."""
    if self.events:
      line = " ".join(texts[0].split())
      tqdm.write(f"step {step}: {line[:100]}", file=sys.stdout)
      self.events.add_text("samples", "\n\n".join(f"    {t}" for t in texts), step)

  def move(self, step: int) -> None:
    """Moves the bar to a step that has been started."""
    self.bar.set_description("training", refresh=False)
    self.bar.update(step - self.bar.n)

  def show(self, step: int, metrics: Mapping[str, float]) -> None:
    """Shows losses beside the bar, or the first metric if none is called so."""
    losses = {name: value for name, value in metrics.items() if "loss" in name}
    self.bar.set_postfix(losses or dict(list(metrics.items())[:1]), refresh=False)
    self.move(step)

  def __enter__(self) -> "Log":
    return self

  def __exit__(self, *_: Any) -> None:
    self.bar.close()
    for file in (*self.files.values(), self.events):
      if file:
        file.close()


def _step(line: str, path: Path) -> float:
  """The step of a line; of one cut short by a kill, infinity."""
  if not line.endswith("\n"):
    return math.inf
  try:
    return json.loads(line)["step"]
  except (ValueError, KeyError, TypeError):
    warnings.warn(
      f"{path}: dropped a line that is none of ours: {line!r}", stacklevel=2
    )
    return math.inf
