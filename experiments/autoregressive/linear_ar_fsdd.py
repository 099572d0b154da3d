"""Linear prediction of spoken digits: the baseline of WaveNet.

  jaxgen train autoregressive/linear_ar_fsdd --workdir=runs/linear_ar_fsdd \
    --config.path=fsdd_8khz.npz
  jaxgen reproduce autoregressive/linear_ar_fsdd --seeds=1

Paper: Yule (1927); textbooks.
Dataset: Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset),
  2,700 / 300 recordings at 8 kHz; of each the first half second, as 256 mu-law levels.
Published: none for these data.
Measure: bits_per_dim --metrics=eval
Ours: 7.346 bits per sample, mean over the 300 test recordings (eval_bits_per_dim of the
  log after jaxgen train). 8 are those of no model: one variance serves silence and
  vowels alike, and levels near zero are far finer than it. A seed changes
  nothing: the fit draws nothing, and the data have one order (0, 1 and 2 agree to all
  digits).
The spectrograms of 8 samples were looked at: a steady hiss, louder at low frequencies,
which is all that such a model can say.
Hardware: 2 cores of an AMD EPYC, shared with about ten other jobs. Wall clock: 20 s.
"""

from ml_collections import ConfigDict

from jaxgen import cli, data
from jaxgen.autoregressive.linear_ar import linear_ar, mu_law_levels
from jaxgen.train import Every


def get_config():
  return ConfigDict(
    {
      "path": "fsdd_8khz.npz",
      "batch_size": 27,
      "length": 4_000,  # samples; half a second
      "num_steps": 100,  # one pass over the 2,700 recordings
      "order": 16,  # two for each kHz of the sample rate, as is usual for speech
    }
  )


def build(config):
  method = linear_ar(
    config.order, entry="audio", cells=mu_law_levels(), sample_rate=8000
  )
  spoken = dict(batch_size=config.batch_size, length=config.length)
  return dict(
    method=method,
    train_data=data.spoken_digits(config.path, "train", **spoken),
    eval_data=data.spoken_digits(config.path, "test", **spoken),
    num_steps=config.num_steps,
    every=Every(log=20, eval=config.num_steps, sample=config.num_steps, save=100),
    num_samples=8,
  )


if __name__ == "__main__":
  cli.run(__file__)
