"""LoRA: a low-rank change of linear maps (Hu et al., 2106.09685)."""

from dataclasses import dataclass
from typing import ClassVar

import mindspore as ms
import numpy as np
from mindspore import nn

from ascend import operators
from ascend.operators import AdamW
from taichu.errors import ConfigError
from taichu.model.matrices import draw_matrix
from taichu.tuning.method import LinearMethod, TunedLinear


@dataclass(frozen=True, kw_only=True)
class Lora(LinearMethod):
    """h = W x + s B A x (section 4.1, eq. 3), A (r, I) drawn, B (O, r) zero at the start.

    s is alpha / r, or alpha / sqrt(r) where it is rank-stabilised (rsLoRA, 2312.03732, section 3),
    which keeps large ranks learning.

    Attributes:
        rank: r.
        alpha: see s.
        dropout: share of the inputs that the low-rank way is kept from while training.
        rank_stabilised: whether s is rsLoRA's.
        rate_ratio: learning rate of B over that of A (LoRA+, 2402.12354, section 5: about 16).
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    rank_stabilised: bool = False
    rate_ratio: float = 1.0

    peft_type: ClassVar[str] = "LORA"
    parts: ClassVar[tuple[str, ...]] = ("lora_A", "lora_B")

    def __post_init__(self):
        if self.rank < 1 or not 0 <= self.dropout < 1 or self.alpha <= 0 or self.rate_ratio <= 0:
            raise ConfigError(
                "rank must be at least 1, dropout from 0 to below 1, alpha and rate_ratio above 0"
            )

    @property
    def scale(self) -> float:
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)

    def wrap(self, linear, path, weight):
        return LoraLinear(linear, self)

    def part_shapes(self, outputs, inputs, path):
        return {"lora_A": (self.rank, inputs), "lora_B": (outputs, self.rank)}

    def difference(self, path, parts, base):
        yield f"{path}.weight", self.scale * (parts["lora_B"] @ parts["lora_A"])

    def optimizer(self, parameters, *settings, **others):
        ratio = {True: self.rate_ratio, False: 1.0}
        factors = [ratio[parameter.name.endswith(".lora_B")] for parameter in parameters]
        return AdamW(parameters, *settings, rate_factors=factors, **others)

    def settings(self, backbone):
        return {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rank_stabilised,
            "use_dora": False,
            "bias": "none",
            "fan_in_fan_out": False,
        }

    @classmethod
    def of_settings(cls, content, where):
        names = {"r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout"}
        names |= {"use_rslora": "rank_stabilised"}
        ours = {names.get(key, key): v for key, v in content.items() if key != "use_dora"}
        return super().of_settings(ours, where)


class LoraLinear(TunedLinear):
    """A linear map with a low-rank one beside it; input (N, I), output (N, O).

    Args:
        base: the map.
        method: settings.
    """

    def __init__(self, base: nn.Cell, method: Lora):
        super().__init__(base)
        outputs, inputs = self.linear.weight.shape
        self.lora_A = draw_matrix((method.rank, inputs), inputs**-0.5)
        self.lora_B = ms.Parameter(np.zeros((outputs, method.rank), np.float32))
        self.matmul, self.scale = operators.Matmul(), method.scale
        self.dropout = nn.Dropout(p=method.dropout)

    def construct(self, x_NI):
        return self.base(x_NI) + self.low_rank(x_NI)

    def low_rank(self, x_NI):
        x_Nr = self.matmul(self.dropout(x_NI), self.lora_A) * self.scale
        return self.matmul(x_Nr, self.lora_B)
