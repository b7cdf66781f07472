"""Clipping of gradients by their global norm (Pascanu et al., 1211.5063, section 3.2)."""

import numpy as np
from mindspore import Tensor, nn, ops

from ascend.device_matrix import device_matrix
from ascend.operators.collectives import SumOutputs, collective
from ascend.operators.order import After


class GlobalNorm(nn.Cell):
    """Euclidean norm of gradients taken as one vector, each counted once however it is laid out.

    Args:
        kinds: of each gradient, the axes that share it out, of "tensor", "replica" and "expert"; or
            None, where another stage of the pipeline counts it.

    Input: the ranks' own gradients, a tuple. Output: (1,) float32, equal on all ranks.
    """

    def __init__(self, kinds: tuple[tuple[str, ...] | None, ...]):
        super().__init__()
        self.kinds = tuple(sorted({kind for kind in kinds if kind is not None}))
        self.kind_of = tuple(-1 if kind is None else self.kinds.index(kind) for kind in kinds)
        matrix, over, shared = device_matrix(), [], []
        for axis in (matrix.tensor, matrix.replica, matrix.expert):
            shares = np.array([axis.name in kind for kind in self.kinds], np.float32)
            if axis.size > 1 and shares.any():
                over.append(collective(SumOutputs, axis))
                shared.append(Tensor(shares))
        self.over, self.shared = nn.CellList(over), tuple(shared)
        self.over_stages, self.after = collective(SumOutputs, matrix.pipeline), After()

    def construct(self, gradients):
        squares, elsewhere = [()] * len(self.kinds), ()
        for i in range(len(gradients)):
            if self.kind_of[i] < 0:
                elsewhere += (gradients[i],)
                continue
            square = ops.sum(gradients[i] * gradients[i]).reshape((1,))
            squares[self.kind_of[i]] += (square,)
        sums = ()
        for of_kind in squares:
            sums += (ops.sum(ops.concat(of_kind), 0, True),)
        total = ops.concat(sums)
        for i in range(len(self.shared)):
            everywhere = self.over[i](total)
            total = total + (everywhere - total) * self.shared[i]
        total = ops.sum(total, 0, True)
        for gradient in elsewhere:  # the other stage has summed it first
            total = self.after(total, gradient)
        return ops.pow(self.over_stages(total), 0.5)


def clip_factor(norm, longest):
    """What a gradient of this norm is to be multiplied by, so that it is no longer than that."""
    return ops.clamp(longest / (norm + 1e-6), None, 1.0)
