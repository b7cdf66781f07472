"""Which numbers of each row are the largest."""

import mindspore as ms
from mindspore import mint, nn, ops

from ascend.operators.form import choose_form


class PlainLargest(nn.Cell):
    """Places of the ``count`` largest numbers of each row, the largest first; no gradient.

    Inputs: x (N, E); count, an integer. Output: (N, count) int32.
    """

    def construct(self, x_NE, count: int):
        _, places = ops.topk(ops.stop_gradient(x_NE), count)
        return places


class AscendLargest(nn.Cell):
    """The same by aclnn's kernel; TopK has a legacy one."""

    def construct(self, x_NE, count: int):
        _, places = mint.topk(ops.stop_gradient(x_NE), count)
        return places.astype(ms.int32)


def largest(form: str | None = None) -> nn.Cell:
    """The Cell for the current device; see `PlainLargest` for its inputs."""
    return choose_form(form, plain=PlainLargest, ascend=AscendLargest)
