"""Clipping of gradients by their global norm (Pascanu et al., 1211.5063, section 3.2)."""

import numpy as np
from mindspore import Tensor, float32, nn, ops

from ascend.device_matrix import Axis, device_matrix
from ascend.operators.collectives import SumOutputs, collective


class GlobalNorm(nn.Cell):
    """Euclidean norm of gradients taken as one vector, each counted once however it is laid out.

    Args:
        kinds: of each gradient, the axes that share it out: "tensor", "replica", both or none.

    Input: the ranks' own gradients, a tuple. Output: (1,) float32, equal on all ranks.
    """

    def __init__(self, kinds: tuple[tuple[str, ...], ...]):
        super().__init__()
        every = sorted(set(kinds))
        self.is_of_KN = Tensor([[kind == of for kind in kinds] for of in every])
        self.alone = device_matrix().ranks.size == 1
        shared = np.array([[axis in k for k in every] for axis in ("tensor", "replica")])
        self.tensor, self.replica = (Tensor(row, float32) for row in shared.astype(np.float32))
        nobody = Axis("nobody")  # where no gradient is shared out there is nothing to be summed
        axes = device_matrix().tensor, device_matrix().replica
        over = [axis if row.any() else nobody for axis, row in zip(axes, shared)]
        self.over_tensor, self.over_replicas = (collective(SumOutputs, axis) for axis in over)
        self.each = ops.HyperMap()

    def construct(self, gradients):
        squares_N = ops.concat(self.each(sum_of_squares, gradients))
        if self.alone:
            return ops.pow(ops.sum(squares_N, 0, True), 0.5)
        total_K = ops.sum(ops.where(self.is_of_KN, squares_N, ops.zeros_like(squares_N)), 1)
        everywhere_K = self.over_tensor(total_K)
        total_K = total_K + (everywhere_K - total_K) * self.tensor
        everywhere_K = self.over_replicas(total_K)
        total_K = total_K + (everywhere_K - total_K) * self.replica
        return ops.pow(ops.sum(total_K, 0, True), 0.5)


def sum_of_squares(x):
    """(1,), of a tensor of any shape."""
    return ops.sum(x * x).reshape((1,))


def clip_factor(norm, longest):
    """What a gradient of this norm is to be multiplied by, so that it is no longer than that."""
    return ops.clamp(longest / (norm + 1e-6), None, 1.0)
