"""The command line, as a user types it."""

import json
import os
from pathlib import Path
import re
import subprocess
import sys

import chex
import jax
from ml_collections import ConfigDict
import numpy as np
from PIL import Image
import pytest
import toy

from jaxgen import cli, commands, data, describe, parallel, run
from jaxgen.config import flatten, override
from jaxgen.data.source import zeros
from jaxgen.train import fit

TOY = str(Path(__file__).with_name("toy.py"))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  cli.main(["train", TOY, f"--workdir={folder}", "--config.num_steps=8", "--seed=3"])
  return folder


def fails(capsys, *argv):
  """The message of a command that must end with one line, not a traceback."""
  with pytest.raises(SystemExit) as caught:
    cli.main(list(argv))
  assert isinstance(caught.value.code, str), caught.value.code
  return caught.value.code


def test_help_imports_nothing_heavy():
  heavy = "('jax', 'numpy', 'flax', 'orbax', 'tensorflow_datasets', 'ml_collections')"
  code = (
    "import sys\nfrom jaxgen import cli\n"
    "try: cli.main(['--help'])\nexcept SystemExit as e: assert not e.code\n"
    "cli.main(['list'])\n"
    "try: cli.main(['train', 'vae/va_mnist', '--workdir=w'])\n"
    "except SystemExit as e: assert 'did you mean vae/vae_mnist' in e.code\n"
    f"assert not [m for m in {heavy} if m in sys.modules]"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  for command in commands.COMMANDS:
    assert command in done.stdout


def test_import_jaxgen_is_light_and_complete():
  code = (
    "import sys, jaxgen\nassert 'jax' not in sys.modules\n"
    "assert all(getattr(jaxgen, n) for n in jaxgen.__all__)\n"
    "families = ('vae', 'gan', 'flow', 'diffusion', 'autoregressive')\n"
    "bad = [m for m in sys.modules if m == 'tensorflow' or m == 'torch'\n"
    "       or (m.startswith('jaxgen.') and m.split('.')[1] in families)]\n"
    "assert not bad, bad"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.smoke
def test_train_leaves_a_complete_record(workdir):
  names = {p.name for p in workdir.iterdir()}
  assert names >= {
    *("config.json", "experiment.py", "run.json", "metrics.jsonl", "timing.jsonl"),
    *("checkpoints", "samples", "tensorboard"),
  }
  config = json.loads((workdir / "config.json").read_text())
  assert config["num_steps"] == 8
  run = json.loads((workdir / "run.json").read_text())
  assert run["seed"] == 3
  found = run["starts"][0]
  assert {"python", "jax", "flax", "optax", "jaxgen", "git", "devices"} <= found.keys()
  assert (workdir / "experiment.py").read_text() == Path(TOY).read_text()


def test_train_ends_by_naming_the_samples(workdir, capsys):
  cli.main(["train", TOY, f"--workdir={workdir}", "--config.num_steps=8", "--seed=3"])
  last = capsys.readouterr().out.strip().splitlines()[-1]
  path = Path(last.removeprefix("samples: "))
  assert path.name == "step_00000008.png"
  assert Image.open(path).size[0] >= 256


def test_another_seed_is_refused(workdir, capsys):
  text = fails(capsys, "train", TOY, f"--workdir={workdir}", "--config.num_steps=8")
  assert "was started with --seed=3, not 0" in text


def test_a_resume_that_fails_leaves_the_record_alone(workdir, capsys):
  before = (workdir / "config.json").read_text()
  argv = ("train", TOY, f"--workdir={workdir}", "--seed=3", "--config.width=8")
  text = fails(capsys, *argv)
  assert "does not fit the method" in text
  assert "params/net/Dense_0/kernel: saved float32[16, 16]" in text
  assert (workdir / "config.json").read_text() == before


def test_load_gives_back_method_state_and_config(workdir):
  import jaxgen

  run = jaxgen.load(workdir)
  assert int(run.state.step) == 8
  assert run.config.num_steps == 8
  assert run.method.sample
  earlier = jaxgen.load(workdir, step=7)
  assert int(earlier.state.step) == 7


@pytest.mark.parametrize("suffix", ["png", "gif", "npz"])
def test_sample(workdir, tmp_path, suffix):
  out = tmp_path / f"grid.{suffix}"
  cli.main(["sample", str(workdir), "--num=5", f"--out={out}"])
  if suffix == "npz":
    assert np.load(out)["samples"].shape == (5, 4, 4, 1)
  else:
    image = Image.open(out)
    assert getattr(image, "n_frames", 1) == (5 if suffix == "gif" else 1)


def test_sample_says_how_often_a_denoiser_was_called(
  workdir, tmp_path, capsys, monkeypatch
):
  images = np.zeros((2, 4, 4, 1), np.float32)
  outputs = {"samples": images, "num_evaluations": np.full(2, 35, np.int32)}
  monkeypatch.setattr("jaxgen.evaluate.sample", lambda *_, **__: outputs)
  for suffix in ("png", "npz"):
    cli.main(["sample", str(workdir), "--num=2", f"--out={tmp_path / 'x'}.{suffix}"])
    assert "35 evaluations of the denoiser for each" in capsys.readouterr().out
  assert np.load(tmp_path / "x.npz")["num_evaluations"].tolist() == [35, 35]


def test_samples_are_a_function_of_the_seed(workdir, tmp_path):
  for name, seed in (("a", 1), ("b", 1), ("c", 2)):
    cli.main(["sample", str(workdir), f"--seed={seed}", f"--out={tmp_path}/{name}.npz"])
  a, b, c = (np.load(tmp_path / f"{n}.npz")["samples"] for n in "abc")
  np.testing.assert_array_equal(a, b)
  assert not np.array_equal(a, c)


def test_tools_take_images_and_a_mask_from_files(workdir, tmp_path):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (3, 4, 4), np.uint8)
  for i, image in enumerate(images):
    Image.fromarray(image).save(tmp_path / f"{i}.png")
  (tmp_path / "masks").mkdir()
  left = np.broadcast_to(np.uint8([255, 255, 0, 0]), (4, 4))
  Image.fromarray(left).save(tmp_path / "masks" / "left.png")
  (tmp_path / "folder").mkdir()
  for i in (0, 1):
    (tmp_path / f"{i}.png").rename(tmp_path / "folder" / f"{i}.png")
  np.savez(tmp_path / "array.npz", image=images)
  expected = images[..., None] / 127.5 - 1

  def run(*arguments):
    out = tmp_path / "out.npz"
    cli.main(["sample", str(workdir), "--mode=keep", f"--out={out}", *arguments])
    return np.load(out)["kept"]

  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6)
  close(run(f"--input={tmp_path}/2.png"), expected[2:])
  close(run(f"--input={tmp_path}/folder"), expected[:2])
  masked = expected * (left > 0)[None, :, :, None]
  arguments = (f"--input={tmp_path}/array.npz", f"--mask={tmp_path}/masks/left.png")
  close(run(*arguments), masked)
  close(run(*arguments, "--num=5"), masked[[0, 1, 2, 0, 1]])
  assert run().shape == (64, 4, 4, 1)  # Without an input, the stored examples.


