"""A stretch of a tensor along one axis."""

from mindspore import nn, ops
from mindspore.ops.auto_generate import SplitWithSize

from ascend.operators.form import choose_form


class PlainNarrow(nn.Cell):
    """x[..., start : start + length, ...] along an axis.

    Inputs: x; axis, start and length, integers that are known when the graph is built.
    """

    def construct(self, x, axis: int, start: int, length: int):
        begin, size = [0] * x.ndim, list(x.shape)
        begin[axis], size[axis] = start, length
        return ops.slice(x, tuple(begin), tuple(size))


class AscendNarrow(nn.Cell):
    """The same by aclnn's SplitWithSize; slices have legacy kernels.

    Not a view, ``mint.narrow``: of two parameters that are viewed alike, MindSpore's compiler takes
    one for the other, and a network's head is trained on the gradient of its table.
    """

    def __init__(self):
        super().__init__()
        self.split = SplitWithSize()

    def construct(self, x, axis: int, start: int, length: int):
        sizes = ()
        for size in (start, length, x.shape[axis] - start - length):
            if size > 0:
                sizes += (size,)
        if len(sizes) == 1:
            return x
        return self.split(x, sizes, axis)[1 if start > 0 else 0]


def narrow(form: str | None = None) -> nn.Cell:
    """The Cell for the current device; see `PlainNarrow` for its inputs."""
    return choose_form(form, plain=PlainNarrow, ascend=AscendNarrow)
