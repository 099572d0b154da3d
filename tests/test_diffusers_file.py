"""A pipeline that diffusers saved, as a run of ours."""

import json
from pathlib import Path
import shutil

import jax
import numpy as np
import pytest

import jaxgen
from jaxgen import cli
from jaxgen.diffusion import sampling
from jaxgen.diffusion.process import NOISE, clipped, denoiser, discrete
from jaxgen.diffusion.schedules import linear_betas
from jaxgen.nn.diffusers_file import WEIGHTS, read_ddpm
from jaxgen.nn.unet import UNet

PIPELINE = Path(__file__).parent / "golden" / "ddpm_diffusers"


@pytest.fixture
def copy(tmp_path):
  """The files without the folders of a pipeline, free to be changed."""
  for file in (
    "unet/config.json",
    f"unet/{WEIGHTS}",
    "scheduler/scheduler_config.json",
  ):
    shutil.copy(PIPELINE / file, tmp_path)
  return tmp_path


def change(path, **entries):
  path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_outputs_are_those_of_diffusers():
  golden, found = np.load(PIPELINE / "outputs.npz"), read_ddpm(PIPELINE)
  net = UNet(**found.net)
  run = jax.jit(lambda p: net.apply({"params": p}, golden["x"], golden["t"]))
  y = run(found.params)
  np.testing.assert_allclose(y, golden["y"], atol=2e-5 * np.abs(golden["y"]).max())
  assert found.chain == {
    "num_timesteps": 20,
    "beta_start": 0.005,
    "beta_end": 0.2,
    "beta_schedule": "linear",
    "variance": "small",
  }
  # The step from index 17, which is step 18 of 20, to the one before.
  process = discrete(linear_betas(20, 0.005, 0.2))
  denoise = clipped(denoiser(lambda x, t: golden["y"], process, NOISE))
  now, then = (sampling.levels(process, np.float32(t)) for t in (18, 17))
  x = golden["x"]
  mean = sampling.posterior_mean(x, denoise(x, now.t), now, then)
  np.testing.assert_allclose(mean, golden["step_mean"], atol=1e-5)
  variance = sampling.small_variance(now, then)
  np.testing.assert_allclose(variance, golden["step_variance"], rtol=1e-4)


def test_import_makes_a_run_that_can_be_drawn_from(tmp_path, capsys):
  out, picture = tmp_path / "run", tmp_path / "x.npz"
  cli.main(["import", "diffusers", str(PIPELINE), f"--out={out}"])
  assert "parameters; draw with: jaxgen sample" in capsys.readouterr().out
  run, expected = jaxgen.load(out), read_ddpm(PIPELINE).params
  for tree in (run.state.params["net"], run.state.ema["net"]):
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
      np.testing.assert_array_equal(a, b)
  assert run.config.num_timesteps == 20
  cli.main(["sample", str(out), "--num=4", f"--out={picture}"])
  assert np.load(picture)["samples"].shape == (4, 8, 8, 1)
  with pytest.raises(SystemExit, match="exists; choose another"):
    cli.main(["import", "diffusers", str(PIPELINE), f"--out={out}"])


def test_other_files_are_refused_by_name(copy, capsys):
  flat = read_ddpm(copy)
  assert jax.tree.structure(flat.params) == jax.tree.structure(
    read_ddpm(PIPELINE).params
  )
  change(copy / "config.json", freq_shift=0)
  with pytest.raises(ValueError, match="freq_shift=0: expected 1"):
    read_ddpm(copy)
  change(copy / "config.json", freq_shift=1, layers_per_block=2)
  with pytest.raises(ValueError, match="gives up1_1_res/conv1/kernel"):
    read_ddpm(copy)
  change(copy / "config.json", layers_per_block=1, norm_num_groups=4)
  read_ddpm(copy)
  change(copy / "scheduler_config.json", prediction_type="v_prediction")
  with pytest.raises(ValueError, match="prediction_type='v_prediction': expected"):
    read_ddpm(copy)
  change(copy / "scheduler_config.json", prediction_type="epsilon")
  for key, value in {
    "clip_sample": False,
    "clip_sample_range": 2.0,
    "rescale_betas_zero_snr": True,
    "thresholding": True,
    "trained_betas": [0.1, 0.2],
  }.items():
    scheduler = (copy / "scheduler_config.json").read_text()
    change(copy / "scheduler_config.json", **{key: value})
    with pytest.raises(ValueError, match=f"{key}=.*: expected"):
      read_ddpm(copy)
    (copy / "scheduler_config.json").write_text(scheduler)
  (copy / WEIGHTS).unlink()
  with pytest.raises(FileNotFoundError, match=f"{WEIGHTS} is missing"):
    read_ddpm(copy)
  with pytest.raises(SystemExit):
    cli.main(["import", "torch", str(copy), f"--out={copy}/x"])
  assert "invalid choice: 'torch'" in capsys.readouterr().err


def test_what_files_do_not_say_is_as_in_diffusers(copy):
  """Not as in our network, which has other values than their defaults."""
  config, scheduler = copy / "config.json", copy / "scheduler_config.json"
  full = config.read_text()
  without = lambda text, *keys: json.dumps(
    {k: v for k, v in json.loads(text).items() if k not in keys}
  )
  for key, default in {
    "attention_head_dim": 8,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "norm_eps": 1e-05,
  }.items():
    config.write_text(without(full, key))
    with pytest.raises(ValueError, match=f"without {key}, diffusers takes {default}"):
      read_ddpm(copy)
  same = ("act_fn", "add_attention", "mid_block_type", "upsample_type", "dropout")
  config.write_text(without(full, *same))
  betas = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
  scheduler.write_text(without(scheduler.read_text(), *betas, "clip_sample"))
  found = read_ddpm(copy)
  assert found.net == read_ddpm(PIPELINE).net
  assert found.chain == {
    "num_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "variance": "small",
  }


def test_names_of_older_files_are_known(copy, monkeypatch):
  """As google/ddpm-cifar10-32 was saved: query, key, value, proj_attn."""
  from jaxgen.nn import diffusers_file

  old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

  def renamed(path):
    found = {}
    for name, array in diffusers_file_load(path).items():
      for new, before in old.items():
        name = name.replace(f".{new}.", f".{before}.")
      found[name] = array
    return found

  diffusers_file_load = diffusers_file.load_safetensors
  expected = jax.tree.leaves(read_ddpm(copy).params)
  monkeypatch.setattr(diffusers_file, "load_safetensors", renamed)
  for a, b in zip(jax.tree.leaves(read_ddpm(copy).params), expected, strict=True):
    np.testing.assert_array_equal(a, b)