def test_conditions_in_words():
  spec = {
    "audio": zeros((8, 4), np.float32),
    "mask": zeros((8,), np.float32),
    "speaker": zeros((8,), np.int32),
    "digit": zeros((8,), np.int32),
    "label": zeros((8,), np.int32),
  }
  given = data.given_entries(spec, ["speaker=3", "digit=-1"], 5)
  chex.assert_trees_all_equal(
    given, {"speaker": np.full(5, 3, np.int32), "digit": np.full(5, -1, np.int32)}
  )
  for wrong in ("speeker=3", "mask=1", "audio=1", "label=1", "speaker=1.5", "speaker"):
    with pytest.raises(ValueError, match=r"with KEY of \['digit', 'speaker'\]"):
      data.given_entries(spec, [wrong], 5)


def test_sample_errors(workdir, tmp_path, capsys):
  folder, out = str(workdir), f"--out={tmp_path}/x.png"
  assert "no mode 'invert', only ['keep', 'sample']" in fails(
    capsys, "sample", folder, out, "--mode=invert"
  )
  assert "the batches have no label" in fails(
    capsys, "sample", folder, out, "--label=3"
  )
  assert "--given=speaker=3: expected KEY=INTEGER with KEY of []" in fails(
    capsys, "sample", folder, out, "--given=speaker=3"
  )
  assert "expected a name in .png, .gif, .wav, .txt or .npz" in fails(
    capsys, "sample", "nothing/is/drawn", f"--out={tmp_path}/x.bmp"
  )
  assert "no image, folder or .npz" in fails(
    capsys, "sample", folder, out, "--input=nowhere.png"
  )
  assert "holds no run" in fails(capsys, "sample", str(tmp_path), out)


