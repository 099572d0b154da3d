"""Text: alphabets, windows of files, and samples that are written as text."""

import gzip

import numpy as np
import pytest

from jaxgen import cli, data, viz

TEXT = "".join(chr(ord("a") + i * i % 23) for i in range(203)) + "é\n"


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "text.txt"
  path.write_text(TEXT, encoding="utf-8")
  return path


def windows(path, split="train", **kwargs):
  options = dict(alphabet=data.characters_of(path), length=9, batch_size=4)
  return data.text(path, split, **{**options, **kwargs})


def test_alphabet_and_its_inverse(file):
  characters = data.characters_of(file)
  assert characters == "".join(sorted(set(TEXT)))
  alphabet = data.Alphabet(characters)
  tokens = alphabet.encode(TEXT)
  assert tokens.dtype == np.int32
  assert tokens.tolist() == [characters.index(c) for c in TEXT]
  assert alphabet.decode(tokens[None]) == [TEXT]
  assert data.Alphabet("zay").encode("azy").tolist() == [1, 0, 2]
  assert data.Alphabet("ab").encode("").tolist() == []


def test_what_is_not_in_the_alphabet_is_named(file):
  alphabet = data.Alphabet("ab")
  with pytest.raises(ValueError, match=r"'c' at character 2 and 1 others \(2 distinct"):
    alphabet.encode("abcd")
  with pytest.raises(ValueError, match=r"tokens in 0..2: expected 0..1"):
    alphabet.decode([[0, 2]])
  with pytest.raises(ValueError, match="distinct characters"):
    data.Alphabet("aba")
  with pytest.raises(ValueError, match=r"text\.txt: 'é' at character 203"):
    windows(file, alphabet=data.characters_of(file).replace("é", "")).check()


def test_training_windows_are_a_function_of_seed_and_step(file):
  source = windows(file, seed=3)
  assert source.spec["tokens"].shape == (4, 9)
  batches = [b["tokens"] for b, _ in zip(source(0), range(60), strict=False)]
  assert batches[0].dtype == np.int32
  np.testing.assert_array_equal(next(windows(file, seed=3)(50))["tokens"], batches[50])
  assert not np.array_equal(next(windows(file, seed=4)(0))["tokens"], batches[0])
  # One epoch has every window of the first 90 % once.
  count = int(0.9 * len(TEXT)) - 9 + 1
  first = [w for b in batches for w in map("".join, source.decode(b))][:count]
  assert sorted(first) == sorted(TEXT[i : i + 9] for i in range(count))
  parts = [next(source.shard(i, 2)(7))["tokens"] for i in (0, 1)]
  np.testing.assert_array_equal(np.concatenate(parts), batches[7])


def test_the_test_set_predicts_every_character_once(file):
  source = windows(file, "test")
  rows = [
    row
    for batch in source.epoch()
    for row, real in zip(batch["tokens"], batch["row_mask"], strict=True)
    if real
  ]
  texts = source.decode(rows)
  held_out = TEXT[int(0.9 * len(TEXT)) :]
  predicted = "".join(text[1:] for text in texts)
  assert held_out[1 : 1 + len(predicted)] == predicted
  assert 0 <= len(held_out) - 1 - len(predicted) < 8
  whole = windows(file, "all")
  whole.check()
  assert len(whole.examples) == len(TEXT) - 8


def test_compressed_and_wrong_files(file, tmp_path):
  packed = tmp_path / "text.txt.gz"
  packed.write_bytes(gzip.compress(TEXT.encode()))
  a, b = next(windows(packed)(0)), next(windows(file)(0))
  np.testing.assert_array_equal(a["tokens"], b["tokens"])
  lazy = data.text("none.txt", "train", alphabet="ab", length=4, batch_size=2)
  with pytest.raises(FileNotFoundError, match=r"no text file 'none\.txt'"):
    lazy.check()
  with pytest.raises(ValueError, match=r"split='valid': expected one of"):
    windows(file, "valid")
  with pytest.raises(ValueError, match="21 tokens: expected at least length=22"):
    windows(file, "test", length=22).check()
  packed.write_bytes(TEXT.encode())
  with pytest.raises(ValueError, match="no text in UTF-8"):
    data.characters_of(packed)
  file.write_bytes(b"\xff\xfe")
  with pytest.raises(ValueError, match=r"text\.txt: no text in UTF-8"):
    data.characters_of(file)


