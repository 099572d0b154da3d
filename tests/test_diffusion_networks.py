"""Networks of EDM, DiT and VDM: published sizes, parity with references, identities."""

from pathlib import Path
import sys
from types import SimpleNamespace

from flax import traverse_util
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import parallel, run
from jaxgen.describe import parameters
from jaxgen.nn.adm_unet import AdmUNet
from jaxgen.nn.attention import attend, cudnn_applies
from jaxgen.nn.dit import Block, DiT
from jaxgen.nn.embed import cosines_first, fourier_embedding
from jaxgen.nn.resampling_unet import BINOMIAL
from jaxgen.nn.song_unet import SongUNet
from jaxgen.nn.vdm_unet import LinearSchedule, MonotoneSchedule, VdmUNet

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))
from diffusion_inputs import AUGMENT_DIM, CLASSES, LABEL, inputs, some, weight  # noqa: E402

NCSN = dict(
  noise_embedding="fourier", embedding_mult=2, residual_input=True, taps=BINOMIAL
)


def shapes_of(net, *args):
  return jax.eval_shape(lambda: net.init(random.key(0), *args))["params"]


def count(net, *args):
  leaves = jax.tree.leaves(shapes_of(net, *args))
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
  return sum(leaf.size for leaf in leaves)


@pytest.mark.parametrize(
  ("net", "size", "channels", "expected"),
  [
    (SongUNet(), 32, 3, 55_732_739),
    (SongUNet(10), 32, 3, 55_734_147),
    (SongUNet(0, 9), 32, 3, 55_733_891),
    (SongUNet(0, 9, **NCSN), 32, 3, 56_397_827),
    (SongUNet(0, 9, channel_mults=(1, 2, 2, 2)), 64, 3, 61_805_571),
    (AdmUNet(1000), 64, 3, 295_899_267),
    (DiT(patch_size=8), 32, 4, 33_142_016),
    (DiT(10), 32, 3, 32_480_280),
  ],
)
def test_published_parameter_counts(net, size, channels, expected):
  """Of networks that are in no experiment; the others are counted there, below."""
  assert count(net, jnp.zeros((1, size, size, channels)), jnp.zeros(1)) == expected


def test_counts_of_schedules():
  assert count(LinearSchedule(), jnp.zeros(1)) == 2  # with which VDM has 30,578,181
  assert count(MonotoneSchedule(), jnp.zeros(1)) == 3 * 1024 + 3


SMALL = dict(channels=8, channel_mults=(1, 2), num_blocks=1, attention_resolutions=(4,))
SONG = dict(num_classes=CLASSES, augment_dim=AUGMENT_DIM, dropout_rate=0.0, **SMALL)
ADM = {**SONG, "channels": 32, "channel_mults": (1, 4)}
PARITY = {
  "edm/ddpmpp": lambda dtype: SongUNet(**SONG, dtype=dtype),
  "edm/ncsnpp": lambda dtype: SongUNet(**SONG, **NCSN, dtype=dtype),
  "edm/adm": lambda dtype: AdmUNet(**ADM, dtype=dtype),
  "dit/": lambda dtype: DiT(CLASSES, 2, 2, 16, 2, dtype=dtype),
  "vdm/": lambda dtype: VdmUNet(
    channels=64, num_blocks=1, dropout_rate=0.0, dtype=dtype
  ),
}


def test_attention_is_its_definition_in_every_precision():
  rng = np.random.default_rng(0)
  query, key, value = rng.standard_normal((3, 2, 5, 2, 4))
  scores = np.einsum("bqhd,bkhd->bhqk", query, key) / 2
  weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
  expected = np.einsum("bhqk,bkhd->bqhd", weights, value)
  for dtype, atol in ((np.float64, 1e-14), (np.float32, 1e-6), (jnp.bfloat16, 0.03)):
    with jax.enable_x64(True):
      args = (x.astype(dtype) for x in (query, key, value))
      found = jax.jit(attend)(*args)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, float), expected, 0, atol)


