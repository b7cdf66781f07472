"""One tensor in a safetensors file, mapped into memory: rows are read and written in place.

The library's own functions write a file from memory and in one go; this is for data of any size,
which several processes write. What is written is an ordinary file that any tool reads.
"""

import json
import math
from pathlib import Path

import numpy as np
import safetensors

from taichu.errors import CheckpointError

KINDS = {"F16": np.float16, "F32": np.float32, "I32": np.int32}


def create_mapped(path: Path, name: str, shape: tuple[int, ...], kind: str = "F16"):
    """Write a file of zeros to be filled through `open_mapped`."""
    size = math.prod(shape) * np.dtype(KINDS[kind]).itemsize
    entry = {"dtype": kind, "shape": list(shape), "data_offsets": [0, size]}
    header = json.dumps({name: entry}).encode()
    header += b" " * (-len(header) % 8)  # values are aligned
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)


def open_mapped(path: Path, name: str, writable: bool = False) -> np.ndarray:
    """The tensor of that name.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, "np") as file:  # checks sizes and offsets
            held = list(file.keys())
            part = file.get_slice(name) if held == [name] else None
            kind, shape = (part.get_dtype(), tuple(part.get_shape())) if part else (None, ())
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({' '.join(str(error).split())})") from None
    if kind not in KINDS:
        raise CheckpointError(f"{path}: must hold one tensor {name!r} of {', '.join(KINDS)}")
    if not math.prod(shape):
        return np.empty(shape, KINDS[kind])  # nothing cannot be mapped
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    return np.memmap(path, KINDS[kind], "r+" if writable else "r", start, shape)
