"""Sound on disk, and pictures of it. Waves are f32 [N, T] in [-1, 1]."""

import itertools
from pathlib import Path
import wave

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAUSE = 0.25  # Seconds of silence between sounds in one file.
NUM_BANDS = 64  # Rows of a spectrogram, from 0 Hz to half the sample rate.
RANGE = 80.0  # Decibels below the loudest that are black.
WAVE_HEIGHT = 32  # Rows of the wave form above it.
NUM_COLUMNS = 160
TICK = 0.1  # Seconds between the ticks below.
TICK_HEIGHT, TEXT_HEIGHT = 3, 12  # Rows of the ticks, and of the text below them.


def write_wav(path: Path, waves: np.ndarray, sample_rate: int) -> None:
  """All of them behind one another, 16 bits, one channel."""
  pause = np.zeros(round(PAUSE * sample_rate), np.float32)
  pieces = [piece for x in waves for piece in (x, pause)][:-1]
  samples = np.rint(np.clip(np.concatenate(pieces), -1, 1) * (2**15 - 1))
  with wave.open(str(path), "wb") as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(int(sample_rate))
    file.writeframes(samples.astype("<i2").tobytes())


def pictures(waves: np.ndarray, sample_rate: int) -> np.ndarray:
  """Wave forms above spectrograms: f32 [N, 112, 160, 1] in [-1, 1].

  Time goes to the right, with a tick every TICK seconds. In a spectrogram frequency
  goes up, from 0 to half the sample rate, and white is the loudest of that sound. The
  text says how long a sound is, its sample rate, and the highest frequency shown.
  """
  waves = np.asarray(waves, np.float32)
  axis = _axis(waves.shape[1] / sample_rate, sample_rate)
  return np.stack([np.concatenate([_picture(x), axis]) for x in waves])[..., None]


def _axis(seconds: float, sample_rate: int) -> np.ndarray:
  """Ticks and the text."""
  ticks = np.full((TICK_HEIGHT, NUM_COLUMNS), -1.0)
  at = np.arange(0.0, seconds, TICK) / seconds * NUM_COLUMNS
  ticks[:, at.astype(int)] = 1.0
  text = f"{seconds:.2f} s at {sample_rate} Hz, 0 to {sample_rate / 2000:g} kHz"
  strip = Image.new("L", (NUM_COLUMNS, TEXT_HEIGHT))
  ImageDraw.Draw(strip).text((0, 0), text, fill=255, font=ImageFont.load_default(10))
  return np.concatenate([ticks, np.asarray(strip) / 127.5 - 1.0])


def _picture(x: np.ndarray) -> np.ndarray:
  edges = np.linspace(0, len(x), NUM_COLUMNS + 1).astype(int)
  low, high = [], []
  for start, stop in itertools.pairwise(edges):
    piece = x[start : max(stop, start + 1)]
    low.append(piece.min())
    high.append(piece.max())
  height = np.linspace(1, -1, WAVE_HEIGHT)[:, None]
  thick = 1.0 / WAVE_HEIGHT
  form = (height >= np.array(low) - thick) & (height <= np.array(high) + thick)
  line = np.full((1, NUM_COLUMNS), -1.0)
  return np.concatenate([np.where(form, 1.0, -1.0), line, _spectrogram(x)])


def _spectrogram(x: np.ndarray) -> np.ndarray:
  size = 2 * NUM_BANDS
  padded = np.pad(x, size // 2)
  starts = np.linspace(0, len(x) - 1, NUM_COLUMNS).astype(int)
  frames = padded[starts[:, None] + np.arange(size)] * np.hanning(size)
  power = np.abs(np.fft.rfft(frames)[:, 1:]) ** 2  # [columns, bands]
  decibels = 10 * np.log10(np.maximum(power, 1e-10))
  shown = np.clip((decibels - decibels.max()) / RANGE + 1, 0, 1)
  return shown.T[::-1] * 2 - 1
