"""DDPM's U-Net from the files in which diffusers publishes it.

A folder with config.json and diffusion_pytorch_model.safetensors, beside
scheduler_config.json, or the folder of a pipeline, which has them in unet/ and
scheduler/. Nothing in such files is executed; the older .bin files, which are programs,
are not read.
"""

import json
from pathlib import Path
import re
from typing import Any, NamedTuple

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nn.safetensors import load_safetensors
from jaxgen.nn.unet import UNet

WEIGHTS = "diffusion_pytorch_model.safetensors"
# What our network is, and what diffusers takes where a file does not say.
NETWORK = {
  "act_fn": ("silu", "silu"),
  "add_attention": (True, True),
  "attention_head_dim": (None, 8),
  "attn_norm_num_groups": (None, None),
  "center_input_sample": (False, False),
  "class_embed_type": (None, None),
  "downsample_padding": (0, 1),
  "downsample_type": ("conv", "conv"),
  "flip_sin_to_cos": (False, True),
  "freq_shift": (1, 0),
  "mid_block_scale_factor": (1, 1),
  "mid_block_type": ("UNetMidBlock2D", "UNetMidBlock2D"),
  "norm_eps": (1e-6, 1e-5),
  "num_class_embeds": (None, None),
  "resnet_time_scale_shift": ("default", "default"),
  "time_embedding_dim": (None, None),
  "time_embedding_type": ("positional", "positional"),
  "upsample_type": ("conv", "conv"),
}
# The same of the scheduler: `ddpm` clips predictions to [-1, 1].
SCHEDULER = {
  "clip_sample": (True, True),
  "clip_sample_range": (1.0, 1.0),
  "prediction_type": ("epsilon", "epsilon"),
  "rescale_betas_zero_snr": (False, False),
  "thresholding": (False, False),
  "trained_betas": (None, None),
}
_NAMES = [  # of theirs: of ours
  (r"^down_blocks\.(\d+)\.downsamplers\.0\.conv$", r"down\1_conv"),
  (r"^up_blocks\.(\d+)\.upsamplers\.0\.conv$", r"up\1_conv"),
  (r"^(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.", r"\1\2_\3_res/"),
  (r"^(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.", r"\1\2_\3_attention/"),
  (r"^mid_block\.resnets\.(\d+)\.", r"middle_\1_res/"),
  (r"^mid_block\.attentions\.0\.", r"middle_attention/"),
  (r"^time_embedding\.linear_(\d)$", r"time\1"),
  (r"^conv_norm_out$", "norm_out"),
  (r"/time_emb_proj$", "/time"),
  (r"/conv_shortcut$", "/shortcut"),
  (r"/group_norm$", "/norm"),
  (r"/(to_q|query)$", "/query"),
  (r"/(to_k|key)$", "/key"),
  (r"/(to_v|value)$", "/value"),
  (r"/(to_out\.0|proj_attn)$", "/out"),
]


class Ddpm(NamedTuple):
  """What the files say.

  Attributes:
    net: Arguments of `UNet`, apart from dtype.
    params: Its parameters, f32.
    image_size: Height and width.
    channels: Of an image.
    chain: num_timesteps, beta_start, beta_end, beta_schedule ("linear" or "cosine"),
      variance ("small" or "large").
  """

  net: dict[str, Any]
  params: Any
  image_size: int
  channels: int
  chain: dict[str, Any]


def read_ddpm(folder: str | Path) -> Ddpm:
  """Reads such a folder.

  Raises:
    FileNotFoundError: A file is missing.
    ValueError: It is of another network or process; says which entry differs.
  """
  folder = Path(folder)
  pipeline = (folder / "unet").is_dir()
  unet = folder / "unet" if pipeline else folder
  scheduler = (folder / "scheduler" if pipeline else folder) / "scheduler_config.json"
  for path in (unet / "config.json", unet / WEIGHTS, scheduler):
    if not path.is_file():
      raise FileNotFoundError(
        f"{path} is missing; `jaxgen.nn.diffusers_file` says more"
      )
  config = json.loads((unet / "config.json").read_text())
  size, channels = config["sample_size"], config["in_channels"]
  net = _network(config, unet / "config.json")
  chain = _chain(json.loads(scheduler.read_text()), scheduler)
  shape = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
  steps = jax.ShapeDtypeStruct((1,), jnp.int32)
  abstract = jax.eval_shape(UNet(**net).init, jax.random.key(0), shape, steps)["params"]
  params = _params(unet / WEIGHTS, abstract, len(net["channel_mults"]))
  return Ddpm(net, params, size, channels, chain)


