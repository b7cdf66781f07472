"""How many threads a process's computing may take on the host."""

import os

from ascend.errors import HardwareError


class ThreadsError(HardwareError):
    """OMP_NUM_THREADS is not a number of threads."""


def given_threads() -> int | None:
    """OMP_NUM_THREADS as the process was given it, by a launch for one; None where it was not.

    For C's own `getenv` it is too late: where it is not set, MindSpore's import writes 1 there.

    Raises:
        ThreadsError: it is not a number of threads.
    """
    given = os.environ.get("OMP_NUM_THREADS")
    if not given:
        return None
    outermost = given.split(",")[0].strip()  # OpenMP takes a list, a number a level of nesting
    if not outermost.isdecimal() or int(outermost) < 1:
        raise ThreadsError(f"OMP_NUM_THREADS={given} must be a number of threads, at least 1")
    return int(outermost)
