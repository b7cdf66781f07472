"""Rows of a table by number: the embedding lookup, and the sum of rows of equal number.

Each is the other's gradient.
"""

from mindspore import mint, nn, ops

from ascend.operators.form import choose_form


class PlainLookUp(nn.Cell):
    """table[numbers]. Inputs: table (V, D), numbers (n,) int32 below V. Output: (n, D)."""

    def construct(self, table_VD, numbers_n):
        return ops.gather(table_VD, numbers_n, 0)

    def bprop(self, table_VD, numbers_n, out, dout_nD):
        dtable_VD = ops.unsorted_segment_sum(dout_nD, numbers_n, table_VD.shape[0])
        return dtable_VD, ops.zeros_like(numbers_n)


class AscendLookUp(nn.Cell):
    """The same by aclnn kernels; Gather has a legacy one."""

    def construct(self, table_VD, numbers_n):
        return mint.index_select(table_VD, 0, numbers_n)

    def bprop(self, table_VD, numbers_n, out, dout_nD):
        zeros_VD = mint.zeros(table_VD.shape, dtype=dout_nD.dtype)
        return mint.index_add(zeros_VD, 0, numbers_n, dout_nD), ops.zeros_like(numbers_n)


class PlainSumRows(nn.Cell):
    """Sum of the rows of each number 0 .. count - 1.

    The gradient of MindSpore's own operator looks for negative numbers, in four passes over x.

    Inputs: x (n, D), numbers (n,) int32 from 0 and below count; count, an integer. Output:
    (count, D).
    """

    def construct(self, x_nD, numbers_n, count: int):
        return ops.unsorted_segment_sum(x_nD, numbers_n, count)

    def bprop(self, x_nD, numbers_n, count, out, dout):
        return ops.gather(dout, numbers_n, 0), ops.zeros_like(numbers_n), 0


class AscendSumRows(nn.Cell):
    """The same by aclnn kernels; UnsortedSegmentSum has a legacy one."""

    def construct(self, x_nD, numbers_n, count: int):
        zeros_SD = mint.zeros((count, x_nD.shape[1]), dtype=x_nD.dtype)
        return mint.index_add(zeros_SD, 0, numbers_n, x_nD)

    def bprop(self, x_nD, numbers_n, count, out, dout):
        return mint.index_select(dout, 0, numbers_n), ops.zeros_like(numbers_n), 0


def look_up(form: str | None = None) -> nn.Cell:
    """The lookup's Cell for the current device; see `PlainLookUp` for its inputs."""
    return choose_form(form, plain=PlainLookUp, ascend=AscendLookUp)


def sum_rows(form: str | None = None) -> nn.Cell:
    """The sum's Cell for the current device; see `PlainSumRows` for its inputs."""
    return choose_form(form, plain=PlainSumRows, ascend=AscendSumRows)
