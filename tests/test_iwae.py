"""IWAE: its bound between the ELBO and log p(x), its gradient, its schedule."""

import importlib.util
from pathlib import Path

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import data, parallel
from jaxgen.diffusion.score_sde import score_sde
from jaxgen.losses import bernoulli, gaussian
from jaxgen.losses.importance import importance_weighted_nll
from jaxgen.method import Method, create_state
from jaxgen.ops.ode import Tolerance
from jaxgen.run import Run
from jaxgen.score import results, scores, tables
from jaxgen.vae import cvae, variational
from jaxgen.vae.hvae import hvae
from jaxgen.vae.hvae_networks import Ladder
from jaxgen.vae.iwae import iwae, one_layer, stages, two_layers
from jaxgen.vae.likelihoods import bernoulli_pixels, gaussian_pixels
from jaxgen.vae.networks import FullyConnected
from jaxgen.vae.vae import vae
from jaxgen.vae.variational import log_weights, nll

KEY = jax.random.key(5)
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
  ("nets", "count"), [(one_layer, 425_284), (two_layers, 521_084)]
)
def test_parameter_counts(nets, count):
  method = iwae(nets((28, 28, 1)), tx=optax.sgd(0.1), num_draws=1)
  batch = {"image": jnp.zeros((1, 28, 28, 1))}
  state = jax.eval_shape(method.init, KEY, batch)
  assert sum(x.size for x in jax.tree.leaves(state.params)) == count


def test_the_papers_schedule():
  schedule, num_steps = stages(3_000)
  assert num_steps == 3_280 * 3_000
  starts = [3_000 * (3**i - 1) // 2 for i in range(8)]
  for i, start in enumerate(starts):
    rate = 1e-3 * 10 ** (-i / 7)
    # A step takes the schedule's value at the number of steps before it.
    np.testing.assert_allclose(schedule(start), rate, rtol=1e-5)
    if i:
      np.testing.assert_allclose(schedule(start - 1), rate * 10 ** (1 / 7), rtol=1e-5)
  np.testing.assert_allclose(schedule(num_steps - 1), 1e-4, rtol=1e-5)


# --- a model whose log p(x) is known ------------------------------------------------

NOISE_VAR = 0.3
LIKELIHOOD = gaussian_pixels(log_var=float(np.log(NOISE_VAR)))
SHAPE = (2, 2, 1)


class Linear(nn.Module):
  """x = A z + b + noise, and a q(z|x) that misses the posterior's mean and width."""

  latent_dim: int = 2

  @nn.compact
  def __call__(self, x):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 4)), rng.standard_normal(4)
    posterior = np.linalg.inv(np.eye(2) + a @ a.T / NOISE_VAR)
    u = 0.95 * a.T @ posterior / NOISE_VAR
    log_var = np.log(np.diag(posterior)) + 0.6
    for name, value in dict(a=a, b=b, u=u, c=-b @ u, log_var=log_var).items():
      self.param(name, lambda _, value=value: jnp.asarray(value))
    return x

  @nn.nowrap
  def encode(self, x):
    p = self.variables["params"]
    mean = x.reshape(len(x), 4) @ p["u"] + p["c"][None]
    return mean, jnp.broadcast_to(p["log_var"][None], mean.shape)

  @nn.nowrap
  def decode(self, z):
    p = self.variables["params"]
    return (z @ p["a"] + p["b"][None]).reshape(-1, *SHAPE)


@pytest.fixture(scope="module")
def linear():
  """float64: bound module, images x, log p(x)."""
  with jax.enable_x64(True):
    x = jnp.asarray(np.random.default_rng(2).standard_normal((3, *SHAPE)))
    params = Linear().init(KEY, x)["params"]
    a, b = np.asarray(params["a"]), np.asarray(params["b"])
    covariance = a.T @ a + NOISE_VAR * np.eye(4)
    off = np.asarray(x).reshape(3, 4) - b
    log_p = -0.5 * (
      np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off)
      + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
  return Linear(), params, x, log_p


