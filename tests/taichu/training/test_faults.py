"""What a training survives: signals, a hang, a full disk, damaged checkpoints."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from taichu.errors import CheckpointError, DiskFullError, TaichuError
from taichu.storage import tensor_file
from taichu.storage.tensor_file import load_tensors
from taichu.training.interruption import Interruption, Terminated
from taichu.training.log import read_log
from taichu.training.trainer import TrainConfig, Trainer

ROOT = Path(__file__).parents[3]


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


def trainer(folder, batches=draw, validate=None, **settings) -> Trainer:
    config = TrainConfig(**{"steps": 40, "log_every": 1, "checkpoint_every": 4, **settings})
    return Trainer(Line(), batches, ["error"], config, folder, validate, title="line")


def checkpoints(folder) -> list[int]:
    return sorted(int(path.stem[5:]) for path in folder.glob("checkpoints/step-*.safetensors"))


def steps_logged(folder) -> list[int]:
    return [row["step"] for row in read_log(folder / "metrics.jsonl") if "loss" in row]


# Signals


@pytest.fixture
def launch(tmp_path):
    """Starts a program with this module at hand; what it prints goes to a file."""
    started, paths = [], os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "GLOG_v": "4"}

    def start(program: str, *words):
        path, output = tmp_path / "program.py", tmp_path / "output.txt"
        path.write_text(program, encoding="utf-8")
        with output.open("wb") as file:
            command = [sys.executable, path, *map(str, words)]
            started.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment))
        return started[-1], output

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_until(condition, process):
    until = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)


STOPPED = """
import sys, time
from pathlib import Path
from ascend.device import choose_device
from taichu.training.hang_watch import show_stacks_when_asked
from test_faults import draw, trainer

choose_device("CPU")
show_stacks_when_asked()

def slowly(k):
    time.sleep(0.02)
    return draw(k)

trainer(Path(sys.argv[1]), slowly, steps=10**6, checkpoint_every=10**6).run()
"""


def test_sigterm_ends_a_process_with_a_checkpoint_and_code_0(cpu, launch, tmp_path):
    out = tmp_path / "out"
    process, output = launch(STOPPED, out)
    wait_until(lambda: (out / "metrics.jsonl").exists() and len(steps_logged(out)) > 3, process)
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "prefetch.py" in output.read_text(), process)  # the stack of its thread
    for _ in range(3):  # what comes after the first changes nothing
        process.send_signal(signal.SIGTERM)
        time.sleep(0.005)
    assert process.wait(60) == 0
    said = output.read_text()
    (step,) = checkpoints(out)
    assert f"line: SIGTERM: step {step} is saved in {out / 'checkpoints'}\n" in said
    assert "Traceback" not in said and (out / "curves.png").stat().st_size
    assert steps_logged(out) == list(range(1, step + 1))
    trainer(out, steps=step + 5).run()
    assert steps_logged(out) == list(range(1, step + 6))


INTERRUPTED = """
import sys, time
from argparse import Namespace
from pathlib import Path
from ascend.device import choose_device
from taichu import command_line
from test_faults import draw, trainer

def slowly(k):
    time.sleep(5 if k in (12, 13) else 0.01)
    return draw(k)

def run(options):
    choose_device("CPU")
    trainer(Path(sys.argv[1]), slowly, steps=10**6, checkpoint_every=10**6).run()

