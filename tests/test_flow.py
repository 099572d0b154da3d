"""Flows: densities that integrate to 1, exact inverses, first batches, parity."""

import functools
from pathlib import Path

from flax import linen as nn
from golden.flow_inputs import (
  GLOW,
  NUM_MASKED,
  images,
  latents,
  order_and_sign,
  points,
  weights,
)
from golden.random_state import random_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import parallel
from jaxgen.flow import glow, likelihood, maf, nice, realnvp, residual_flow
from jaxgen.nn import bijection, coupling, multi_scale

GOLDEN = Path(__file__).parent / "golden" / "flow_glow.npz"
KEY = jax.random.key(5)
TX = optax.adam(1e-2)
SHAPE = (4, 4, 2)


def rattled(net, shape, dtype=jnp.float64):
  """Random variables in which no layer is the identity."""
  rng = np.random.default_rng(0)
  init = functools.partial(net.init, jax.random.key(0), jnp.zeros((1, *shape)))
  variables = jax.eval_shape(init)
  if bijection.FIRST_BATCH in variables:
    variables = jax.device_get(jax.jit(init)())
  else:  # No compiler is needed: what is not a scale is near 0.
    one = ("scale", "std", "var", "most")
    fill = lambda path, v: np.full(v.shape, path[-1].key in one, np.float64)
    variables = jax.tree_util.tree_map_with_path(fill, variables)
  real = lambda v: jnp.issubdtype(v.dtype, jnp.floating)
  variables = jax.tree.map(lambda v: v.astype(dtype) if real(v) else v, variables)
  move = lambda v: v + 0.2 * rng.standard_normal(v.shape).astype(dtype)
  return {**variables, "params": jax.tree.map(move, variables["params"])}


NETWORKS = {
  "nice": nice.Network(SHAPE, (8,)),
  "realnvp": realnvp.network(SHAPE, num_scales=2, width=4, num_blocks=1),
  "glow": glow.network(SHAPE, num_scales=2, num_steps=2, width=4),
  "glow, additive, plain": glow.network(
    SHAPE, num_scales=1, num_steps=2, width=4, affine=False, lu=False
  ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_a_bijection_with_its_determinant(name):
  net = NETWORKS[name]
  with jax.enable_x64(True):
    variables = rattled(net, SHAPE)
    x = jax.random.uniform(KEY, (2, *SHAPE), jnp.float64) - 0.5

    def one(v, variables):
      z, log_det = net.apply(variables, v.reshape(1, *SHAPE))
      return z[0], (z[0], log_det[0])

    forward = jax.vmap(jax.jacfwd(one, has_aux=True), (0, None))
    jacobian, (z, log_det) = jax.jit(forward)(x.reshape(2, -1), variables)
    inverse = lambda z, variables: net.apply(variables, z, method="inverse")
    traced = jax.jit(inverse).trace(z, variables)
    back, back_det = traced.lower().compile()(z, variables)
    np.testing.assert_allclose(back, x, atol=1e-10)
    np.testing.assert_allclose(back_det, -log_det, atol=1e-10)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, atol=1e-9)
    assert np.abs(log_det).min() > 0.01
    # Sampling costs what encoding does: no loop over entries.
    program = str(traced.jaxpr)
    assert "while" not in program
    assert "scan" not in program


def glow_of_two():
  """Two of Glow's steps and its prior, without the squeeze, which makes four values."""
  step = lambda: (
    bijection.ActNorm(2),
    bijection.Invertible1x1(2),
    coupling.SplitCoupling(glow.Conditioner(1, 4, True)),
  )
  return multi_scale.MultiScale([[*step(), *step()]], (1, 1, 2), [glow.Prior(2)])


@pytest.mark.parametrize("family", ["nice", "realnvp", "glow"])
def test_density_of_two_values_integrates_to_one(family):
  shape = (1, 1, 2) if family == "glow" else (1, 2, 1)
  net = {
    "nice": nice.Network(shape, (16,)),
    "realnvp": realnvp.network(shape, num_scales=1, width=4, num_blocks=1),
    "glow": glow_of_two(),
  }[family]
  with jax.enable_x64(True):
    variables = rattled(net, shape)
    line, step = np.linspace(-60, 60, 401, retstep=True)
    grid = jnp.asarray(np.stack(np.meshgrid(line, line), -1).reshape(-1, *shape))
    z, log_det = jax.jit(net.apply)(variables, grid)
    for base in (likelihood.normal, likelihood.logistic):
      log_p = base.log_prob(z).sum(-1) + log_det
      np.testing.assert_allclose(np.exp(log_p).sum() * step**2, 1, rtol=1e-3)


@pytest.mark.parametrize("alpha", [None, 1e-4])
def test_probabilities_of_all_images_sum_to_what_lies_in_the_cube(alpha):
  """Two pixels of two levels: E_u exp(log_prob) is exactly P(image)."""
  net = nice.Network((1, 2, 1), (16,))
  space = likelihood.space(net, num_levels=2, logit_alpha=alpha)
  levels = jnp.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], jnp.float32)
  every_image = levels.reshape(4, 1, 2, 1).repeat(50_000, axis=0)
  variables = rattled(net, (1, 2, 1), jnp.float32)
  _, log_p = jax.jit(space.encode)(variables, every_image, KEY)
  p = np.exp(log_p).reshape(4, -1).mean(1)
  drawn = jax.random.normal(KEY, (100_000, 2))
  x = np.asarray(net.apply(variables, drawn, method="inverse")[0]).reshape(-1, 2)
  y = x + 0.5 if alpha is None else (1 / (1 + np.exp(-x)) - alpha) / (1 - 2 * alpha)
  high = y > 0.5
  inside = ((y > 0) & (y < 1)).all(1)
  cells = [(inside & (high == h).all(1)).mean() for h in np.asarray(levels) > 0]
  np.testing.assert_allclose(p, cells, atol=0.02)
  if alpha:  # Logits reach the whole line.
    np.testing.assert_allclose(p.sum(), 1, atol=0.02)


