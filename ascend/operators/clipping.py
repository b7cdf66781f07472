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
        self.kinds = tuple(sorted(set(kinds)))
        self.kind_of = tuple(self.kinds.index(kind) for kind in kinds)
        self.alone = device_matrix().ranks.size == 1
        shared = np.array([[axis in k for k in self.kinds] for axis in ("tensor", "replica")])
        self.tensor, self.replica = (Tensor(row, float32) for row in shared.astype(np.float32))
        nobody = Axis("nobody")  # where no gradient is shared out there is nothing to be summed
        axes = device_matrix().tensor, device_matrix().replica
        over = [axis if row.any() else nobody for axis, row in zip(axes, shared)]
        self.over_tensor, self.over_replicas = (collective(SumOutputs, axis) for axis in over)

    def construct(self, gradients):
        squares = [()] * len(self.kinds)
        for i in range(len(gradients)):
            square = ops.sum(gradients[i] * gradients[i]).reshape((1,))
            squares[self.kind_of[i]] += (square,)
        sums = ()
        for of_kind in squares:
            sums += (ops.sum(ops.concat(of_kind), 0, True),)
        total = ops.concat(sums)
        if not self.alone:
            everywhere = self.over_tensor(total)
            total = total + (everywhere - total) * self.tensor
            everywhere = self.over_replicas(total)
            total = total + (everywhere - total) * self.replica
        return ops.pow(ops.sum(total, 0, True), 0.5)


def clip_factor(norm, longest):
    """What a gradient of this norm is to be multiplied by, so that it is no longer than that."""
    return ops.clamp(longest / (norm + 1e-6), None, 1.0)
