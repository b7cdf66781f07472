"""A residual sum and its root-mean-square normalisation (Zhang and Sennrich, 1910.07467, eq. 4)."""

import mindspore as ms
from mindspore import nn, ops

from ascend.operators.form import choose_form, kernel


class PlainAddRmsNorm(nn.Cell):
    """s = x + branch, y = s / sqrt(mean(s^2) + epsilon) * gain.

    Inputs: x, branch (N, D), gain (D,). Outputs: s and y, (N, D).
    """

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = epsilon

    def construct(self, x_ND, branch_ND, gain_D):
        sum_ND = x_ND + branch_ND
        return sum_ND, normalise(sum_ND, self.epsilon) * gain_D


def normalise(x, epsilon: float):
    """x in units of the root mean square of its last axis."""
    return x * ops.rsqrt((x * x).mean(-1, True) + epsilon)


class CompiledAddRmsNorm(nn.Cell):
    """The same function in one pass; its gradient adds the sum's own in the same pass."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.core = _CompiledAddRmsNormCore(epsilon)

    def construct(self, x_ND, branch_ND, gain_D):
        sum_ND, out_ND, _ = self.core(x_ND, branch_ND, gain_D)
        return sum_ND, out_ND


class _CompiledAddRmsNormCore(nn.Cell):
    """Returns 1 / rms too, which the gradient uses."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = ms.Tensor([epsilon], ms.float32)
        self.forward = kernel(
            "add_rms_norm",
            lambda x, branch, gain, epsilon: (x, x, x[:1]),
            lambda x, branch, gain, epsilon: (x, x, x),
        )
        self.backward = kernel(
            "add_rms_norm_gradient",
            lambda sum, gain, inverse, dsum, dy: (sum, gain),
            lambda sum, gain, inverse, dsum, dy: (sum, gain),
        )

    def construct(self, x, branch, gain):
        return self.forward(x, branch, gain, self.epsilon)

    def bprop(self, x, branch, gain, out, dout):
        dx, dgain = self.backward(out[0], gain, out[2], dout[0], dout[1])
        return dx, dx, dgain


def add_rms_norm(epsilon: float, form: str | None = None) -> nn.Cell:
    """The Cell for the current device; see `PlainAddRmsNorm` for its inputs."""
    return choose_form(PlainAddRmsNorm, CompiledAddRmsNorm, form, epsilon)
