"""Sending between neighbouring stages of a pipeline; of a batch, each stage sends and receives once
a direction."""

import mindspore as ms
from mindspore import nn, ops

from ascend.device_matrix import device_matrix


class SendOn(nn.Cell):
    """To the stage behind this one (``step`` 1) or before it (-1).

    CPUs have neither Send nor Receive: there, the two sum what the one has and the other's zeros.

    Input: x. Output: a number to depend on, so that x is sent.
    """

    def __init__(self, step: int):
        super().__init__()
        matrix = device_matrix()
        if ms.get_context("device_target") == "CPU":
            pair = matrix.behind if step > 0 else matrix.before
            self.send = ops.AllReduce(ops.ReduceOp.SUM, pair.group)
        else:
            to = matrix.pipeline.index + step
            self.send = ops.Send(0, to, matrix.pipeline.group, matrix.pipeline.group)

    def construct(self, x):
        return ops.depend(ops.zeros((1,), ms.float32), self.send(x))


class Receive(nn.Cell):
    """What the stage behind this one (``step`` 1) or before it (-1) sends.

    Inputs: its shape and type. Output: it.
    """

    def __init__(self, step: int):
        super().__init__()
        matrix = device_matrix()
        self.on_cpu = ms.get_context("device_target") == "CPU"
        self.sender, self.group = matrix.pipeline.index + step, matrix.pipeline.group
        if self.on_cpu:
            pair = matrix.behind if step > 0 else matrix.before
            self.reduce = ops.AllReduce(ops.ReduceOp.SUM, pair.group)

    def construct(self, shape, kind):
        if self.on_cpu:
            return self.reduce(ops.zeros(shape, kind))
        receive = ops.Receive(0, self.sender, shape, kind, self.group, self.group)
        return receive(ops.zeros((1,), kind))
