"""(IA)^3: learned factors of keys, values and hidden units (Liu et al., 2205.05638)."""

from dataclasses import dataclass
from typing import ClassVar

import mindspore as ms
import numpy as np

from taichu.tuning.method import LinearMethod, TunedLinear
from taichu.tuning.patterns import matches


@dataclass(frozen=True, kw_only=True)
class Ia3(LinearMethod):
    """l_k * k and l_v * v of attention, l_ff * hidden of the feed-forward layer (section 3.3); each
    factor is 1 at the start.

    Attributes:
        targets: maps whose outputs get factors.
        feed_forward: those of them whose inputs do.
    """

    targets: tuple[str, ...] = ("attention.key", "attention.value", "feed_forward.down")
    feed_forward: tuple[str, ...] = ("feed_forward.down",)

    peft_type: ClassVar[str] = "IA3"
    parts: ClassVar[tuple[str, ...]] = ("ia3_l",)

    def of_inputs(self, path: str) -> bool:
        return any(matches(path, pattern) for pattern in self.feed_forward)

    def wrap(self, linear, path, weight):
        return Ia3Linear(linear, self.of_inputs(path))

    def part_shapes(self, outputs, inputs, path):
        return {"ia3_l": (1, inputs) if self.of_inputs(path) else (outputs, 1)}

    def difference(self, path, parts, base):
        change = parts["ia3_l"] - 1
        yield f"{path}.weight", change * base[f"{path}.weight"]
        if f"{path}.bias" in base and not self.of_inputs(path):
            yield f"{path}.bias", change[:, 0] * base[f"{path}.bias"]

    def module_lists(self):
        return super().module_lists() | {"feedforward_modules": list(self.feed_forward)}

    def settings(self, backbone):
        return {"fan_in_fan_out": False}

    @classmethod
    def of_settings(cls, content, where):
        content = dict(content)
        content["feed_forward"] = content.pop("feedforward_modules", [])
        return super().of_settings(content, where)


class Ia3Linear(TunedLinear):
    """A linear map whose inputs or outputs get factors; input (N, I), output (N, O).

    Args:
        base: the map.
        of_inputs: which; the factors are (1, I) or (O, 1), as PEFT keeps them.
    """

    def __init__(self, base, of_inputs: bool):
        super().__init__(base)
        outputs, inputs = self.linear.weight.shape
        self.of_inputs = of_inputs
        shape = (1, inputs) if of_inputs else (outputs, 1)
        self.ia3_l = ms.Parameter(np.ones(shape, np.float32))

    def construct(self, x_NI):
        factor = self.ia3_l.reshape((1, -1))
        if self.of_inputs:
            return self.base(x_NI * factor.astype(x_NI.dtype))
        y_NO = self.base(x_NI)
        return y_NO * factor.astype(y_NO.dtype)
