"""Clipping of gradients by their global norm (Pascanu et al., 1211.5063, section 3.2)."""

import numpy as np
from mindspore import Tensor, nn, ops

from ascend.device_matrix import device_matrix
from ascend.operators.collectives import SumOutputs, collective


class GlobalNorm(nn.Cell):
    """Euclidean norm of gradients taken as one vector, each counted once however it is laid out.

    Args:
        kinds: of each gradient, the axes that share it out, of "tensor", "replica" and "expert"; or
            None, where another stage of the pipeline counts it.

    Input: the ranks' own gradients, a tuple. Output: (1,) float32, equal on all ranks.
    """

    def __init__(self, kinds: tuple[tuple[str, ...] | None, ...]):
        super().__init__()
        every = sorted({kind for kind in kinds if kind is not None})
        self.is_of_KN = Tensor([[kind == of for kind in kinds] for of in every])
        matrix, over, shared = device_matrix(), [], []
        for axis in (matrix.tensor, matrix.replica, matrix.expert):
            shares = np.array([axis.name in kind for kind in every], np.float32)
            if axis.size > 1 and shares.any():
                over.append(collective(SumOutputs, axis))
                shared.append(Tensor(shares))
        self.over, self.shared = nn.CellList(over), tuple(shared)
        self.alike = not over and None not in kinds
        self.over_stages, self.each = collective(SumOutputs, matrix.pipeline), ops.HyperMap()

    def construct(self, gradients):
        # of all, also where another stage counts it: that stage has summed it first
        squares_N = ops.concat(self.each(sum_of_squares, gradients))
        if self.alike:
            return ops.pow(self.over_stages(ops.sum(squares_N, 0, True)), 0.5)
        total_K = ops.sum(ops.where(self.is_of_KN, squares_N, ops.zeros_like(squares_N)), 1)
        for i in range(len(self.shared)):
            everywhere_K = self.over[i](total_K)
            total_K = total_K + (everywhere_K - total_K) * self.shared[i]
        return ops.pow(self.over_stages(ops.sum(total_K, 0, True)), 0.5)


def sum_of_squares(x):
    """(1,), of a tensor of any shape."""
    return ops.sum(x * x).reshape((1,))


def clip_factor(norm, longest):
    """What a gradient of this norm is to be multiplied by, so that it is no longer than that."""
    return ops.clamp(longest / (norm + 1e-6), None, 1.0)
