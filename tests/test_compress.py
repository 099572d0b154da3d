"""`jaxgen compress`, as a user types it: files that come back, at the bound's rate."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import cli, data, parallel
from jaxgen.run import load_experiment, record
from jaxgen.train import fit

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A trained run, and a file of 1,500 binarised digits."""
  folder = tmp_path_factory.mktemp("bits")
  source, workdir = TESTS / "tiny_bits.py", folder / "run"
  module = load_experiment(source)
  config = module.get_config()
  fit(
    **module.build(config),
    workdir=workdir,
    seed=0,
    backend=parallel.jit_backend(jax.devices()[:1]),  # Far faster than eight.
    on_start=lambda: record(workdir, source, config, 0),
  )
  train = data.tfds_images(
    "digits", "train", batch_size=1_500, image_size=8, channels=1
  )
  grey = np.asarray(next(iter(train(0)))["image"]) / 255
  bits = np.random.default_rng(0).random(grey.shape) < grey
  np.savez(folder / "bits.npz", image=255 * bits.astype(np.uint8))
  return folder


def test_a_file_comes_back_bit_for_bit_at_the_rate_of_the_bound(run, capsys):
  flags = [f"{run / 'run'}", f"--data={run / 'bits.npz'}", f"--out={run / 'bits.jbb'}"]
  cli.main(["compress", *flags])
  size = (run / "bits.jbb").stat().st_size
  assert f"1500 images: {size} bytes" in capsys.readouterr().out
  flags = [f"{run / 'run'}", f"--data={run / 'bits.jbb'}", f"--out={run / 'back.npz'}"]
  cli.main(["decompress", *flags])
  image = np.load(run / "bits.npz")["image"]
  np.testing.assert_array_equal(np.load(run / "back.npz")["image"], image)
  loaded = jaxgen.load(run / "run")
  batch = {"image": jnp.asarray(image / 127.5 - 1, jnp.float32)}
  one = lambda key: loaded.method.eval_step(loaded.state, batch, key)
  found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 20))
  bits = -found["elbo"].mean() / np.log(2)
  # Worth something: the bound is half a bit a pixel, latents say a part of it.
  assert bits < 0.65 * 64
  assert found["kl"].mean() > 3
  np.testing.assert_allclose(8 * size / 1_500, bits, rtol=0.05)


def test_what_it_cannot_do_is_an_error(run, tmp_path):
  def fails(*argv):
    with pytest.raises(SystemExit) as caught:
      cli.main([*argv, f"--out={tmp_path / 'out'}"])
    return str(caught.value.code)

  grey = tmp_path / "grey.npz"
  np.savez(grey, image=np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1))
  text = fails("compress", str(run / "run"), f"--data={grey}")
  assert "64 values from 0 to 63; expected images of 0 and 1" in text
  np.savez(grey, images=np.zeros(1))
  text = fails("compress", str(run / "run"), f"--data={grey}")
  assert "expected an array 'image', found ['images']" in text
  text = fails("decompress", str(run / "run"), f"--data={grey}")
  assert "expected b'jaxgenbb' and whole words" in text
  source = run / "run" / "experiment.py"
  changed = source.read_text().replace("def codec(", "def other(")
  source.write_text(changed)
  text = fails("compress", str(run / "run"), f"--data={run / 'bits.npz'}")
  assert "has no function codec(config, state)" in text
