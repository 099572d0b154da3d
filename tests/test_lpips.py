"""LPIPS: values and gradients equal to the lpips package; its files and their absence.

See golden/make_lpips.py; weights are random, drawn by name.
"""

from pathlib import Path

from golden.random_state import random_heads, random_pixels, random_state
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import cli
from jaxgen.metrics import lpips as lpips_module
from jaxgen.metrics.lpips import LPIPS, load_lpips, lpips
from jaxgen.nn.alexnet import AlexNet
from jaxgen.nn.pretrained import torch_shapes
from jaxgen.nn.squeezenet import SqueezeNet
from jaxgen.nn.torch_file import file_hash
from jaxgen.nn.vgg import VGG16
from jaxgen.score.results import evaluate_path
from jaxgen.score.task import Ruler

GOLDEN = np.load(Path(__file__).parent / "golden" / "lpips.npz")
PRETRAINED = Path(__file__).resolve().parents[2] / "shared" / "data" / "pretrained"
HEADS = PRETRAINED / "lpips_v0.1_linear_heads.npz"
CHANNELS = {
  "alex": (64, 192, 384, 256, 256),
  "squeeze": (64, 128, 256, 384, 384, 512, 512),
  "vgg": (64, 128, 256, 512, 512),
}


def backbone_state(name):
  if name == "squeeze":
    return random_state(squeezenet_shapes())
  net = {"alex": AlexNet(), "vgg": VGG16()}[name]
  return random_state(torch_shapes(net, 64))


def squeezenet_shapes():
  """torchvision's names of version 1.1."""
  places = ["features.0", *(f"features.{i}" for i in (3, 4, 6, 7, 9, 10, 11, 12))]
  names = ["conv1", *(f"fire{i}" for i in range(2, 10))]
  places = dict(zip(names, places, strict=True)) | {"conv10": "classifier.1"}
  shapes = {}
  for name, shape in torch_shapes(SqueezeNet("1.1"), 227).items():
    layer, rest = name.split(".", 1)
    shapes[f"{places[layer]}.{rest.replace('squeeze1x1', 'squeeze')}"] = shape
  return shapes


def files(name, folder):
  """Backbone and heads, the latter under the package's names."""
  backbone, heads = folder / f"{name}.npz", folder / f"{name}_heads.npz"
  np.savez(backbone, **backbone_state(name))
  values = {
    f"lin{i}.model.1.weight": head[None, :, None, None]
    for i, head in enumerate(random_heads(CHANNELS[name]))
  }
  np.savez(heads, **values)
  return backbone, heads


@pytest.mark.parametrize("name", ["alex", "squeeze", "vgg"])
def test_equals_the_package_in_float64(name, tmp_path):
  backbone, heads = files(name, tmp_path)
  network = load_lpips(name, backbone, heads)
  assert network.fingerprint == (
    f"lpips-{name}-{file_hash(backbone)}-{file_hash(heads)}"
  )
  scale = lambda pixels: jnp.asarray(pixels.astype(np.float64) / 127.5 - 1.0)
  with jax.enable_x64(True):
    a, b = (scale(random_pixels(seed, 2, 64, 48, 3)) for seed in (3, 4))

    @jax.jit
    def value_and_gradient(taps, a, b):
      def total(a):
        value = lpips(a, b, network._replace(taps=taps))
        return value.sum(), value

      return jax.grad(total, has_aux=True)(a)

    # Its first convolution's gradient takes 9 s of what the quick compiler makes.
    options = {"xla_backend_optimization_level": 1} if name == "alex" else {}
    lowered = value_and_gradient.lower(network.taps, a, b)
    gradient, value = lowered.compile(options)(network.taps, a, b)
    np.testing.assert_allclose(value, GOLDEN[f"{name}/value"], rtol=1e-12)
    expected = GOLDEN[f"{name}/gradient"]
    atol = 1e-10 * np.abs(expected).max()
    np.testing.assert_allclose(gradient.ravel()[::11], expected, rtol=0, atol=atol)


def toy(head=(2.0, 0.5)):
  """Two channels: red and green as they come, undoing the normalisation."""
  scale, shift = (
    np.float32(values)[None, None, None]
    for values in (lpips_module._SCALE, lpips_module._SHIFT)
  )
  taps = lambda x: ((x * scale + shift)[..., :2],)
  return LPIPS("toy", taps, (jnp.asarray(head, jnp.float32),))


def test_closed_form():
  red, green = jnp.eye(3)[0], jnp.eye(3)[1]
  both = (red + green)[None, None, None] * 0.3
  left = jnp.stack([jnp.stack([red, red]), jnp.stack([red, red])])[None] * 0.7
  one = left.at[0, 0, 0].set(green * 0.1)
  np.testing.assert_allclose(lpips(left, 0.2 * left, toy()), [0.0], atol=1e-12)
  # One pixel of four: (1 - 0)^2 * 2 + (0 - 1)^2 * 0.5.
  np.testing.assert_allclose(lpips(left, one, toy()), [2.5 / 4], rtol=1e-6)
  half = np.sqrt(0.5)
  expected = (1 - half) ** 2 * 2 + half**2 * 0.5
  value = lpips(left, jnp.broadcast_to(both, left.shape), toy())
  np.testing.assert_allclose(value, [expected], rtol=1e-6)