def test_evaluate(workdir, capsys):
  cli.main(["evaluate", str(workdir)])
  import toy

  means = toy.Numbers().images(12345, 10).mean((1, 2, 3)) / 127.5 - 1
  out = capsys.readouterr().out
  assert "at step 8" in out
  value, low, high = re.search(r"mean +(\S+) +\[(\S+), (\S+)\]", out).groups()
  assert float(value) == pytest.approx(means.mean(), rel=1e-3)
  width = 2 * 1.96 * means.std() / np.sqrt(10)
  assert float(high) - float(low) == pytest.approx(width, rel=1e-3)


def test_describe(capsys):
  cli.main(["describe", TOY, "--json"])
  info = json.loads(capsys.readouterr().out)
  kernels, norm, bias = 2 * 16 * 16, 2 * 16, 16
  assert info["networks"]["net"]["parameters"] == kernels + norm + bias
  assert info["batch"] == {"image": "float32[8, 4, 4, 1]"}
  assert info["flops_per_step"] > 3 * 2 * 2 * 8 * 16 * 16  # Forward and backward.
  assert info["memory"]["parameters"] == 4 * info["networks"]["net"]["parameters"]
  cli.main(["describe", TOY])
  text = capsys.readouterr().out
  assert "net: 560 parameters" in text
  assert "Dense_0/kernel" in text


def test_describe_tells_of_every_phase(capsys):
  """A growing GAN is largest in the last."""
  cli.main(["describe", "gan/progan_mnist", "--json"])
  info = json.loads(capsys.readouterr().out)
  sizes = [x["networks"]["gen"]["parameters"] for x in (info, *info["then"])]
  assert len(sizes) > 1
  assert sizes == sorted(sizes)
  assert sizes[0] < sizes[-1]
  text = describe.table(info)
  assert f"phase {len(sizes)}" in text
  assert f"gen: {sizes[-1]:,} parameters" in text


@pytest.mark.parametrize(
  ("name", "parameters"),
  [
    ("diffusion/ddpm_cifar10", {"net": 35_746_307}),
    ("gan/dcgan_64", {"gen": 3_576_704, "disc": 2_765_568}),
    ("gan/wgan_gp_cifar10", {"gen": 4_276_739, "critic": 1_053_825}),
    ("gan/sngan_cifar10", {"gen": 4_276_739, "disc": 1_053_825}),
    ("gan/stylegan2_1024", {"gen": 30_370_060, "disc": 29_012_513}),
    ("gan/stylegan2_256", {"gen": 30_034_338, "disc": 28_864_129}),
    ("gan/stylegan2_cifar10", {"gen": 19_947_539, "disc": 20_720_641}),
    ("gan/biggan_128", {"gen": 70_433_988, "disc": 87_982_370}),
    ("gan/biggan_cifar10", {"gen": 4_668_163, "disc": 4_207_361}),
  ],
)
def test_experiments_at_their_papers_size_have_as_many_parameters(name, parameters):
  """What `describe` counts, of experiments as they are: no data, no folder."""
  module = run.load_experiment(commands.find_experiment(name))
  built = module.build(module.get_config())
  spec = run.batch_spec(built["train_data"])
  state = parallel.abstract_state(built["method"].init, spec)
  assert {k: describe.parameters(v) for k, v in state.params.items()} == parameters


