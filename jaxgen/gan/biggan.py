"""BigGAN: class-conditional images at scale (Brock, Donahue & Simonyan, 2018).

Brock, Donahue & Simonyan, "Large Scale GAN Training for High Fidelity Natural Image
Synthesis", https://arxiv.org/abs/1809.11096: the hinge loss, spectral norm in both
networks, class-conditional batch norm from a shared embedding and chunks of z, a
projection discriminator, self-attention, orthogonal initialisation, orthogonal
regularisation (Eq. 3), an average of the generator's weights, the truncation trick.
The networks are in `jaxgen.gan.biggan_networks`; as of the authors' BigGAN-PyTorch they
have 70,433,988 and 87,982,370 parameters for ImageNet at 128x128, 4,668,163 and
4,207,361 for CIFAR-10. BigGAN-deep is not here.

Batch norm when sampling. The paper samples with "standing statistics" (Appendix C): the
means of 100 passes of the final generator. Here, as in BigGAN-PyTorch's evaluation
mode, they are running averages (momentum 0.9), and they belong to what is sampled:
`average_gen` passes the averaged weights once per generator update, where
BigGAN-PyTorch averages the buffers of the trained weights like weights. `truncation`
uses the statistics of untruncated latents for all thresholds; those of truncated ones
would differ. See experiments/gan/biggan_mnist.py for what either is worth.

Deviations from the paper:
  - Fakes have the labels of the real batch; the authors draw them uniformly.
  - The average's decay rises with the steps, see `update_ema`.
  - Real and fake images pass the discriminator one after the other: its power
    iteration runs twice per update (BigGAN-PyTorch: once, on both together); what it
    does in the generator's update is not kept.
  - The average of weights is kept from the first update; BigGAN-PyTorch begins after
    20,000.
  - Eq. 3 is differentiated as it stands, over the columns of every kernel.
    BigGAN-PyTorch has half that gradient.
  - As in SNGAN, batch norm's variances are biased where PyTorch's running averages are
    not.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.gan.adversarial import stats_name
from jaxgen.gan.biggan_networks import Generator
from jaxgen.gan.critic_steps import alternating
from jaxgen.gan.latents import generate, sweep
from jaxgen.losses.adversarial import hinge
from jaxgen.losses.orthogonal import add_orthogonal_gradient
from jaxgen.method import (
  Array,
  Batch,
  Method,
  PyTree,
  TrainState,
  create_state,
  per_example,
)
from jaxgen.ops.paths import NUM_POINTS, lerp

orthogonal = nn.initializers.orthogonal()
THRESHOLDS = (2.0, 1.0, 0.5, 0.04)  # Figure 2


def redraw(params: PyTree, key: Array, kernel_init: Callable) -> PyTree:
  """`params` with every array of two or more axes drawn anew, by `kernel_init`."""
  leaves, tree = jax.tree.flatten(params)
  keys = random.split(key, len(leaves))
  draw = lambda key, x: kernel_init(key, x.shape, x.dtype) if x.ndim > 1 else x
  return tree.unflatten([draw(k, x) for k, x in zip(keys, leaves, strict=True)])


def regularized(
  tx: optax.GradientTransformation, weight: float
) -> optax.GradientTransformation:
  """`tx` of a generator, after the gradient of Eq. 3; not for the shared embedding."""
  if not weight:
    return tx

  def mask(params: PyTree) -> dict[str, Any]:
    return {
      name: jax.tree.map(lambda _, name=name: name != "shared", subtree)
      for name, subtree in params.items()
    }

  return optax.chain(optax.masked(add_orthogonal_gradient(weight), mask), tx)


def class_tools(gen: Generator, stats: str, latent_dim: int) -> dict[str, Callable]:
  """truncation and interpolate_classes: functions of (state, batch, key).

  Args:
    gen: See `biggan`.
    stats: Name of the untrained variables that go with the sampled weights.
    latent_dim: Length of z.
  """

  def truncation(state: TrainState, batch: Batch, key: Array) -> dict[str, Array]:
    """Samples at falling thresholds: f32 [B, K, H, W, C], K = len(THRESHOLDS).

    Every number of z is one of N(0, 1) given |z| <= threshold, which is what drawing
    again until it fits gives (Section 3.1). It is the same quantile of every
    threshold's distribution: along K, a row's z shrinks and is not drawn anew.
    """
    shape = (len(batch["image"]), latent_dim)
    same_key = lambda: random.clone(key)
    draw = lambda t: per_example(random.truncated_normal(same_key(), -t, t, shape))
    z = jnp.stack([draw(t) for t in THRESHOLDS], axis=1)
    noise_key = random.fold_in(key, 1)
    render = lambda z: generate(gen, stats, state, z, batch["label"], noise_key)
    return {"truncated": sweep(render, z)}

  def interpolate_classes(
    state: TrainState, batch: Batch, key: Array
  ) -> dict[str, Array]:
    """From a row's class to the next one, z held: f32 [B, K, H, W, C], K = 8.

    In a straight line between the two embeddings, both ends included.
    """
    label, n = batch["label"], gen.num_classes
    z = per_example(random.normal(key, (len(label), latent_dim)))
    one_hot = lambda label: jax.nn.one_hot(label % n, n)
    path = lerp(one_hot(label), one_hot(label + 1), jnp.linspace(0, 1, NUM_POINTS))
    noise_key = random.fold_in(key, 1)
    render = lambda weights: generate(gen, stats, state, z, weights, noise_key)
    return {"classes": sweep(render, path)}

  return {"truncation": truncation, "interpolate_classes": interpolate_classes}


def biggan(
  gen: Generator,
  disc: nn.Module,
  *,
  gen_tx: optax.GradientTransformation,
  disc_tx: optax.GradientTransformation,
  latent_dim: int = 120,
  num_disc_steps: int = 2,
  ema_decay: float = 0.9999,
  orthogonal_weight: float = 0.0,
  kernel_init: Callable = orthogonal,
) -> Method:
  """The hinge loss between two spectrally normalised, class-conditional networks.

  Args:
    gen: As `biggan_networks.Generator`: `num_classes`, and labels that may be weights.
    disc: (images, label, train) -> scores f32 [B].
    gen_tx: The paper uses Adam(5e-5, b1=0, b2=0.999) and a batch of 2048.
    disc_tx: The same at 2e-4.
    latent_dim: Length of z.
    num_disc_steps: Discriminator updates per generator update.
    ema_decay: Per generator update, of the weights that are sampled; 0 keeps none.
    orthogonal_weight: beta of Eq. 3 (paper: 1e-4) on the generator's kernels but the
      shared embedding; 0 for none.
    kernel_init: (key, shape, dtype) -> initial kernel, of all kernels and embeddings.

  Returns:
    A method over batch["image"] and batch["label"], i32 [B], with networks "gen" and
    "disc"; see `alternating`. Tools: interpolate, truncation, interpolate_classes.
  """
  optimizers = {"gen": regularized(gen_tx, orthogonal_weight), "disc": disc_tx}
  method = alternating(
    gen,
    disc,
    loss=hinge,
    gen_tx=optimizers["gen"],
    critic_tx=disc_tx,
    latent_dim=latent_dim,
    num_critic_steps=num_disc_steps,
    critic_name="disc",
    ema_decay=ema_decay,
  )

  def init(key: Array, batch: Batch) -> TrainState:
    state = method.init(key, batch)
    params = redraw(state.params, random.fold_in(key, 1), kernel_init)
    variables = {name: {"params": p} for name, p in params.items()}
    fresh = create_state(variables, optimizers, ema=tuple(state.ema))
    return fresh.replace(stats=state.stats)

  tools = class_tools(gen, stats_name(ema_decay), latent_dim)
  return method._replace(init=init, tools={**method.tools, **tools})
