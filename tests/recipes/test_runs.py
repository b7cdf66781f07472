"""A recipe of several trainings as a process: told to stop, and profiled."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from recipes import codecs
from taichu.training.log import read_log
from taichu.training.profiling import ProfileConfig
from taichu.training.trainer import TrainConfig

PROGRAM = "import sys; from taichu.command_line import main; sys.exit(main())"


def test_sigterm_ends_the_whole_recipe_and_it_goes_on_from_there(common, tmp_path):
    settings = {**common, "out": tmp_path / "out", "train.steps": 10**6, "train.log_every": 1}
    words = [f"{key}={value}" for key, value in settings.items()]
    log, output = tmp_path / "out/training/image/metrics.jsonl", tmp_path / "output.txt"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "GLOG_v": "4"}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "train", "codecs", *words],
            stdout=file,
            stderr=file,
            env=environment,
            cwd=tmp_path,
        )
    try:
        until = time.monotonic() + 120
        while not (log.exists() and len(read_log(log)) > 2):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGUSR1)
        while "(most recent call first)" not in output.read_text():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
    (kept,) = (tmp_path / "out/training/image/checkpoints").iterdir()
    step = int(kept.stem[5:])
    assert f"codec image: SIGTERM: step {step} is saved in " in output.read_text()
    assert not (tmp_path / "out/training/audio").exists() and not (tmp_path / "out/codecs").exists()

    train = TrainConfig(steps=step + 2, log_every=1)
    codecs.main(codecs.Config(out=str(tmp_path / "out"), train=train, **common))
    for name in ("image", "audio"):
        rows = read_log(tmp_path / f"out/training/{name}/metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, step + 3))
        assert (tmp_path / f"out/codecs/{name}.safetensors").is_file()


def test_each_training_is_profiled(common, tmp_path):
    train, profile = TrainConfig(steps=3), ProfileConfig((2, 3))
    codecs.main(codecs.Config(out=str(tmp_path), train=train, profile=profile, **common))
    for name in ("image", "audio"):
        folder = tmp_path / "training" / name / "profile"
        assert "\nMatMul," in (folder / "operators.csv").read_text()
        assert len(list(folder.glob("*/ASCEND_PROFILER_OUTPUT/trace_view.json"))) == 1