command_line.parse = lambda given: Namespace(run=run, debug=False)
sys.exit(command_line.main())
"""


def test_ctrl_c_ends_a_command_with_a_checkpoint_and_code_130(cpu, launch, tmp_path):
    """Also when MindSpore, which takes SIGINT for itself, has trained some steps."""
    out = tmp_path / "out"
    process, output = launch(INTERRUPTED, out)
    wait_until(lambda: (out / "metrics.jsonl").exists() and 12 in steps_logged(out), process)
    time.sleep(0.5)  # by now the training waits for a batch
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    said = output.read_text()
    assert checkpoints(out) == [13] and "Traceback" not in said
    assert f"line: SIGINT: step 13 is saved in {out / 'checkpoints'}\n" in said
    assert said.endswith("taichu: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_training_after_a_step_and_handlers_are_as_before(cpu, tmp_path, number):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]

    def validate():
        os.kill(os.getpid(), number)
        return {"error": 1.0}

    # MindSpore makes SIGINT SIGTERM while it computes
    with pytest.raises((Terminated, *[KeyboardInterrupt] * (number == signal.SIGINT))):
        trainer(tmp_path, validate=validate, validate_every=6, accumulate=2).run()
    assert checkpoints(tmp_path) == [4, 6] and steps_logged(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_during_the_last_step_counts_too(cpu, tmp_path):
    """Else a recipe of several trainings would go on to the next one."""

    def validate():
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(Terminated) as caught:
        trainer(tmp_path, validate=validate, steps=5).run()
    assert caught.value.code == 0
    trainer(tmp_path, validate=validate, steps=5).run()  # nothing is left to do


def test_a_second_sigint_interrupts_at_once_and_ignored_signals_stay_ignored():
    # MindSpore, which other tests have computed with, takes SIGINT for itself
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert interruption.signal == signal.SIGINT
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal is None and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_noted(cpu, tmp_path):
    """Python gives other threads no signals, nor lets them say what happens at one."""
    thread = threading.Thread(target=trainer(tmp_path, steps=3).run)
    thread.start()
    thread.join()
    assert checkpoints(tmp_path) == [3]


# A hang

HANGING = """
import ctypes, sys, time
from pathlib import Path
from ascend.device import choose_device
from test_faults import trainer

choose_device("CPU")

def validate():
    ctypes.PyDLL(None).sleep(1000)  # and Python's lock is not given back

