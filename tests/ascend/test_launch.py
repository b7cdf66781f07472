"""Launching: real processes, real signals; nothing that was started is left behind."""

import os
import re
import signal
import subprocess
import sys

import pytest

from ascend import rank_process
from ascend.device import DeviceError
from ascend.msrun import Cluster
from ascend.rank_process import share_of_cores


def test_output_is_shown_and_kept_and_the_ranks_stay_where_they_are(start_launch):
    job = start_launch("import os; print(os.getcwd(), '一', os.environ['RANK_SIZE'])", 1)
    code, out, error = job.finish()
    assert (code, out, error) == (0, f"{job.work} 一 1\n", "")
    assert (job.logs / "1/rank_0.log").read_text() == out


def test_the_end_of_a_failed_ranks_log_is_shown(start_launch):
    program = r"print(*range(50), sep='\n'); print('half\rfull', end='\r\n'); raise SystemExit(3)"
    code, _, error = start_launch(program, 1).finish()
    lines = error.splitlines()
    assert code == 1 and lines[0].startswith("launch: rank 0 ended with exit code 3; the end of ")
    assert [line.strip() for line in lines[1:]] == [*map(str, range(31, 50)), "full"]


def test_restarts_are_counted(start_launch):
    job = start_launch("print('once'); raise SystemExit(1)", 1, restarts=2)
    code, out, error = job.finish()
    assert code == 1 and out == "once\n" * 3
    assert error.count("exit code 1") == 3 and error.count("starting again") == 2
    assert sorted(folder.name for folder in job.logs.iterdir()) == ["1", "2", "3"]


HANGING = """
import faulthandler, os, signal, sys, time
faulthandler.register(signal.SIGUSR1)
def waits_for_ever():
    time.sleep(1000)
print("begins")
if os.path.basename(os.environ["MS_OM_PATH"]) == "1":
    waits_for_ever()
"""


def test_a_rank_that_hangs_says_where_and_is_restarted(start_launch):
    job = start_launch(HANGING, 1, restarts=1, silence=1.5)
    code, out, error = job.finish()
    assert code == 0 and out.startswith("begins\n") and out.endswith("begins\n")
    assert "launch: no rank has written anything for 0.025 minutes" in error
    assert re.search(r"rank_0.log:\n    Current thread .*\n +File .* in waits_for_ever\n", error)
    assert "restart 1 of 1" in error
    job.wait_until_gone(job.pid("0"))


SAVING = """
import signal, sys, time
def save(number, frame):
    print("saved after", number)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
print("ready")
time.sleep(1000)
"""


@pytest.mark.parametrize("number, expected", [(signal.SIGTERM, 0), (signal.SIGINT, -2)])
def test_a_stop_is_passed_on_as_sigterm_and_ranks_save(start_launch, number, expected):
    job = start_launch(SAVING, 1, restarts=3)
    job.wait_for("1/rank_0.log", "ready")
    job.process.send_signal(number)
    code, out, error = job.finish()
    assert code == expected and out == "ready\nsaved after 15\n"
    assert "told to stop, within 120 s" in error and "starting again" not in error


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "1000"])
print("ready", child.pid, flush=True)
time.sleep(1000)
"""


def child_of(job) -> int:
    job.wait_for("1/rank_0.log", "ready")
    return int((job.logs / "1/rank_0.log").read_text().split()[1])


def test_ranks_that_do_not_stop_are_killed_in_the_end(start_launch):
    job = start_launch(STUBBORN, 1, restarts=3, grace=0.5)
    child = child_of(job)
    job.process.terminate()
    code, _, error = job.finish()
    assert code == 1 and "launch: killed before they had stopped by themselves: ranks 0" in error
    assert "starting again" not in error
    job.wait_until_gone(job.pid("0"), child)


def test_a_second_signal_does_not_wait(start_launch):
    job = start_launch(STUBBORN, 1)
    child = child_of(job)
    job.process.terminate()
    while "told to stop" not in job.process.stderr.readline():
        pass
    job.process.terminate()
    assert job.finish()[0] == 1
    job.wait_until_gone(job.pid("0"), child)


def test_what_a_killed_rank_had_started_is_ended(start_launch):
    job = start_launch(STUBBORN, 1)
    child = child_of(job)
    os.kill(job.pid("0"), signal.SIGKILL)
    code, _, error = job.finish()
    assert code == 1 and "rank 0 ended with signal 9 (SIGKILL)" in error
    job.wait_until_gone(child)


@pytest.mark.parametrize("devices", [1, 2])
def test_ranks_end_with_a_killed_launch(start_launch, devices):
    job = start_launch("import time; print('ready'); time.sleep(1000)", devices)
    job.wait_for(f"1/rank_{devices - 1}.log", "ready")
    pids = [job.pid(str(rank)) for rank in range(devices)]
    pids += [job.pid("scheduler")] if devices > 1 else []
    job.process.kill()
    job.wait_until_gone(*pids)


def test_a_failure_of_msrun_is_shown(start_launch):
    code, _, error = start_launch("", 1, 2, 0, "256.0.0.1").finish()
    assert code == 1 and "not brought together: msrun's exit code is 1; the end of " in error
    assert "'--master_address'" in error


def test_a_command_that_is_not_there(start_launch):
    from ascend.launch import launch

    assert not launch(["./no-such-program"], start_launch("", 1).logs, Cluster(1))


@pytest.mark.parametrize(
    "cores, shares, expected",
    [
        ([0, 1, 2, 3], 2, [[0, 1], [2, 3]]),
        ([2, 3, 8, 9, 10], 2, [[2, 3], [8, 9, 10]]),
        ([4, 5], 4, [[4], [5], [4], [5]]),
    ],
)
def test_cores_are_shared_out(cores, shares, expected):
    assert [share_of_cores(cores, place, shares) for place in range(shares)] == expected


def test_a_rank_runs_on_its_cores_alone(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    program = "import os; print(sorted(os.sched_getaffinity(0)))"
    words = [rank_process.__file__, str(tmp_path), "2", "unused", sys.executable, "-c", program]
    result = subprocess.run(
        [sys.executable, "-IS", *words],
        env={**os.environ, "RANK_ID": "3"},
        capture_output=True,
        text=True,
    )
    assert result.stdout == f"{share_of_cores(cores, 1, 2)}\n", result.stderr
    assert (tmp_path / "ended").read_text() == "3 0\n"


@pytest.mark.parametrize(
    "numbers, message",
    [
        ((0,), "devices=0 must be at least 1"),
        ((8, 0), "nodes=0 must be at least 1"),
        ((8, 2, 2), "node_rank=2 must be 0 to 1"),
        ((8, 2, 1, "a", 80), "port=80 must be 1024 to 65000"),
    ],
)
def test_a_cluster_that_cannot_be(numbers, message):
    with pytest.raises(DeviceError, match=f"^{message}$"):
        Cluster(*numbers)


def test_ranks_of_a_node():
    cluster = Cluster(8, 2, 1, "10.0.0.1")
    assert cluster.size == 16 and list(cluster.ranks) == list(range(8, 16))