def test_bounds_rise_with_k_towards_log_p(linear):
  net, params, x, log_p = linear
  with jax.enable_x64(True):
    model = (net.bind({"params": params}),)
    weights = jax.jit(lambda: log_weights(model, LIKELIHOOD.log_prob, x, 200_000, KEY))
    weights = np.asarray(weights())
  gaps = []
  for k in (1, 5, 50, 500):
    groups = weights.reshape(k, -1)  # [k, groups * 3]: many estimates of L_k.
    bound = -np.asarray(importance_weighted_nll(jnp.asarray(groups)))
    bound = bound.reshape(-1, 3).mean(0)
    gaps.append(log_p - bound)
  gaps = np.array(gaps)
  assert np.all(np.diff(gaps, axis=0) < -1e-3), gaps  # Theorem 1.
  assert np.all(gaps[0] > 0.2) and np.all(np.abs(gaps[-1]) < 0.01), gaps


def test_nll_by_chunks_converges_to_log_p(linear, monkeypatch):
  net, params, x, log_p = linear
  model = lambda: (net.bind({"params": params}),)
  estimate = lambda num: jax.jit(
    lambda key: nll(model(), LIKELIHOOD.log_prob, x, key, num_draws=num)
  )
  monkeypatch.setattr(variational, "CHUNK", 12 * 1000)  # 1,000 draws at a time.
  with jax.enable_x64(True):
    np.testing.assert_allclose(estimate(50_000)(KEY), -log_p, atol=0.01)
    # One chunk is the bound itself, negated; chunks differ in their draws.
    key = jax.random.fold_in(KEY, 0)
    weights = jax.jit(lambda: log_weights(model(), LIKELIHOOD.log_prob, x, 1000, key))
    one = importance_weighted_nll(weights())
    np.testing.assert_allclose(estimate(1000)(KEY), one, rtol=1e-12)
    assert np.all(estimate(2000)(KEY) != one)
    # 7 does not go into 1,000 draws at a time: every draw counts once all the same.
    monkeypatch.setattr(variational, "CHUNK", 12 * 7)
    np.testing.assert_allclose(estimate(1000)(KEY), -log_p, atol=0.1)


def test_gradient_of_one_draw_is_the_vaes_by_hand(linear):
  """d/du of log p(x, z) - log q(z|x), z = x u + s eps (Kingma & Welling, Eq. 6)."""
  net, params, x, _ = linear
  with jax.enable_x64(True):

    def bound(params):
      weights = log_weights(
        (net.bind({"params": params}),), LIKELIHOOD.log_prob, x, 1, KEY
      )
      return -importance_weighted_nll(weights).mean()

    found = jax.jit(jax.grad(bound))(params)
    a, b, u = (np.asarray(params[name]) for name in "abu")
    log_var, flat = np.asarray(params["log_var"]), np.asarray(x).reshape(3, 4)
    eps = np.asarray(jax.random.normal(jax.random.split(KEY, 1)[0], (3, 1, 2)))[:, 0]
    z = flat @ u + np.asarray(params["c"]) + np.exp(log_var / 2) * eps
    residual = (flat - z @ a - b) / NOISE_VAR  # d log p(x|z) / d decoder's mean
    slope = residual @ a.T - z  # d log p(x, z) / dz; log q does not change with u
    np.testing.assert_allclose(found["u"], flat.T @ slope / 3, rtol=1e-10)
    np.testing.assert_allclose(found["a"], z.T @ residual / 3, rtol=1e-10)
    np.testing.assert_allclose(found["b"], residual.mean(0), rtol=1e-10)
    # -log q grows by 1/2 for a log variance; z moves by half of s eps.
    by_var = 0.5 + (slope * 0.5 * np.exp(log_var / 2) * eps).mean(0)
    np.testing.assert_allclose(found["log_var"], by_var, rtol=1e-10)


# --- parity -------------------------------------------------------------------------


def load_make():
  """The script's sizes and drawing of weights; it needs torch only to be run."""
  source = (GOLDEN / "make_iwae.py").read_text()
  source = source.replace("import torch\n", "")
  line = "from torch.distributions import Bernoulli, Normal, kl_divergence\n"
  source = source.replace(line, "")
  spec = importlib.util.spec_from_loader("make_iwae", loader=None)
  module = importlib.util.module_from_spec(spec)
  module.__file__ = str(GOLDEN / "make_iwae.py")
  exec(compile(source, "make_iwae.py", "exec"), module.__dict__)
  return module


def ordered(params):
  """Kernels and biases in the order of use: encoder, mean, log_var, decoder, out."""
  names = sorted(params)
  order = [n for n in names if n.startswith("encoder")] + ["mean", "log_var"]
  order += [n for n in names if n.startswith("decoder")] + ["logits"]
  return [(n, part) for n in order for part in ("kernel", "bias")]


