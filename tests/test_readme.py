"""What README.md promises, as a reader would try it."""

import os
from pathlib import Path
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from test_faults import final_state, finish, lines, wait_for_step

from jaxgen import cli, commands
from jaxgen.config import override
from jaxgen.reproduce import RESULTS, results_table
from jaxgen.run import load_experiment
from jaxgen.score.scores import METRICS

REPO = Path(__file__).resolve().parents[1]
README = REPO / "README.md"
TEXT = README.read_text()
MAIN_JOB = (
  "pip install -e . && jaxgen train diffusion/ddpm_digits --workdir=runs/ddpm_digits"
)
TESTS = "pip install -e '.[test]' && pytest -n auto"


def blocks(language):
  return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def jaxgen_commands():
  """The arguments of every `jaxgen ...` in blocks of commands and in the text."""
  inline = re.findall(r"`(jaxgen [a-z]+ [^`A-Z]+)`", TEXT)
  for line in [*"".join(blocks("bash")).splitlines(), *inline]:
    for part in line.split("&&"):
      words = shlex.split(part, comments=True)
      if words[:1] == ["jaxgen"]:
        yield words[1:]


# --- the text ---------------------------------------------------------------------


@pytest.mark.smoke
def test_the_two_commands_stand_alone_in_blocks():
  assert blocks("bash")[:2] == [f"# the main job\n{MAIN_JOB}\n", f"# tests\n{TESTS}\n"]


def test_the_method_of_ones_own_is_the_template():
  own = [block for block in blocks("python") if "denoiser" in block]
  assert own == [commands.TEMPLATE.read_text()]
  assert len(own[0].splitlines()) < 60


def test_every_command_parses_and_names_an_experiment():
  lines = list(jaxgen_commands())
  assert {argv[0] for argv in lines} == set(commands.COMMANDS)
  for argv in lines:
    args, rest = cli.parser().parse_known_args(argv)
    assert all(item.startswith("--config.") for item in rest), argv
    if "experiment" in args:
      path = commands.find_experiment(args.experiment)
      values = dict(x.removeprefix("--config.").split("=") for x in rest)
      override(load_experiment(path).get_config(), values)


def test_the_results_are_those_of_the_files():
  assert RESULTS.search(TEXT)[2] == results_table(commands.experiments_dir()), (
    "the table is stale: run `jaxgen results --write`"
  )


def test_every_metric_is_explained():
  table = TEXT.split("| `--metrics=` |")[1].split("\n\n")[0]
  named = re.findall(r"^\| (`[a-z_`, ]+`) \|", table, re.MULTILINE)
  assert sorted(METRICS) == sorted(re.findall(r"[a-z_]+", " ".join(named)))


def test_the_layout_is_complete():
  layout = TEXT.split("## Layout")[1].split("To add a method")[0]
  named = re.findall(r"`([a-z_]+(?:/|\.py))`", layout)
  package = [p for p in commands.PACKAGE.iterdir() if p.name[0] not in "_."]
  found = [f"{p.name}/" if p.is_dir() else p.name for p in package]
  assert sorted(named) == sorted(name for name in found if name != "py.typed")


# --- the method of one's own, killed ----------------------------------------------


