"""Compiled graphs on disk: read where all is the same, never where anything is not."""

import os
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from taichu.training.compile_cache import fingerprint

pytestmark = pytest.mark.usefixtures("cpu")

TRAINING = """
import sys
import mindspore as ms, numpy as np
from mindspore import nn, ops
from ascend.device import choose_device
from ascend.operators import AdamW
from taichu.training.step import TrainingStep

class Curve(nn.Cell):
    def __init__(self, power):
        super().__init__()
        self.power = power
        self.weight = ms.Parameter(np.full((3, 1), 0.5, np.float32), name="weight")
    def construct(self, x):
        loss = (ops.matmul(x, self.weight) ** self.power).mean()
        return loss, loss.reshape((1,))

choose_device("CPU")
if "other graphs first" in sys.argv:
    ms.jit(Curve(6).construct)(ms.Tensor(np.ones((2, 3), np.float32)))
curve = Curve(int(sys.argv[2]))
step = TrainingStep(curve, AdamW([curve.weight], 0.1), graphs=sys.argv[1])
for k in range(4):
    x = np.random.default_rng(k).standard_normal((5, 3)).astype(np.float32)
    print(step(ms.Tensor(x))[0].asnumpy())
print(curve.weight.asnumpy().ravel())
"""
READ = "Use the compilation cache"  # MindSpore's words where it compiles nothing


@pytest.fixture
def train(tmp_path):
    script = tmp_path / "training.py"
    script.write_text(TRAINING)

    def run(*arguments):
        """What a process prints, and whether it read its graph."""
        command = [sys.executable, str(script), str(tmp_path / "graphs"), *arguments]
        result = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"GLOG_v": "2"}, timeout=300
        )
        assert result.returncode == 0, result.stderr[-2000:]
        numbers = [line for line in result.stdout.splitlines() if "WARNING" not in line]
        return numbers, READ in result.stderr + result.stdout

    run.script, run.folder = script, tmp_path / "graphs"
    return run


def test_a_second_process_reads_the_graph_and_trains_alike(train):
    compiled, read = train("2")
    assert not read and len(list(train.folder.iterdir())) == 1
    again, read = train("2")
    assert read and again == compiled
    after_others, read = train("2", "other graphs first")
    assert read and after_others == compiled


def test_another_setting_or_source_is_another_graph(train):
    squares, _ = train("2")
    fourths, read = train("4")
    assert not read and fourths != squares
    train.script.write_text(TRAINING.replace(".mean()", ".sum()"))
    sums, read = train("2")
    assert not read and sums != squares
    assert len(list(train.folder.iterdir())) == 3


def test_a_damaged_graph_is_compiled_anew(train):
    expected, _ = train("2")
    (graph,) = train.folder.rglob("graph.mindir")
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    assert train("2")[0] == expected


class Scaled(nn.Cell):
    def __init__(self, factor=2.0, constant=(1.0, 2.0), transpose=False, value=1.0, name="weight"):
        super().__init__()
        self.factor = factor
        self.constant = ms.Tensor(np.array(constant, np.float32))
        self.product = ops.MatMul(transpose_b=transpose)
        self.weight = ms.Parameter(np.full((2, 2), value, np.float32), name=name)

    def construct(self, x):
        return self.product(x, self.weight) * self.factor + self.constant


def test_fingerprint_holds_what_a_graph_is_compiled_from():
    x, wide = ms.Tensor(np.ones((3, 2), np.float32)), ms.Tensor(np.ones((4, 2), np.float32))
    prints = [
        fingerprint(Scaled(), "construct", [x]),
        fingerprint(Scaled(), "other", [x]),
        fingerprint(Scaled(), "construct", [wide]),
        fingerprint(Scaled(factor=3.0), "construct", [x]),
        fingerprint(Scaled(constant=(1.0, 3.0)), "construct", [x]),
        fingerprint(Scaled(transpose=True), "construct", [x]),
        fingerprint(Scaled(name="other"), "construct", [x]),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(Scaled(), "construct", [x]) == prints[0]
    assert fingerprint(Scaled(value=5.0), "construct", [wide]) == prints[2]  # read when it runs