def test_cudnn_is_asked_for_where_it_applies():
  """As JAX 0.10 checks what it is asked for: dtypes, head dimensions, GPUs."""
  gpu = lambda kind, capability: SimpleNamespace(
    device_kind=kind, compute_capability=capability
  )
  hopper, ampere = gpu("NVIDIA H200", "9.0"), gpu("NVIDIA A100-SXM4-40GB", "8.0")
  turing, amd = gpu("Tesla T4, of NVIDIA", "7.5"), gpu("AMD Instinct", "gfx942")
  half = jnp.dtype(jnp.bfloat16)
  assert cudnn_applies(half, 64, hopper)
  assert cudnn_applies(half, 256, hopper)
  assert cudnn_applies(jnp.dtype(jnp.float16), 128, ampere)
  assert not cudnn_applies(half, 256, ampere)
  assert not cudnn_applies(half, 4, hopper)
  assert not cudnn_applies(jnp.dtype(jnp.float32), 64, hopper)
  for device in (turing, amd, jax.devices("cpu")[0]):
    assert not cudnn_applies(half, 64, device)


@pytest.mark.parametrize("name", PARITY)
def test_equal_weights_give_equal_outputs_and_gradients(name):
  file, model = name.split("/")
  golden = np.load(GOLDEN / f"{file}.npz")
  golden = {key: golden[f"{model}/{key}".strip("/")] for key in ("y", "names", "grads")}
  x, t, augment, direction = inputs(steps=file == "dit")
  with jax.enable_x64(True):
    net = PARITY[name](jnp.float64)
    told = {
      "edm": (jnp.asarray(LABEL), jnp.asarray(augment)),
      "dit": (jnp.asarray(LABEL),),
    }
    args = (
      jnp.asarray(x),
      jnp.asarray(t),
      *told.get(file, (jnp.asarray(augment[:, 0]),)),
    )
    shapes = traverse_util.flatten_dict(shapes_of(net, *args), sep="/")
    params = {k: np.asarray(weight(k, p.shape)) for k, p in shapes.items()}

    @jax.jit
    def output_and_gradient(params):
      def loss(params):
        tree = {"params": traverse_util.unflatten_dict(params, sep="/")}
        y = jax.jit(net.apply)(tree, *args)
        return jnp.sum(direction[..., : y.shape[-1]] * y), y

      return jax.grad(loss, has_aux=True)(params)

    grads, y = jax.device_get(output_and_gradient(params))
  scale = np.abs(golden["y"]).max()
  np.testing.assert_allclose(y, golden["y"], rtol=0, atol=1e-10 * scale)
  assert sorted(grads) == list(golden["names"])
  for name, theirs in zip(golden["names"], golden["grads"], strict=True):
    # The gradient of a key's bias is zero: softmax takes no notice of a shift.
    atol = 1e-8 * max(np.abs(theirs).max(), 1e-3)
    np.testing.assert_allclose(some(grads[name]), theirs, 0, atol, err_msg=name)


def drawn(shapes):
  """Parameters with no zeros among them."""
  flat = traverse_util.flatten_dict(shapes, sep="/")
  return traverse_util.unflatten_dict(
    {k: np.float32(weight(k, p.shape)) for k, p in flat.items()}, sep="/"
  )


def test_blocks_of_dit_are_the_identity_at_first():
  rng, block = np.random.default_rng(0), Block(num_heads=2)
  x, condition = rng.standard_normal((2, 5, 8), "f"), rng.standard_normal((2, 8), "f")
  moved = {"params": drawn(shapes_of(block, x, condition))}

  def both(key, moved):
    fresh = block.init(key, x, condition)
    return block.apply(fresh, x, condition), block.apply(moved, x, condition)

  at_first, later = jax.jit(both)(random.key(2), moved)
  np.testing.assert_array_equal(at_first, x)
  assert np.all(later != x)


