"""Parts of a model that are held by some stages of a pipeline."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend.device_matrix import device_matrix
from ascend.sharding import on_first_stage, place_of, whole_array
from taichu.storage.checkpoint import named_parameters


class Elsewhere(nn.Cell):
    """Stands for a part that other stages hold.

    Attributes:
        shapes: of its parameters, by their path in it; of a single parameter by "".
    """

    def __init__(self, part: nn.Cell | ms.Parameter):
        super().__init__()
        held = {"": part} if isinstance(part, ms.Parameter) else named_parameters(part)
        self.shapes = {name: place_of(parameter).shape for name, parameter in held.items()}


def keep(part: nn.Cell | ms.Parameter, *stages: int):
    """The part, where this stage is one of those that hold it, else an `Elsewhere`.

    It is made on every stage, so that all draw the numbers that it starts with alike.
    """
    if device_matrix().pipeline.index not in stages:
        return Elsewhere(part)
    parameters = [part] if isinstance(part, ms.Parameter) else part.get_parameters()
    for parameter in parameters:
        parameter.stages = tuple(sorted(set(stages)))
    return part


def shapes_elsewhere(cell: nn.Cell) -> dict[str, tuple[int, ...]]:
    """Whole shapes of the parameters that other stages hold, by their path in the cell."""
    found = {}
    for path, part in cell.cells_and_names():
        if isinstance(part, Elsewhere):
            found.update({f"{path}.{n}" if n else path: s for n, s in part.shapes.items()})
    return found


def gather_tensors(cell: nn.Cell) -> dict[str, np.ndarray]:
    """All parameters of a model, whole, by their path in it; every rank has to call this."""
    held, elsewhere = named_parameters(cell), shapes_elsewhere(cell)
    pipeline, found = device_matrix().pipeline, {}
    for name in sorted({*held, *elsewhere}):
        if name in held:
            found[name] = whole_array(held[name])
        if pipeline.size > 1:
            ours = name in held and on_first_stage(held[name])
            sent = found[name] if ours else np.zeros(elsewhere.get(name) or found[name].shape)
            sum_stages = ops.AllReduce(ops.ReduceOp.SUM, pipeline.group)
            found[name] = sum_stages(ms.Tensor(sent, ms.float32)).asnumpy()
    return found
