"""Layer normalisation, with weight and bias as published encoders have it."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops


class LayerNorm(nn.Cell):
    """(x - mean) / deviation * weight + bias over the last axis (Ba et al., 1607.06450, eq. 4),
    computed in float32; input and output (N, W), of one type."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = ms.Parameter(np.ones(width, np.float32))
        self.bias = ms.Parameter(np.zeros(width, np.float32))
        self.epsilon, self.share = epsilon, 1.0 / width

    def construct(self, x_NW):
        wide = x_NW.astype(ms.float32)
        wide = wide - ops.sum(wide, -1, True) * self.share
        variance = ops.sum(wide * wide, -1, True) * self.share
        return (wide * ops.pow(variance + self.epsilon, -0.5) * self.weight + self.bias).astype(
            x_NW.dtype
        )
