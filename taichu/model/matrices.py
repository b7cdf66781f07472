"""The parts of matrices that a rank holds, as they start and as products read them."""

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.common.initializer import Normal, initializer

from ascend import operators
from ascend.device_matrix import Axis, device_matrix
from ascend.sharding import Part, Place, axes_of


def draw_matrix(
    shape: tuple[int, int], deviation: float, split: str | None = None, shared_out: bool = False
) -> ms.Parameter:
    """This rank's part of a matrix (O, I) of normally distributed numbers, which all ranks draw.

    Args:
        shape: of the whole matrix.
        split: "outputs" or "inputs", shared out over the tensor axis, or None.
        shared_out: whether replicas share out its rows where the layout says so (ZeRO-3) and their
            number allows it.
    """
    part, chosen = Part(shape), device_matrix()
    if split:
        part.split(0 if split == "outputs" else 1, chosen.tensor, f"{split} of a matrix")
    sharded = shared_out and chosen.shard == "parameters"
    sharded = sharded and part.shape[0] % chosen.replica.size == 0
    if sharded:
        part.split(0, chosen.replica, "rows")
    return draw(part, deviation)


def draw_experts(shape: tuple[int, int, int], deviation: float, split: str) -> ms.Parameter:
    """The same of one matrix for each expert, (E, O, I), which the expert axis shares out; replicas
    do not share their rows out besides (ZeRO-3)."""
    part = Part(shape).split(0, device_matrix().expert, "experts")
    part.split(1 if split == "outputs" else 2, device_matrix().tensor, f"{split} of a matrix")
    return draw(part, deviation)


def draw(part: Part, deviation: float) -> ms.Parameter:
    """A part of what all ranks draw alike."""
    drawn = initializer(Normal(deviation), part.whole, ms.float32)
    if part.place != Place.of_whole(part.shape):
        drawn = ms.Tensor(part.place.cut(drawn.init_data().asnumpy(), part.shape))
    return part.mark(ms.Parameter(drawn))


def zeros(outputs: int, split: str | None = None) -> ms.Parameter:
    """This rank's part of a bias; see `draw_matrix`."""
    part = Part((outputs,))
    if split == "outputs":
        part.split(0, device_matrix().tensor, "outputs of a matrix")
    return part.mark(ms.Parameter(np.zeros(part.shape, np.float32)))


def whole(parameter: ms.Parameter) -> nn.Cell:
    """The Cell that gives a parameter with the rows of all replicas."""
    axis = device_matrix().replica if "replica" in axes_of(parameter) else Axis("replica")
    return operators.collective(operators.GatherWeights, axis)
