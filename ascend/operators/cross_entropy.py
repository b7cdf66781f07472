"""Cross-entropy of each row against one target, the softmax over a range of ids of its own."""

import mindspore as ms
from mindspore import nn, ops

from ascend.operators.form import choose_form, kernel
from ascend.operators.masked import MASKED
from ascend.operators.narrow import narrow


class PlainCrossEntropy(nn.Cell):
    """-log softmax(logits[low:high])[target], a row at a time, in float32, without averaging.

    Inputs: logits (M, V) of any float type; targets (M,) int32; ranges (M, 2) int32, [low, high)
    with the target inside. Output: (M,) float32.
    """

    def __init__(self):
        super().__init__()
        self.narrow = narrow()

    def construct(self, logits_MV, targets_M, ranges_M2):
        ids_1V = ops.arange(logits_MV.shape[1]).astype(ms.int32).reshape((1, -1))
        low_M1, high_M1 = self.narrow(ranges_M2, 1, 0, 1), self.narrow(ranges_M2, 1, 1, 1)
        outside = ops.logical_or(ids_1V < low_M1, ids_1V >= high_M1).astype(ms.float32)
        log_p = ops.log_softmax(logits_MV.astype(ms.float32) + outside * MASKED, -1)
        return -ops.gather_elements(log_p, 1, targets_M.reshape((-1, 1))).reshape((-1,))


class CompiledCrossEntropy(nn.Cell):
    """The same function; reads only the range, and writes the gradient in one pass."""

    def __init__(self):
        super().__init__()
        self.core = _CompiledCrossEntropyCore()

    def construct(self, logits_MV, targets_M, ranges_M2):
        loss_M, _ = self.core(logits_MV, targets_M, ranges_M2)
        return loss_M


class _CompiledCrossEntropyCore(nn.Cell):
    """Returns the log-sum-exp too, which the gradient uses."""

    def __init__(self):
        super().__init__()
        self.forward = kernel(
            "cross_entropy",
            lambda logits, targets, ranges: (targets, targets),
            lambda logits, targets, ranges: (logits, logits),
        )
        self.backward = kernel(
            "cross_entropy_gradient",
            lambda logits, targets, ranges, log_sum, dloss: logits,
            lambda logits, targets, ranges, log_sum, dloss: logits,
        )

    def construct(self, logits, targets, ranges):
        return self.forward(logits, targets, ranges)

    def bprop(self, logits, targets, ranges, out, dout):
        dlogits = self.backward(logits, targets, ranges, out[1], dout[0])
        return dlogits, ops.zeros_like(targets), ops.zeros_like(ranges)


def cross_entropy(form: str | None = None) -> nn.Cell:
    """The cross-entropy Cell for the current device; see `PlainCrossEntropy` for its inputs."""
    return choose_form(form, plain=PlainCrossEntropy, compiled=CompiledCrossEntropy)
