"""Root-mean-square normalisation (Zhang and Sennrich, 1910.07467, eq. 4)."""

import mindspore as ms
from mindspore import nn, ops

from ascend.operators.form import choose_form, kernel


class PlainRmsNorm(nn.Cell):
    """x / sqrt(mean(x^2) + epsilon) * gain. Inputs: x (N, D), gain (D,). Output: (N, D)."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = epsilon

    def construct(self, x_ND, gain_D):
        return x_ND * ops.rsqrt((x_ND * x_ND).mean(-1, True) + self.epsilon) * gain_D


class CompiledRmsNorm(nn.Cell):
    """The same function in one pass over x."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.core = _CompiledRmsNormCore(epsilon)

    def construct(self, x_ND, gain_D):
        out_ND, _ = self.core(x_ND, gain_D)
        return out_ND


class _CompiledRmsNormCore(nn.Cell):
    """Returns 1 / rms too, which the gradient uses."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = ms.Tensor([epsilon], ms.float32)
        self.forward = kernel(
            "rms_norm", lambda x, gain, epsilon: (x, x[:1]), lambda x, gain, epsilon: (x, x)
        )
        self.backward = kernel(
            "rms_norm_gradient",
            lambda x, gain, inverse, dy: (x, gain),
            lambda x, gain, inverse, dy: (x, gain),
        )

    def construct(self, x, gain):
        return self.forward(x, gain, self.epsilon)

    def bprop(self, x, gain, out, dout):
        dx, dgain = self.backward(x, gain, out[1], dout[0])
        return dx, dgain


def rms_norm(epsilon: float, form: str | None = None) -> nn.Cell:
    """The RMS-norm Cell for the current device; see `PlainRmsNorm` for its inputs."""
    return choose_form(PlainRmsNorm, CompiledRmsNorm, form, epsilon)
