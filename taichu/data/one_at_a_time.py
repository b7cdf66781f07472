"""Work that processes of one machine, or of one shared file system, do one after the other."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_at_a_time(folder: Path | str) -> Iterator[None]:
    """Wait until no other process is in here for the same folder, which is made where it is not.

    What the first has done, the next ones find; a process that dies lets the next one in.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
