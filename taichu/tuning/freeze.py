"""Freezing: what patterns name stays as it is, the rest is trained."""

from dataclasses import dataclass
from typing import ClassVar

from taichu.errors import TuningError
from taichu.storage.checkpoint import named_parameters
from taichu.tuning.method import Method
from taichu.tuning.patterns import select_parameters


@dataclass(frozen=True, kw_only=True)
class Freeze(Method):
    """The model's own parameters are trained, but for some.

    Attributes:
        frozen: patterns of Cells or parameters that are not; none: full tuning.
    """

    frozen: tuple[str, ...] = ()

    peft_type: ClassVar[str] = "FREEZE"

    def attach(self, backbone, weight=None):
        held = named_parameters(backbone)
        return {name: held[name] for name in self.left(held)}

    def left(self, names) -> list[str]:
        frozen = set(select_parameters(self.frozen, names, "frozen"))
        measured = "patch_scales."  # which nobody trains
        left = [name for name in names if name not in frozen and not name.startswith(measured)]
        if not left:
            raise TuningError(f"frozen: {list(self.frozen)} leave nothing to be trained")
        return left

    def shapes(self, backbone, base):
        return {name: base[name].shape for name in self.left(base)}

    def settings(self, backbone):
        return {"frozen": self.frozen}