@pytest.mark.parametrize("num", [1, 2])
def test_equals_torch(num, monkeypatch):
  """Bound and gradients of every parameter, in float64."""
  make, golden = load_make(), np.load(GOLDEN / "iwae.npz")
  rng, shape = np.random.default_rng(0), (3, 3, 1)
  nets, params = [], {}
  with jax.enable_x64(True):
    for i, (sizes, num_outputs) in enumerate(make.LEVELS[num]):
      shape_i = shape if i == 0 else (sizes[0],)
      net = FullyConnected(shape_i, sizes[1:-1], sizes[-1], num_outputs)
      tree = jax.jit(net.init)(KEY, jnp.zeros((1, *shape_i)))["params"]
      for (name, part), value in zip(
        ordered(tree), make.weights(rng, sizes, num_outputs), strict=True
      ):
        assert tree[name][part].shape == value.shape
        tree[name][part] = jnp.asarray(value)
      nets.append(net)
      params[i] = tree
    x = jnp.asarray((rng.random((make.BATCH, 9)) < 0.5).astype(np.float64))
    x = x.reshape(-1, *shape)
    noise = [
      rng.standard_normal((make.NUM_DRAWS, make.BATCH, s[-1]))
      for s, _ in make.LEVELS[num]
    ]
    given = iter(2 * [jnp.asarray(n.transpose(1, 0, 2)) for n in noise])
    monkeypatch.setattr(
      variational.gaussian,
      "sample",
      lambda mean, log_var, key: mean + jnp.exp(0.5 * log_var) * next(given),
    )
    log_prob = lambda x, out: bernoulli.log_prob(
      x.reshape(*x.shape[:2], 9), out.reshape(*out.shape[:2], 9)
    )

    def weights_of(params):
      levels = [n.bind({"params": params[i]}) for i, n in enumerate(nets)]
      return log_weights(levels, log_prob, x, make.NUM_DRAWS, KEY)

    weights = jax.jit(weights_of)(params)
    np.testing.assert_allclose(weights, golden[f"{num}/log_weights"], rtol=1e-11)
    bound = -importance_weighted_nll(weights)
    np.testing.assert_allclose(bound, golden[f"{num}/bound"], rtol=1e-11)
    grads = jax.jit(jax.grad(lambda p: -importance_weighted_nll(weights_of(p)).mean()))(
      params
    )
    found = [
      grads[i][name][part] for i in range(num) for name, part in ordered(grads[i])
    ]
    for k, gradient in enumerate(found):
      np.testing.assert_allclose(
        gradient, golden[f"{num}/grad/{k}"], rtol=1e-9, atol=1e-14
      )


def test_elbo_equals_torch(monkeypatch):
  """With the KL in closed form: its terms and gradients, in float64."""
  make, golden = load_make(), np.load(GOLDEN / "iwae.npz")
  rng, ((sizes, _),) = np.random.default_rng(0), make.LEVELS[1]
  net = FullyConnected((3, 3, 1), sizes[1:-1], sizes[-1])
  image = jnp.zeros((1, 3, 3, 1))
  tree = jax.eval_shape(net.init, KEY, image)["params"]
  names = ordered(tree)
  for (name, part), value in zip(names, make.weights(rng, sizes, 1), strict=True):
    tree[name][part] = value
  x = (rng.random((make.BATCH, 9)) < 0.5).astype(np.float64)
  noise = rng.standard_normal((make.NUM_DRAWS, make.BATCH, sizes[-1]))[0]
  draw = lambda mean, log_var, key: mean + jnp.exp(0.5 * log_var) * noise
  monkeypatch.setattr(variational.gaussian, "sample", draw)

  def run(params, x):
    level, log_prob = net.bind({"params": params}), bernoulli_pixels().log_prob
    bound, reconstruction, kl = variational.elbo(level, log_prob, x, KEY)
    return bound.mean(), {"reconstruction": reconstruction, "kl": kl}

  with jax.enable_x64(True):
    grads, found = jax.jit(jax.grad(run, has_aux=True))(tree, x.reshape(-1, 3, 3, 1))
    grads, found = jax.device_get((grads, found))
  found |= {f"grad/{k}": grads[name][part] for k, (name, part) in enumerate(names)}
  assert len(found) == len([key for key in golden if key.startswith("elbo/")])
  for name, value in found.items():
    expected = golden[f"elbo/{name}"]
    np.testing.assert_allclose(value, expected, rtol=1e-8, atol=1e-14)


