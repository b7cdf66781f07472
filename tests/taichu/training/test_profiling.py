"""Profiled steps of a training: which they are, what is left, and that training goes on."""

import csv
from dataclasses import dataclass

import mindspore as ms
import numpy as np
import pytest

from ascend.device import DeviceError
from ascend.profile import KernelProfiler, profile_kernels, sum_by_operator
from taichu.errors import ConfigError
from taichu.training.log import read_log
from taichu.training.profiling import ProfileConfig
from taichu.training.trainer import TrainConfig, Trainer

pytestmark = pytest.mark.usefixtures("cpu")


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


def train(folder, profile, steps=6, **settings) -> Trainer:
    config = TrainConfig(steps=steps, log_every=1, **settings)
    trainer = Trainer(Line(), draw, ["error"], config, folder, title="line", profile=profile)
    trainer.run()
    return trainer


def calls(path) -> dict[str, int]:
    """Of each operator of a table."""
    with path.open(encoding="utf-8") as file:
        return {row["operator"]: int(row["calls"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_named_steps_are_profiled_first_and_last_included(tmp_path, capsys, accumulate):
    trainer = train(tmp_path, ProfileConfig((3, 5)), accumulate=accumulate)

    def step():
        for k in range(accumulate):
            outputs = trainer._train_on(draw(k))
        outputs[0].asnumpy()

    expected = sum_by_operator(profile_kernels(step))
    found = calls(tmp_path / "profile" / "operators.csv")
    assert found == {operator: 3 * calls for operator, (calls, _) in expected.items()}
    assert len(list((tmp_path / "profile").glob("*/ASCEND_PROFILER_OUTPUT/trace_view.json"))) == 1
    said = capsys.readouterr().out
    assert f"line: profile of steps 3 to 5: {tmp_path / 'profile'}\n" in said
    assert "calls a step" in said and "MatMul" in said
    assert [row["step"] for row in read_log(tmp_path / "metrics.jsonl")] == list(range(1, 7))


def test_a_training_that_ends_before_the_last_step_is_profiled_in_part(tmp_path, capsys):
    train(tmp_path, ProfileConfig((5, 9)))
    assert "profile of steps 5 to 6" in capsys.readouterr().out
    assert calls(tmp_path / "profile" / "operators.csv")["MatMul"] % 2 == 0


def test_steps_that_are_not_trained_are_named(tmp_path, capsys):
    train(tmp_path, ProfileConfig((10, 12)))
    assert "line: no profile: steps 10 to 12 were not trained now\n" in capsys.readouterr().out
    assert not (tmp_path / "profile").exists()


def test_each_rank_has_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK_ID", "3")
    train(tmp_path, ProfileConfig((2, 2)), steps=2)
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["rank_3"]
    assert (tmp_path / "profile" / "rank_3" / "operators.csv").is_file()


def test_a_profile_that_fails_does_not_end_the_training(tmp_path, monkeypatch, capsys):
    def fail(self):
        raise DeviceError("the profiler left nothing")

    stop = KernelProfiler.stop
    monkeypatch.setattr(KernelProfiler, "stop", lambda self: (stop(self), fail(self)))
    assert train(tmp_path, ProfileConfig((2, 3))).step == 6
    assert "line: no profile: the profiler left nothing\n" in capsys.readouterr().out


@pytest.mark.parametrize("steps", [(12, 10), (0, 3)])
def test_steps_are_first_and_last(steps):
    with pytest.raises(ConfigError, match="profile.steps: must be the first and the last step"):
        ProfileConfig(steps)