def test_loss_and_evaluation_of_the_identity_are_those_of_the_base():
  """NICE starts as the identity: bits of N(0, I) at y - 0.5, by hand."""
  net = nice.Network(SHAPE, (8,))
  method = nice.nice(net, tx=TX, base=likelihood.normal)
  image = jax.random.randint(KEY, (8, *SHAPE), 0, 256) / 127.5 - 1
  state = jax.jit(method.init)(KEY, {"image": image})
  values = jax.jit(method.eval_step)(state, {"image": image}, KEY)
  u = jax.random.uniform(KEY, image.shape)
  x = ((np.round((image + 1) * 127.5) + u) / 256 - 0.5).reshape(8, -1)
  nats = (0.5 * x**2 + 0.5 * np.log(2 * np.pi) + np.log(256)).sum(-1)
  np.testing.assert_allclose(values["nll"], nats, rtol=1e-5)
  np.testing.assert_allclose(values["bits_per_dim"], nats / 32 / np.log(2), rtol=1e-5)
  log_prob = jax.jit(method.tools["log_prob"])(state, {"image": image}, KEY)["log_prob"]
  np.testing.assert_allclose(log_prob, -nats, rtol=1e-5)
  _, metrics = jax.jit(method.train_step)(state, {"image": image}, KEY)
  np.testing.assert_allclose(metrics["loss"], values["bits_per_dim"].mean(), rtol=1e-5)


# --- Glow's training and tools ----------------------------------------------------


@pytest.fixture(scope="module")
def small():
  """A Glow after two steps: method, states 0, 1, 2, batch."""
  net = glow.network(SHAPE, num_scales=2, num_steps=1, width=4)
  method = glow.glow(net, tx=TX)
  image = jax.random.randint(KEY, (16, *SHAPE), 0, 256) / 127.5 - 1
  batch = {"image": image, "label": jnp.arange(16) % 3}
  states = [jax.jit(method.init)(jax.random.key(0), batch)]
  step = jax.jit(method.train_step)
  for i in range(2):
    state, _ = step(states[-1], batch, jax.random.key(i))
    states.append(state.replace(step=state.step + 1))
  return net, method, states, batch