# --- the method ---------------------------------------------------------------------

TINY = (
  FullyConnected((4, 4, 1), (8,), 3),
  FullyConnected((3,), (6,), 2, num_outputs=2),
)


@pytest.mark.parametrize("nets", [TINY[:1], TINY], ids=["one", "two"])
def test_method(nets):
  """eval_step, samples and tools of both depths, and that training raises L_k."""
  method = iwae(nets, tx=optax.adam(0.005), num_draws=4)
  rough = iwae(nets, tx=optax.adam(0.005), num_draws=4, nll_draws=1)
  half = jnp.where(jnp.arange(16) < 8, 1.0, -1.0)
  image = jnp.stack([half, -half] * 8).reshape(16, 4, 4, 1)
  batch = {"image": image}
  state = jax.jit(method.init)(KEY, batch)

  @jax.jit
  def train(state, key):
    def one(state, key):
      state, metrics = method.train_step(state, batch, key)
      return state.replace(step=state.step + 1), metrics["bound"]

    return jax.lax.scan(one, state, jax.random.split(key, 600))

  start = jax.jit(method.eval_step)(state, batch, KEY)
  assert {k: v.shape for k, v in start.items()} == {"bound": (16,), "elbo": (16,)}
  assert np.all(start["bound"] >= start["elbo"])
  assert start["bound"].mean() < -9
  state, bounds = train(state, KEY)
  # Two equally likely images: no model does better than -log 2.
  assert -1.3 < bounds[-100:].mean() < -np.log(2) + 0.02

  @jax.jit
  def outputs(state):
    one_draw = lambda key: rough.tools["nll"](state, batch, key)
    return {
      "sample": method.sample(state, batch, KEY),
      "rough": jax.vmap(one_draw)(jax.random.split(KEY, 100)),
      **{name: tool(state, batch, KEY) for name, tool in method.tools.items()},
    }

  found = outputs(state)
  assert found["nll"]["nll"].shape == (16,)
  assert found["rough"]["nll"].mean() > found["nll"]["nll"].mean() + 0.01
  assert np.log(2) - 0.02 < found["nll"]["nll"].mean() < -bounds[-100:].mean() + 0.05
  samples = found["sample"]["samples"].reshape(16, 16)
  assert np.abs(samples @ half / 16).mean() > 0.85  # Each is one of the two.
  assert len(np.unique(np.sign(samples @ half))) == 2
  np.testing.assert_allclose(found["reconstruct"]["reconstructions"], image, atol=0.35)
  assert np.abs(found["denoise"]["corrupted"] - image).max() == 2
  assert found["encode"]["mean"].shape == (16, 3)


def test_the_likelihoods_fast_form_is_the_same():
  x = jax.random.bernoulli(KEY, 0.3, (7, 784)).astype(jnp.float32)
  logits = 15 * jax.random.normal(KEY, (7, 784))
  fast, slow = jax.jit(bernoulli.fast_log_prob), jax.jit(bernoulli.log_prob)
  np.testing.assert_allclose(fast(x, logits), slow(x, logits), rtol=1e-6)
  for size in (1, 7, 131):  # Groups of 1, 7 and 1.
    few = fast(x[:, :size], logits[:, :size])
    exact = slow(x[:, :size], logits[:, :size])
    np.testing.assert_allclose(few, exact, rtol=1e-5, atol=1e-5)
  far = jnp.full((1, 784), 80.0)  # No product overflows or vanishes.
  np.testing.assert_allclose(fast(far * 0, far), [-784 * 80.0])
  np.testing.assert_allclose(fast(far * 0 + 1, -far), [-784 * 80.0])
  half = fast(far * 0, far * 0)
  np.testing.assert_allclose(half, [-784 * np.log(2)], rtol=1e-6)


