"""Rotary position (Su et al., 2104.09864, eq. 34), in the half-split layout of LLaMA and Qwen."""

import mindspore as ms
from mindspore import nn, ops

from ascend.operators.add_rms_norm import rms_norm
from ascend.operators.form import choose_form, kernel


class PlainRotary(nn.Cell):
    """Turn each pair (x[k], x[k + K/2]) by its angle, in float32.

    Inputs: x (N, H, K); cos, sin (N, K/2) float32. Output: (N, H, K) of x's type.
    """

    def __init__(self):
        super().__init__()
        self.split = ops.Split(-1, 2)

    def construct(self, x_NHK, cos_NK, sin_NK):
        first, second = self.split(x_NHK.astype(ms.float32))
        cos, sin = ops.expand_dims(cos_NK, 1), ops.expand_dims(sin_NK, 1)
        turned = ops.concat((first * cos - second * sin, second * cos + first * sin), -1)
        return turned.astype(x_NHK.dtype)


class AscendRotary(nn.Cell):
    """The same by aclnn's RotaryPositionEmbedding, which wants whole angles of x's type.

    The gradient is the turn by the opposite angle.
    """

    def construct(self, x_NHK, cos_NK, sin_NK):
        return self.turn(x_NHK, cos_NK, sin_NK)

    def bprop(self, x, cos, sin, out, dout):
        return self.turn(dout, cos, -sin), ops.zeros_like(cos), ops.zeros_like(sin)

    def turn(self, x_NHK, cos_NK, sin_NK):
        (N, H, K), dtype = x_NHK.shape, x_NHK.dtype
        cos_1N1K = ops.concat((cos_NK, cos_NK), -1).astype(dtype).reshape((1, N, 1, K))
        sin_1N1K = ops.concat((sin_NK, sin_NK), -1).astype(dtype).reshape((1, N, 1, K))
        x_1NHK = x_NHK.reshape((1, N, H, K))
        return ops.rotary_position_embedding(x_1NHK, cos_1N1K, sin_1N1K).reshape((N, H, K))


class CompiledRotary(nn.Cell):
    """The same function in one pass; its gradient is the turn by the opposite angle."""

    def __init__(self):
        super().__init__()
        self.turn = kernel(
            "rotary", lambda x, cos, sin, direction: x, lambda x, cos, sin, direction: x
        )
        self.there = ms.Tensor([1.0], ms.float32)
        self.back = ms.Tensor([-1.0], ms.float32)

    def construct(self, x_NHK, cos_NK, sin_NK):
        return self.turn(x_NHK, cos_NK, sin_NK, self.there)

    def bprop(self, x, cos, sin, out, dout):
        return self.turn(dout, cos, sin, self.back), ops.zeros_like(cos), ops.zeros_like(sin)


class PlainNormedRotary(nn.Cell):
    """RMS normalisation of each head (queries and keys of Qwen3), then the turn.

    Inputs: x (N, H, K); gain (K,); cos, sin (N, K/2) float32. Output: (N, H, K) of x's type.
    """

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.turn = PlainRotary()

    def construct(self, x_NHK, gain_K, cos_NK, sin_NK):
        return self.turn(rms_norm(x_NHK, gain_K, self.epsilon), cos_NK, sin_NK)


class AscendNormedRotary(nn.Cell):
    """The same by aclnn's RmsNorm and RotaryPositionEmbedding."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.turn = AscendRotary()

    def construct(self, x_NHK, gain_K, cos_NK, sin_NK):
        normed_NHK, _ = ops.rms_norm(x_NHK, gain_K.astype(x_NHK.dtype), self.epsilon)
        return self.turn(normed_NHK, cos_NK, sin_NK)


class CompiledNormedRotary(nn.Cell):
    """The same function in one pass."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.core = _CompiledNormedRotaryCore(epsilon)

    def construct(self, x_NHK, gain_K, cos_NK, sin_NK):
        out_NHK, _ = self.core(x_NHK, gain_K, cos_NK, sin_NK)
        return out_NHK


class _CompiledNormedRotaryCore(nn.Cell):
    """Returns 1 / rms too, which the gradient uses."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = ms.Tensor([epsilon], ms.float32)
        self.forward = kernel(
            "normed_rotary",
            lambda x, gain, cos, sin, epsilon: (x, x[:2]),
            lambda x, gain, cos, sin, epsilon: (x, x),
        )
        self.backward = kernel(
            "normed_rotary_gradient",
            lambda x, gain, cos, sin, inverse, dy: (x, gain),
            lambda x, gain, cos, sin, inverse, dy: (x, gain),
        )

    def construct(self, x, gain, cos, sin):
        return self.forward(x, gain, cos, sin, self.epsilon)

    def bprop(self, x, gain, cos, sin, out, dout):
        dx, dgain = self.backward(x, gain, cos, sin, out[1], dout[0])
        return dx, dgain, ops.zeros_like(cos), ops.zeros_like(sin)


def rotary(form: str | None = None) -> nn.Cell:
    """The rotary Cell for the current device; see `PlainRotary` for its inputs."""
    return choose_form(form, plain=PlainRotary, compiled=CompiledRotary, ascend=AscendRotary)


def normed_rotary(epsilon: float, form: str | None = None) -> nn.Cell:
    """The Cell of both for the current device; see `PlainNormedRotary` for its inputs."""
    return choose_form(
        form,
        epsilon,
        plain=PlainNormedRotary,
        compiled=CompiledNormedRotary,
        ascend=AscendNormedRotary,
    )