def test_dry_run_and_bench(capsys, tmp_path):
  cli.main(["train", TOY, f"--workdir={tmp_path}/x", "--dry_run"])
  out = capsys.readouterr().out
  assert "peak memory per device" in out
  assert "loss: " in out
  assert not (tmp_path / "x").exists()
  cli.main(["bench", TOY, "--steps=4"])
  out = capsys.readouterr().out
  for word in (
    "step + data",
    "images/s",
    "waited for data",
    "overhead",
    "compile time",
  ):
    assert word in out
  assert "of which the loop waits" in out


def test_list_names_every_experiment_and_its_number(capsys):
  cli.main(["list"])
  out = capsys.readouterr().out
  for path in commands.experiments_dir().glob("*/*.py"):
    assert f"{path.parent.name}/{path.stem}\n" in out
  for method in ("diffusion/ddpm", "gan/dcgan", "vae/vae"):
    assert f"  {method}: " in out
  assert "FID 3.17" in out
  assert "not said" not in out


def test_find_experiment(capsys):
  assert commands.find_experiment("diffusion/ddpm_digits").name == "ddpm_digits.py"
  assert commands.find_experiment(TOY) == Path(TOY)
  text = fails(capsys, "train", "diffusion/dpm_digits", "--workdir=x")
  assert "did you mean diffusion/ddpm_digits?" in text


def test_overrides():
  config = ConfigDict(
    {"net": {"channels": 8, "mults": (1, 2)}, "lr": 0.1, "flip": False, "path": "a"}
  )
  values = {"net.channels": "32", "net.mults": "(1, 4)", "lr": "1", "flip": "true"}
  override(config, {**values, "path": "3"})
  assert flatten(config) == {
    "net.channels": 32,
    "net.mults": (1, 4),
    "lr": 1.0,
    "flip": True,
    "path": "3",
  }
  override(config, json.loads(config.to_json()))  # As `load` does.
  assert config.net.mults == (1, 4)
  with pytest.raises(KeyError, match=r"did you mean config\.net\.channels\?"):
    override(config, {"net.chanels": "3"})
  with pytest.raises(TypeError, match=r"config.net.channels='x' is of type str"):
    override(config, {"net.channels": "x"})
  with pytest.raises(TypeError, match="expected int like 32"):
    override(config, {"net.channels": "1.5"})


def test_misspelt_flags_are_errors(capsys):
  for argv in (["train", TOY, "--workdir=x", "--sed=1"], ["list", "--config.a=1"]):
    with pytest.raises(SystemExit) as caught:
      cli.main(argv)
    assert caught.value.code == 2
    assert "unknown argument" in capsys.readouterr().err
  text = fails(capsys, "train", TOY, "--workdir=x", "--config.nun_steps=1")
  assert "did you mean config.num_steps?" in text
  text = fails(capsys, "train", TOY, "--workdir=x", "--backend=pmap", "--fsdp=2")
  assert "--fsdp=2 needs --backend=jit" in text


