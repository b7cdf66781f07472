"""One recipe on two ranks, and on with another device matrix: checkpoints, log and model folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from recipes import codecs
from recipes.codecs import Config
from taichu.inference.pretrained import Taichu
from taichu.storage.tensor_file import load_tensors
from taichu.training.trainer import TrainConfig

ROOT = Path(__file__).parents[2]
SIZE = ("heads: 1", "heads: 2"), ("head_size: 32", "head_size: 16"), ("\ndepth: 1", "\ndepth: 2")


@pytest.fixture(scope="module")
def home(common, tmp_path_factory):
    """A folder with a size of two heads and blocks, codecs, and the words that all runs share."""
    home = tmp_path_factory.mktemp("launched")
    text = Path(common["model"]).read_text(encoding="utf-8")
    for old, new in SIZE:
        text = text.replace(old, new)
    (home / "size.yaml").write_text(text, encoding="utf-8")
    settings = {**common, "model": str(home / "size.yaml"), "cache": str(home / "cache")}
    codecs.main(Config(out=str(home / "codecs"), train=TrainConfig(steps=1), **settings))
    words = [f"{key}={settings[key]}" for key in ("manifest", "model", "cache")]
    words += [f"codecs={home / 'codecs'}", f"out={home / 'out'}", "mixture.rows=2"]
    words += ["mixture.groups={text-image: 1, text-audio: 1}", "validation_batches=1"]
    return home, [*words, "train.log_every=1", "train.checkpoint_every=2"]


def start(home: Path, command: str, *words: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_v": "4"}
    return subprocess.Popen(
        [sys.executable, "-m", "taichu.command_line", command, "pretrain", *words],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rows(home: Path) -> list[dict]:
    log = home / "out/training/backbone/metrics.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    return [row for row in map(json.loads, lines) if "loss" in row]


def test_a_run_goes_on_under_any_matrix(home):
    folder, words = home
    runs = [
        ("launch", 4, ["parallel.shard=optimizer", "--devices", "2"]),
        ("launch", 6, ["parallel.tensor=2", "--devices", "2"]),
        ("train", 8, []),
        ("launch", 10, ["parallel.pipeline=2", "--devices", "2"]),
    ]
    for command, steps, more in runs:
        process = start(folder, command, *words, f"train.steps={steps}", *more)
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0, out[-3000:]
    assert [row["step"] for row in rows(folder)] == list(range(1, 11))
    assert all(np.isfinite(row["loss"]) and "left_out" not in row for row in rows(folder))
    model = Taichu.from_pretrained(folder / "out/model")
    assert np.isfinite(model.embed(text="a red square")).all()
    # the model's folder holds what both stages saved
    tensors, _ = load_tensors(folder / "out/model/model.safetensors")
    saved = {}
    for rank in (0, 1):
        name = f"step-00000010-rank-000{rank}-of-0002.safetensors"
        saved |= load_tensors(folder / "out/training/backbone/checkpoints" / name)[0]
    trained = {name for name in saved if name.startswith("backbone.")}
    assert {f"backbone.{name}" for name in tensors if "patch_scales" not in name} == trained
    for name in trained:
        np.testing.assert_array_equal(saved[name], tensors[name.removeprefix("backbone.")])


def test_both_ranks_stop_together_at_a_signal_and_go_on(home):
    """SIGTERM comes to one process, the launcher; the step that is saved is the ranks' own."""
    folder, words = home
    words = [*words, f"out={folder / 'stopped'}"]
    two = [*words, "train.steps=2000", "--devices", "2"]
    process = start(folder, "launch", *two)
    log = folder / "stopped/training/backbone/metrics.jsonl"
    limit = time.monotonic() + 240
    while not (log.is_file() and len(log.read_text().splitlines()) > 5):
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, out[-3000:]
    kept = sorted((folder / "stopped/training/backbone/checkpoints").iterdir())
    newest = [path.name for path in kept[-2:]]
    step = newest[0].split("-")[1]
    assert newest == [f"step-{step}-rank-000{rank}-of-0002.safetensors" for rank in (0, 1)]
    assert f"step {int(step)} is saved" in out
