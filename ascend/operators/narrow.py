"""A stretch of a tensor along one axis."""

from mindspore import mint, nn, ops

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
    """The same as a view; slices have legacy kernels."""

    def construct(self, x, axis: int, start: int, length: int):
        return mint.narrow(x, axis, start, length)


def narrow(form: str | None = None) -> nn.Cell:
    """The Cell for the current device; see `PlainNarrow` for its inputs."""
    return choose_form(form, plain=PlainNarrow, ascend=AscendNarrow)
