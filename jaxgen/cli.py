"""The command line: its flags and its errors. What is heavy is imported after them."""

import argparse
from collections.abc import Sequence
import itertools
import logging
from pathlib import Path
import sys
import traceback
import warnings

PACKAGE = Path(__file__).resolve().parent


def positive(text: str) -> int:
  """The value of a flag that counts something."""
  if int(text) < 1:
    raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text}")
  return int(text)


def parser() -> argparse.ArgumentParser:
  """Every command with its flags."""
  root = argparse.ArgumentParser("jaxgen", description="Generative models in JAX.")
  commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

  def add(name: str, text: str, *positional: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    for argument in positional:
      command.add_argument(argument)
    return command

  def add_device_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--backend", choices=("jit", "pmap"), default="jit")
    command.add_argument("--fsdp", type=positive, default=1, help="devices per state")
    command.add_argument(
        "--distributed", metavar="ADDRESS,INDEX,COUNT",
        help="join other processes; 'auto' where the cluster tells",
    )  # fmt: skip
    add_config_flag(command)

  def add_config_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config.KEY", metavar="VALUE", help="override an entry")

  train = add("train", "Train an experiment, or resume it.", "experiment")
  train.add_argument("--workdir", required=True)
  train.add_argument("--seed", type=int, default=0)
  train.add_argument(
    "--steps_per_call", type=positive, help="in one compiled call; not on CPUs"
  )
  train.add_argument("--dry_run", action="store_true", help="compile, one step, exit")
  add_device_flags(train)

  sample = add("sample", "Draw from a run, or apply a tool to it.", "workdir")
  sample.add_argument("--num", type=positive, help="default 64, or one for every input")
  sample.add_argument("--input", help="images for a tool: a file, a folder or .npz")
  sample.add_argument("--low", help="small images for upscale: the same")
  sample.add_argument("--mask", help="image of what is known, in white; for all inputs")
  sample.add_argument(
    "--label", type=int, help="class of conditional methods; -1: none"
  )
  sample.add_argument(
    "--given", metavar="KEY=N", action="append", default=[],
    help="another condition of the batches, such as speaker=3",
  )  # fmt: skip
  sample.add_argument("--seed", type=int, default=0)
  sample.add_argument("--mode", default="sample", help="'sample' or a tool's name")
  sample.add_argument("--step", type=int, help="checkpoint; default the newest")
  sample.add_argument("--out", required=True, help="a .png, .gif, .wav, .txt or .npz")
  add_config_flag(sample)

  for name, text in (
    ("compress", "Write the binary images of an .npz losslessly, by a VAE's run."),
    ("decompress", "The inverse of compress, an .npz again."),
  ):
    command = add(name, text, "workdir")
    command.add_argument("--data", required=True, help="the file to read")
    command.add_argument("--out", required=True, help="the file to write")
    command.add_argument("--step", type=int, help="checkpoint; default the newest")

  evaluate = add("evaluate", "Score runs, or a folder of images, with one ruler.")
  evaluate.add_argument("workdirs", nargs="*", metavar="workdir")
  evaluate.add_argument(
    "--samples", action="append", help="images to score: a folder or .npz; repeatable"
  )
  evaluate.add_argument("--metrics", default="eval", help="comma-separated")
  evaluate.add_argument("--num_samples", type=positive, default=10_000)
  evaluate.add_argument(
    "--features", help="classifier, squeezenet, inception, or FILE.py:FUNCTION"
  )
  evaluate.add_argument("--weights", help="file of the feature network")
  evaluate.add_argument("--reference", default="train", help="train, test or a path")
  evaluate.add_argument("--train", help="what --samples' model was trained on: a path")
  evaluate.add_argument("--test", help="what it never saw: a path")
  evaluate.add_argument("--repeats", type=positive, default=1, help="sets of samples")
  evaluate.add_argument("--neighbours", type=positive, default=5, help="of prdc")
  evaluate.add_argument("--crop", type=int, default=0, help="border that pairs lose")
  evaluate.add_argument("--backbone", help="file of LPIPS' network")
  evaluate.add_argument("--heads", help="file of LPIPS' linear heads")
  evaluate.add_argument("--seed", type=int, default=0)
  evaluate.add_argument("--step", type=int, help="checkpoint; default the newest")
  evaluate.add_argument(
    "--out", help="write a table of the scores (.md), or all (.json)"
  )
  text = "sample by another config; every combination of an entry's repeated values"
  evaluate.add_argument("--config.KEY", metavar="VALUE", help=text)

  reproduce = add("reproduce", "Train, score, write the result down.", "experiment")
  reproduce.add_argument("--seeds", type=positive, default=3)
  reproduce.add_argument("--budget", choices=("small", "full"), default="full")
  reproduce.add_argument("--runs", default="runs", help="folder of workdirs")
  reproduce.add_argument("--results", help="folder; default experiments/results")
  reproduce.add_argument("--weights", help="file of the feature network")
  reproduce.add_argument("--together", action="store_true", help="seeds in one process")
  add_device_flags(reproduce)

  results = add("results", "Print the table of results.")
  results.add_argument("--write", metavar="README", nargs="?", const="README.md")

  report = add("report", "Write a run's report, one HTML file.", "workdir")
  report.add_argument("--out", help="default WORKDIR/report.html")

  describe = add("describe", "Count parameters, FLOPs, bytes.", "experiment")
  describe.add_argument("--json", action="store_true")
  add_device_flags(describe)

  bench = add("bench", "Measure speed: step, data, loop, saves.", "experiment")
  bench.add_argument("--steps", type=positive, default=100)
  bench.add_argument("--seed", type=int, default=0)
  bench.add_argument("--seeds", type=positive, help="gain of training so many together")
  bench.add_argument("--sample", action="store_true", help="gain of caches in sampling")
  bench.add_argument("--num", type=positive, default=8, help="samples to draw at once")
  add_device_flags(bench)

  importing = add("import", "Make a run of what others trained.")
  importing.add_argument("kind", choices=("diffusers",))
  importing.add_argument("folder")
  importing.add_argument("--out", required=True, help="the workdir")

  add("list", "List methods and experiments with their numbers.")
  add("new", "Write a method file that already trains.", "name")
  return root


def main(argv: Sequence[str] | None = None) -> None:
  """Runs one command; deliberate errors end in one line, bugs in a traceback."""
  argv = list(sys.argv[1:] if argv is None else argv)
  args, rest = parser().parse_known_args(argv)
  values: dict[str, list[str]] = {}
  for item in rest:
    key, equals, value = item.partition("=")
    if not key.startswith("--config.") or not equals or not hasattr(args, "config.KEY"):
      parser().error(f"unknown argument {item!r}; entries are --config.KEY=VALUE")
    values.setdefault(key.removeprefix("--config."), []).append(value)
  args.overrides, args.argv = {k: v[-1] for k, v in values.items()}, argv
  every = itertools.product(*values.values())
  args.variants = [dict(zip(values, combination, strict=True)) for combination in every]
  logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax and TFDS say much.
  warnings.formatwarning = lambda text, *_: f"jaxgen: warning: {text}\n"
  try:
    from jaxgen.commands import COMMANDS

    COMMANDS[args.command](args)
  except Exception as error:
    last = traceback.extract_tb(error.__traceback__)[-1]
    deliberate = (last.line or "").startswith("raise")
    if not deliberate or PACKAGE not in Path(last.filename).resolve().parents:
      raise
    text = error.args[0] if isinstance(error, KeyError) else error
    sys.exit(f"jaxgen: error: {text}")


def run(file: str) -> None:
  """Makes an experiment file runnable: `python FILE --workdir=...` trains it."""
  main(["train", file, *sys.argv[1:]])


if __name__ == "__main__":
  main()