@pytest.mark.parametrize(
  ("argv", "text"),
  [
    (["describe", __file__.replace(".py", ".txt")], "no experiment or Python file"),
    (["train", TOY, "--workdir=lock/x", "--distributed=here"], "not ADDRESS,INDEX,COU"),
    (["train", TOY, "--workdir=file"], "no folder can be made at file: File exists"),
    (["train", TOY, "--workdir=file/x"], "no folder can be made at file/x: Not a dir"),
    (["new", "class"], "is no Python name"),
    (["new", "data"], "would hide what the file uses"),
    (["new", "json"], "would hide what the file uses, or a package"),
    (["new", "no/folder/mine"], "no folder no/folder"),
  ],
)
def test_mistakes_end_in_one_line(argv, text, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  Path("file").write_text("")
  assert text in fails(capsys, *argv)
  assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_run_without_its_config_is_none(workdir, tmp_path, capsys):
  (tmp_path / "experiment.py").write_text((workdir / "experiment.py").read_text())
  text = fails(capsys, "sample", str(tmp_path), "--out=a.png")
  assert "holds no run: config.json is missing" in text


def test_steps_per_call_says_where_it_changes_nothing(tmp_path):
  flags = [f"--workdir={tmp_path}", "--config.num_steps=2", "--steps_per_call=2"]
  with pytest.warns(UserWarning, match="changes nothing on a CPU"):
    cli.main(["train", TOY, *flags])


@pytest.mark.parametrize(
  "argv",
  [
    ["train", TOY, "--workdir=x", "--steps_per_call=-1"],
    ["train", TOY, "--workdir=x", "--fsdp=0"],
    ["sample", "x", "--out=a.png", "--num=0"],
    ["bench", TOY, "--steps=0"],
    ["evaluate", "x", "--repeats=0"],
  ],
)
def test_numbers_of_things_are_positive(argv, capsys):
  with pytest.raises(SystemExit) as caught:
    cli.main(argv)
  assert caught.value.code == 2
  assert "expected a number from 1 on" in capsys.readouterr().err


def test_batches_that_devices_cannot_share_are_refused(tmp_path, monkeypatch, capsys):
  three = lambda fsdp=1: parallel.jit_backend(jax.devices()[:3])
  monkeypatch.setattr(commands, "_start_jax", lambda args: three())
  text = fails(capsys, "train", TOY, "--workdir=x", "--dry_run")
  assert "batch size [8] must be one number that the 3 devices divide" in text
  data = toy.Numbers()
  data.spec = {"image": np.zeros((6, 4, 4, 1), np.uint8)}
  options = dict(workdir=tmp_path, num_steps=1, backend=three())
  with pytest.raises(ValueError, match=r"batch size \[8\]"):
    fit(None, data, eval_data=toy.Numbers(), **options)
  assert not list(tmp_path.iterdir())


def test_compiled_programs_are_kept_by_default(tmp_path):
  """Those of less than a second, too, which are all of the toy's."""
  theirs = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
  env = {k: v for k, v in os.environ.items() if k not in theirs}
  env |= {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/nonexistent"}  # nor is there git
  command = [sys.executable, TOY, f"--workdir={tmp_path}/run", "--config.num_steps=2"]
  done = subprocess.run(command, env=env, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert list((tmp_path / "jaxgen" / "xla").iterdir())
  start = json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]
  assert start["git"] == "not a git checkout"
  for shown in ("training: 100%", "2/2", "step/s", "loss="):  # A bar, even in a file.
    assert shown in done.stderr


def test_bugs_keep_their_traceback(tmp_path):
  path = tmp_path / "broken.py"
  path.write_text("def get_config(): return {}.x\ndef build(config): pass")
  with pytest.raises(AttributeError):
    cli.main(["describe", str(path)])


def test_new_writes_a_method_that_trains(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  cli.main(["new", "mine"])
  assert "def mine(net" in Path("mine.py").read_text()
  cli.main(["train", "mine.py", "--workdir=run", "--config.num_steps=3"])
  assert "trained 3 steps" in capsys.readouterr().out
  assert "mine.py exists" in fails(capsys, "new", "mine")
  assert "no Python name" in fails(capsys, "new", "my-method")
