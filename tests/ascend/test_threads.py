"""How many threads the compiled kernels take: what a launch gives a rank, else its own cores."""

import os
import subprocess
import sys

import pytest

from ascend.operators.form import LIBRARY
from ascend.threads import ThreadsError, given_threads

# prints how many threads the kernels have started beside the one that calls them
PROGRAM = """
import os, sys, time
from pathlib import Path
cores = sorted(os.sched_getaffinity(0))[:int(sys.argv[1])]
os.sched_setaffinity(0, cores)
import mindspore, numpy
from ascend import operators
mindspore.set_device("CPU")
x = mindspore.Tensor(numpy.ones((2048, 256)), mindspore.float32)
operators.swiglu("compiled")(x, x).asnumpy()
for _ in range(20):  # a thread takes its name when it first runs, which may be later
    time.sleep(0.1)
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    if names.count("taichu") == int(sys.argv[2]):
        break
print(names.count("taichu"))
"""


def started(cores: int, given: str | None, expected: int) -> int:
    """Threads beside the caller's; that so many are expected ends the wait for them."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": given} if given else {}
    command = [sys.executable, "-c", PROGRAM, str(cores), str(expected)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return int(result.stdout.split()[-1])


@pytest.mark.skipif(not LIBRARY, reason="no kernels were compiled")
@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_kernels_take_the_threads_they_are_given_or_the_cores_of_their_process():
    assert started(1, None, 0) == 0
    others = min(2, len(os.sched_getaffinity(0))) - 1
    assert started(2, None, others) == others
    assert started(1, "3", 2) == 2


def test_what_is_given_is_a_number(monkeypatch):
    for given, expected in [("4", 4), ("4,2", 4), ("", None)]:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert given_threads() == expected
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert given_threads() is None
    for given in ("0", "-1", "all"):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        with pytest.raises(ThreadsError, match=f"OMP_NUM_THREADS={given} must be a number"):
            given_threads()
