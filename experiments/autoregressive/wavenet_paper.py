"""WaveNet of 30 layers of 512 channels, about the paper's size, on 16 kHz sound.

  jaxgen train autoregressive/wavenet_paper --workdir=runs/wavenet --config.path=NPZ
  jaxgen describe autoregressive/wavenet_paper

NPZ is as `jaxgen.data.spoken_digits` describes: recordings with digits and speakers.

Paper: van den Oord et al., WaveNet: A Generative Model for Raw Audio (2016),
  arXiv 1609.03499: dilations 1, 2, ..., 512, and the same again (Section 2.1, from
  memory), 256 mu-law levels. It gives no widths and no number of layers. The cycle
  three times, 512 residual and 256 skip channels are from memory of Parallel WaveNet
  (2017), arXiv 1711.10433, not looked up; rate, batch and number of steps are ours.
Dataset: English speech of 109 speakers (VCTK) in the paper; none of it is included.
Published: none: the paper has listeners' opinions, no bits per sample.
Measure: bits_per_sample --metrics=eval
Ours: not measured: needs accelerators and the data. 47,049,728 parameters.
"""

from ml_collections import ConfigDict
import numpy as np
import optax

from jaxgen import cli, data
from jaxgen.autoregressive.wavenet import Network, wavenet
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "path": "",  # "" only describes
      "batch_size": 8,
      "length": 16_000,  # samples; a second
      "sample_rate": 16_000,
      "num_speakers": 109,
      "num_steps": 1_000_000,
      "lr": 2e-4,
      "width": 512,
      "skip_width": 256,
      "num_layers": 10,  # Section 2.1: dilations 1, 2, ..., 512
      "num_cycles": 3,  # the same again
      "ema_decay": 0.9999,
    }
  )


def build(config):
  cycle = tuple(2**i for i in range(config.num_layers))
  classes = (("speaker", config.num_speakers),)
  net = Network(config.width, config.skip_width, cycle * config.num_cycles, classes)
  spoken = dict(batch_size=config.batch_size, length=config.length)
  shape = (config.batch_size, config.length)
  no_data = data.synthetic(
    {
      "audio": data.source.zeros(shape, np.float32),
      "speaker": data.source.zeros(shape[:1], np.int32),
    }
  )
  read = lambda split: data.spoken_digits(config.path, split, **spoken)
  return dict(
    method=wavenet(
      net,
      tx=optax.adam(config.lr),
      sample_rate=config.sample_rate,
      ema_decay=config.ema_decay,
    ),
    train_data=read("train") if config.path else no_data,
    eval_data=read("test") if config.path else None,
    num_steps=config.num_steps,
    every=Every(log=100, eval=10_000, sample=10_000, save=10_000),
    num_samples=8,
  )


if __name__ == "__main__":
  cli.run(__file__)
