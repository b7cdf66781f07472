"""Writing of a parameter inside a graph."""

from mindspore import nn, ops
from mindspore.ops.auto_generate import InplaceCopy

from ascend.operators.form import choose_form


class PlainAssign(nn.Cell):
    """parameter = value. Inputs: a `Parameter`, and its new value of the same shape and type."""

    def construct(self, parameter, value):
        return ops.assign(parameter, value)


class AscendAssign(nn.Cell):
    """The same by an aclnn kernel; Assign has a legacy one."""

    def __init__(self):
        super().__init__()
        self.copy = InplaceCopy()

    def construct(self, parameter, value):
        return self.copy(parameter, value)


def assign(form: str | None = None) -> nn.Cell:
    """The Cell for the current device; see `PlainAssign` for its inputs."""
    return choose_form(form, plain=PlainAssign, ascend=AscendAssign)
