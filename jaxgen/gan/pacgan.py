"""PacGAN: a discriminator that judges several images at once (Lin et al., 2017).

Lin, Khetan, Fanti & Oh, "PacGAN: The Power of Two Samples in Generative Adversarial
Networks", https://arxiv.org/abs/1712.04086. `Packed` makes any discriminator one of m
images, stacked along channels: `dcgan(gen, Packed(disc, 2), ...)` is PacDCGAN2, and so
for every method of two players (a penalty is of a pack then). `pacgan` adds what the
authors' code for stacked MNIST does (github.com/fjxmlzn/PacGAN,
stacked_MNIST_experiments/VEEGAN_experiment): latents uniform in [-1, 1]^100, two
generator updates per step, and its networks, `Generator` and `Discriminator`: for
28x28x3 images 4,514,819 parameters in the generator and 4,310,401 + 4,800 (m - 1) in
the discriminator, counted from that code's layer sizes. Its other experiment, of a far
smaller discriminator, is experiments/gan/pacgan_quarter_mnist.py.

Deviations from that code:
  - Its m-tuples are 128,000 fixed draws from 128,000 images. Ours are neighbours in the
    order of the epoch, another pairing in every epoch: an epoch has 1/m of its steps.
  - Its real images are in [0, 1], under a generator that ends in tanh. Ours are in
    [-1, 1], and black is -1.
  - Its m fake batches pass through the generator one by one, each with its own batch
    statistics. Ours pass as one.
  - Its truncated normal initialisation of convolutions is a normal one of the same
    scale, 0.02; running averages of batch norm are those of the biased variance.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
from jax import random
import jax.numpy as jnp
import optax

from jaxgen.gan.adversarial import two_player
from jaxgen.losses.adversarial import AdversarialLoss, non_saturating
from jaxgen.method import Array, Method
from jaxgen.nn.strided_conv import ConvTranspose, conv_of_flax

SIDES = (2, 4, 7, 14, 28)
KERNEL = 5
normal_init = nn.initializers.normal(0.02)
uniform_latent = functools.partial(random.uniform, minval=-1.0, maxval=1.0)


class Packed(nn.Module):
  """A discriminator over m images instead of one.

  Rows m i, ..., m i + m - 1 are image i of what `disc` sees. They must be independent:
  batches are in random order. Split over devices, each needs a multiple of m rows.

  The label of a pack is one number: to the base of K, its digits are the labels of the
  images, the first one's leading. So `disc` has K^m classes.

  Attributes:
    disc: (images f32 [B / m, H, W, m C], label i32 [B / m] or None, train) -> scores
      [B / m, ...], or (scores, features).
    num_packed: m; 1 changes nothing.
    num_classes: K; 0 keeps labels from `disc` where m is not 1.
  """

  disc: nn.Module
  num_packed: int = 2
  num_classes: int = 0

  @nn.compact
  def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Any:
    """x f32 [B, H, W, C], label [B] or None -> what `disc` returns.

    Raises:
      ValueError: if m does not divide B, or `disc` has a `num_classes` other than K^m.
    """
    m, (rows, height, width, channels) = self.num_packed, x.shape
    if m < 1 or rows % m:
      raise ValueError(f"{rows} images cannot be packed by num_packed={m}")
    if m > 1:
      classes, found = self.num_classes, getattr(self.disc, "num_classes", None)
      expected = classes**m if classes else 0
      if found not in (None, expected):
        raise ValueError(
          f"a discriminator of num_classes={found}: expected {expected} to judge packs "
          f"of num_packed={m} images of num_classes={classes}"
        )
      x = x.reshape(rows // m, m, height, width, channels)
      x = jnp.moveaxis(x, 1, 3).reshape(rows // m, height, width, m * channels)
      if classes and label is not None:
        label = label.reshape(rows // m, m) @ classes ** jnp.arange(m)[::-1]
      else:
        label = None
    return self.disc(x, label, train=train)


def batch_norm(train: bool, dtype: Any, name: str) -> nn.BatchNorm:
  """Batch norm as both networks use it."""
  return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)


def padding_to(
  small: int, large: int, stride: int = 2, kernel: int = KERNEL
) -> tuple[int, int]:
  """Padding of a transposed convolution from side `small` to `large`.

  It is the transpose of the "SAME" convolution from `large` to `small`, which is
  what TensorFlow computes; "SAME" itself only doubles.
  """
  total = max(stride * (small - 1) + kernel - large, 0)
  low = kernel - 1 - total // 2
  return low, large - stride * (small - 1) + kernel - 2 - low


class Generator(nn.Module):
  """Latents to images, through maps of given sides: each half the next, rounded up.

  Attributes:
    channels: Of the image.
    width: Channels before the last layer; doubled in every layer before.
    sides: From the first map's to the image's; a layer between equal ones keeps it.
    kernel: Side of the kernels.
    dtype: Of the computation; parameters and the returned images are float32.
  """

  channels: int = 3
  width: int = 64
  sides: tuple[int, ...] = SIDES
  kernel: int = KERNEL
  dtype: Any = None

  @nn.compact
  def __call__(self, z: Array, label: Array | None = None, *, train: bool) -> Array:
    """z f32 [B, latent_dim] -> f32 [B, H, W, C] in [-1, 1]; the label is ignored."""
    options = dict(kernel_init=normal_init, dtype=self.dtype)
    last = len(self.sides) - 2
    features, side = self.width * 2**last, self.sides[0]
    x = nn.Dense(side * side * features, name="first", **options)(z)
    x = x.reshape(-1, side, side, features)
    for level, (small, large) in enumerate(
      zip(self.sides, self.sides[1:], strict=False)
    ):
      x = nn.relu(batch_norm(train, self.dtype, f"norm_{level}")(x))
      features //= 2
      stride = 2 if small < large else 1
      x = ConvTranspose(
        self.channels if level == last else features,
        (self.kernel, self.kernel),
        (stride, stride),
        [padding_to(small, large, stride, self.kernel)] * 2,
        name=f"conv_{level}",
        **options,
      )(x)
    return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class Discriminator(nn.Module):
  """Images of any side to scores.

  Attributes:
    width: Channels of the first layer; doubled at every lower resolution.
    num_halvings: Layers that halve the side, rounding up.
    kernel: Side of the kernels.
    slope: Of the leaky ReLUs, below zero.
    first_norm: The first layer with a batch norm.
    dtype: Of the computation; parameters and scores are float32.
  """

  width: int = 64
  num_halvings: int = 4
  kernel: int = KERNEL
  slope: float = 0.2
  first_norm: int = 1
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
    """x f32 [B, H, W, C] in [-1, 1] -> scores f32 [B]; the label is ignored."""
    options = dict(kernel_init=normal_init, dtype=self.dtype)
    for level in range(self.num_halvings):
      width = self.width * 2**level
      x = nn.Conv(
        width,
        (self.kernel, self.kernel),
        (2, 2),
        conv_general_dilated=conv_of_flax,
        name=f"conv_{level}",
        **options,
      )(x)
      if level >= self.first_norm:
        x = batch_norm(train, self.dtype, f"norm_{level}")(x)
      x = nn.leaky_relu(x, self.slope)
    x = nn.Dense(1, name="last", **options)(x.reshape(len(x), -1))
    return x[:, 0].astype(jnp.promote_types(x.dtype, jnp.float32))


def pacgan(
  gen: nn.Module,
  disc: nn.Module,
  *,
  num_packed: int,
  gen_tx: optax.GradientTransformation,
  disc_tx: optax.GradientTransformation,
  loss: AdversarialLoss = non_saturating,
  latent_dim: int = 100,
  draw_latent: Callable = uniform_latent,
  num_gen_updates: int = 2,
  ema_decay: float = 0.0,
) -> Method:
  """Two players, one of whom judges `num_packed` images at once.

  Args:
    gen: As `Generator`.
    disc: As `Discriminator`; what `Packed` takes.
    num_packed: m. With 1 this is the authors' DCGAN baseline.
    gen_tx: The authors use Adam(2e-4, b1=0.5).
    disc_tx: The same.
    loss: What the two minimise; the generator's is of packed scores too.
    latent_dim: Length of z.
    draw_latent: (key, shape, dtype) -> z.
    num_gen_updates: Generator updates per step.
    ema_decay: See `two_player`; the paper keeps no average.

  Returns:
    A method over batch["image"], f32 [B, H, W, C] in [-1, 1], where B is m times the
    number of tuples (64 in the paper); see `two_player`.
  """
  return two_player(
    gen,
    Packed(disc, num_packed),
    loss=loss,
    gen_tx=gen_tx,
    disc_tx=disc_tx,
    latent_dim=latent_dim,
    ema_decay=ema_decay,
    draw_latent=draw_latent,
    num_gen_updates=num_gen_updates,
  )
