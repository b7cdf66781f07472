"""Collectives between ranks, each with its adjoint as gradient; alone, each does nothing.

MindSpore's own gradients are of other losses: AllReduce's is AllReduce, right for a loss that is
the sum of the ranks', not for one that all of them hold.
"""

import mindspore as ms
from mindspore import nn, ops

from ascend.device_matrix import Axis, device_matrix
from ascend.operators.narrow import narrow
from ascend.precision import compute_type


class Same(nn.Cell):
    """What a collective is for one rank."""

    def construct(self, x):
        return x


class SumOutputs(nn.Cell):
    """The sum of the ranks' x, which all of them then hold; each gets the gradient of it.

    Closes what `SumGradients` opens (Megatron-LM, 1909.08053, figure 3: g).
    """

    def __init__(self, axis: Axis):
        super().__init__()
        self.reduce = ops.AllReduce(ops.ReduceOp.SUM, axis.group)

    def construct(self, x):
        return self.reduce(x)

    def bprop(self, x, out, dout):
        return (dout,)


class SumGradients(nn.Cell):
    """x, which all ranks hold, on its way into work that they share; its gradient is the sum of
    what each finds (1909.08053, figure 3: f)."""

    def __init__(self, axis: Axis):
        super().__init__()
        self.reduce = ops.AllReduce(ops.ReduceOp.SUM, axis.group)

    def construct(self, x):
        return x

    def bprop(self, x, out, dout):
        return (self.reduce(dout),)


class _SummedGather(nn.Cell):
    """A gather by way of a sum, for CPUs, which gather among all ranks alone."""

    def __init__(self, axis: Axis):
        super().__init__()
        self.index, self.size = axis.index, axis.size
        self.reduce = ops.AllReduce(ops.ReduceOp.SUM, axis.group)

    def construct(self, x):
        parts = ()
        for i in range(self.size):
            parts += (x if i == self.index else ops.zeros_like(x),)
        return self.reduce(ops.concat(parts))


def _gather(axis: Axis):
    on_cpu = ms.get_context("device_target") == "CPU"
    if on_cpu and axis.size < device_matrix().ranks.size:
        return _SummedGather(axis)
    return ops.AllGather(axis.group)


class GatherRows(nn.Cell):
    """The ranks' x (n, ...) one behind the other, (size * n, ...); the gradient of each rank's is
    the sum of what all find for it."""

    def __init__(self, axis: Axis):
        super().__init__()
        self.gather, self.scatter = _gather(axis), ScatterSum(axis)

    def construct(self, x):
        return self.gather(x)

    def bprop(self, x, out, dout):
        return (self.scatter(dout),)


class GatherWeights(nn.Cell):
    """The same of parts of a weight (ZeRO-3, 1910.02054): what is sent is of the compute type, the
    gradients are summed in float32."""

    def __init__(self, axis: Axis):
        super().__init__()
        self.type = compute_type()
        self.gather, self.scatter = _gather(axis), ScatterSum(axis)

    def construct(self, x):
        return self.gather(x.astype(self.type))

    def bprop(self, x, out, dout):
        return (self.scatter(dout.astype(ms.float32)),)


class ScatterSum(nn.Cell):
    """The sum of the ranks' x (size * n, ...), of which each rank keeps its n rows.

    On CPUs, where there is no ReduceScatter, all of the sum is made everywhere first.
    """

    def __init__(self, axis: Axis):
        super().__init__()
        self.index, self.size = axis.index, axis.size
        self.on_cpu = ms.get_context("device_target") == "CPU"
        if self.on_cpu:
            self.reduce, self.narrow = ops.AllReduce(ops.ReduceOp.SUM, axis.group), narrow()
        else:
            self.reduce = ops.ReduceScatter(ops.ReduceOp.SUM, axis.group)

    def construct(self, x):
        if not self.on_cpu:
            return self.reduce(x)
        n = x.shape[0] // self.size
        return self.narrow(self.reduce(x), 0, self.index * n, n)


class Swap(nn.Cell):
    """An all-to-all: the ranks, of which each holds its share along one dimension, share out
    another instead.

    Of heads and tokens it is Ulysses' (2309.14509, figure 2), of experts and rows GShard's
    (2006.16668, section 3.2).

    Args:
        axis: of the ranks.
        split: the dimension of which each rank keeps its share.
        join: the one of which each then holds all, the ranks' shares one behind the other.
    """

    def __init__(self, axis: Axis, split: int, join: int):
        super().__init__()
        self.there, self.back = _swap(axis, split, join), _swap(axis, join, split)

    def construct(self, x):
        return self.there(x)

    def bprop(self, x, out, dout):
        return (self.back(dout),)


class _GatheredSwap(nn.Cell):
    """An all-to-all by way of everything everywhere, for CPUs, where there is none."""

    def __init__(self, axis: Axis, split: int, join: int):
        super().__init__()
        self.axis, self.size, self.split, self.join = axis.index, axis.size, split, join
        self.gather, self.narrow = _gather(axis), narrow()

    def construct(self, x):
        n = x.shape[self.split] // self.size
        B, every = x.shape[0], self.gather(x)
        parts = ()
        for i in range(self.size):
            of_rank = self.narrow(every, 0, i * B, B)
            parts += (self.narrow(of_rank, self.split, self.axis * n, n),)
        return ops.concat(parts, self.join)


def _swap(axis: Axis, split: int, join: int):
    if ms.get_context("device_target") == "CPU":
        return _GatheredSwap(axis, split, join)
    return ops.AlltoAll(axis.size, split, join, axis.group)


def collective(kind: type[nn.Cell], axis: Axis, *settings) -> nn.Cell:
    """The Cell of a collective over an axis, or one that does nothing where the rank is alone."""
    return kind(axis, *settings) if axis.size > 1 else Same()
