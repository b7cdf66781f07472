"""What each operator is given, and what it is held against: NumPy in float64.

References are analytic where a number is moved along the imaginary axis, so that their derivatives
come out exact to the last digit (the complex step: Squire and Trapp, SIAM Review 40, 1998).
"""

from collections.abc import Callable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn

from ascend import operators

random = np.random.default_rng(0)
EPSILON = 1e-6


@dataclass(frozen=True)
class Case:
    """An operator on drawn inputs.

    Attributes:
        build: from a form, or None for that of the device, to its Cell.
        reference: what the Cell computes, of arrays in float64; one array or several.
        inputs: what is differentiated, in numbers that float16 holds.
        gains: places of those inputs that are float32 in every precision.
        constants: what follows them.
        compiled: whether there is a compiled form.
    """

    build: Callable[[str | None], nn.Cell]
    reference: Callable
    inputs: tuple[np.ndarray, ...]
    gains: tuple[int, ...] = ()
    constants: tuple[np.ndarray, ...] = ()
    compiled: bool = False

    def tensors(self, kind) -> list[ms.Tensor]:
        """All inputs, those without an own type in this one."""
        types = [ms.float32 if i in self.gains else kind for i in range(len(self.inputs))]
        inputs = [ms.Tensor(x.astype(np.float32), t) for x, t in zip(self.inputs, types)]
        return inputs + [ms.Tensor(x) for x in self.constants]


def draw(*shape: int, factor: float = 1.0) -> np.ndarray:
    return (random.standard_normal(shape) * factor).astype(np.float16).astype(np.float64)


def draw_turns(N: int, K: int) -> tuple[np.ndarray, np.ndarray]:
    angle = random.uniform(-9, 9, (N, K // 2))
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def softmax_log_sum(x):
    """Logarithm of the sum of exponentials over the last axis, kept."""
    largest = x.real.max(-1, keepdims=True)
    return largest + np.log(np.exp(x - largest).sum(-1, keepdims=True))


def attention(q_NHK, k_NGK, v_NGK, segment_BL, span_BL):
    (B, L), (H, K) = segment_BL.shape, q_NHK.shape[1:]
    q, k, v = (
        x.reshape(B, L, -1, K).transpose(0, 2, 1, 3).repeat(H // x.shape[1], 1)
        for x in (q_NHK, k_NGK, v_NGK)
    )
    place = np.arange(L)
    same = span_BL[:, :, None] == span_BL[:, None]
    seen = (place <= place[:, None]) | (same & (span_BL[:, :, None] > 0))
    seen = (seen & (segment_BL[:, :, None] == segment_BL[:, None]))[:, None]
    scores = np.where(seen, q @ k.transpose(0, 1, 3, 2) / np.sqrt(K), -1e9)
    out = np.exp(scores - softmax_log_sum(scores)) @ v
    return out.transpose(0, 2, 1, 3).reshape(B * L, H, K)


def rms_norm(x, gain):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON) * gain


def add_rms_norm(x, branch, gain):
    return x + branch, rms_norm(x + branch, gain)


def turn(x_NHK, cos, sin):
    first, second = np.split(x_NHK, 2, -1)
    cos, sin = cos.astype(np.float64)[:, None], sin.astype(np.float64)[:, None]
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), -1)


def swiglu(gate, up):
    return gate / (1 + np.exp(-gate)) * up


def cross_entropy(logits_MV, targets_M, ranges_M2):
    ids = np.arange(logits_MV.shape[1])
    inside = (ids >= ranges_M2[:, :1]) & (ids < ranges_M2[:, 1:])
    own = np.take_along_axis(logits_MV, targets_M[:, None], 1)
    return (softmax_log_sum(np.where(inside, logits_MV, -1e9)) - own)[:, 0]


def sum_rows(x_nD, numbers_n):
    sums = np.zeros((ROWS, x_nD.shape[1]), x_nD.dtype)
    np.add.at(sums, numbers_n, x_nD)
    return sums


class SumRows(nn.Cell):
    """`operators.sum_rows` of a number of rows that is known."""

    def __init__(self, form):
        super().__init__()
        self.operator = operators.sum_rows(form)

    def construct(self, x_nD, numbers_n):
        return self.operator(x_nD, numbers_n, ROWS)


class Narrow(nn.Cell):
    """`operators.narrow` of a stretch that is known."""

    def __init__(self, form):
        super().__init__()
        self.operator = operators.narrow(form)

    def construct(self, x):
        return self.operator(x, 1, 5, 9)


class Assign(nn.Cell):
    """`operators.assign` to a parameter of its own."""

    def __init__(self, form, value: np.ndarray):
        super().__init__()
        self.operator = operators.assign(form)
        self.parameter = ms.Parameter(ms.Tensor(np.zeros_like(value), ms.float32), "parameter")

    def construct(self, value):
        return self.operator(self.parameter, value)


ROWS, B, L, H, G, K = 7, 2, 16, 4, 2, 16
N, D, F, V = B * L, 48, 64, 96
SEGMENT = np.repeat([[1, 2], [3, 4]], L // 2, 1).astype(np.int32)
SPAN = (np.arange(N).reshape(B, L) // 4 % 2).astype(np.int32)
RANGES = np.repeat([[0, V], [V // 2, V]], N // 2, 0).astype(np.int32)
TARGETS = random.integers(V // 2, V, N).astype(np.int32)
NUMBERS = random.integers(0, ROWS, N).astype(np.int32)

CASES = {
    "attention": Case(
        operators.attention,
        attention,
        (draw(N, H, K, factor=2), draw(N, G, K), draw(N, G, K)),
        constants=(SEGMENT, SPAN),
        compiled=True,
    ),
    "add_rms_norm": Case(
        lambda form: operators.add_rms_norm(EPSILON, form),
        add_rms_norm,
        (draw(N, D, factor=3), draw(N, D), draw(D)),
        gains=(2,),
        compiled=True,
    ),
    "rotary": Case(
        operators.rotary, turn, (draw(N, H, K),), constants=draw_turns(N, K), compiled=True
    ),
    "normed_rotary": Case(
        lambda form: operators.normed_rotary(EPSILON, form),
        lambda x, gain, cos, sin: turn(rms_norm(x, gain), cos, sin),
        (draw(N, H, K, factor=2), draw(K)),
        gains=(1,),
        constants=draw_turns(N, K),
        compiled=True,
    ),
    "swiglu": Case(operators.swiglu, swiglu, (draw(N, F, factor=4), draw(N, F)), compiled=True),
    "cross_entropy": Case(
        operators.cross_entropy,
        cross_entropy,
        (draw(N, V, factor=5),),
        constants=(TARGETS, RANGES),
        compiled=True,
    ),
    "Matmul": Case(
        lambda form: operators.Matmul(), lambda x, weight: x @ weight.T, (draw(N, D), draw(F, D))
    ),
    "look_up": Case(
        operators.look_up,
        lambda table, numbers: table[numbers],
        (draw(ROWS, D),),
        constants=(NUMBERS,),
    ),
    "sum_rows": Case(SumRows, sum_rows, (draw(N, D),), constants=(NUMBERS,)),
    "running_sum": Case(operators.running_sum, lambda x: np.cumsum(x, 0), (draw(N, D),)),
    "narrow": Case(Narrow, lambda x: x[:, 5:14], (draw(N, D),)),
}
