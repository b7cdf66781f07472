"""The training loop: killed at any moment it goes on as if nothing had been; its end and errors."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest

from taichu.errors import TaichuError
from taichu.training.log import read_log
from taichu.training.trainer import TrainConfig, Trainer

STEPS = 60
# a program of its own, for only a process can be killed; PAUSE keeps it from ending before
PROGRAM = """
import sys, time
import mindspore as ms
import numpy as np
from ascend.device import choose_device
from taichu.config import ModelConfig
from taichu.data.layout import GROUPED, Segment, Span
from taichu.model.backbone import Backbone
from taichu.training.objectives import Objective
from taichu.data.packing import BatchShape, Layout, pack
from taichu.training.trainer import TrainConfig, Trainer
from taichu.tokenizer import load_tokenizer
from taichu.vocabulary import Vocabulary

out, tokenizer, steps, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
choose_device("CPU")
ms.set_seed(1)
vocabulary = Vocabulary(load_tokenizer(tokenizer), {"image": 8})
config = ModelConfig(
    width=32, depth=2, heads=2, key_value_heads=2, head_size=16, hidden=48, embedding=16,
    pieces=vocabulary.pieces,
)
objective = Objective(Backbone(config, vocabulary.size, [(4, 12)]), vocabulary, 0.0)
where = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]], np.int32)

def batch(k):
    time.sleep(pause)
    random = np.random.default_rng((5, k))
    layouts = []
    for caption in range(4):
        text = Span("text", ids=random.integers(0, vocabulary.pieces, 5, np.int32))
        patches = random.standard_normal((4, 12), np.float32)
        codes = random.integers(vocabulary.codes("image").start, vocabulary.size, 4, np.int32)
        image = Span("image", patches=patches, coordinates=where)
        made = Span("image", ids=codes, coordinates=where)
        sides = Segment((text,), (made,), GROUPED, 1), Segment((image,), (text,), GROUPED, 1)
        layouts.append(Layout(sides, 0, caption, aligned=True))
    return pack(layouts, BatchShape(4, 32, 64, 4, (("image", 16, 12),)), vocabulary)[0]