def test_first_step_standardises_by_its_batch_and_later_ones_do_not(small):
  net, _, (state, first, second), batch = small
  found = [s.stats["net"][bijection.FIRST_BATCH] for s in (state, first, second)]
  assert all((v == 0).all() for v in jax.tree.leaves(found[0]["levels_0_1"]["mean"]))
  for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(found[2]), strict=True):
    np.testing.assert_array_equal(a, b)
  x, _ = likelihood.space(net).observe(batch["image"], jax.random.key(0))
  squeezed, _ = multi_scale.Squeeze().apply({}, x)
  seen = found[1]["levels_0_1"]
  np.testing.assert_allclose(seen["mean"], squeezed.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(seen["std"], squeezed.std((0, 1, 2)), rtol=1e-4)
  # Before any training but with these statistics, the first layers' outputs are white.
  variables = {"params": state.params["net"], **first.stats["net"]}
  kwargs = dict(capture_intermediates=True, mutable="intermediates")
  _, kept = jax.jit(functools.partial(net.apply, **kwargs))(variables, x)
  for level in ("levels_0_1", "levels_1_1"):
    z = kept["intermediates"][level]["__call__"][0][0]
    np.testing.assert_allclose(
      z.mean((0, 1, 2)), np.zeros(8 if level[7] == "0" else 16), atol=1e-4
    )
    np.testing.assert_allclose(z.std((0, 1, 2)), np.ones(z.shape[-1]), rtol=1e-3)


def test_every_parameter_of_the_lu_form_trains(small):
  _, _, (state, _, last), _ = small
  for name in ("levels_0_2", "levels_1_2"):
    before, after = state.params["net"][name], last.params["net"][name]
    low, high = np.tril_indices(8, -1), np.triu_indices(8, 1)
    assert (before["lower"] != after["lower"])[low].all()
    assert (before["upper"] != after["upper"])[high].all()
    assert (before["log_s"] != after["log_s"]).all()
    np.testing.assert_array_equal(before["lower"][high], after["lower"][high])


def test_two_devices_train_the_lu_form_as_one(small):
  *_, batch = small
  method = glow.glow(glow.network(SHAPE, num_scales=1, num_steps=1, width=4), tx=TX)
  host = {k: np.asarray(v) for k, v in batch.items()}
  ends = []
  for n in (1, 2):
    backend = parallel.jit_backend(jax.devices()[:n])
    state = backend.init(method.init, jax.random.key(0), host)
    step = backend.compile_train(method.train_step)
    state, _ = step(state, backend.put_batch(host), jax.random.key(0))
    ends.append(jax.device_get(state.stats))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *ends)


def test_temperature_zero_is_the_mode_and_tools_decode_what_they_encode(small):
  net, method, (*_, state), batch = small
  variables = {"params": state.params["net"], **state.stats["net"]}
  decode = jax.jit(likelihood.space(net).decode)
  mode = decode(variables, jnp.zeros((1, 32)))
  cold = jax.jit(glow.glow(net, tx=TX, temperature=0.0).sample)(state, batch, KEY)[
    "samples"
  ]
  np.testing.assert_array_equal(cold, np.repeat(mode, 16, axis=0))
  sweep = jax.jit(method.tools["temperatures"])(state, batch, KEY)["temperatures"]
  assert sweep.shape == (16, len(likelihood.TEMPERATURES), *SHAPE)
  np.testing.assert_array_equal(sweep[:, 0], cold)
  warm = jax.jit(glow.glow(net, tx=TX, temperature=1.0).sample)(state, batch, KEY)[
    "samples"
  ]
  np.testing.assert_array_equal(sweep[:, -1], warm)
  assert (sweep[:, -1] != sweep[:, 0]).any()
  path = jax.jit(method.tools["interpolate"])(state, batch, KEY)["interpolations"]
  np.testing.assert_allclose(path[:, 0], batch["image"], atol=1e-6)
  np.testing.assert_allclose(path[:, -1], np.roll(batch["image"], -1, 0), atol=1e-6)


def test_attribute_moves_along_the_difference_of_two_labels_means(small):
  net, method, (*_, state), batch = small
  moved = jax.jit(method.tools["attribute"])(state, batch, KEY)["attribute"]
  assert moved.shape == (16, glow.NUM_STRENGTHS, *SHAPE)
  np.testing.assert_allclose(moved[:, 3], batch["image"], atol=1e-6)
  z = np.asarray(jax.jit(method.tools["encode"])(state, batch, KEY)["z"])
  direction = z[2::3].mean(0) - z[0::3].mean(0)
  decode = jax.jit(likelihood.space(net).decode)
  variables = {"params": state.params["net"], **state.stats["net"]}
  for strength, images_ in ((-1, moved[:, 0]), (1 / 3, moved[:, 4])):
    expected = decode(variables, z + strength * direction[None])
    assert (np.abs(images_ - expected) < 1e-6).mean() > 0.99  # Rounding at a boundary.
    assert (images_ != batch["image"]).any()


