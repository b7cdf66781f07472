"""Parameters of which a rank holds a part, and their places in the whole."""

from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import ops

from ascend.device_matrix import Axis, DeviceMatrixError, device_matrix


@dataclass(frozen=True)
class Place:
    """Where a rank's part stands in a whole tensor.

    Attributes:
        shape: of the whole.
        start: first index along each axis.
    """

    shape: tuple[int, ...]
    start: tuple[int, ...]

    @classmethod
    def of_whole(cls, shape) -> "Place":
        return cls(tuple(shape), (0,) * len(shape))

    def cut(self, array: np.ndarray, part_shape) -> np.ndarray:
        """The part of a whole array."""
        return array[tuple(slice(s, s + n) for s, n in zip(self.start, part_shape))]

    def paste(self, array: np.ndarray, part: np.ndarray):
        """Write the part into a whole array."""
        array[tuple(slice(s, s + n) for s, n in zip(self.start, part.shape))] = part


class Part:
    """The part of a tensor that is left to a rank, split by split.

    Args:
        shape: of the whole.

    Attributes:
        shape: of the part.
        splits: (dimension, name of the axis) of each split so far.
    """

    def __init__(self, shape):
        self.whole, self.shape = tuple(shape), list(shape)
        self.start, self.splits = [0] * len(self.shape), ()

    def split(self, dimension: int, axis: Axis, what: str) -> "Part":
        """Leave this rank's share along a dimension.

        Raises:
            DeviceMatrixError: the axis does not divide the dimension; ``what`` names it.
        """
        share, rest = divmod(self.shape[dimension], axis.size)
        if rest:
            raise DeviceMatrixError(
                f"parallel.{axis.name}: {axis.size} ranks cannot share {what} of "
                f"{self.shape[dimension]}"
            )
        if axis.size > 1:
            self.splits += ((dimension, axis.name),)
        self.shape[dimension] = share
        self.start[dimension] += share * axis.index
        return self

    @property
    def place(self) -> Place:
        return Place(self.whole, tuple(self.start))

    def mark(self, parameter: ms.Parameter) -> ms.Parameter:
        """Note on a parameter of this part's shape what it is a part of."""
        parameter.place, parameter.splits = self.place, self.splits
        return parameter


def place_of(parameter: ms.Parameter) -> Place:
    """Where a parameter stands in the whole one; all of it where nothing was said."""
    return getattr(parameter, "place", None) or Place.of_whole(parameter.shape)


def splits_of(parameter: ms.Parameter) -> tuple[tuple[int, str], ...]:
    """(dimension, name of the axis) of each split that left this part of the whole one."""
    return getattr(parameter, "splits", ())


def axes_of(parameter: ms.Parameter) -> tuple[str, ...]:
    """Names of the axes that share a parameter out."""
    return tuple(axis for _, axis in splits_of(parameter))


def stages_of(parameter: ms.Parameter) -> tuple[int, ...]:
    """The pipeline's stages that hold a parameter; all of them where nothing was said."""
    return getattr(parameter, "stages", None) or tuple(range(device_matrix().pipeline.size))


def on_first_stage(parameter: ms.Parameter) -> bool:
    """Whether this stage is the first of those that hold a parameter."""
    return stages_of(parameter)[0] == device_matrix().pipeline.index


def is_first_holder(parameter: ms.Parameter) -> bool:
    """Whether this rank is the first of those that hold this part."""
    shared, matrix = axes_of(parameter), device_matrix()
    replicas = matrix.expert_replica if "expert" in shared else matrix.replica
    axes = (axis for axis in (matrix.tensor, replicas) if axis.name not in shared)
    return on_first_stage(parameter) and all(axis.first for axis in axes)


def mark_like(parameter: ms.Parameter, other: ms.Parameter) -> ms.Parameter:
    """Note on a parameter that it lies as another does."""
    parameter.place, parameter.splits = place_of(other), splits_of(other)
    parameter.stages = stages_of(other)
    return parameter


def whole_array(parameter: ms.Parameter) -> np.ndarray:
    """All of a parameter; every rank that holds a part of it has to call this."""
    array = parameter.asnumpy()
    for dimension, name in reversed(splits_of(parameter)):
        axis = getattr(device_matrix(), name)
        parts = np.zeros((axis.size, *array.shape), array.dtype)
        parts[axis.index] = array  # a sum, as CPUs gather among all ranks alone
        parts = ops.AllReduce(ops.ReduceOp.SUM, axis.group)(ms.Tensor(parts)).asnumpy()
        array = np.concatenate(list(parts), dimension)
    return array
