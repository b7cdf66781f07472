"""Sums of all rows up to each."""

from mindspore import mint, nn, ops

from ascend.operators.form import choose_form


class PlainRunningSum(nn.Cell):
    """The sum of each row and those before it. Input and output: (N, E) float."""

    def construct(self, x_NE):
        return ops.cumsum(x_NE, 0)


class AscendRunningSum(nn.Cell):
    """The same by aclnn's kernel; CumSum has a legacy one."""

    def construct(self, x_NE):
        return mint.cumsum(x_NE, 0)


def running_sum(form: str | None = None) -> nn.Cell:
    """The Cell for the current device; see `PlainRunningSum` for its inputs."""
    return choose_form(form, plain=PlainRunningSum, ascend=AscendRunningSum)