trainer(Path(sys.argv[1]), validate=validate, validate_every=6, hang_minutes=0.05).run()
"""


def test_a_hang_ends_the_process_with_the_stacks(cpu, launch, tmp_path):
    out = tmp_path / "out"
    process, output = launch(HANGING, out)
    assert process.wait(120) == -signal.SIGALRM
    said = output.read_text()
    assert f'File "{tmp_path / "program.py"}", line 10 in validate' in said
    assert "prefetch.py" in said  # all threads are shown
    assert checkpoints(out) == [4] and steps_logged(out) == [1, 2, 3, 4, 5, 6]
    trainer(out, steps=8, hang_minutes=30).run()
    assert steps_logged(out) == list(range(1, 9))
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


# A full disk


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a disk cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path):
    """Write until nothing more can be."""
    with path.open("ab", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(512))


def test_training_goes_on_while_the_disk_is_full(cpu, small_disk, tmp_path, capsys):
    filler, seen = small_disk / "filler", []

    def validate():
        step = run.step
        if step == 10:
            fill(filler)
        if step == 110:
            assert checkpoints(small_disk) == [4, 8]
            for path in small_disk.glob("checkpoints/*"):  # those two, whole, and no part of others
                assert load_tensors(path)[1]["step"] in (4, 8)
            seen.append(len(steps_logged(small_disk)))
            filler.unlink()
        return {"error": 1.0}

    run = trainer(small_disk, validate=validate, validate_every=10, steps=120)
    run.run()
    assert seen[0] < 100  # the log could not be written either
    assert steps_logged(small_disk) == list(range(1, 121))
    assert len(read_log(small_disk / "metrics.jsonl")) == 132
    assert checkpoints(small_disk) == [116, 120]
    said = [line for line in capsys.readouterr().err.splitlines() if "the disk is full" in line]
    assert len(said) == len(range(12, 109, 4))
    assert f"{small_disk / 'checkpoints'}/step-00000012.safetensors: the disk is full" in said[0]
    assert "0.0 MB free; training goes on, and the next checkpoint tries again" in said[0]


def test_what_is_printed_may_go_to_the_full_disk(cpu, small_disk, monkeypatch):
    output = small_disk / "output.txt"

    def slowly(k):
        time.sleep(0.03)  # the bar is drawn ten times a second
        return draw(k)

    def validate():
        if run.step == 10:
            fill(small_disk / "filler")
            fill(output)
        if run.step == 20:
            (small_disk / "filler").unlink()
        return {}

    run = trainer(small_disk, slowly, validate, validate_every=10, steps=24)
    with output.open("a") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        run.run()
    assert checkpoints(small_disk) == [20, 24]
    assert "24/24" in output.read_text(errors="replace")


def test_a_last_checkpoint_that_finds_the_disk_full_is_an_error(cpu, small_disk):
    def validate():
        if run.step == 10:
            fill(small_disk / "filler")
        return {}

    run = trainer(small_disk, validate=validate, steps=10)
    with pytest.raises(DiskFullError, match="step-00000010.safetensors: the disk is full"):
        run.run()
    assert issubclass(DiskFullError, TaichuError)  # exit code 1
    assert checkpoints(small_disk) == [4, 8]
    (small_disk / "filler").unlink()
    again = trainer(small_disk, steps=10)
    again.run()
    assert again.training_step.calls == 2 and checkpoints(small_disk) == [8, 10]
    assert steps_logged(small_disk) == list(range(1, 11))


def test_no_quota_is_as_a_full_disk_and_other_failures_are_not(cpu, tmp_path, monkeypatch, capsys):
    save_file, failures = tensor_file.save_file, {2: errno.EDQUOT, 3: errno.EIO}
    saved = []

    def fail(*words, **settings):
        saved.append(1)
        if len(saved) in failures:
            number = failures[len(saved)]
            raise OSError(number, os.strerror(number))
        save_file(*words, **settings)

    monkeypatch.setattr(tensor_file, "save_file", fail)
    with pytest.raises(OSError, match="Input/output error"):
        trainer(tmp_path).run()
    assert checkpoints(tmp_path) == [4] and len(saved) == 3
    assert "step-00000008.safetensors: the disk is full: 0.0 MB needed" in capsys.readouterr().err


# Damaged checkpoints


def flip(path: Path):
    """Change one bit of the last value."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_goes_back_to_the_checkpoint_before(cpu, tmp_path, capsys):
    trainer(tmp_path, steps=8).run()
    older, newer = sorted(tmp_path.glob("checkpoints/*"))
    expected = read_log(tmp_path / "metrics.jsonl")
    flip(newer)
    again = trainer(tmp_path, steps=8)
    again.run()
    said = capsys.readouterr().out
    assert f"{newer}: damaged (its content does not give its checksum)\n" in said
    assert f"line: goes on from step 4 ({older})" in said and again.training_step.calls == 4
    rows = read_log(tmp_path / "metrics.jsonl")
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]
    assert checkpoints(tmp_path) == [4, 8] and load_tensors(newer)


def test_with_no_good_checkpoint_nothing_is_begun_anew(cpu, tmp_path):
    trainer(tmp_path, steps=8).run()
    log = (tmp_path / "metrics.jsonl").read_bytes()
    for path in tmp_path.glob("checkpoints/*"):
        flip(path)
    with pytest.raises(CheckpointError) as caught:
        trainer(tmp_path, steps=8).run()
    assert str(caught.value).startswith(f"{tmp_path / 'checkpoints'}: every checkpoint is damaged;")
    assert "\n" not in str(caught.value)
    assert checkpoints(tmp_path) == [4, 8] and (tmp_path / "metrics.jsonl").read_bytes() == log
    shutil.rmtree(tmp_path / "checkpoints")
    again = trainer(tmp_path, steps=8)
    again.run()
    assert again.training_step.calls == 8 and steps_logged(tmp_path) == list(range(1, 9))


def test_parts_that_a_kill_left_are_removed(cpu, tmp_path):
    trainer(tmp_path, steps=4).run()
    folder = tmp_path / "checkpoints"
    for name in ("step-00000008.safetensors.partial", ".tmpAbCdEf"):  # the library's has no name
        (folder / name).write_bytes(b"half")
    trainer(tmp_path, steps=8).run()
    assert [path.name for path in sorted(folder.iterdir())] == [
        "step-00000004.safetensors",
        "step-00000008.safetensors",
    ]