def test_sides_and_sizes_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match=r"28.*2\^3"):
    glow.network((28, 28, 1))
  with pytest.raises(ValueError, match=r"6.*2\^2"):
    realnvp.network((6, 8, 1))
  with pytest.raises(ValueError, match="even number"):
    nice.Network((3, 3, 1)).init(KEY, jnp.zeros((1, 3, 3, 1)))


@pytest.mark.parametrize(
  ("net", "told"),
  [
    (residual_flow.network((1, 2, 1), hidden_dims=(3,), num_blocks=1), "power_iter"),
    (maf.network((1, 2, 1), hidden_dim=2, num_layers=1, has_batch_norm=True), "batch_"),
    (realnvp.network((1, 2, 1), num_scales=1, width=2, num_blocks=1), "batch_stats"),
  ],
)
def test_averages_of_parameters_without_averages_of_the_rest_are_refused(net, told):
  batch = {"image": jnp.zeros((1, 1, 2, 1))}
  method = likelihood.density(net, tx=TX, ema_decay=0.9)
  with pytest.raises(ValueError, match=rf"ema_decay=0\.9: expected None.*'{told}"):
    jax.eval_shape(method.init, KEY, batch)
  none = jax.eval_shape(likelihood.density(net, tx=TX).init, KEY, batch)
  assert none.ema == {}


# --- against others ---------------------------------------------------------------


@pytest.mark.parametrize(
  ("options", "count"),
  [({}, 44_095_536), ({"affine": False}, 37_899_696), ({"num_scales": 4}, 74_490_832)],
)
def test_parameter_count_of_rosinalitys_glow(options, count):

  def num(**more):
    net = glow.network((32, 32, 3), **options, **more)
    shapes = jax.eval_shape(net.init, KEY, jnp.zeros((1, 32, 32, 3)))
    return sum(x.size for x in jax.tree.leaves(shapes["params"]))

  # Steps of a level are alike: the first tells what each of the 31 others adds.
  first = num(num_steps=1)
  assert first + 31 * (num(num_steps=2) - first) == count
  if not options:
    assert num() == count


def torch_names(net, shape):
  """rosinality's {name: shape} of the network, and its variables of ours by path."""
  variables = jax.eval_shape(net.init, KEY, jnp.zeros((1, *shape)))
  names = {}

  def conv(name, ours):
    height, width, fan_in, fan_out = ours["kernel"].shape
    names[f"{name}.weight"] = (fan_out, fan_in, height, width)
    names[f"{name}.bias"] = (fan_out,)

  def zero_conv(name, ours):
    conv(f"{name}.conv", ours["Conv_0"])
    names[f"{name}.scale"] = (1, *ours["scale"].shape, 1, 1)

  for i in range(GLOW["num_scales"]):
    for j in range(GLOW["num_steps"]):
      norm, _, step = (
        variables["params"][f"levels_{i}_{3 * j + k}"] for k in (1, 2, 3)
      )
      name, c = f"blocks.{i}.flows.{j}", norm["shift"].shape
      names |= {f"{name}.actnorm.{k}": (1, *c, 1, 1) for k in ("loc", "scale")}
      names |= {f"{name}.invconv.w_{k}": (*c, *c) for k in "lu"}
      names[f"{name}.invconv.w_s"] = c
      conditioner = step["conditioner"]
      conv(f"{name}.coupling.net.0", conditioner["Conv_0"])
      conv(f"{name}.coupling.net.2", conditioner["Conv_1"])
      zero_conv(f"{name}.coupling.net.4", conditioner["ZeroConv_0"])
    zero_conv(f"blocks.{i}.prior", variables["params"][f"priors_{i}"]["ZeroConv_0"])
  return names


