"""The factor of the loss that float16 wants."""

import mindspore as ms
from mindspore import nn, ops

from ascend.operators.assign import assign


class LossScale(nn.Cell):
    """A factor of the loss that keeps float16 gradients from vanishing (1710.03740, section 3.2).

    Halved by a step whose gradients are not finite, doubled after ``window`` steps that were.

    Args:
        start: the factor at first. window: steps.

    Input: the gradients' global norm (1,). Output: whether it is finite, (1,) bool.
    """

    def __init__(self, start: float = 2.0**16, window: int = 1000):
        super().__init__()
        self.scale = ms.Parameter(ms.Tensor([start], ms.float32), "loss_scale", False)
        self.good = ms.Parameter(ms.Tensor([0.0], ms.float32), "loss_scale_good", False)
        self.window = window
        self.assign = assign()

    def construct(self, norm):
        finite = ops.isfinite(norm)
        good = self.good + 1.0
        full = good >= self.window
        grown = ops.where(full, self.scale * 2.0, self.scale)
        scale = ops.where(finite, grown, self.scale * 0.5)
        # 1 is as good as no scale, and beyond 2^24 the loss itself leaves float32's whole numbers
        scale = ops.clamp(scale, 1.0, 2.0**24)
        good = ops.where(ops.logical_or(full, ops.logical_not(finite)), ops.zeros_like(good), good)
        done = self.assign(self.scale, scale)
        return ops.depend(finite, (done, self.assign(self.good, good)))


def scale_loss(loss, loss_scale: LossScale | None):
    """The loss, a number, times the scale where there is one."""
    return loss if loss_scale is None else loss * loss_scale.scale.reshape(())
