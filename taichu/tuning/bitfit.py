"""BitFit: biases alone are trained (Ben Zaken et al., 2106.10199)."""

from dataclasses import dataclass
from typing import ClassVar

import mindspore as ms
import numpy as np

from taichu.storage.checkpoint import named_parameters
from taichu.tuning.method import Method

WITH_BIAS = ("query", "key", "value")  # maps whose bias a model folder can hold


@dataclass(frozen=True, kw_only=True)
class BitFit(Method):
    """The biases b of q = W x + b, k and v (section 3), and any other that the blocks have.

    Models without biases get those of query, key and value, zero at the start: these are what a
    model folder can hold (``bias: true``), so that it can be merged. The paper's biases of layer
    norms have no counterpart in RMS norms; the norms' weights are no biases and stay as they are.
    """

    peft_type: ClassVar[str] = "BITFIT"

    def attach(self, backbone, weight=None):
        add_biases(backbone)
        held = named_parameters(backbone)
        return {name: p for name, p in held.items() if is_bias(name)}

    def shapes(self, backbone, base):
        found = {name: p.shape for name, p in base.items() if is_bias(name)}
        for n in range(len(backbone.blocks)):
            for name in WITH_BIAS:
                outputs = getattr(backbone.blocks[n].attention, name).linear.weight.shape[0]
                found[f"blocks.{n}.attention.{name}.bias"] = (outputs,)
        return found


def is_bias(path: str) -> bool:
    return path.startswith("blocks.") and path.endswith(".bias")


def add_biases(backbone):
    """Give query, key and value of each block a bias of zeros, where they have none."""
    for n in range(len(backbone.blocks)):
        attention = backbone.blocks[n].attention
        for name in WITH_BIAS:
            linear = getattr(attention, name).linear
            if linear.bias is None:
                zeros = np.zeros(linear.weight.shape[0], np.float32)
                path = f"blocks.{n}.attention.{name}.bias"
                linear.bias = ms.Parameter(zeros, name=path)
