"""Real processes, killed, stopped, doubled and starved: no work is lost."""

import json
import os
from pathlib import Path
import random
import signal
import socket
import subprocess
import sys
import time

from conftest import FLAGS_FOR_PROCESSES
import jax
import numpy as np
import pytest
import toy

import jaxgen

TOY = toy.__file__
STEPS = 60


def command(workdir, *flags, steps=STEPS):
  return [
    *(sys.executable, "-m", "jaxgen.cli", "train", TOY, f"--workdir={workdir}"),
    *(f"--config.num_steps={steps}", "--config.save=4", *flags),
  ]


def start(workdir, *flags, steps=STEPS, **kwargs):
  env = {**os.environ, "XLA_FLAGS": FLAGS_FOR_PROCESSES, **kwargs.pop("env", {})}
  return subprocess.Popen(
    command(workdir, *flags, steps=steps),
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    **kwargs,
  )


def finish(process):
  output = process.communicate(timeout=120)[0]
  return process.returncode, output


def lines(workdir, file="metrics"):
  path = Path(workdir) / f"{file}.jsonl"
  return path.read_text().splitlines() if path.exists() else []


def wait_for_step(process, workdir, step):
  """Returns when `step` has been logged."""
  deadline = time.time() + 240
  while time.time() < deadline and process.poll() is None:
    if any(json.loads(x)["step"] >= step for x in lines(workdir) if x.endswith("}")):
      return
    time.sleep(0.002)
  raise AssertionError(f"step {step} not reached: {process.communicate()[0]}")


def final_state(workdir):
  """Every array of the newest checkpoint, by `jaxgen.load`."""
  return [np.asarray(x) for x in jax.tree.leaves(jaxgen.load(workdir).state)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  code, output = finish(start(workdir))
  assert code == 0, output
  return workdir


def assert_same_run(a, b):
  for x, y in zip(final_state(a), final_state(b), strict=True):
    np.testing.assert_array_equal(x, y)
  assert lines(a) == lines(b)
  for path in sorted((a / "samples").iterdir()):
    assert path.read_bytes() == (b / "samples" / path.name).read_bytes()


def test_killed_at_random_moments_it_equals_the_uninterrupted_run(whole, tmp_path):
  rng, kills = random.Random(0), 0
  for _ in range(3):
    process = start(tmp_path)
    seen = len(lines(tmp_path))
    while len(lines(tmp_path)) <= seen and process.poll() is None:
      time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.4))
    if process.poll() is None:
      process.send_signal(signal.SIGKILL)
      kills += 1
    process.communicate()
  code, output = finish(start(tmp_path))
  assert code == 0, output
  assert kills >= 1  # A fast machine may be done before the others.
  assert_same_run(tmp_path, whole)


def test_killed_inside_a_save_it_equals_the_uninterrupted_run(whole, tmp_path):
  process = start(tmp_path)
  pending = []  # Orbax writes into a temporary directory and renames it.
  while not pending and process.poll() is None:
    pending = list((tmp_path / "checkpoints").glob("*orbax-checkpoint-tmp*"))
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert pending
  code, output = finish(start(tmp_path))
  assert code == 0, output
  assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_resume(number, whole, tmp_path):
  process = start(tmp_path, steps=100_000)
  wait_for_step(process, tmp_path, 6)
  process.send_signal(number)
  code, output = finish(process)
  assert code == 0, output
  step = int(json.loads((lines(tmp_path, "timing") or lines(tmp_path))[-1])["step"])
  assert f"{number.name}: finishing this step and saving" in output
  assert "resume with: jaxgen train" in output
  assert f"--workdir={tmp_path}" in output
  saved = max(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
  assert saved >= step


def test_a_second_process_is_refused(tmp_path):
  first = start(tmp_path, steps=100_000)
  wait_for_step(first, tmp_path, 3)
  code, output = finish(start(tmp_path))
  assert code == 1
  assert f"is in use by process {first.pid}" in output
  assert "Traceback" not in output
  assert first.poll() is None
  first.kill()
  first.communicate()


def test_a_full_disk_is_a_clear_error_and_earlier_checkpoints_are_intact(tmp_path):
  """A limit on the size of a file stands in for the disk: its write fails the same."""
  wide = ("--config.width=4096",)
  code, output = finish(start(tmp_path, *wide, steps=8))
  assert code == 0, output
  before = final_state(tmp_path)
  limited = (
    "import os, resource, sys;"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
    "os.execv(sys.argv[1], sys.argv[1:])"
  )
  arguments = command(tmp_path, *wide, steps=16)
  failed = subprocess.run(
    [sys.executable, "-c", limited, *arguments], capture_output=True, text=True
  )
  assert failed.returncode == 1, failed.stderr
  assert "error: saving a checkpoint" in failed.stderr
  assert "the newest, of step 8, is intact" in failed.stderr
  assert "run the same command to resume" in failed.stderr
  for x, y in zip(before, final_state(tmp_path), strict=True):
    np.testing.assert_array_equal(x, y)
  code, output = finish(start(tmp_path, *wide, steps=16))
  assert code == 0, output
  steps = {json.loads(x)["step"] for x in lines(tmp_path)}
  assert steps == {3, 6, 8, 9, 10, 12, 15, 16}


def free_port():
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


def start_two(workdir, *flags, steps):
  """Two processes with a device each that train one run together."""
  env = {"JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo", "JAX_NUM_CPU_DEVICES": "1"}
  env["XLA_FLAGS"] = os.environ["XLA_FLAGS"]  # As the run that they are compared with.
  join = f"--distributed=127.0.0.1:{free_port()}"
  return [start(workdir, *flags, f"{join},{i},2", steps=steps, env=env) for i in (0, 1)]


def test_two_processes_stop_resume_and_train_as_one_with_two_devices(tmp_path):
  """A signal to one of them, then, with halves of the parameters each, to both."""
  two, stops = tmp_path / "two", [0]
  for fsdp, asked, number in ((1, (1,), signal.SIGINT), (2, (0, 1), signal.SIGTERM)):
    both = start_two(two, f"--fsdp={fsdp}", steps=100_000)
    wait_for_step(both[0], two, stops[-1] + 6)
    for index in asked:
      both[index].send_signal(number)
    outputs = []
    for process in both:
      code, output = finish(process)
      assert code == 0, output
      outputs.append(output)
    assert "resume with: jaxgen train" in outputs[0]
    stops.append(int(outputs[0].split("stopped at step ")[1].split(";")[0]))
    saved = max(int(p.name) for p in (two / "checkpoints").iterdir())
    assert saved == stops[-1]

  env = {"JAX_NUM_CPU_DEVICES": "2", "XLA_FLAGS": os.environ["XLA_FLAGS"]}
  code, output = finish(start(tmp_path / "one", steps=stops[-1], env=env))
  assert code == 0, output
  started = json.loads((tmp_path / "one" / "run.json").read_text())
  assert started["starts"][0]["devices"].startswith("2 x")
  for x, y in zip(final_state(two), final_state(tmp_path / "one"), strict=True):
    np.testing.assert_allclose(x, y, atol=2e-5)
  logs = [[json.loads(x) for x in lines(tmp_path / n)] for n in ("two", "one")]
  assert [log["step"] for log in logs[0]] == sorted(log["step"] for log in logs[0])
  assert {log["step"] for log in logs[0]} >= set(range(3, stops[-1] + 1, 3))
  of_one = {(log["step"], *log): log for log in logs[1]}  # Training and evaluation.
  for log in logs[0]:
    values = [list(x.values()) for x in (log, of_one[log["step"], *log])]
    np.testing.assert_allclose(*values, atol=2e-5)
