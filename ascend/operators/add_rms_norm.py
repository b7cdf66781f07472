"""A residual sum and its root-mean-square normalisation (Zhang and Sennrich, 1910.07467, eq. 4)."""

import mindspore as ms
from mindspore import nn, ops

from ascend.operators.form import choose_form, kernel


class PlainAddRmsNorm(nn.Cell):
    """s = x + branch, y = s / sqrt(mean(s^2) + epsilon) * gain, computed in float32.

    Inputs: x, branch (N, D) of one type, gain (D,) float32. Outputs: s and y, (N, D) of that type.
    """

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = epsilon

    def construct(self, x_ND, branch_ND, gain_D):
        sum_ND = x_ND + branch_ND
        return sum_ND, rms_norm(sum_ND, gain_D, self.epsilon)


def rms_norm(x, gain, epsilon: float):
    """x in units of the root mean square of its last axis, times gain; of x's type."""
    wide = x.astype(ms.float32)
    mean = ops.sum(wide * wide, -1, True) * (1.0 / x.shape[-1])
    return (wide * ops.pow(mean + epsilon, -0.5) * gain).astype(x.dtype)


class AscendAddRmsNorm(nn.Cell):
    """The same by aclnn's RmsNorm, which computes in float32 inside."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = epsilon

    def construct(self, x_ND, branch_ND, gain_D):
        sum_ND = x_ND + branch_ND
        out_ND, _ = ops.rms_norm(sum_ND, gain_D.astype(sum_ND.dtype), self.epsilon)
        return sum_ND, out_ND


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
    return choose_form(
        form,
        epsilon,
        plain=PlainAddRmsNorm,
        compiled=CompiledAddRmsNorm,
        ascend=AscendAddRmsNorm,
    )
