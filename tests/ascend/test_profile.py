"""Kernels are counted and placed as they ran."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from ascend import operators
from ascend.operators.form import LIBRARY
from ascend.profile import profile_kernels

pytestmark = pytest.mark.usefixtures("cpu")


class Network(nn.Cell):
    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(np.eye(4, dtype=np.float32))
        self.matmul = ops.MatMul()
        self.swiglu = operators.swiglu()

    def construct(self, x_N4):
        y_N4 = self.matmul(x_N4, self.weight)
        return ops.sin(self.swiglu(y_N4, self.matmul(y_N4, self.weight)))


def test_counts_of_a_forward_pass():
    step, x = ms.jit(Network().construct), ms.Tensor(np.ones((3, 4), np.float32))
    step(x)
    kernels = profile_kernels(lambda: [step(x).asnumpy() for _ in range(3)])
    counts = {kernel.operator: 0 for kernel in kernels}
    for kernel in kernels:
        counts[kernel.operator] += kernel.calls
    assert counts["MatMul"] == 6 and counts["Sin"] == 3
    if LIBRARY:
        assert sum(counts.values()) == 12
        assert counts.get("Custom", 0) + counts.get("CompiledSwiglu", 0) == 3
    assert all(kernel.seconds > 0 for kernel in kernels)
    assert [k.seconds for k in kernels] == sorted((k.seconds for k in kernels), reverse=True)