def from_rosinality(net, shape):
  """Our variables with the weights of flow_inputs."""
  w = weights(random_state(torch_names(net, shape)))
  params, fixed, first = {}, {}, {}
  conv = lambda name: {
    "kernel": w[f"{name}.weight"].transpose(2, 3, 1, 0),
    "bias": w[f"{name}.bias"],
  }
  zero_conv = lambda name: {
    "Conv_0": conv(f"{name}.conv"),
    "scale": w[f"{name}.scale"].ravel(),
  }
  for i in range(GLOW["num_scales"]):
    for j in range(GLOW["num_steps"]):
      name = f"blocks.{i}.flows.{j}"
      norm, mix, step = (f"levels_{i}_{3 * j + k}" for k in (1, 2, 3))
      scale = w[f"{name}.actnorm.scale"].ravel()
      shift = scale * w[f"{name}.actnorm.loc"].ravel()
      params[norm] = {"log_scale": np.log(scale), "shift": shift}
      first[norm] = {"mean": np.zeros(len(scale)), "std": np.ones(len(scale))}
      lower, upper, log_s = (w[f"{name}.invconv.w_{k}"] for k in "lus")
      params[mix] = {"lower": lower, "upper": upper, "log_s": log_s}
      fixed[mix] = dict(zip(("order", "sign"), order_and_sign(len(scale)), strict=True))
      params[step] = {
        "conditioner": {
          "Conv_0": conv(f"{name}.coupling.net.0"),
          "Conv_1": conv(f"{name}.coupling.net.2"),
          "ZeroConv_0": zero_conv(f"{name}.coupling.net.4"),
        }
      }
    params[f"priors_{i}"] = {"ZeroConv_0": zero_conv(f"blocks.{i}.prior")}
  return {"params": params, "fixed": fixed, bijection.FIRST_BATCH: first}


def test_glow_is_rosinalitys():
  """log p(x) and samples to 1e-10 in float64."""
  golden, shape = np.load(GOLDEN), images().shape[1:]
  net = glow.network(shape, **GLOW)
  with jax.enable_x64(True):
    variables = jax.tree.map(jnp.asarray, from_rosinality(net, shape))
    z, log_det = jax.jit(net.apply)(variables, jnp.asarray(images()))
    log_prob = likelihood.normal.log_prob(z).sum(-1) + log_det
    flat = np.concatenate([z.reshape(2, -1) for z in latents()], axis=-1)
    samples, _ = jax.jit(lambda z: net.apply(variables, z, method="inverse"))(flat)
  np.testing.assert_allclose(log_prob, golden["glow/log_prob"], rtol=1e-10)
  np.testing.assert_allclose(samples, golden["glow/samples"], atol=1e-10)


class TwoMLPs(nn.Module):
  """normflows' t and s of MaskedAffineFlow."""

  @nn.compact
  def __call__(self, x, train):
    mlp = lambda n: nn.Dense(2, name=f"{n}_2")(nn.relu(nn.Dense(8, name=f"{n}_0")(x)))
    return mlp("t"), mlp("s")


def test_masked_coupling_is_normflows():
  """log p(x) to 1e-10 in float64; normflows' forward direction makes samples."""
  shapes = {}
  for i in range(NUM_MASKED):
    for mlp in "ts":
      for layer, (fan_in, fan_out) in {0: (2, 8), 2: (8, 2)}.items():
        name = f"flows.{i}.{mlp}.net.{layer}"
        shapes |= {f"{name}.weight": (fan_out, fan_in), f"{name}.bias": (fan_out,)}
  w = weights(random_state(shapes))
  with jax.enable_x64(True):
    x, total = jnp.asarray(points()), jnp.zeros(16)
    for i in reversed(range(NUM_MASKED)):
      params = {
        f"{mlp}_{layer}": {
          "kernel": w[f"flows.{i}.{mlp}.net.{layer}.weight"].T,
          "bias": w[f"flows.{i}.{mlp}.net.{layer}.bias"],
        }
        for mlp in "ts"
        for layer in (0, 2)
      }
      mask = np.array([[i % 2 == 1, i % 2 == 0]])
      layer = coupling.MaskedCoupling(TwoMLPs(), mask)
      variables = {"params": {"conditioner": params}}
      x, log_det = layer.apply(variables, x, method="inverse")
      total += log_det
    log_prob = likelihood.normal.log_prob(x).sum(-1) + total
  np.testing.assert_allclose(log_prob, np.load(GOLDEN)["masked/log_prob"], rtol=1e-10)
