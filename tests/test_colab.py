"""The notebooks run from the first cell to the last, with a tiny budget."""

from pathlib import Path

COLAB = Path(__file__).resolve().parents[1] / "colab"
TINY = """
num_steps = 3
overrides = ["--config.warmup_steps=1", "--config.num_timesteps=4"]
overrides += ["--config.channel_mults=(1,)"]
"""
TINY_DIFFUSION = f"""{TINY}
dit_overrides = ["--config.warmup_steps=1", "--config.num_timesteps=4"]
dit_overrides += ["--config.depth=1", "--config.num_sampling_steps=2"]
"""
TINY_AUTOREGRESSIVE = """
num_steps = 3
overrides = ["--config.warmup_steps=1", "--config.num_layers=1", "--config.width=8"]
"""
TINY_FLOW = """
num_steps = 3
overrides = ["--config.num_layers=1", "--config.hidden_dim=8", "--config.num_bins=2"]
"""
TINY_VAE = """
num_steps = 3
width, latent_dim = 8, 2
"""
TINY_GAN = """
num_steps = 3
overrides = ["--config.gen_widths=(8,)", "--config.disc_widths=(8,)"]
"""


def read(path):
  import nbformat

  notebook = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  return notebook


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_committed_notebooks_are_clean():
  paths = list(COLAB.glob("*.ipynb"))
  assert paths
  for path in paths:
    notebook = read(path)
    assert (notebook.nbformat, notebook.metadata.kernelspec.name) == (4, "python3")
    for cell in code_cells(notebook):
      assert cell.outputs == [], f"{path}: clear its outputs"
      assert cell.execution_count is None, f"{path}: clear its outputs"


def run(name, tiny, tmp_path, monkeypatch):
  """(what it printed, the number of its pictures) of a notebook on a tiny budget."""
  import nbclient

  for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
    monkeypatch.setenv(variable, str(tmp_path / variable))  # Nothing of a user's.
  notebook = read(COLAB / f"{name}.ipynb")
  tags = lambda cell: cell.metadata.get("tags", ())
  (parameters,) = [c for c in code_cells(notebook) if "parameters" in tags(c)]
  parameters.source = tiny
  (tmp_path / "cwd").mkdir()
  client = nbclient.NotebookClient(
    notebook,
    timeout=300,
    kernel_name="python3",
    resources={"metadata": {"path": str(tmp_path / "cwd")}},
  )
  client.execute()  # An exception in a cell is raised here, with its traceback.

  outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
  text = "".join(output.text for output in outputs if output.output_type == "stream")
  assert "Warning" not in text, text
  return text, len([o for o in outputs if "image/png" in o.get("data", {})])


def test_quickstart_runs(tmp_path, monkeypatch):
  text, num_pictures = run("quickstart", TINY, tmp_path, monkeypatch)
  assert "trained 3 steps" in text
  assert "trained 6 steps" in text
  assert "step 6:" in text
  assert num_pictures == 3


def test_diffusion_runs(tmp_path, monkeypatch):
  text, num_pictures = run("diffusion", TINY_DIFFUSION, tmp_path, monkeypatch)
  assert text.count("trained 3 steps") == 2
  assert "dpm_solver_pp_2m     4 calls" in text
  assert num_pictures == 4


def test_autoregressive_runs(tmp_path, monkeypatch):
  name, tiny = "autoregressive", TINY_AUTOREGRESSIVE
  text, num_pictures = run(name, tiny, tmp_path, monkeypatch)
  assert text.count("trained 3 steps") == 3
  assert text.count("\ndef ") >= 4  # The prompt of every text.
  assert "speed-up:" in text
  assert num_pictures == 3


def test_flow_runs(tmp_path, monkeypatch):
  text, num_pictures = run("flow", TINY_FLOW, tmp_path, monkeypatch)
  assert "trained 3 steps" in text
  assert "in the median" in text
  assert num_pictures == 3


def test_vae_runs(tmp_path, monkeypatch):
  text, num_pictures = run("vae", TINY_VAE, tmp_path, monkeypatch)
  assert "bits a pixel of 1500 images" in text
  assert num_pictures == 2


def test_gan_runs(tmp_path, monkeypatch):
  text, num_pictures = run("gan", TINY_GAN, tmp_path, monkeypatch)
  assert "trained 3 steps" in text
  assert "'diversity'" in text
  assert num_pictures == 3
