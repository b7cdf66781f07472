"""What a check says, where checks look, and how they ask programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ascend.child import run_child

STATES = OK, MISSING, BROKEN, NOT_NEEDED = "ok", "missing", "broken", "not needed"
SECONDS = 10  # that a program may take to answer


class Finding(NamedTuple):
    """What a check finds: its state, one line of what is there, and what mends it."""

    state: str
    found: str
    remedy: str = ""


class Check(NamedTuple):
    """A finding with its name.

    Attributes:
        name: what was looked at, the same on every machine.
        state: one of STATES.
        found: one line: what is there.
        remedy: one line: the command or the deed that mends it; empty where nothing is to be.
    """

    name: str
    state: str
    found: str
    remedy: str


@dataclass(frozen=True)
class Places:
    """Where checks look; programs are looked for on the PATH.

    Attributes:
        devices: the folder of device files.
        ascend: where Huawei's installers put the driver and CANN.
        operators: where the compiled CPU kernels are.
        meminfo: the kernel's table of memory.
        work: where runs are written.
    """

    devices: Path = Path("/dev")
    ascend: Path = Path("/usr/local/Ascend")
    operators: Path = Path(__file__).parents[1] / "operators"
    meminfo: Path = Path("/proc/meminfo")
    work: Path = Path(".")


HERE = Places()


def ask(*words: str) -> tuple[str, str | None]:
    """What a program prints, and what went wrong with it: one line, or None."""
    try:
        done = run_child(list(words), SECONDS)
    except OSError as error:
        return "", f"{words[0]}: {error.strerror}"
    if done.code == 0:
        return done.out, None
    if done.code is None:
        return done.out, f"{words[0]}: no answer within {SECONDS} s"
    said = " ".join((done.error or done.out).split())[:200]
    return done.out, f"{words[0]}: exit code {done.code}{said and ': '}{said}"
