"""Tensors in a file: atomic, checked byte by byte, never a pickle."""

import errno
import json
import math
import os
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save_file

from taichu.errors import CheckpointError, DiskFullError


def save_tensors(path: Path | str, tensors: dict[str, np.ndarray], notes: dict | None = None):
    """Write a safetensors file; it appears under its name only when it is whole.

    Its header holds a checksum of all of it, which takes a fraction of a second a gigabyte.

    Args:
        path: the file.
        tensors: name -> array.
        notes: JSON-able values kept in the file's header.

    Raises:
        DiskFullError: there is no room for it, or no quota; what was there before is left.
    """
    path, notes = Path(path), json.dumps(notes or {})
    partial = path.with_name(path.name + ".partial")
    # not ascontiguousarray, which makes a vector of a number
    tensors = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    header = {"format": "np", "notes": notes, "crc32": checksum(tensors, notes)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata=header)
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if not is_disk_full(error):
            raise
        raise disk_full(path, sum(value.nbytes for value in tensors.values())) from None


def disk_full(path: Path, needed: int) -> DiskFullError:
    """The error of a file of so many bytes for which there is no room."""
    there = next(folder for folder in path.parents if folder.is_dir())
    free = shutil.disk_usage(there).free
    return DiskFullError(
        f"{path}: the disk is full: {needed / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free"
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of room or quota; safetensors says so in words only."""
    number = getattr(error, "errno", None)
    if isinstance(error, safetensors.SafetensorError):
        said = re.search(r"\(os error (\d+)\)", str(error))
        number = int(said[1]) if said else None
    return number in (errno.ENOSPC, errno.EDQUOT)


def checksum(tensors: dict[str, np.ndarray], notes: str) -> str:
    """CRC-32, in hexadecimal, of the names, kinds, shapes and values of tensors, and of a text."""
    crc = zlib.crc32(notes.encode())
    for name, value in sorted(tensors.items()):
        crc = zlib.crc32(label(name, value.dtype, value.shape), crc)
        crc = zlib.crc32(value.reshape(-1).view(np.uint8), crc)
    return f"{crc:08x}"


def label(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """What a checksum takes of a tensor before its values."""
    return f"{name} {dtype} {tuple(shape)}".encode()


def load_tensors(path: Path | str) -> tuple[dict[str, np.ndarray], dict]:
    """Read a safetensors file and its notes.

    A file without a checksum, as other programs write it, is taken as it is.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, "np") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = header.get("notes", "{}")
        notes = json.loads(text)
    # of a type that NumPy lacks, or notes nested without end
    except (safetensors.SafetensorError, ValueError, TypeError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({' '.join(str(error).split())})") from None
    if "crc32" in header and checksum(tensors, text) != header["crc32"]:
        raise CheckpointError(f"{path}: damaged (its content does not give its checksum)")
    return tensors, notes


def count_values(path: Path | str) -> int:
    """How many numbers a safetensors file holds, by its header.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, "np") as file:
            names = file.keys()
            return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({' '.join(str(error).split())})") from None
