"""Gradients on their way from a rank's own loss to the mean of all replicas' losses."""

from mindspore import nn, ops

from ascend.device_matrix import device_matrix
from ascend.operators.collectives import ScatterSum

WHOLE, SUMMED, SHARED = 0, 1, 2


class GradientMean(nn.Cell):
    """The mean over the replicas.

    Args:
        kinds: of each gradient: WHOLE, of a parameter that every replica holds; SUMMED, of one
            whose rows are shared out, and whose gradient is the replicas' sum already; SHARED, of
            one that every replica holds and of which each updates its share of the rows: what
            comes out is the gradient of that share (ZeRO-1, 1910.02054, section 5.1).

    Input and output: gradients, a tuple.
    """

    def __init__(self, kinds: tuple[int, ...]):
        super().__init__()
        axis = device_matrix().replica
        self.kinds, self.part = kinds, 1.0 / axis.size
        self.alone = axis.size == 1
        if not self.alone:
            self.reduce, self.scatter = (
                ops.AllReduce(ops.ReduceOp.SUM, axis.group),
                ScatterSum(axis),
            )
        self.each = ops.HyperMap()

    def construct(self, gradients):
        if self.alone:
            return gradients
        return self.each(self.of_one, self.kinds, gradients)

    def of_one(self, kind: int, gradient):
        if kind == WHOLE:
            gradient = self.reduce(gradient)
        if kind == SHARED:
            gradient = self.scatter(gradient)
        return gradient * self.part
