"""Bottleneck adapters behind attention and feed-forward layer (Houlsby et al., 1902.00751).

Names of dimensions: D width, b of the bottleneck, N tokens.
"""

from dataclasses import dataclass
from typing import ClassVar

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend import operators
from taichu.errors import ConfigError
from taichu.model.matrices import draw_matrix
from taichu.tuning.method import LinearMethod, TunedLinear

LAYERS_ENDS = ("attention.output", "feed_forward.down")  # what the two layers of a block end with


@dataclass(frozen=True, kw_only=True)
class Bottleneck(LinearMethod):
    """y + W_up f(W_down y + b_down) + b_up of what a layer adds to the sum (section 2.1, figure 2).

    f is SiLU. W_up is zero at the start, so that the whole is the identity, which theirs is nearly.

    Attributes:
        width: b.
    """

    targets: tuple[str, ...] = LAYERS_ENDS
    width: int = 64

    peft_type: ClassVar[str] = "BOTTLENECK"
    parts: ClassVar[tuple[str, ...]] = ("adapter_down", "adapter_down_bias")
    parts += ("adapter_up", "adapter_up_bias")
    mergeable: ClassVar[bool] = False

    def __post_init__(self):
        if self.width < 1:
            raise ConfigError("width must be at least 1")

    def wrap(self, linear, path, weight):
        return BottleneckLinear(linear, self.width, weight)

    def part_shapes(self, outputs, inputs, path):
        D, b = outputs, self.width
        return dict(zip(self.parts, ((b, D), (b,), (D, b), (D,))))

    def acts(self, tensors, base, backbone):
        return any(np.any(t) for name, t in tensors.items() if ".adapter_up" in name)

    def settings(self, backbone):
        return {"width": self.width}


class BottleneckLinear(TunedLinear):
    """A linear map with a bottleneck behind it; input (N, I), output (N, D).

    Args:
        base: the map.
        width: b.
        weight: (1,), how much of what it adds counts; None: all.
    """

    def __init__(self, base: nn.Cell, width: int, weight: ms.Parameter | None):
        super().__init__(base)
        D = self.linear.weight.shape[0]
        self.adapter_down = draw_matrix((width, D), D**-0.5)
        self.adapter_down_bias = ms.Parameter(np.zeros(width, np.float32))
        self.adapter_up = ms.Parameter(np.zeros((D, width), np.float32))
        self.adapter_up_bias = ms.Parameter(np.zeros(D, np.float32))
        self.matmul, self.weight = operators.Matmul(), weight

    def construct(self, x_NI):
        y_ND = self.base(x_NI)
        x_Nb = self.matmul(y_ND, self.adapter_down)
        x_Nb = ops.silu(x_Nb + self.adapter_down_bias.astype(x_Nb.dtype))
        added_ND = self.matmul(x_Nb, self.adapter_up)
        added_ND = added_ND + self.adapter_up_bias.astype(added_ND.dtype)
        if self.weight is not None:
            added_ND = added_ND * self.weight.astype(added_ND.dtype)
        return y_ND + added_ND
