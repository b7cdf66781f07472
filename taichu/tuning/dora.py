"""DoRA: the rows' lengths and directions of a weight apart (Liu et al., 2402.09353)."""

from dataclasses import dataclass
from typing import ClassVar

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from taichu.tuning.lora import Lora, LoraLinear


@dataclass(frozen=True, kw_only=True)
class Dora(Lora):
    """W' = m (W + s B A) / ||W + s B A||, lengths of each output's row (section 4, eq. 5); m (O,)
    starts as ||W||, B as zero. The lengths that are divided by have no gradient (section 4.3).
    """

    parts: ClassVar[tuple[str, ...]] = ("lora_A", "lora_B", "lora_magnitude_vector")

    def wrap(self, linear, path, weight):
        return DoraLinear(linear, self)

    def part_shapes(self, outputs, inputs, path):
        shapes = super().part_shapes(outputs, inputs, path)
        return shapes | {"lora_magnitude_vector": (outputs,)}

    def difference(self, path, parts, base):
        weight_OI = base[f"{path}.weight"]
        turned_OI = weight_OI + self.scale * (parts["lora_B"] @ parts["lora_A"])
        length_O = np.linalg.norm(turned_OI.astype(np.float64), axis=1)
        factor_O1 = (parts["lora_magnitude_vector"] / length_O)[:, None]
        yield f"{path}.weight", (factor_O1 * turned_OI - weight_OI).astype(np.float32)

    def settings(self, backbone):
        return super().settings(backbone) | {"use_dora": True}


class DoraLinear(LoraLinear):
    """A linear map with DoRA; input (N, I), output (N, O)."""

    def __init__(self, base: nn.Cell, method: Dora):
        super().__init__(base, method)
        weight = self.linear.weight.asnumpy().astype(np.float64)
        length = np.linalg.norm(weight, axis=1).astype(np.float32)
        self.lora_magnitude_vector = ms.Parameter(length)

    def construct(self, x_NI):
        low_OI = ops.matmul(self.lora_B, self.lora_A)
        turned_OI = self.base.weight + self.scale * low_OI
        length_O = ops.stop_gradient(ops.sqrt((turned_OI * turned_OI).sum(-1)))
        y_NO = self.matmul(x_NI, self.base.weight) + self.low_rank(x_NI)
        y_NO = y_NO * (self.lora_magnitude_vector / length_O).astype(y_NO.dtype)
        if self.base.bias is not None:
            y_NO = y_NO + self.base.bias.astype(y_NO.dtype)
        return y_NO
