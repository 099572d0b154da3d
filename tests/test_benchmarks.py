"""The comparison with PyTorch runs, where that is installed."""

from pathlib import Path
import subprocess
import sys

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "against_torch.py"


def test_both_sides_have_the_same_network_and_a_time():
  pytest.importorskip("torch", reason="PyTorch, which jaxgen does not need")
  command = [sys.executable, str(FILE), "iwae", "--rounds=1"]
  output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
  assert "iwae: batch 20, 425,284 and 425,284 parameters; ours " in output
  assert output.endswith(" times ours\n")
