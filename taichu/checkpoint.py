"""Saving and loading of tensors: atomic, checked name by name, never a pickle."""

import json
import math
import os
from pathlib import Path

import mindspore as ms
import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

from taichu.errors import CheckpointError


def save_tensors(path: Path | str, tensors: dict[str, np.ndarray], notes: dict | None = None):
    """Write a safetensors file; it appears under its name only when it is whole.

    Args:
        path: the file.
        tensors: name -> array.
        notes: JSON-able values kept in the file's header.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    # not ascontiguousarray, which makes a vector of a number
    tensors = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    save_file(tensors, partial, metadata={"format": "np", "notes": json.dumps(notes or {})})
    with partial.open("rb+") as written:
        os.fsync(written.fileno())
    partial.replace(path)


def load_tensors(path: Path | str) -> tuple[dict[str, np.ndarray], dict]:
    """Read a safetensors file and its notes.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, "np") as file:
            notes = json.loads((file.metadata() or {}).get("notes", "{}"))
        return load_file(path), notes
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({' '.join(str(error).split())})") from None


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


def named_parameters(cell) -> dict[str, ms.Parameter]:
    """A cell's parameters by their path in it; ``Parameter.name`` changes with the parent."""
    return dict(cell.parameters_and_names())


def as_tensors(parameters: dict[str, ms.Parameter]) -> dict[str, np.ndarray]:
    """Parameters as arrays."""
    return {name: parameter.asnumpy() for name, parameter in parameters.items()}


def load_parameters(
    parameters: dict[str, ms.Parameter], tensors: dict[str, np.ndarray], where: Path | str
):
    """Set every parameter from ``tensors``, which must hold just these.

    Raises:
        CheckpointError: a missing, extra or misshapen tensor, by name.
    """
    for name in sorted(set(parameters) - set(tensors)):
        raise CheckpointError(f"{where}: tensor {name!r} is missing")
    for name in sorted(set(tensors) - set(parameters)):
        raise CheckpointError(f"{where}: tensor {name!r} is not part of this model")
    for name, parameter in parameters.items():
        value = tensors[name]
        if tuple(value.shape) != tuple(parameter.shape):
            raise CheckpointError(
                f"{where}: tensor {name!r} has shape {list(value.shape)}, "
                f"the model wants {list(parameter.shape)}"
            )
        dtype = ms.dtype_to_nptype(parameter.dtype)
        parameter.set_data(ms.Tensor(value.astype(dtype)))
