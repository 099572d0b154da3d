"""What the commands do. `cli` reads their flags, and imports this file after that.

Each imports what it needs: importing all would be a second of every start, and of a
mistyped name's error.
"""

import argparse
from collections.abc import Callable
import contextlib
import difflib
import importlib.util
import json
import keyword
import os
from pathlib import Path
import re
import shlex
import sys
from typing import Any
import warnings

PACKAGE = Path(__file__).resolve().parent
TEMPLATE = PACKAGE / "template.py"


def experiments_dir() -> Path:
  """The experiments of a checkout, or those installed inside the package."""
  checkout = PACKAGE.parent / "experiments"
  return checkout if checkout.is_dir() else PACKAGE / "experiments"


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


def _start_jax(args: argparse.Namespace) -> Any:
  """Configures JAX; returns the backend that the flags ask for."""
  import jax

  from jaxgen import parallel

  if not jax.config.jax_compilation_cache_dir:
    cache = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(Path(cache) / "jaxgen" / "xla"))
    # Of a start's programs, most take less than JAX's threshold of a second.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
      jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
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


def _build(args: argparse.Namespace) -> tuple[Path, Any, dict[str, Any], Any]:
  """(file, config, what it builds, backend) of an experiment."""
  path = find_experiment(args.experiment)
  backend = _start_jax(args)
  from jaxgen import run
  from jaxgen.config import override

  module = run.load_experiment(path)
  config = module.get_config()
  override(config, args.overrides)
  return path, config, module.build(config), backend


def _train(args: argparse.Namespace) -> None:
  path, config, built, backend = _build(args)
  if args.dry_run:
    from jaxgen.bench import dry_run

    print(dry_run(built, backend))
    return

  from jaxgen import run
  from jaxgen.train import fit, report

  workdir = Path(args.workdir)
  start = lambda: run.record(workdir, path, config, args.seed)
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
  from jaxgen import viz

  viz.check_name(args.out)
  backend = _start_jax(args)
  from jaxgen import data, run
  from jaxgen.evaluate import sample

  loaded = run.load(args.workdir, args.step, args.overrides)
  spec = run.batch_spec(loaded.phase.train_data)
  given, num = data.given_images(spec, args.input, args.mask, args.num, args.low)
  given |= data.given_entries(spec, args.given, num)
  options = dict(mode=args.mode, label=args.label, seed=args.seed, given=given)
  outputs = sample(loaded, num, **options, backend=backend)
  viz.save(args.out, outputs, getattr(loaded.phase.train_data, "decode", None))
  files = dict.fromkeys(map(str, viz.paths(args.out, outputs).values()))
  print(f"{args.mode} of step {int(loaded.state.step)}: {', '.join(files)}")
  if "num_evaluations" in outputs:
    print(f"{outputs['num_evaluations'][0]} evaluations of the denoiser for each")


def _compress(args: argparse.Namespace) -> None:
  from jaxgen.compress import compress

  _start_jax(args)
  size = compress(args.workdir, args.data, args.out, args.step)
  rate = f"{size.num_bytes} bytes, {size.bits_per_value:.4g} bits per value"
  print(f"{size.num_images} images: {rate}; wrote {args.out}")


def _decompress(args: argparse.Namespace) -> None:
  from jaxgen.compress import decompress

  _start_jax(args)
  count = decompress(args.workdir, args.data, args.out, args.step)
  print(f"{count} images: {args.out}")


def _evaluate(args: argparse.Namespace) -> None:
  backend = _start_jax(args)
  if args.overrides and not args.workdirs:
    raise ValueError("--config.KEY belongs to workdirs")
  if bool(args.workdirs) == bool(args.samples):
    raise ValueError("pass workdirs, or --samples=FOLDER, one of the two")
  from jaxgen import run
  from jaxgen.score import results, tables

  ruler = results.Ruler(
    tuple(args.metrics.split(",")), args.num_samples, args.features, args.weights,
    args.reference, args.seed, args.repeats, args.crop, args.backbone, args.heads,
    args.neighbours, args.train, args.test,
  )  # fmt: skip
  if args.samples:
    found = [results.evaluate_path(p, ruler, backend=backend) for p in args.samples]
  else:
    at = dict(step=args.step, backend=backend)
    score = lambda w, v: results.evaluate_workdir(w, ruler, overrides=v, **at)
    found = [score(w, v) for w in args.workdirs for v in args.variants]
  print(tables.table(found))
  if args.out and args.out.endswith(".json"):
    shown = json.dumps([results.to_json(result) for result in found], indent=1)
    run.write_text(Path(args.out), shown + "\n")
  elif args.out:
    command = shlex.join(["jaxgen", *args.argv])
    run.write_text(Path(args.out), tables.markdown(found, command))


def _reproduce(args: argparse.Namespace) -> None:
  path = find_experiment(args.experiment)
  backend = _start_jax(args)
  from jaxgen.reproduce import reproduce

  folder = Path(args.results) if args.results else experiments_dir() / "results"
  found = reproduce(
    path, f"{path.parent.name}/{path.stem}", runs=Path(args.runs), results=folder,
    seeds=args.seeds, budget=args.budget, overrides=args.overrides,
    weights=args.weights, together=args.together, backend=backend,
  )  # fmt: skip
  score = found["scores"][found["score"]]
  print(f"{found['score']}: {score['mean']:.5g}, 95 % {score['interval']}")
  print(f"published: {found['published']}; verdict: {found['verdict']}")
  print(f"wrote {folder / found['name']}.json")


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
    _, _, built, _ = _build(args)
    from jaxgen import describe

    info = describe.describe(built, args.fsdp)
  print(describe.to_json(info) if args.json else describe.table(info))


def _bench(args: argparse.Namespace) -> None:
  _, _, built, backend = _build(args)
  from jaxgen.bench import bench, bench_sample

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
  from jaxgen import listing

  print(listing.list_all(experiments_dir(), PACKAGE))


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
