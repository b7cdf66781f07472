"""Parameters as tensors and back, checked name by name."""

from pathlib import Path

import mindspore as ms
import numpy as np

from ascend.sharding import place_of, whole_array
from taichu.errors import CheckpointError


def named_parameters(cell) -> dict[str, ms.Parameter]:
    """A cell's parameters by their path in it; ``Parameter.name`` changes with the parent."""
    return dict(cell.parameters_and_names())


def as_tensors(parameters: dict[str, ms.Parameter]) -> dict[str, np.ndarray]:
    """Parameters as whole arrays; where ranks hold parts of them, all ranks have to call this."""
    return {name: whole_array(parameter) for name, parameter in parameters.items()}


def load_parameters(
    parameters: dict[str, ms.Parameter], tensors: dict[str, np.ndarray], where: Path | str
):
    """Set every parameter, or the part of it that this rank holds, from ``tensors``, which must
    hold just these, whole.

    Raises:
        CheckpointError: a missing, extra or misshapen tensor, by name.
    """
    for name in sorted(set(parameters) - set(tensors)):
        raise CheckpointError(f"{where}: tensor {name!r} is missing")
    for name in sorted(set(tensors) - set(parameters)):
        raise CheckpointError(f"{where}: tensor {name!r} is not part of this model")
    for name, parameter in parameters.items():
        value, place = tensors[name], place_of(parameter)
        if tuple(value.shape) != place.shape:
            raise CheckpointError(
                f"{where}: tensor {name!r} has shape {list(value.shape)}, "
                f"the model wants {list(place.shape)}"
            )
        set_parameter(parameter, place.cut(value, parameter.shape))


def set_parameter(parameter: ms.Parameter, value: np.ndarray):
    """Set a parameter from an array of its shape and any number type."""
    dtype = ms.dtype_to_nptype(parameter.dtype)
    parameter.set_data(ms.Tensor(value.astype(dtype)))
