"""The log of a training, a JSON object a line, and the curves drawn from it."""

import json
from pathlib import Path

import numpy as np

from taichu.storage.tensor_file import is_disk_full


class TrainingLog:
    """Adds rows to a file; those that a full disk does not take are kept and tried again.

    Args:
        path: the file; created where it is not there.
    """

    def __init__(self, path: Path | str):
        self.path, self.unwritten = Path(path), b""

    def __enter__(self) -> "TrainingLog":
        self.file = self.path.open("ab", buffering=0)  # a row is in the file once it is written
        return self

    def __exit__(self, *error):
        self._write()
        self.file.close()

    def write(self, row: dict):
        """Add a row, after those that could not be written before."""
        self.unwritten += json.dumps(row).encode() + b"\n"
        self._write()

    def _write(self):
        try:
            while self.unwritten:  # a disk that is nearly full takes a part
                self.unwritten = self.unwritten[self.file.write(self.unwritten) :]
        except OSError as error:
            if not is_disk_full(error):
                raise


def read_log(path: Path | str) -> list[dict]:
    """Rows of a log; a last line cut off by a kill is left out."""
    return [row for row, _ in _rows_and_ends(path)]


def cut_log(path: Path | str, step: int):
    """Take the rows past a step off a log, which are to be written again.

    The file is shortened in place, which needs no room on the disk and cannot be left half done.
    """
    end = 0
    for row, row_end in _rows_and_ends(path):
        if row["step"] > step:
            break
        end = row_end
    with open(path, "rb+") as file:
        file.truncate(end)


def _rows_and_ends(path: Path | str) -> list[tuple[dict, int]]:
    """Rows, each with the place in the file at which it ends."""
    rows, end = [], 0
    for line in Path(path).read_bytes().splitlines(keepends=True):
        end += len(line)
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n"):
            break
        rows.append((row, end))
    return rows


def draw_curves(log: Path, picture: Path):
    """Draw every column of a log against the step; the picture before stays until it is whole."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in read_log(log) if "loss" in row]
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [n for n in names if n not in ("step", "seconds", "waited", "padding", "rate")]
    figure, axes = pyplot.subplots(1, max(1, len(names)), figsize=(3 * max(1, len(names)), 2.4))
    for axis, name in zip(np.atleast_1d(axes), names):
        points = [(row["step"], row[name]) for row in rows if name in row]
        axis.plot(*zip(*points), linewidth=0.8)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    partial = picture.with_name(picture.name + ".partial")
    figure.savefig(partial, dpi=80, format="png")
    partial.replace(picture)
    pyplot.close(figure)
