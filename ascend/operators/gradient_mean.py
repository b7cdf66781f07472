"""Gradients on their way from a rank's own loss to the mean of all replicas' losses."""

from mindspore import nn, ops

from ascend.device_matrix import device_matrix
from ascend.operators.collectives import ScatterSum, SumOutputs, collective
from ascend.operators.order import After

WHOLE, SUMMED, SHARED, EXPERTS = 0, 1, 2, 3


class GradientMean(nn.Cell):
    """The mean over the replicas.

    Args:
        kinds: of each gradient: WHOLE, of a parameter that every replica holds; SUMMED, of one
            whose rows are shared out, and whose gradient is the replicas' sum already; SHARED, of
            one that every replica holds and of which each updates its share of the rows: what
            comes out is the gradient of that share (ZeRO-1, 1910.02054, section 5.1); EXPERTS, of
            experts that ranks share out: it is the sum of what those ranks ask for already, and is
            summed over the others that hold the same experts.
        twice: of each gradient, whether both ends of a pipeline hold the parameter: its gradient is
            the sum of what they find.

    Input and output: gradients, a tuple.
    """

    def __init__(self, kinds: tuple[int, ...], twice: tuple[bool, ...]):
        super().__init__()
        self.twice = tuple(i for i, both in enumerate(twice) if both)
        self.over_ends = collective(SumOutputs, device_matrix().ends)
        self.after = After()
        axis = device_matrix().replica
        self.kinds, self.part = kinds, 1.0 / axis.size
        self.alone = axis.size == 1
        self.reduce, self.scatter = collective(SumOutputs, axis), collective(ScatterSum, axis)
        self.reduce_experts = collective(SumOutputs, device_matrix().expert_replica)
        self.each = ops.HyperMap()

    def construct(self, gradients):
        summed = gradients[0]
        for i in self.twice:  # few: the id tables
            summed = self.over_ends(self.after(gradients[i], summed))
            gradients = (*gradients[:i], summed, *gradients[i + 1 :])
        return self.each(self.of_one, self.kinds, gradients)

    def of_one(self, kind: int, gradient):
        if kind == WHOLE:
            gradient = self.reduce(gradient)
        if kind == SHARED:
            gradient = self.scatter(gradient)
        if kind == EXPERTS:
            gradient = self.reduce_experts(gradient)
        return gradient if self.alone else gradient * self.part
