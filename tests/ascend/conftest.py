"""A launch in a process of its own, since only a process can be sent signals; a made-up machine; a
program that compiles one expression."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 300  # seconds, after which a test has failed rather than waits for ever
LAUNCHER = """
import sys
from ascend.launch import launch
from ascend.msrun import Cluster

settings, cluster, program = eval(sys.argv[1]), eval(sys.argv[2]), sys.argv[3:]
done = launch([sys.executable, *program], "../logs", Cluster(*cluster), **settings)
sys.exit(0 if done else 1)
"""


class Launched:
    """A running launch; ``logs`` is its log folder, ``work`` where it runs."""

    def __init__(self, place: Path, program: str, cluster: tuple, settings: dict, prefix=()):
        self.logs, self.work = place / "logs", place / "work"
        self.work.mkdir(parents=True)
        (place / "program.py").write_text(program)
        words = [repr(settings), repr(cluster), str(place / "program.py"), str(place)]
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", LAUNCHER, *words],
            cwd=self.work,
            env={**os.environ, "PYTHONPATH": str(ROOT), "GLOG_v": "4"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> tuple[int, str, str]:
        """Exit code, standard output and errors, at the end."""
        out, error = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, error

    def wait_for(self, path: str | Path, text: str):
        """Wait until a file below the log folder holds a text."""
        wait_until(lambda: text in read(self.logs / path) or self.process.poll() is not None)
        assert text in read(self.logs / path), self.finish()

    def pid(self, name: str, attempt: str | int = 1) -> int:
        """Process of a rank, or of the "scheduler", as the log folder notes it."""
        lines = read(self.logs / str(attempt) / "started").splitlines()
        return int({line.split()[0]: line.split()[2] for line in lines}[name])

    def wait_until_gone(self, *pids: int):
        """Wait for the end of processes that were, or are to be, killed."""
        wait_until(lambda: not any(map(alive, pids)))


def wait_until(holds):
    limit = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


@pytest.fixture
def start_launch(tmp_path):
    """start_launch(program, *cluster, **settings): `ascend.launch.launch` on a program's text.

    The program is given the test's folder as its argument; it runs in the empty folder work/.
    """
    started = []

    def start(program, *cluster, place="", prefix=(), **settings):
        launched = Launched(tmp_path / place, program, cluster, settings, prefix)
        started.append(launched.process)
        return launched

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def program(tmp_path, monkeypatch):
    """program(name, script) puts a shell script on a PATH that holds nothing else."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return put


NETWORK = """
import mindspore as ms
import numpy as np
from mindspore import mint, ops

ms.set_device("{device}")
x = ms.Tensor(np.ones((4, 4), np.float32))

def network(x):
    return {expression}

ms.jit(network)(x)
"""


@pytest.fixture
def write_network(tmp_path):
    """write_network(device, expression): the command that compiles an expression in x for it."""

    def write(device: str, expression: str) -> list[str]:
        program = tmp_path / "program.py"
        program.write_text(NETWORK.format(device=device, expression=expression))
        return [sys.executable, str(program)]

    return write