train = TrainConfig(steps=steps, log_every=1, checkpoint_every=5, rate=3e-3)
Trainer(objective, batch, ["alignment", "hit", "text", "image"], train, out).run()
"""


@pytest.fixture
def launch(tokenizer, tmp_path):
    """Starts the program in a folder."""
    program, model = tmp_path / "program.py", tmp_path / "tokenizer.model"
    program.write_text(PROGRAM, encoding="utf-8")
    model.write_bytes(tokenizer.content)
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root, "GLOG_v": "4"}
    started = []

    def start(folder, pause=0.0):
        words = [sys.executable, program, folder, model, str(STEPS), str(pause)]
        output = (tmp_path / f"output{len(started)}.txt").open("wb")
        started.append(subprocess.Popen(words, stdout=output, stderr=output, env=environment))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def checkpoints(folder) -> list[Path]:
    return sorted((folder / "checkpoints").glob("step-*.safetensors"))


def kill_at_random(process, folder):
    """SIGKILL at a random moment after the second checkpoint."""
    until = time.monotonic() + 120
    while len(checkpoints(folder)) < 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.6))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_run_goes_on_as_if_nothing_had_been(launch, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    run, reference = launch(killed, pause=0.04), launch(whole)
    kill_at_random(run, killed)
    before, newest = checkpoints(killed)[-2:]
    # as if the kill had come while a checkpoint was written: by us, and by a failing disk
    (killed / "checkpoints" / "step-00000099.safetensors.partial").write_bytes(b"half")
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    again = launch(killed)
    assert again.wait(120) == 0 and reference.wait(120) == 0

    first, _, second = ((tmp_path / f"output{i}.txt").read_text() for i in range(3))
    assert "goes on from" not in first and f"{newest}: damaged" in second
    assert f"goes on from step {int(before.stem[5:])} " in second
    expected, rows = read_log(whole / "metrics.jsonl"), read_log(killed / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for name in ("loss", "rate", "norm", "text", "image"):
        values = [[row[name] for row in log] for log in (rows, expected)]
        np.testing.assert_allclose(*values, rtol=1e-6, err_msg=name)
    assert expected[-1]["loss"] != expected[0]["loss"]
    assert [path.name for path in checkpoints(killed)] == [p.name for p in checkpoints(whole)]


class Line(ms.nn.Cell):
    """Squared error of y = x w."""

    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(np.ones((3, 1), np.float32))

    def construct(self, x_N3):
        y_N1 = ms.ops.matmul(x_N3, self.weight)
        loss = (y_N1 * y_N1).mean()
        return loss, loss.reshape((1,))


@dataclass
class Points:
    x: np.ndarray

    def arrays(self):
        return (self.x,)


def draw(k) -> Points:
    return Points(np.random.default_rng(k).standard_normal((4, 3)).astype(np.float32))


def test_minutes_end_the_run_and_its_schedule(cpu, tmp_path, monkeypatch, capsys):
    config = TrainConfig(steps=10**6, minutes=0.01, log_every=15, final_rate=0.05)
    clock = count()  # a step is three looks at it, two of them around its wait for a batch
    monkeypatch.setattr(
        "taichu.training.trainer.time", SimpleNamespace(monotonic=lambda: next(clock) / 256)
    )
    validations = []

    def validate():
        validations.append(1)
        return {"error": 1.0}

    trainer = Trainer(Line(), draw, ["error"], config, tmp_path, validate)
    trainer.run()
    *rows, last = [row for row in read_log(tmp_path / "metrics.jsonl") if "loss" in row]
    # 0.6 seconds are 52 steps; the first one is not timed, since it compiles
    assert last["seconds"] == pytest.approx(156 / 256, abs=0.01) and last["step"] == 53
    assert last["waited"] == pytest.approx(52 / 256, abs=0.001)
    assert "33.3% of the time waiting for data" in capsys.readouterr().out
    assert last["rate"] == pytest.approx(config.rate * config.final_rate)
    rates = [row["rate"] for row in rows if row["step"] >= 15]
    assert len(rates) == 3 and rates == sorted(rates, reverse=True)
    assert len(validations) == 1 and (tmp_path / "curves.png").is_file()
    again = Trainer(Line(), draw, ["error"], config, tmp_path, validate)
    again.run()  # nothing is left to do
    assert (again.step, len(validations)) == (last["step"], 1)
    assert again.training_step.calls == 0


def test_the_rate_warms_up_and_falls_by_a_cosine(cpu, tmp_path):
    config = TrainConfig(steps=200, rate=0.1, warmup=0.1, final_rate=0.2)
    trainer = Trainer(Line(), draw, ["error"], config, tmp_path)
    for step in range(201):
        trainer.step = step
        p = step / 200
        turned = 0.5 * (1 + np.cos(np.pi * (p - 0.1) / 0.9))
        expected = 0.1 * max(p, 1 / 200) / 0.1 if p < 0.1 else 0.1 * (0.2 + 0.8 * turned)
        assert trainer.rate() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("log_every", [1, 100])
def test_losses_that_are_not_finite_end_the_run(cpu, tmp_path, log_every):
    """However seldom the loss is logged; its checkpoints hold what was before them."""
    config = TrainConfig(steps=50, log_every=log_every, checkpoint_every=4)

    def spoiled(k):
        return draw(k) if k < 9 else Points(np.full((4, 3), np.nan, np.float32))

    trainer = Trainer(Line(), spoiled, ["error"], config, tmp_path, title="line")
    with pytest.raises(TaichuError) as caught:
        trainer.run()
    # the ninth is seen at the eleventh step where a checkpoint looks first
    first, last = (10, 29) if log_every == 1 else (13, 32)
    said = f"line: no gradient was finite from step {first} to {last}; lower train.rate"
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert [path.stem for path in checkpoints(tmp_path)] == ["step-00000024", "step-00000028"]
    again = Trainer(Line(), draw, ["error"], config, tmp_path)
    again._resume()
    assert again.step == 28 and int(again.optimizer.global_step.asnumpy()[0]) == 9
    assert np.isfinite(again.objective.weight.asnumpy()).all()
    rows = read_log(tmp_path / "metrics.jsonl")
    assert [row.get("left_out") for row in rows if row["step"] in (9, 12)] == (
        [None, 3] if log_every == 1 else []
    )
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_run_goes_on_behind_losses_that_are_not_finite(cpu, tmp_path):
    """Two spoiled batches change nothing: the rest is what it would be without them."""

    def spoiled(k):
        return Points(np.full((4, 3), np.nan, np.float32)) if k in (3, 4) else draw(k)

    config = TrainConfig(steps=30, log_every=1, checkpoint_every=30)
    Trainer(Line(), spoiled, ["error"], config, tmp_path).run()
    rows = read_log(tmp_path / "metrics.jsonl")
    assert rows[-1]["left_out"] == 2 and rows[-1]["loss"] < rows[0]["loss"]


def test_a_log_has_each_step_once(cpu, tmp_path):
    """Rows past the checkpoint that a run goes on from are written again, not twice."""
    config = TrainConfig(steps=6, log_every=1, checkpoint_every=2, validate_every=3)
    validate = lambda: {"error": 1.0}  # noqa: E731
    Trainer(Line(), draw, ["error"], config, tmp_path, validate).run()
    before = read_log(tmp_path / "metrics.jsonl")
    checkpoints(tmp_path)[-1].unlink()
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 7, "lo')  # cut off by a kill
    Trainer(Line(), draw, ["error"], config, tmp_path, validate).run()
    after = read_log(tmp_path / "metrics.jsonl")
    for row in (*before, *after):
        row.pop("seconds", None)
    assert after == before
    steps = [row["step"] for row in after if "loss" in row]
    assert steps == list(range(1, 7))