@pytest.mark.parametrize("backend", ["jit", "pmap"])
def test_the_readmes_method_survives_a_kill_bit_for_bit(backend, tmp_path):
  (tmp_path / "denoiser.py").write_text(
    next(block for block in blocks("python") if "denoiser" in block)
  )

  def start(workdir):
    flags = (f"--backend={backend}", "--config.num_steps=300", "--config.channels=16")
    return subprocess.Popen(
      [sys.executable, "denoiser.py", f"--workdir={workdir}", *flags],
      cwd=tmp_path,
      env={**os.environ, "JAX_NUM_CPU_DEVICES": "2"},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def trained(process):
    code, output = finish(process)
    assert code == 0, output

  process = start("killed")
  wait_for_step(process, tmp_path / "killed", 140)  # It saves every 100 steps.
  process.send_signal(signal.SIGKILL)
  assert finish(process)[0] == -signal.SIGKILL
  trained(start("killed"))
  trained(start("whole"))

  killed, whole = tmp_path / "killed", tmp_path / "whole"
  for x, y in zip(final_state(killed), final_state(whole), strict=True):
    assert x.tobytes() == y.tobytes()
  assert lines(killed) == lines(whole)
  assert '"step": 300' in lines(whole)[-1]


# --- .ci/run ----------------------------------------------------------------------

STUB = r"""#!{bash}
# Stands for every program that .ci/run calls: notes the call, does as if.
call="${{0##*/}} $*"
echo "$call" >>"$CALLS"
[[ -z $FAIL || $call != *"$FAIL"* ]] || {{ echo "told to fail"; exit 3; }}
case $call in
  "python3 -m venv"*) folder=${{!#}}/bin ;;
  *"pip install"*--target*) args=("$@"); folder=${{args[-2]}}/bin ;;
  "python3 -c"*) echo "3.99.0 $0" ;;
  "jaxgen list") echo "    Ours: 1" ;;
  *pytest*smoke*) echo "2 passed in 0.10s" ;;
  pytest*) echo "7 passed in 0.10s" ;;
esac
[[ -z ${{folder-}} ]] || for name in python pip pytest ruff jaxgen; do
  mkdir -p "$folder" && cp "$0" "$folder/$name"
done
"""
TOOLS = (
  *("bash", "cp", "diff", "dirname", "grep", "mkdir", "mktemp", "rm", "sed", "sort"),
  *("tail", "tee"),
)


@pytest.fixture
def ci(tmp_path):
  """Runs .ci/run of a copy, where all that it calls is noted and nothing done."""
  (tmp_path / "bin").mkdir()
  for tool in TOOLS:
    (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
  stub = tmp_path / "bin" / "python3"
  stub.write_text(STUB.format(bash=shutil.which("bash")))
  stub.chmod(0o755)
  (tmp_path / "repo" / ".ci").mkdir(parents=True)
  shutil.copy(REPO / ".ci" / "run", tmp_path / "repo" / ".ci")
  calls = tmp_path / "calls"

  def run(readme=TEXT, fail=""):
    (tmp_path / "repo" / "README.md").write_text(readme)
    calls.write_text("")
    env = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "FAIL": fail}
    done = subprocess.run(
      [str(tmp_path / "repo" / ".ci" / "run")],
      env={**env, "CALLS": str(calls), "TMPDIR": str(tmp_path)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    return done.returncode, done.stdout, calls.read_text().splitlines()

  return run


def test_ci_runs_the_readmes_test_command(ci):
  code, output, calls = ci()
  assert code == 0, output
  assert calls[0].startswith("python3 -m venv")
  assert calls[1:3] == ["pip install -e .[test]", "pytest -n auto"]
  assert calls[3:5] == ["ruff check .", "ruff format --check ."]
  assert calls.count("jaxgen list") == 2
  assert "python -m pytest -m smoke -n auto" in calls
  assert output.splitlines()[-2:] == ["== all stages passed", "7 passed in 0.10s"]
  changed = TEXT.replace(TESTS, "pip install . && pytest -x")
  assert ci(changed)[2][1:3] == ["pip install .", "pytest -x"]
  assert ci("# no command here")[0] == 1


def test_ci_installs_a_browser_where_it_may_and_never_fails_without(ci, tmp_path):
  missing = "none of chromium chromium-browser google-chrome, and no root with apt-get"
  assert missing in ci()[1]
  stub = tmp_path / "bin" / "python3"
  shutil.copy(stub, tmp_path / "bin" / "apt-get")
  code, output, calls = ci()
  install = "apt-get install -y -qq --no-install-recommends chromium"
  if os.geteuid():
    assert missing in output
  else:
    assert calls[:2] == ["apt-get update -qq", install]
    code, output, _ = ci(fail="apt-get install")
    assert "chromium cannot be installed: told to fail" in output
  assert code == 0
  shutil.copy(stub, tmp_path / "bin" / "google-chrome")
  assert not any("apt-get" in call for call in ci()[2])


@pytest.mark.parametrize(
  ("fail", "stage"),
  [
    ("pytest -n auto", "tests"),
    ("ruff check", "lint"),
    ("ruff format", "lint"),
    ("pip wheel", "wheel"),
    ("jaxgen list", "wheel"),
    ("pytest -m smoke", "smoke"),
  ],
)
def test_ci_fails_if_any_stage_fails_and_runs_the_others(ci, fail, stage):
  code, output, calls = ci(fail=fail)
  assert code == 1
  *_, verdict, last = output.splitlines()
  assert verdict == f"== failed: {stage}"
  assert last == ("told to fail" if stage == "tests" else "7 passed in 0.10s")
  assert "python -m pytest -m smoke -n auto" in calls
