"""Prefix tuning: keys and values before those of every segment, in every block (Li and Liang,
2101.00190).

Names of dimensions: P places, D width, G key/value heads, K head size, n blocks.
"""

from dataclasses import dataclass
from typing import ClassVar

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend import operators
from ascend.device_matrix import device_matrix
from taichu.errors import ConfigError, TuningError
from taichu.model.matrices import draw_matrix
from taichu.tuning.method import Method

LEAST = 1e-30  # weight whose logarithm stands for that of none


@dataclass(frozen=True, kw_only=True)
class PrefixMethod(Method):
    """What prefix tuning, P-tuning v2 and prompt tuning share: places that all tokens see.

    Segments share rows, and causal attention makes of what stands before a segment the same for
    all of them; so it is kept once, as keys and values of each block. A weight w lets the places
    count w times in the softmax, as if each stood there so often.

    Attributes:
        places: P.
    """

    places: int = 16

    parts: ClassVar[tuple[str, ...]] = ("prompt_embeddings",)
    mergeable: ClassVar[bool] = False

    def __post_init__(self):
        if self.places < 1:
            raise ConfigError("places must be at least 1")

    def create(self, backbone, weight) -> "Prefix":
        """The Cell that makes the places' keys and values."""
        raise NotImplementedError

    def attach(self, backbone, weight=None):
        if device_matrix().sequence.size > 1:
            raise TuningError("parallel.sequence: a prefix is seen by whole rows; it must be 1")
        prefix = self.create(backbone, weight)
        found = {path: p for path, p in prefix.parameters_and_names() if p is not weight}
        cells = list(backbone.prefix.cells_of_each) if backbone.prefix is not None else []
        backbone.prefix = Prefixes([*cells, prefix])
        return found

    def shapes(self, backbone, base):
        attention = backbone.blocks[0].attention
        size = attention.groups * attention.head_size
        return {"prompt_embeddings": (self.places, 2 * len(backbone.blocks) * size)}

    def acts(self, tensors, base, backbone):
        return True  # a place always takes a share of the softmax

    def settings(self, backbone):
        return {"num_virtual_tokens": self.places}

    @classmethod
    def of_settings(cls, content, where):
        content = dict(content)
        content["places"] = content.pop("num_virtual_tokens", None)
        for key in SIZES:
            content.pop(key, None)
        return super().of_settings(content, where)


# what PEFT writes of the base's sizes, which the tensor's shape says too
SIZES = ("token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers")
SIZES += ("encoder_hidden_size", "prefix_projection")


@dataclass(frozen=True, kw_only=True)
class PrefixTuning(PrefixMethod):
    """P_i = MLP(P'_i) (section 4.3, eq. 5): each place's keys and values of all blocks come from a
    vector of its own through two linear maps with tanh between. Only what comes out is kept, as
    the paper does; loaded, it is that of `taichu.tuning.p_tuning_v2.PTuningV2`.

    Attributes:
        hidden: width between the maps; 0: that of the model.
    """

    hidden: int = 0

    peft_type: ClassVar[str] = "PREFIX_TUNING"

    def create(self, backbone, weight):
        return Reparameterised(backbone, self, weight)

    def finished(self, parameters):
        arrays = {name: p.asnumpy().astype(np.float64) for name, p in parameters.items()}
        hidden = np.tanh(arrays["vectors"] @ arrays["first"].T + arrays["first_bias"])
        made = hidden @ arrays["second"].T + arrays["second_bias"]
        return {"prompt_embeddings": made.astype(np.float32)}


class Prefix(nn.Cell):
    """Places that all tokens see; makes of the backbone (keys, values (P, G, K), bias (P,)) of each
    block.

    Args:
        places: P.
        weight: (1,), how much of it counts; None: all.
    """

    def __init__(self, places: int, weight: ms.Parameter | None):
        super().__init__()
        self.places, self.weight = places, weight

    def bias(self):
        """What is added to the places' scores, (P,)."""
        if self.weight is None:
            return ops.zeros((self.places,), ms.float32)
        weight = ops.clamp(self.weight, LEAST)
        return ops.broadcast_to(ops.log(weight), (self.places,))


class Prefixes(nn.Cell):
    """Several prefixes, one behind the other; see `Prefix`."""

    def __init__(self, cells: list[Prefix]):
        super().__init__(auto_prefix=False)
        self.cells_of_each = nn.CellList(cells, auto_prefix=False)

    def construct(self, backbone):
        found = self.cells_of_each[0](backbone)
        for cell in self.cells_of_each[1:]:
            joined = ()
            for one, other in zip(found, cell(backbone)):
                joined += (
                    (
                        ops.concat((one[0], other[0]), 0),
                        ops.concat((one[1], other[1]), 0),
                        ops.concat((one[2], other[2]), 0),
                    ),
                )
            found = joined
        return found

    def bias(self):
        found = ()
        for cell in self.cells_of_each:
            found += (cell.bias(),)
        return ops.concat(found, 0)


class DeepPrefix(Prefix):
    """A prefix whose keys and values of all blocks are in one matrix (P, 2 n G K), block by block
    the keys, then the values. The keys stand P coordinates before the segments, as those in a
    cache of Hugging Face's do."""

    def __init__(self, backbone, places, weight):
        super().__init__(places, weight)
        attention = backbone.blocks[0].attention
        self.blocks = len(backbone.blocks)
        self.groups, self.head_size = attention.groups, attention.head_size
        self.numbers = 2 * self.blocks * self.groups * self.head_size
        angle_3K = -places * backbone.frequencies_3K.asnumpy().astype(np.float64)
        angle_PK = np.tile(angle_3K.sum(0), (places, 1))
        self.cos_PK = ms.Tensor(np.cos(angle_PK), ms.float32)
        self.sin_PK = ms.Tensor(np.sin(angle_PK), ms.float32)
        self.rotary = operators.rotary()

    def matrix(self):
        raise NotImplementedError

    def construct(self, backbone):
        shape = (self.places, 2 * self.blocks, self.groups, self.head_size)
        all_P2nGK = self.matrix().reshape(shape)
        bias_P, found = self.bias(), ()
        for n in range(self.blocks):
            keys_PGK = self.rotary(all_P2nGK[:, 2 * n], self.cos_PK, self.sin_PK)
            found += ((keys_PGK, all_P2nGK[:, 2 * n + 1], bias_P),)
        return found


class Reparameterised(DeepPrefix):
    """A prefix through two linear maps."""

    def __init__(self, backbone, method: PrefixTuning, weight):
        super().__init__(backbone, method.places, weight)
        D = backbone.width
        hidden = method.hidden or D
        self.vectors = draw_matrix((method.places, D), 1.0)
        self.first, self.first_bias = draw_matrix((hidden, D), D**-0.5), bias_of(hidden)
        self.second = draw_matrix((self.numbers, hidden), hidden**-0.5)
        self.second_bias = bias_of(self.numbers)
        self.matmul = ops.MatMul(transpose_b=True)

    def matrix(self):
        x_PH = self.matmul(self.vectors, self.first) + self.first_bias
        x_PH = 2 * ops.sigmoid(2 * x_PH) - 1  # tanh, whose own kernel is inexact on the CPU
        return self.matmul(x_PH, self.second) + self.second_bias


def bias_of(outputs: int) -> ms.Parameter:
    return ms.Parameter(np.zeros(outputs, np.float32))
