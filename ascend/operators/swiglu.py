"""The gated activation of SwiGLU (Shazeer, 2002.05202, eq. 6): silu(gate) * up."""

from mindspore import nn, ops

from ascend.operators.form import choose_form, kernel


class PlainSwiglu(nn.Cell):
    """silu(gate) * up, elementwise. Inputs and output: (N, F), of one type."""

    def construct(self, gate_NF, up_NF):
        return ops.silu(gate_NF) * up_NF


class CompiledSwiglu(nn.Cell):
    """The same function in one pass, and its gradient in one."""

    def __init__(self):
        super().__init__()
        self.forward = kernel("swiglu", lambda gate, up: gate, lambda gate, up: gate)
        self.backward = kernel(
            "swiglu_gradient", lambda gate, up, dy: (gate, up), lambda gate, up, dy: (gate, up)
        )

    def construct(self, gate_NF, up_NF):
        return self.forward(gate_NF, up_NF)

    def bprop(self, gate, up, out, dout):
        dgate, dup = self.backward(gate, up, dout)
        return dgate, dup


class AscendSwiglu(nn.Cell):
    """The same by aclnn's Swiglu, which takes both side by side."""

    def construct(self, gate_NF, up_NF):
        return ops.swiglu(ops.concat((gate_NF, up_NF), -1))


def swiglu(form: str | None = None) -> nn.Cell:
    """The SwiGLU Cell for the current device; see `PlainSwiglu` for its inputs."""
    return choose_form(form, plain=PlainSwiglu, compiled=CompiledSwiglu, ascend=AscendSwiglu)
