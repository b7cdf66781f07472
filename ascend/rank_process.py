"""What msrun starts as each rank: runs the launched command, and notes how it began and ended.

    python -IS rank_process.py FOLDER SHARES PYTHON COMMAND...

FOLDER gets a line "NAME GROUP PROCESS" in ``started`` and "NAME CODE" in ``ended``; NAME is the
rank, or "scheduler", CODE the exit code or minus the signal. SHARES is among how many ranks of
this machine its cores are shared out, 0 not to bind any. The scheduler runs no COMMAND: PYTHON and
MindSpore are enough for it. Neither outlives msrun, nor msrun the launching process: whoever is
killed, nothing is left behind. Linux only, and of the standard library only: it starts at once.
"""

import ctypes
import os
import signal
import subprocess
import sys

SCHEDULER = "import mindspore.communication; mindspore.communication.init()"  # till all have left
PRCTL = ctypes.CDLL(None).prctl  # looked up once: not between fork and exec
PASSED_ON = (signal.SIGTERM, signal.SIGINT)  # told to the command alone, which may save


def end_with_parent():
    """Have this process killed when the one that started it ends."""
    PRCTL(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def share_of_cores(cores: list[int], place: int, shares: int) -> list[int]:
    """The cores of one rank: an equal run of them, or one that it shares where they are fewer."""
    if len(cores) < shares:
        return [cores[place % len(cores)]]
    return cores[place * len(cores) // shares : (place + 1) * len(cores) // shares]


def main(folder: str, shares: str, python: str, *command: str) -> int:
    end_with_parent()
    if os.path.exists(os.path.join(folder, "given_up")):  # before this process could be known of
        return 1
    name, code = os.environ["RANK_ID"], 1
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        name, shares, command = "scheduler", "0", (python, "-c", SCHEDULER)
    try:
        code = run(folder, int(shares), name, command)
    finally:
        note(folder, "ended", name, code)
    return code if code >= 0 else 128 - code


def run(folder: str, shares: int, name: str, command: tuple[str, ...]) -> int:
    if shares:
        cores = share_of_cores(sorted(os.sched_getaffinity(0)), int(name) % shares, shares)
        os.sched_setaffinity(0, cores)
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_IGN)
    process = subprocess.Popen(command, preexec_fn=prepare)
    note(folder, "started", name, os.getpgid(0), process.pid)
    return process.wait()


def prepare():
    end_with_parent()
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_DFL)


def note(folder: str, file: str, *words):
    line = " ".join(map(str, words)) + "\n"
    place = os.open(os.path.join(folder, file), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(place, line.encode())  # one write: lines of several ranks do not mix
    os.close(place)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