def test_two_layer_samples_are_drawn_from_the_top():
  """With p(z_1|z_2) = N(m, s^2), latents of samples have that mean and spread."""
  lower, upper = (n.init(KEY, jnp.zeros((1, *n.image_shape)))["params"] for n in TINY)
  outputs = jnp.stack([jnp.array([1.0, -2.0, 0.5]), jnp.log(jnp.array([4.0, 1, 0.25]))])
  upper["logits"] = {
    "kernel": jnp.zeros_like(upper["logits"]["kernel"]),
    "bias": outputs.T.reshape(-1),
  }
  levels = (TINY[0].bind({"params": lower}), TINY[1].bind({"params": upper}))

  class Show(nn.Module):
    """Decodes a latent as it is."""

    @nn.nowrap
    def decode(self, z):
      return z

  identity = gaussian_pixels(log_var=0.0)._replace(mean=lambda outputs: outputs)
  models = Show(), levels[1]
  z = jax.jit(lambda: variational.ancestral(models, identity, 20_000, KEY))()
  np.testing.assert_allclose(z.mean(0), [1.0, -2.0, 0.5], atol=0.05)
  np.testing.assert_allclose(z.std(0), [2.0, 1.0, 0.5], rtol=0.03)
  # Both levels count: log p(z_1|z_2) of these, by the density itself.
  exact = gaussian.log_prob(z, outputs[:1], outputs[1:])
  np.testing.assert_allclose(exact.mean(), -1.5 * np.log(2 * np.pi * np.e), atol=0.05)


def test_the_score_is_the_mean_of_the_tool_over_the_test_set():
  image = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1)).astype(np.uint8)
  source = data.arrays({"image": image}, batch_size=4)
  backend = parallel.jit_backend(jax.devices()[:1])

  def score(tools):
    method, state = Method(None, None, tools=tools), create_state({}, {})
    loaded = Run(Path("run"), method, state, None, {"eval_data": source}, None)
    nothing = [None] * 5
    return scores.compute(scores.Task(*nothing, loaded, 0, backend), ["nll"])

  tool = lambda state, batch, key: {"nll": batch["image"].mean((1, 2, 3))}
  found = score({"nll": tool})["nll"]
  values = (image / 127.5 - 1).mean((1, 2, 3))
  np.testing.assert_allclose(found.value, values.mean(), rtol=1e-4)
  half = 1.96 * values.std() / np.sqrt(10)
  expected = [values.mean() - half, values.mean() + half]
  np.testing.assert_allclose(found.interval, expected, rtol=1e-4)
  with pytest.raises(ValueError, match=r"a tool of that name; it has \['encode'\]"):
    score({"encode": tool})


def test_nlls_of_other_targets_or_draws_are_not_ranked():
  tx, mask = optax.sgd(0.1), cvae.quarters(4, 1)
  deep = Ladder((4, 4, 1), ((4, 1, 1), (1, 1, 1)), 4, 2, 1)
  by = lambda condition: cvae.cvae(None, tx=tx, condition=condition)
  methods = {
    "vae": vae(TINY[0], tx=tx),
    "same": iwae(TINY, tx=tx, num_draws=2),
    "fewer": iwae(TINY, tx=tx, num_draws=2, nll_draws=100),
    "deep": hvae(deep, tx=tx, nll_draws=50),
    "grey": vae(TINY[0], tx=tx, binarize=False),
    "density": vae(TINY[0], tx=tx, likelihood=LIKELIHOOD),
    "part": by(cvae.by_part(mask)),
    "other part": by(cvae.by_part(mask[:, ::-1])),
    "each its part": by(cvae.by_part()),
    "label": by(cvae.by_label(10)),
    "ode": score_sde(None, tx=tx),
    "coarse ode": score_sde(None, tx=tx, tolerance=Tolerance(1e-3, 1e-3)),
    "unsaid": Method(None, None, tools={"nll": lambda state, batch, key: {}}),
  }

  def result(name):
    loaded = Run(Path(name), methods[name], None, None, {}, None)
    ruler = results.Ruler(("nll",))
    kept = results._fingerprint(ruler, None, (None,) * 3, loaded)
    return results.Result(name, {"nll": scores.Score(1.0)}, kept, {})

  found = {name: result(name) for name in methods}
  told = {name: one.ruler["settings"] for name, one in found.items()}
  assert told.pop("same") == told["vae"]
  assert told["vae"] == "nll: of pixels drawn as bits, 5000 importance samples"
  assert told["deep"] == "nll: of pixels drawn as bits, 50 importance samples"
  assert told["part"].startswith("nll: of 12 of 16 pixels (mask ")
  assert told["ode"].startswith("nll: of 256 levels, one draw of noise and trace")
  assert told["unsaid"] == f"nll: {__name__}"
  assert len(set(told.values())) == len(told)
  assert "not ranked" in tables.table([found["vae"], found["deep"]])
  assert "not ranked" not in tables.table([found["vae"], found["same"]])