def test_finite_where_all_channels_are_zero_after_relu():
  x = random.uniform(random.key(0), (1, 4, 4, 3))
  taps = lambda y: (jax.nn.relu(y[..., :2] - y[:, 1:2, 1:2, :2]),)
  network = toy()._replace(taps=taps)
  total = lambda x: lpips(x, 1 - x, network).sum()
  value, gradient = jax.jit(jax.value_and_grad(total))(x)
  assert np.isfinite(value) and np.isfinite(gradient).all()
  assert np.abs(gradient).max() > 0


def test_missing_files_are_errors_that_name_them(tmp_path):
  backbone, heads = files("alex", tmp_path)
  with pytest.raises(
    FileNotFoundError,
    match=r"none.pth: no such file; LPIPS with 'vgg' needs torchvision's "
    r"vgg16-397923af.pth, and no other network is used in its place",
  ):
    load_lpips("vgg", tmp_path / "none.pth", heads)
  with pytest.raises(FileNotFoundError, match="needs the linear heads v0.1 of 'alex'"):
    load_lpips("alex", backbone, tmp_path / "none.npz")
  with pytest.raises(
    ValueError, match=r"of \['alex', 'squeeze', 'vgg'\], got 'resnet'"
  ):
    load_lpips("resnet", backbone, heads)
  with pytest.raises(ValueError, match=r"not the heads .* expected 128 .*\[192,|192"):
    load_lpips("squeeze", files("squeeze", tmp_path)[0], heads)
  with pytest.raises(ValueError, match=r"\(1, 2, 2, 3\) and \(1, 2, 4, 3\)"):
    lpips(jnp.zeros((1, 2, 2, 3)), jnp.zeros((1, 2, 4, 3)), toy())


def test_evaluate_scores_pairs_by_the_files_given_or_not_at_all(tmp_path, capsys):
  backbone, heads = files("squeeze", tmp_path)
  images = random_pixels(3, 3, 40, 36, 3), random_pixels(4, 3, 40, 36, 3)
  for name, image in zip("ab", images, strict=True):
    np.savez(tmp_path / f"{name}.npz", image=image)
    np.savez(tmp_path / f"{name}_grey.npz", image=image[..., :1])
  flags = ["evaluate", "--metrics=lpips_squeeze", f"--samples={tmp_path}/a.npz"]
  flags += [f"--reference={tmp_path}/b.npz"]
  given = [f"--backbone={backbone}", f"--heads={heads}"]
  for missing in ([], given[:1], given[1:]):
    with pytest.raises(SystemExit, match="needs --backbone=FILE .*squeezenet1_1-b8a52"):
      cli.main([*flags, *missing])
  with pytest.raises(SystemExit, match="no such file; LPIPS with 'squeeze' needs"):
    cli.main([*flags, given[1], "--backbone=none.pth"])
  with pytest.raises(SystemExit, match="not the weights of AlexNet"):
    cli.main([*flags, *given, "--metrics=lpips_alex"])
  network = load_lpips("squeeze", backbone, heads)
  inner = lambda x: np.float32(x[:, 2:-2, 2:-2] / 127.5 - 1)
  of = jax.jit(lambda taps, a, b: lpips(a, b, network._replace(taps=taps)))
  for kind in ("", "_grey"):
    a, b = (np.load(tmp_path / f"{n}{kind}.npz")["image"] for n in "ab")
    a, b = (inner(np.broadcast_to(x, images[0].shape)) for x in (a, b))
    ruler = Ruler(
      ("lpips_squeeze",),
      reference=f"{tmp_path}/b{kind}.npz",
      crop=2,
      backbone=str(backbone),
      heads=str(heads),
    )
    found = evaluate_path(f"{tmp_path}/a{kind}.npz", ruler)
    value, interval, _ = found.scores["lpips_squeeze"]
    expected = of(network.taps, a, b)
    assert value == pytest.approx(float(expected.mean()), rel=1e-5)
    assert interval[0] < value < interval[1]
    assert found.ruler["settings"] == f"lpips_squeeze: {network.fingerprint}, crop 2"
  with pytest.raises(ValueError, match=r"\(3, 8, 4, 3\) are too small"):
    evaluate_path(f"{tmp_path}/a.npz", ruler._replace(
      reference=f"{tmp_path}/b.npz", crop=16
    ))  # fmt: skip


@pytest.mark.skipif(not HEADS.exists(), reason=f"no {HEADS.name}")
def test_published_heads_fit_and_the_other_squeezenet_does_not():
  for name, channels in CHANNELS.items():
    heads = lpips_module._heads(name, channels, HEADS)
    assert tuple(head.size for head in heads) == channels
    assert all(head.min() >= 0 and head.max() > 0 for head in heads)
  with pytest.raises(ValueError, match=r"wrong shapes: conv1.bias \(96,\)"):
    load_lpips("squeeze", PRETRAINED / "squeezenet_v1.0_imagenet.npz", HEADS)