def test_windows_of_a_file_of_tokens(tmp_path):
  path = tmp_path / "train.bin"
  tokens = np.arange(65_500, 65_530).astype("<u2")
  path.write_bytes(tokens.tobytes())
  source = data.token_file(path, length=5, batch_size=2)
  batch = next(source(0))["tokens"]
  assert batch.dtype == np.int32
  assert source.decode is None
  for row in batch:
    np.testing.assert_array_equal(row, row[0] + np.arange(5))
  held_out = data.token_file(path, length=5, batch_size=7)
  rows = next(held_out.epoch())["tokens"]
  np.testing.assert_array_equal(rows[:, 0], 65_500 + 4 * np.arange(7))
  with pytest.raises(FileNotFoundError, match="no file of tokens 'none.bin'"):
    data.token_file("none.bin", length=5, batch_size=2).check()
  with pytest.raises(ValueError, match="30 tokens: expected at least length=31"):
    data.token_file(path, length=31, batch_size=2).check()
  path.write_bytes(b"odd")
  with pytest.raises(ValueError, match="3 bytes are no 16-bit tokens"):
    data.token_file(path, length=5, batch_size=2).check()


def test_tokens_are_saved_as_text(tmp_path):
  decode = data.Alphabet("ab\n").decode
  outputs = {"samples": np.array([[0, 1, 2], [1, 1, 0]], np.int32)}
  outputs["score"] = np.zeros(2)
  assert viz.suffix(outputs, decode) == ".txt"
  assert viz.suffix(outputs, None) == ".npz"
  assert viz.suffix({"samples": np.zeros((1, 4, 4, 1))}, None) == ".png"
  assert viz.save(tmp_path / "x.txt", outputs, decode) == {}
  assert (tmp_path / "x.txt").read_text() == f"ab\n\n{viz.RULE}\nbba\n"
  with pytest.raises(ValueError, match=r"no output is text.*int32\[2, 3\].*\.npz"):
    viz.save(tmp_path / "x.txt", outputs)
  with pytest.raises(ValueError, match=r"no output is an image.*in \.txt"):
    viz.save(tmp_path / "x.png", outputs, decode)


def test_a_run_writes_text_without_its_file(file, tmp_path, capsys):
  """The alphabet of the file is kept in the config: the file may go."""
  shrink = ["context=6", "width=4", "num_layers=1", "num_heads=2", "warmup_steps=1"]
  flags = [f"--config.{x}" for x in (*shrink, "num_steps=2", "alphabet=")]
  flags += ["--config.batch_size=16", f"--config.path={file}"]
  workdir = tmp_path / "run"
  cli.main(
    ["train", "autoregressive/gpt_shakespeare_cpu", f"--workdir={workdir}", *flags]
  )
  out = capsys.readouterr().out
  assert "step 2: " in out
  samples = workdir / "samples" / "step_00000002.txt"
  assert f"samples: {samples}" in out
  texts = samples.read_text().removesuffix("\n").split(f"\n{viz.RULE}\n")
  assert [len(t) for t in texts] == [7] * 4
  assert all(t[0] == "\n" for t in texts)
  cli.main(["evaluate", str(workdir)])
  assert "nats_per_token" in capsys.readouterr().out
  file.unlink()
  target = tmp_path / "x.txt"
  prompt = TEXT[:3]
  flags = [f"--config.prompt={prompt}", "--config.temperature=0.5"]
  cli.main(["sample", str(workdir), "--num=2", f"--out={target}", *flags])
  texts = target.read_text().removesuffix("\n").split(f"\n{viz.RULE}\n")
  assert [t[:3] for t in texts] == [prompt] * 2
  cli.main(["sample", str(workdir), "--num=2", f"--out={target}", "--mode=complete"])
  assert "complete of step 2" in capsys.readouterr().out
  with pytest.raises(SystemExit, match="'Z' at character 0"):
    cli.main(["sample", str(workdir), f"--out={target}", "--config.prompt=Z"])
