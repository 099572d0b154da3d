"""Strided and transposed convolutions: values, derivatives, the layer of flax."""

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nn.strided_conv import (
  Conv1x1,
  ConvTranspose,
  conv_of_flax,
  conv_transpose,
  pixel_conv,
  same_pads,
  strided_conv,
)

CASES = [
  ((6, 5), (4, 4), (2, 2), None),
  ((6, 5), (5, 5), (2, 2), None),
  ((6, 5), (3, 2), (2, 3), None),
  ((6, 5), (2, 3), (3, 1), None),
  ((6, 5), (4, 4), (2, 2), [(2, 3), (1, 2)]),
  ((6, 5), (3, 3), (2, 2), [(-1, 4), (0, 2)]),  # cropped on one side
  # Kernels larger than the image, on both sides or on one.
  ((4, 4), (5, 5), (2, 2), [(1, 2), (2, 2)]),
  ((2, 1), (5, 5), (2, 2), [(3, 2), (4, 5)]),
  ((3, 6), (4, 3), (2, 3), [(3, 0), (0, 1)]),
  ((3, 3), (5, 4), (1, 1), [(6, -1), (4, 7)]),
]


def transposed(x, kernel, strides, padding):
  return jax.lax.conv_transpose(x, kernel, strides, padding or "SAME")


def our_transposed(x, kernel, strides, padding):
  pads = padding or map(same_pads, kernel.shape, strides)
  return conv_transpose(x, kernel, strides, tuple(pads))


def strided(x, kernel, strides, padding):
  pads = padding or ((0, 0), (0, 0))
  return jax.lax.conv_general_dilated(
    x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def our_strided(x, kernel, strides, padding):
  return strided_conv(x, kernel, strides, tuple(padding or ((0, 0), (0, 0))))


@pytest.mark.parametrize(
  ("ours", "theirs"), [(our_transposed, transposed), (our_strided, strided)]
)
@pytest.mark.parametrize(("image", "size", "strides", "padding"), CASES)
def test_values_and_derivatives_are_those_of_lax(
  ours, theirs, image, size, strides, padding
):
  with jax.enable_x64(True):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (2, *image, 3), jnp.float64)
    kernel = jax.random.normal(keys[1], (*size, 3, 2), jnp.float64)

    def loss(fn, x, kernel):
      return jnp.sum(jnp.sin(fn(x, kernel, strides, padding)))

    def penalty(fn, x, kernel):
      by_x, by_kernel = jax.grad(loss, argnums=(1, 2))(fn, x, kernel)
      return jnp.sum(jnp.sin(by_x)) + jnp.sum(jnp.sin(by_kernel))

    def twice(fn, x, kernel):
      return jnp.sum(jax.grad(penalty, argnums=1)(fn, x, kernel) ** 2)

    def values(fn, x, kernel):
      scalars = (loss, penalty, twice)
      slopes = [jax.grad(f, argnums=(1, 2))(fn, x, kernel) for f in scalars]
      return fn(x, kernel, strides, padding), slopes

    found, expected = (
      jax.jit(values, static_argnums=0)(fn, x, kernel) for fn in (ours, theirs)
    )
    assert found[0].dtype == expected[0].dtype == jnp.float64
    chex.assert_trees_all_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
  ("size", "strides", "padding", "is_product"),
  [
    ((1, 1), (1, 1), "SAME", True),
    ((1, 1), (1, 1), ((0, 0), (0, 0)), True),
    ((1, 1), (1, 1), ((1, 0), (0, 2)), False),
    ((1, 1), (2, 1), "SAME", False),
    ((1, 3), (1, 1), "SAME", False),
  ],
)
def test_a_convolution_of_pixels_is_a_product(size, strides, padding, is_product):
  theirs = lambda x, k: jax.lax.conv_general_dilated(
    x, k, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  ours = lambda x, k: pixel_conv(x, k, strides, padding)
  with jax.enable_x64(True):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (2, 4, 5, 3), jnp.float64)
    kernel = jax.random.normal(keys[1], (*size, 3, 2), jnp.float64)
    slopes = lambda fn: jax.value_and_grad(
      lambda x, k: jnp.sum(jnp.sin(fn(x, k))), argnums=(0, 1)
    )
    found, expected = (jax.jit(slopes(fn))(x, kernel) for fn in (ours, theirs))
    program = str(jax.make_jaxpr(slopes(ours))(x, kernel))
  chex.assert_trees_all_close(found, expected, rtol=1e-12)
  assert ("conv_general_dilated" not in program) == is_product


def test_convolutions_of_groups_are_left_to_flax():
  x = jax.random.normal(jax.random.key(1), (2, 5, 5, 4))
  options = dict(feature_group_count=2, use_bias=False)
  layers = Conv1x1(6, **options), nn.Conv(6, (1, 1), **options)
  variables = layers[0].init(jax.random.key(2), x)
  chex.assert_trees_all_close(*(layer.apply(variables, x) for layer in layers))


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_the_layer_is_that_of_flax(use_bias, dtype):
  x = jax.random.normal(jax.random.key(1), (2, 5, 5, 3))
  options = dict(kernel_size=(4, 4), strides=(2, 2), use_bias=use_bias, dtype=dtype)
  variables, expected = (
    module(6, **options).init(jax.random.key(2), x)
    for module in (ConvTranspose, nn.ConvTranspose)
  )
  chex.assert_trees_all_equal(variables, expected)
  variables = jax.tree.map(lambda v: v + 0.1, variables)
  found, expected = (
    module(6, **options).apply(variables, x)
    for module in (ConvTranspose, nn.ConvTranspose)
  )
  assert found.dtype == expected.dtype == (dtype or jnp.float32)
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("padding", ["SAME", "VALID", 2])
def test_within_the_layer_of_flax(padding):
  x = jax.random.normal(jax.random.key(1), (2, 5, 6, 3))
  layer = nn.Conv(4, (5, 4), (2, 2), padding)
  variables = layer.init(jax.random.key(2), x)
  found = layer.clone(conv_general_dilated=conv_of_flax).apply(variables, x)
  np.testing.assert_allclose(found, layer.apply(variables, x), rtol=1e-5, atol=1e-6)
