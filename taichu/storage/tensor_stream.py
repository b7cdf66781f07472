"""Safetensors files read and written part by part: no tensor is ever whole in memory."""

import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors

from taichu.errors import CheckpointError
from taichu.storage.float_kinds import RAW, narrow, widen
from taichu.storage.tensor_file import disk_full, is_disk_full, label

PART = 1 << 20  # numbers that are in memory at a time


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        kind: of its numbers, as the file names it.
        start: of its first byte in the file. nbytes: how many it has.
    """

    path: Path
    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    def read(self, count: int | None = None) -> Iterator[np.ndarray]:
        """Its numbers in order, or the first of them, float32, part by part.

        Raises:
            CheckpointError: they are of a kind that is not read, or the file has shrunk.
        """
        if self.kind not in RAW:
            raise CheckpointError(
                f"{self.path}: tensor {self.name!r} is {self.kind}; it must be {', '.join(RAW)}"
            )
        left = math.prod(self.shape) if count is None else count
        with open(self.path, "rb") as file:
            file.seek(self.start)
            while left:
                raw = np.fromfile(file, np.dtype(RAW[self.kind]), min(left, PART))
                if not len(raw):
                    raise CheckpointError(f"{self.path}: ends within tensor {self.name!r}")
                left -= len(raw)
                yield widen(raw, self.kind)


def list_tensors(path: Path | str) -> tuple[dict[str, StoredTensor], dict]:
    """What a file holds, by its header alone, and the header's notes.

    Raises:
        CheckpointError: the file is missing or damaged: sizes and places do not fit its own size.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, "np"):
            pass  # it checks the header's size, and every tensor's
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({' '.join(str(error).split())})") from None
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    notes, found = header.pop("__metadata__", {}), {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        place = 8 + length + first, end - first
        found[name] = StoredTensor(path, name, entry["dtype"], shape, *place)
    return found, notes


def check_stream(path: Path | str) -> dict[str, StoredTensor]:
    """The same of a file with a checksum, which is compared with all that it holds.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    tensors, notes = list_tensors(path)
    if "crc32" in notes:
        crc = zlib.crc32(notes.get("notes", "{}").encode())
        for name, tensor in sorted(tensors.items()):
            crc = zlib.crc32(label(name, np.dtype(np.float32), tensor.shape), crc)
            for part in tensor.read():
                crc = zlib.crc32(part.view(np.uint8), crc)
        if notes["crc32"] != f"{crc:08x}":
            raise CheckpointError(f"{path}: damaged (its content does not give its checksum)")
    return tensors


@dataclass(frozen=True)
class Streamed:
    """A tensor to be written.

    Attributes:
        kind: of its numbers in the file.
        read: gives them in order, float32, part by part.
    """

    kind: str
    shape: tuple[int, ...]
    read: Callable[[], Iterable[np.ndarray]]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(RAW[self.kind]).itemsize

    @classmethod
    def of(cls, array: np.ndarray) -> "Streamed":
        """An array, as float32."""
        values = np.asarray(array, np.float32, order="C")
        return cls("F32", values.shape, lambda: [values.reshape(-1)])


def write_stream(path: Path | str, tensors: dict[str, Streamed], metadata: dict | None = None):
    """Write a safetensors file tensor by tensor; it appears under its name only when it is whole.

    Args:
        path: the file.
        tensors: by name.
        metadata: of the header; by default what `taichu.storage.tensor_file.save_tensors` writes,
            a checksum among it, for tensors of float32.

    Raises:
        DiskFullError: there is no room for it. OverflowError: a number is too large for its kind;
            it names the tensor.
    """
    path, checked = Path(path), metadata is None
    notes = {"format": "np", "notes": "{}", "crc32": "0" * 8} if checked else metadata
    partial, crc = path.with_name(path.name + ".partial"), zlib.crc32(b"{}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(_header(tensors, notes))
            for name, tensor in _ordered(tensors):
                crc = zlib.crc32(label(name, np.dtype(np.float32), tensor.shape), crc)
                for raw in _parts(name, tensor):
                    crc = zlib.crc32(raw.view(np.uint8), crc) if checked else crc
                    file.write(raw)
            if checked:  # it is known last, and takes the place that was left for it
                file.seek(0)
                file.write(_header(tensors, notes | {"crc32": f"{crc:08x}"}))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if not is_disk_full(error):
            raise
        raise disk_full(path, sum(tensor.nbytes for tensor in tensors.values())) from None


def _parts(name: str, tensor: Streamed) -> Iterator[np.ndarray]:
    """A tensor's numbers as the file holds them."""
    written = 0
    for part in tensor.read():
        try:
            raw = narrow(part, tensor.kind)
        except OverflowError as error:
            raise OverflowError(f"tensor {name!r}: {error}") from None
        written += raw.nbytes
        yield raw
    assert written == tensor.nbytes, name


def _ordered(tensors: dict[str, Streamed]) -> list[tuple[str, Streamed]]:
    """By name, those of wide numbers first: so all are aligned."""

    def width(kind: str) -> int:
        return np.dtype(RAW[kind]).itemsize

    return sorted(tensors.items(), key=lambda item: (-width(item[1].kind), item[0]))


def _header(tensors: dict[str, Streamed], metadata: dict) -> bytes:
    entries, end = {"__metadata__": metadata}, 0
    for name, tensor in _ordered(tensors):
        first, end = end, end + tensor.nbytes
        place = {"shape": list(tensor.shape), "data_offsets": [first, end]}
        entries[name] = {"dtype": tensor.kind, **place}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)  # values are aligned
    return len(header).to_bytes(8, "little") + header
