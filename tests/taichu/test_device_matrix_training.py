"""Two ranks train as one does on the batch of both: every axis of the device matrix, on CPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).parent / "ranks_program.py"
LAUNCHER = """
import sys
from ascend.launch import launch
from ascend.msrun import Cluster

sys.exit(0 if launch([sys.executable, *sys.argv[2:]], sys.argv[1], Cluster(2)) else 1)
"""
# what trains on both batches, each with the matrix of which one rank does
OF_ONE = {"data": "data", "optimizer": "data", "parameters": "data"}
OF_ONE |= dict.fromkeys(["expert", "expert optimizer"], "expert")
OF_ONE |= dict.fromkeys(["expert parameters", "recomputed expert"], "expert")
OF_ONE |= dict.fromkeys(["tensor", "sequence", "sharded sequence", "recomputed tensor"], "tensor")
OF_ONE |= dict.fromkeys(["expert tensor", "expert sequence"], "expert tensor")


def run(command: list[str], out: Path) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_v": "4"}
    done = subprocess.run(
        [sys.executable, *command], cwd=out.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What one rank makes and what two make, of each matrix."""
    folder = tmp_path_factory.mktemp("ranks")
    names = sorted({*OF_ONE.values()})
    one = run([str(PROGRAM), str(folder / "one.json"), *names], folder / "one.json")
    words = [str(folder / "logs"), str(PROGRAM), str(folder / "two.json"), *OF_ONE]
    return one, run(["-c", LAUNCHER, *words], folder / "two.json")


@pytest.mark.parametrize("name", OF_ONE)
def test_two_ranks_train_as_one(made, name):
    one, two = made
    expected, actual = one[OF_ONE[name]], two[name]
    assert len(expected["losses"]) == 4
    np.testing.assert_allclose(actual["losses"], expected["losses"], atol=1e-5)
    np.testing.assert_allclose(actual["norms"], expected["norms"], rtol=1e-5)
    assert actual["parameters"].keys() == expected["parameters"].keys()
    for parameter, values in expected["parameters"].items():
        np.testing.assert_allclose(
            np.array(actual["parameters"][parameter]), np.array(values), atol=5e-5
        )
