"""Programs run as children: never longer than they may, and what they print is not trusted."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

MOST = 1_000_000  # bytes of a stream that are read


class Finished(NamedTuple):
    """How a child ended.

    Attributes:
        code: its exit code, -N when signal N ended it, None when it was not over in time.
        out, error: what it printed, control characters but line ends and tabs taken out.
    """

    code: int | None
    out: str
    error: str


def run_child(words: list[str], seconds: float, folder: Path | str | None = None) -> Finished:
    """Run a program and wait for it; its own children are ended with it when time is over.

    Args:
        words: the program and its arguments.
        seconds: the time it may take.
        folder: where it runs, this process's working folder by default.

    Raises:
        OSError: it cannot be started.
    """
    # files, not pipes: a grandchild that keeps a pipe open would keep us waiting
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        process = subprocess.Popen(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=error,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except BaseException as stop:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(stop, subprocess.TimeoutExpired):
                raise
            code = None
        return Finished(code, _read(out), _read(error))


def _read(stream) -> str:
    stream.seek(0)
    text = stream.read(MOST).decode("utf-8", "replace")
    return "".join(c for c in text if c.isprintable() or c in "\n\t")
