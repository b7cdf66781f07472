"""How many threads the compiled kernels take: what a launch gives a rank, else its own cores."""

import json
import os
import subprocess
import sys

import pytest

from ascend.operators.form import LIBRARY
from ascend.threads import ThreadsError, given_threads

# prints how many threads the kernels have started beside the one that calls them
PROGRAM = """
import os, sys
from pathlib import Path
cores = sorted(os.sched_getaffinity(0))[:int(sys.argv[1])]
os.sched_setaffinity(0, cores)
import mindspore, numpy
from ascend import operators
mindspore.set_device("CPU")
x = mindspore.Tensor(numpy.ones((2048, 256)), mindspore.float32)
operators.swiglu("compiled")(x, x).asnumpy()
names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
print(len(cores), names.count("taichu"))
"""


def started(cores: int, given: str | None) -> list[int]:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": given} if given else {}
    command = [sys.executable, "-c", PROGRAM, str(cores)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return json.loads("[" + result.stdout.replace(" ", ",") + "]")


@pytest.mark.skipif(not LIBRARY, reason="no kernels were compiled")
@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_kernels_take_the_threads_they_are_given_or_the_cores_of_their_process():
    assert started(1, None) == [1, 0]
    cores, others = started(2, None)
    assert others == cores - 1
    assert started(1, "3")[1] == 2


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
