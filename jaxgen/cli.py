"""The command line. Imports nothing heavy before a command needs it."""

import argparse
from collections.abc import Callable, Sequence
import contextlib
import difflib
import importlib.util
import itertools
import keyword
import logging
import os
from pathlib import Path
import re
import shlex
import sys
import traceback
from typing import Any
import warnings

PACKAGE = Path(__file__).resolve().parent
TEMPLATE = PACKAGE / "template.py"


def experiments_dir() -> Path:
  """The experiments of a checkout, or those installed inside the package."""
  checkout = PACKAGE.parent / "experiments"
  return checkout if checkout.is_dir() else PACKAGE / "experiments"


def positive(text: str) -> int:
  """The value of a flag that counts something."""
  if int(text) < 1:
    raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text}")
  return int(text)


def find_experiment(name: str) -> Path:
  """The file of "family/method_dataset" or of a path."""
  known = {
    str(p.relative_to(experiments_dir()).with_suffix("")): p
    for p in sorted(experiments_dir().glob("*/*.py"))
  }
  path = known.get(name.removesuffix(".py"), Path(name))
  if path.is_file() and path.suffix == ".py":
    return path
  near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
  hint = f"; did you mean {near[0]}?" if near else ""
  raise FileNotFoundError(
    f"no experiment or Python file {name!r}{hint} See `jaxgen list`."
  )


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
  sample.add_argument("--mask", help="image of what is known, in white; for all inputs")
  sample.add_argument("--label", type=int, help="class of conditional methods")
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
  evaluate.add_argument("--features", help="classifier, squeezenet or inception")
  evaluate.add_argument("--weights", help="file of the feature network")
  evaluate.add_argument("--reference", default="train", help="train, test or a path")
  evaluate.add_argument("--repeats", type=positive, default=1, help="sets of samples")
  evaluate.add_argument("--crop", type=int, default=0, help="border that pairs lose")
  evaluate.add_argument("--seed", type=int, default=0)
  evaluate.add_argument("--step", type=int, help="checkpoint; default the newest")
  evaluate.add_argument("--out", help="write a table of the scores: a name in .md")
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


def _start_jax(args: argparse.Namespace) -> Any:
  """Configures JAX; returns the backend that the flags ask for."""
  import jax

  from jaxgen import parallel

  if not jax.config.jax_compilation_cache_dir:
    cache = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(Path(cache) / "jaxgen" / "xla"))
  distributed = getattr(args, "distributed", None)
  if distributed:  # Its listener would swallow a SIGTERM that comes before `fit`.
    jax.config.update("jax_enable_preemption_service", False)
  if distributed == "auto":
    jax.distributed.initialize()
  elif distributed:
    if distributed.count(",") != 2:
      raise ValueError(f"--distributed={distributed}: not ADDRESS,INDEX,COUNT or auto")
    address, index, count = distributed.split(",")
    jax.distributed.initialize(address, int(count), int(index))
  if getattr(args, "backend", "jit") == "pmap":
    if args.fsdp > 1:
      raise ValueError(f"--fsdp={args.fsdp} needs --backend=jit")
    return parallel.pmap_backend()
  return parallel.jit_backend(fsdp=getattr(args, "fsdp", 1))


def _build(args: argparse.Namespace) -> tuple[Path, Any, dict[str, Any]]:
  from jaxgen.config import override
  from jaxgen.run import load_experiment

  path = find_experiment(args.experiment)
  module = load_experiment(path)
  config = module.get_config()
  override(config, args.overrides)
  return path, config, module.build(config)


def _train(args: argparse.Namespace) -> None:
  backend = _start_jax(args)
  path, config, built = _build(args)
  if args.dry_run:
    from jaxgen.bench import dry_run

    print(dry_run(built, backend))
    return
  from jaxgen.run import record
  from jaxgen.train import fit, report

  workdir = Path(args.workdir)
  start = lambda: record(workdir, path, config, args.seed)
  if args.steps_per_call:
    built["steps_per_call"] = args.steps_per_call
    if not backend.loop:
      warnings.warn("--steps_per_call changes nothing on a CPU", stacklevel=1)
  state = fit(**built, workdir=workdir, seed=args.seed, backend=backend, on_start=start)
  pictures = sorted((workdir / "samples").glob("step_*"))
  total = built["num_steps"] + sum(p.num_steps for p in built.get("then", ()))
  if int(state.step) < total:
    command = shlex.join(["jaxgen", *args.argv])
    report(f"stopped at step {int(state.step)}; resume with: {command}")
  else:
    report(f"trained {total} steps; checkpoints and logs: {workdir}")
  if pictures:
    report(f"samples: {pictures[-1]}")


def _sample(args: argparse.Namespace) -> None:
  backend = _start_jax(args)
  from jaxgen import data, run, viz
  from jaxgen.evaluate import sample

  loaded = run.load(args.workdir, args.step, args.overrides)
  spec = run.batch_spec(loaded.phase.train_data)
  given, num = data.given_images(spec, args.input, args.mask, args.num)
  options = dict(mode=args.mode, label=args.label, seed=args.seed, given=given)
  outputs = sample(loaded, num, **options, backend=backend)
  viz.save(args.out, outputs, getattr(loaded.phase.train_data, "decode", None))
  files = dict.fromkeys(map(str, viz.paths(args.out, outputs).values()))
  print(f"{args.mode} of step {int(loaded.state.step)}: {', '.join(files)}")