def test_dit_as_a_loop_and_with_less_memory_is_the_same():
  x, t, _, _ = inputs(steps=True)
  x, net = x.astype(np.float32), DiT(CLASSES, 2, 3, 16, 2)
  params = drawn(shapes_of(net, x, t, LABEL))

  def everything(params):
    apply = lambda net, params, *label: net.apply({"params": params}, x, t, *label)
    blocks = [params[f"block{i}"] for i in range(3)]
    stacked = {k: v for k, v in params.items() if not k.startswith("block")}
    stacked["blocks"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    loops = (net.clone(scan=True, remat=remat) for remat in (False, True))
    # No label is a label below 0, and not any of the classes.
    none = apply(net, params), apply(net, params, jnp.array([-1, -1]))
    label = jnp.asarray(LABEL)
    found = [apply(loop, stacked, label) for loop in loops]
    return apply(net, params, label), found, none

  y, found, none = jax.jit(everything)(params)
  for loop in found:
    np.testing.assert_allclose(loop, y, rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(*none)
  assert np.all(none[0] != y)


def test_embeddings():
  t = jnp.array([0.3, 2.0])
  expected = [
    [f(s * w) for f in (np.cos, np.sin) for w in (1.0, 0.01)] for s in (0.3, 2)
  ]
  np.testing.assert_allclose(cosines_first(t, 4), expected, atol=1e-6)
  waves = fourier_embedding(t, 512)
  np.testing.assert_allclose(waves[:, :256] ** 2 + waves[:, 256:] ** 2, 1, atol=1e-5)
  frequencies = np.arcsin(fourier_embedding(jnp.array([1e-4]), 4096)[0, :2048])
  np.testing.assert_allclose(np.std(frequencies), 2 * np.pi * 1e-4 * 16, rtol=0.1)
  for embed in (cosines_first, fourier_embedding):
    with pytest.raises(ValueError, match="even and at least 2, got 3"):
      embed(t, 3)


def test_schedules_rise_between_their_end_points():
  t = np.linspace(0, 1, 50, dtype=np.float32)
  for net in (LinearSchedule(-3.0, 2.0), MonotoneSchedule(-3.0, 2.0, width=4)):
    params = {"params": drawn(shapes_of(net, t))}

    def both(key, params, net=net):
      return net.apply(net.init(key, t), t), net.apply(params, t)

    at_first, gamma = jax.jit(both)(random.key(0), params)
    np.testing.assert_allclose(np.asarray(at_first)[[0, -1]], [-3, 2], rtol=1e-5)
    assert np.all(np.diff(gamma) > 0)
    start, slope = (np.asarray(params["params"][k]) for k in ("start", "slope"))
    np.testing.assert_allclose(gamma[0], start, rtol=1e-5)
    np.testing.assert_allclose(gamma[-1], start + np.abs(slope), rtol=1e-5)


def test_shapes_that_do_not_fit_are_explained():
  x, t = jnp.zeros((2, 6, 8, 3)), jnp.zeros(2)
  with pytest.raises(ValueError, match="divisible by 4, got 6x8"):
    shapes_of(SongUNet(), x, t)
  with pytest.raises(ValueError, match=r"\[6, 3\], got \(4,\)"):
    shapes_of(AdmUNet(channel_mults=(1, 1), attention_resolutions=(4,)), x, t)
  net = SongUNet(3, 9, **SMALL)
  with pytest.raises(ValueError, match=r"label must be int32 \[2\], got float32 \[2\]"):
    shapes_of(net, jnp.zeros((2, 8, 8, 3)), t, t)
  with pytest.raises(ValueError, match=r"augment must be \[2, 9\], got \[2, 8\]"):
    shapes_of(net, jnp.zeros((2, 8, 8, 3)), t, None, jnp.zeros((2, 8)))
  with pytest.raises(ValueError, match="patch_size=4 must divide the image, got 6x8"):
    shapes_of(DiT(patch_size=4), x, t)
  with pytest.raises(ValueError, match="num_heads=6, got 380"):
    shapes_of(DiT(width=380), x, t)


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("edm_cifar10", 55_735_299),
    ("edm_ncsnpp_cifar10", 56_400_643),
    ("edm_ffhq64", 61_805_571),
    ("edm_imagenet64", 295_899_267),
    ("dit_s2", 32_865_056),
    ("dit_b4", 130_426_496),
    ("dit_xl2", 674_834_720),
    ("vdm_cifar10", 30_578_181),
  ],
)
def test_experiments_have_the_published_networks(name, expected):
  folder = Path(__file__).parents[1] / "experiments" / "diffusion"
  experiment = run.load_experiment(folder / f"{name}.py")
  built = experiment.build(experiment.get_config())
  spec = run.batch_spec(built["train_data"])
  state = parallel.abstract_state(built["method"].init, spec)
  assert {k: parameters(v) for k, v in state.params.items()} == {"net": expected}
  assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
