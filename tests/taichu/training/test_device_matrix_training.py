"""Ranks train as one does on the batches of all: every axis of the device matrix, on CPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = Path(__file__).parent / "ranks_program.py"
LAUNCHER = """
import sys
from ascend.launch import launch
from ascend.msrun import Cluster

size, folder, *program = sys.argv[1:]
sys.exit(0 if launch([sys.executable, *program], folder, Cluster(int(size))) else 1)
"""
# what a matrix is held against, of one rank
TWO = {
    "data": "data",
    "optimizer": "data",
    "parameters": "data",
    "tensor": "tensor",
    "sharded sequence": "tensor",
    "pipeline": "pipeline",
    "expert": "expert",
    "expert parameters": "expert",
    "untied expert pipeline": "untied expert pipeline",
}
FOUR = {
    "stages": "stages",
    "recomputed tensor pipeline": "pipeline",
    "sequence pipeline": "pipeline",
    "tensor of experts": "expert",
    "sequence of experts": "expert",
}


def run(command: list[str], out: Path) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_v": "4"}
    done = subprocess.run(
        [sys.executable, *command], cwd=out.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(out.read_text())


def launch(size: int, names, folder: Path) -> dict:
    words = [str(size), str(folder / "logs"), str(PROGRAM), str(folder / f"{size}.json"), *names]
    return run(["-c", LAUNCHER, *words], folder / f"{size}.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What one rank makes and what several make, of each matrix."""
    folder = tmp_path_factory.mktemp("ranks")
    alone = sorted({*TWO.values(), *FOUR.values()})
    one = run([str(PROGRAM), str(folder / "one.json"), *alone], folder / "one.json")
    return one, launch(2, TWO, folder) | launch(4, FOUR, folder)


@pytest.mark.parametrize("name, alone", [*TWO.items(), *FOUR.items()])
def test_ranks_train_as_one(made, name, alone):
    expected, actual = made[0][alone], made[1][name]
    assert len(expected["losses"]) == 4
    np.testing.assert_allclose(actual["losses"], expected["losses"], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(actual["norms"], expected["norms"], rtol=1e-5)
    assert actual["parameters"].keys() == expected["parameters"].keys()
    for parameter, values in expected["parameters"].items():
        np.testing.assert_allclose(
            np.array(actual["parameters"][parameter]), np.array(values), atol=5e-5
        )
