"""Image GPT: colours and tokens, completions, and k-means. Parity: test_gpt.py."""

import functools

from causality import check_causal, check_sums_to_one, random_like
import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.autoregressive import tokens as shared
from jaxgen.autoregressive.image_gpt import colour_cube, grey_levels, image_gpt
from jaxgen.losses import categorical
from jaxgen.nn.transformer import RMSNorm, TokenTransformer, Transformer, quick_gelu
from jaxgen.ops.kmeans import kmeans, nearest

PALETTE = np.float32([[-1, -1, -1], [1, 0, 0], [0, 1, 0]])
LAYERS = Transformer(1, 2, norm=RMSNorm, activation=quick_gelu)
NET = TokenTransformer(LAYERS, 3, 8, 16, tie_weights=False, num_inputs=4)


@functools.cache
def trained():
  """(method, batch of 8 images of 4x4 pixels, state of large weights)."""
  method = image_gpt(NET, tx=optax.sgd(0.0), palette=PALETTE)
  noise = 0.3 * random.normal(random.key(1), (8, 4, 4, 3))
  colours = PALETTE[np.random.default_rng(0).integers(0, 3, (8, 4, 4))]
  batch = {"image": jnp.clip(colours + noise, -1, 1)}
  state = jax.jit(method.init)(random.key(0), batch)
  scale = lambda path, x: x * (20.0 if path[-1].key in ("kernel", "embedding") else 1)
  params = jax.tree_util.tree_map_with_path(scale, state.params)
  return method, batch, state.replace(params=params)


def run(tool):
  method, batch, state = trained()
  fn = {"sample": method.sample, **method.tools}[tool]
  return batch["image"], jax.jit(fn)(state, batch, random.key(2))


def test_palettes():
  assert grey_levels(3).tolist() == [[-1.0], [0.0], [1.0]]
  cube = colour_cube(8)
  assert cube.shape == (512, 3)
  assert len(np.unique(cube, axis=0)) == 512
  np.testing.assert_allclose(np.unique(cube), np.linspace(-1, 1, 8), rtol=1e-6)


def test_quantised_images_have_the_nearest_colours():
  x, out = run("quantize")
  distances = ((np.asarray(x)[..., None, :] - PALETTE) ** 2).sum(-1)
  np.testing.assert_array_equal(out["quantized"], PALETTE[distances.argmin(-1)])


def test_samples_have_colours_of_the_palette_and_the_cache_changes_none():
  _, cached = run("sample")
  _, uncached = run("sample_uncached")
  np.testing.assert_array_equal(cached["samples"], uncached["samples"])
  found = np.asarray(cached["samples"]).reshape(-1, 3)
  assert {tuple(c) for c in found} <= {tuple(c) for c in PALETTE}
  assert len(np.unique(np.asarray(cached["samples"]).reshape(8, -1), axis=0)) == 8


def test_completions_keep_the_upper_half():
  _, quantised = run("quantize")
  _, out = run("complete")
  a, b = np.asarray(quantised["quantized"]), np.asarray(out["completions"])
  np.testing.assert_array_equal(a[:, :2], b[:, :2])
  assert not np.array_equal(a[:, 2:], b[:, 2:])


def test_a_pixel_depends_on_all_pixels_before_it_and_no_other():
  params = {"params": random_like(trained()[2].params["net"], 0.5)}

  def predict(x):
    start = NET.apply(params, jnp.array([3]), method="embed")
    return NET.apply(params, jnp.concatenate([start, x[:-1]])[None], method="predict")[
      0
    ]

  check_causal(predict, random_like(np.zeros((6, 8)), seed=1))


def test_the_first_pixel_has_a_probability_too():
  """Over all images of four pixels: the start is given, all else is predicted."""
  _, _, state = trained()
  start = lambda t: jnp.pad(t, ((0, 0), (1, 0)), constant_values=3)
  log_prob = lambda t: -shared.nats(NET, state.params["net"], start(t)).sum(axis=1)
  check_sums_to_one(log_prob, num_values=3, length=4)


def test_evaluation_is_the_mean_over_pixels():
  method, batch, state = trained()
  values = jax.jit(method.eval_step)(state, batch, random.key(0))
  tokens = nearest(batch["image"], PALETTE).reshape(8, 16)
  start = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=3)
  nats = jax.jit(functools.partial(shared.nats, NET))(state.params["net"], start)
  assert nats.shape == (8, 16)
  np.testing.assert_allclose(values["nats_per_token"], nats.mean(axis=1), rtol=1e-5)
  np.testing.assert_allclose(
    values["bits_per_token"], nats.mean(axis=1) / np.log(2), rtol=1e-5
  )


def test_networks_that_do_not_fit_the_palette():
  with pytest.raises(ValueError, match=r"num_tokens=3, num_inputs=4: expected 5.* 6"):
    image_gpt(NET, tx=optax.sgd(0.0), palette=grey_levels(5))
  with pytest.raises(ValueError, match=r"palette \(3, 3\): expected .* in \[-1, 1\]"):
    image_gpt(NET, tx=optax.sgd(0.0), palette=255 * PALETTE)


def test_kmeans_finds_clusters_that_are_apart():
  centres = np.float32([[-1, -1], [-1, 1], [1, -1], [1, 1], [0, 0]])
  noise = 0.05 * random.normal(random.key(0), (40, 5, 2))
  points = (centres[None] + noise).reshape(-1, 2)
  for seed in range(3):
    found = np.asarray(kmeans(points, 5, random.key(seed)))
    order = nearest(found, centres)
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
    means = np.asarray(points).reshape(40, 5, 2).mean(0)
    np.testing.assert_allclose(found, means[order], atol=1e-5)


def test_products_are_exact_whatever_the_default_of_the_device():
  """Of palettes' tokens, clusters, and sums of probabilities; a CPU's always are."""
  points, centres = jnp.zeros((9, 3)), jnp.zeros((4, 3))
  for program, arguments, num in (
    (nearest, (points, centres), 1),
    (functools.partial(kmeans, num=4, key=random.key(0)), (points,), 2),
    (categorical.quantile, (centres, jnp.zeros(4)), 2),
  ):
    text = str(jax.make_jaxpr(program)(*arguments))
    assert text.count("dot_general[") == text.count("precision=") == num
    assert text.count("Precision.HIGHEST") == 2 * num


def test_kmeans_with_fewer_distinct_points_than_centres():
  """What has no points takes the place of one."""
  points = jnp.repeat(jnp.array([[1.0], [5.0], [6.0], [9.0]]), 10, axis=0)
  for num in (4, 6):
    found = np.asarray(kmeans(points, num, random.key(0))).ravel()
    np.testing.assert_allclose(np.unique(np.round(found, 5)), [1, 5, 6, 9])
  with pytest.raises(ValueError, match="num=41 centres of 40 points"):
    kmeans(points, 41, random.key(0))