def _compress(args: argparse.Namespace) -> None:
  _start_jax(args)
  from jaxgen.compress import compress

  size = compress(args.workdir, args.data, args.out, args.step)
  rate = f"{size.num_bytes} bytes, {size.bits_per_value:.4g} bits per value"
  print(f"{size.num_images} images: {rate}; wrote {args.out}")


def _decompress(args: argparse.Namespace) -> None:
  _start_jax(args)
  from jaxgen.compress import decompress

  count = decompress(args.workdir, args.data, args.out, args.step)
  print(f"{count} images: {args.out}")


def _evaluate(args: argparse.Namespace) -> None:
  backend = _start_jax(args)
  from jaxgen.run import write_text
  from jaxgen.score import results, tables

  if args.overrides and not args.workdirs:
    raise ValueError("--config.KEY belongs to workdirs")
  if bool(args.workdirs) == bool(args.samples):
    raise ValueError("pass workdirs, or --samples=FOLDER, one of the two")
  ruler = results.Ruler(
    tuple(args.metrics.split(",")), args.num_samples, args.features, args.weights,
    args.reference, args.seed, args.repeats, args.crop,
  )  # fmt: skip
  if args.samples:
    found = [results.evaluate_path(p, ruler, backend=backend) for p in args.samples]
  else:
    at = dict(step=args.step, backend=backend)
    score = lambda w, v: results.evaluate_workdir(w, ruler, overrides=v, **at)
    found = [score(w, v) for w in args.workdirs for v in args.variants]
  print(tables.table(found))
  if args.out:
    command = shlex.join(["jaxgen", *args.argv])
    write_text(Path(args.out), tables.markdown(found, command))


def _reproduce(args: argparse.Namespace) -> None:
  backend = _start_jax(args)
  from jaxgen.reproduce import reproduce

  path = find_experiment(args.experiment)
  results = Path(args.results) if args.results else experiments_dir() / "results"
  found = reproduce(
    path, f"{path.parent.name}/{path.stem}", runs=Path(args.runs), results=results,
    seeds=args.seeds, budget=args.budget, overrides=args.overrides,
    weights=args.weights, together=args.together, backend=backend,
  )  # fmt: skip
  score = found["scores"][found["score"]]
  print(f"{found['score']}: {score['mean']:.5g}, 95 % {score['interval']}")
  print(f"published: {found['published']}; verdict: {found['verdict']}")
  print(f"wrote {results / found['name']}.json")


def _results(args: argparse.Namespace) -> None:
  from jaxgen.reproduce import results_table, write_table

  if args.write:
    write_table(Path(args.write), experiments_dir())
  else:
    print(results_table(experiments_dir()), end="")


def _report(args: argparse.Namespace) -> None:
  from jaxgen.report import write_report

  print(f"wrote {write_report(args.workdir, args.out)}")


def _describe(args: argparse.Namespace) -> None:
  with contextlib.redirect_stdout(sys.stderr):  # --json must be all there is.
    _start_jax(args)
    from jaxgen import describe

    info = describe.describe(_build(args)[2], args.fsdp)
  print(describe.to_json(info) if args.json else describe.table(info))


def _bench(args: argparse.Namespace) -> None:
  backend = _start_jax(args)
  from jaxgen.bench import bench, bench_sample

  built = _build(args)[2]
  if args.sample:
    print(bench_sample(built, backend, args.num, args.seed))
  elif args.seeds:
    from jaxgen.seeds import bench_seeds

    print(bench_seeds(built, backend, args.seeds, args.steps))
  else:
    print(bench(built, backend, args.steps, args.seed))


def _import(args: argparse.Namespace) -> None:
  _start_jax(args)
  from jaxgen.importing import import_diffusers

  experiment = find_experiment("diffusion/ddpm_diffusers")
  count = import_diffusers(args.folder, Path(args.out), experiment)
  print(f"{count:,} parameters; draw with: jaxgen sample {args.out} --out=samples.png")


def _list(_: argparse.Namespace) -> None:
  from jaxgen.describe import list_all

  print(list_all(experiments_dir(), PACKAGE))


def _new(args: argparse.Namespace) -> None:
  path, text = Path(args.name).with_suffix(".py"), TEMPLATE.read_text()
  name = path.stem
  used = set(re.findall(r"\w+", text)) | set(sys.builtin_module_names)
  if not name.isidentifier() or keyword.iskeyword(name):
    raise ValueError(f"{name!r} is no Python name")
  if path.exists():
    raise FileExistsError(f"{path} exists; choose another name")
  if not path.parent.is_dir():
    raise FileNotFoundError(f"no folder {path.parent}")
  if name != "denoiser" and (name in used or importlib.util.find_spec(name)):
    raise ValueError(f"{name!r} would hide what the file uses, or a package")
  path.write_text(text.replace("denoiser", name))
  print(f"wrote {path}; train it with: python {path} --workdir=runs/{name}")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
  "train": _train,
  "sample": _sample,
  "compress": _compress,
  "decompress": _decompress,
  "evaluate": _evaluate,
  "reproduce": _reproduce,
  "results": _results,
  "report": _report,
  "describe": _describe,
  "bench": _bench,
  "import": _import,
  "list": _list,
  "new": _new,
}

if __name__ == "__main__":
  main()