def _network(config: dict[str, Any], path: Path) -> dict[str, Any]:
  """Arguments of `UNet`."""
  _check(config, NETWORK, path)
  widths = config["block_out_channels"]
  levels = range(len(widths))
  kinds = [kind.removesuffix("DownBlock2D") for kind in config["down_block_types"]]
  mirrored = [kind + "UpBlock2D" for kind in reversed(kinds)]
  _same(config["up_block_types"], mirrored, "up_block_types", path)
  if strange := sorted(set(kinds) - {"", "Attn"}):
    raise ValueError(f"{path}: no network here has blocks {strange} of DownBlock2D")
  if any(width % widths[0] for width in widths):
    raise ValueError(f"{path}: block_out_channels={widths}: expected multiples")
  return {
    "channels": widths[0],
    "channel_mults": tuple(width // widths[0] for width in widths),
    "num_res_blocks": config.get("layers_per_block", 2),
    "attention_resolutions": tuple(
      config["sample_size"] // 2**level for level in levels if kinds[level]
    ),
    "num_groups": config.get("norm_num_groups", 32),
    "dropout_rate": config.get("dropout", 0.0),
    "out_channels": config.get("out_channels", 3),
  }


def _chain(config: dict[str, Any], path: Path) -> dict[str, Any]:
  """Of the scheduler."""
  _check(config, SCHEDULER, path)
  schedules = {"linear": "linear", "squaredcos_cap_v2": "cosine"}
  variances = {"fixed_small": "small", "fixed_large": "large"}
  variances |= {"fixed_small_log": "small"}
  for key, known in (("beta_schedule", schedules), ("variance_type", variances)):
    if config.get(key, next(iter(known))) not in known:
      raise ValueError(
        f"{path}: {key}={config[key]!r}: expected one of {sorted(known)}"
      )
  return {
    "num_timesteps": config.get("num_train_timesteps", 1000),
    "beta_start": float(config.get("beta_start", 1e-4)),
    "beta_end": float(config.get("beta_end", 0.02)),
    "beta_schedule": schedules[config.get("beta_schedule", "linear")],
    "variance": variances[config.get("variance_type", "fixed_small")],
  }


def _check(config: dict[str, Any], known: dict[str, Any], path: Path) -> None:
  """Raises where an entry, or diffusers' default for it, is not what is known here."""
  for key, (expected, default) in known.items():
    if key in config:
      _same(config[key], expected, key, path)
    elif default != expected:
      raise ValueError(
        f"{path}: without {key}, diffusers takes {default!r}: expected {expected!r}"
      )


def _same(found: Any, expected: Any, key: str, path: Path) -> None:
  if found != expected:
    raise ValueError(f"{path}: {key}={found!r}: expected {expected!r}")


def _params(path: Path, abstract: Any, num_levels: int) -> Any:
  """Ours of theirs, in our names and layouts."""
  expected = traverse_util.flatten_dict(abstract, sep="/")
  found = {}
  for theirs, array in load_safetensors(path).items():
    name = _our_name(theirs, num_levels)
    if name not in expected:
      raise ValueError(f"{path}: the network has no place for {theirs!r}")
    array = np.asarray(array, np.float32)
    array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    if name.endswith("shortcut/kernel"):
      array = array[0, 0]  # A convolution of 1x1 there, a product here.
    if array.shape != expected[name].shape:
      raise ValueError(
        f"{path}: {theirs!r} gives {name} {list(array.shape)}: expected "
        f"{list(expected[name].shape)}"
      )
    found[name] = jnp.asarray(array)
  if missing := sorted(set(expected) - set(found)):
    raise ValueError(f"{path}: {len(missing)} arrays are missing, as {missing[:4]}")
  return traverse_util.unflatten_dict(found, sep="/")


def _our_name(name: str, num_levels: int) -> str:
  """ "down_blocks.1.resnets.0.conv1.weight" -> "down1_0_res/conv1/kernel"."""
  module, leaf = name.rsplit(".", 1)
  for pattern, replacement in _NAMES:
    module = re.sub(pattern, replacement, module)
  # Up blocks are counted from the lowest resolution there, by level here.
  module = re.sub(r"^up(\d+)", lambda m: f"up{num_levels - 1 - int(m[1])}", module)
  is_norm = "norm" in module.rsplit("/", 1)[-1]
  weight = "scale" if is_norm else "kernel"
  return f"{module}/{weight if leaf == 'weight' else leaf}"
