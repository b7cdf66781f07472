"""The one exception that bad media raises."""

from pathlib import Path


class MediaError(ValueError):
    """A media file (or string) cannot be read or written: which one, and why.

    `path` is the file and `reason` one line that a user can act on; the message is
    "path: reason".
    """

    def __init__(self, path: str | Path, reason: str):
        super().__init__(str(path), " ".join(reason.split()))  # both, so that it can be pickled

    @property
    def path(self) -> str:
        return self.args[0]

    @property
    def reason(self) -> str:
        return self.args[1]

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"
