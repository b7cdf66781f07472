"""What all tuning methods are to the rest: settings, a place in the backbone, an effect.

Names of dimensions: I inputs and O outputs of a linear map, r rank, N tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import mindspore as ms
import numpy as np
from mindspore import nn

from ascend.operators import AdamW
from taichu.config import build
from taichu.model.backbone import Backbone
from taichu.model.block import Linear
from taichu.tuning.patterns import select

BLOCK_MAPS = ("blocks.*",)  # all linear maps of the blocks


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Settings of a method, and what it does to a backbone.

    Two kinds: one changes the weights, so that it can be merged into them; the other computes
    something besides, and cannot.

    Attributes:
        modules_to_save: patterns of what is trained fully beside it, such as a new modality's
            embedder, a head or a projector; of Cells or parameters.
        peft_type: the kind, by PEFT's name where PEFT has it.
        parts: last names of the parameters that it brings; what else it trains is the model's own.
        mergeable: whether it changes weights.
    """

    modules_to_save: tuple[str, ...] = ()

    peft_type: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ()
    mergeable: ClassVar[bool] = True

    @abstractmethod
    def attach(
        self, backbone: Backbone, weight: ms.Parameter | None = None
    ) -> dict[str, ms.Parameter]:
        """Put the method's parameters into the backbone; returns what it trains, by path.

        Args:
            backbone: changed in place.
            weight: (1,), how much of the method counts; None: all. Of those that can be merged
                nobody asks this.
        """

    def differences(
        self, tensors: dict[str, np.ndarray], base: dict[str, np.ndarray], backbone: Backbone
    ) -> Iterator[tuple[str, np.ndarray]]:
        """What a trained adapter adds to the base's parameters, by path; float32.

        Args:
            tensors: all that was trained, ``modules_to_save`` too.
            base: parameters before training; one that is not there is zero.
            backbone: that they are of.
        """
        for name, tensor in tensors.items():
            if not self.brings(name):
                yield name, tensor - base[name] if name in base else tensor

    def acts(
        self, tensors: dict[str, np.ndarray], base: dict[str, np.ndarray], backbone: Backbone
    ) -> bool:
        """Whether an adapter of the method changes anything, ``modules_to_save`` left aside."""
        own = {name: tensor for name, tensor in tensors.items() if self.brings(name)}
        changes = self.differences(own or tensors, base, backbone)
        return any(np.any(change) for _, change in changes)

    def brings(self, name: str) -> bool:
        """Whether a parameter is one that the base has not."""
        return name.rpartition(".")[2] in self.parts

    def finished(self, parameters: dict[str, ms.Parameter]) -> dict[str, ms.Parameter | np.ndarray]:
        """What is kept of what was trained."""
        return parameters

    def optimizer(self, parameters, *settings, **others) -> AdamW:
        """The optimizer that the method wants; called as `AdamW` is."""
        return AdamW(parameters, *settings, **others)

    @abstractmethod
    def shapes(
        self, backbone: Backbone, base: dict[str, ms.Parameter]
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of what an adapter holds of the method's, by path, for a model.

        Args:
            backbone: the model; others may have been put into it.
            base: its own parameters, by path.
        """

    def module_lists(self) -> dict[str, list[str]]:
        """Patterns of linear maps that adapter_config.json names, by its key for them."""
        return {}

    def settings(self, backbone: Backbone) -> dict:
        """What else adapter_config.json says of the method in a model; modules_to_save aside."""
        return {}

    @classmethod
    def of_settings(cls, content: dict, where: str) -> "Method":
        """The method that adapter_config.json describes; what it lists are our own paths.

        Raises:
            ConfigError: a value is of the wrong type, or not understood.
        """
        return build(cls, content, where)


@dataclass(frozen=True, kw_only=True)
class LinearMethod(Method):
    """A method that puts something beside linear maps.

    Attributes:
        targets: patterns of the maps' paths, see `taichu.tuning.patterns.matches`.
    """

    targets: tuple[str, ...] = BLOCK_MAPS

    @abstractmethod
    def wrap(self, linear: nn.Cell, path: str, weight: ms.Parameter | None) -> "TunedLinear":
        """What stands in the place of a linear map."""

    @abstractmethod
    def part_shapes(self, outputs: int, inputs: int, path: str) -> dict[str, tuple[int, ...]]:
        """Shapes of the parts beside a map (O, I)."""

    def shapes(self, backbone, base):
        found, maps = {}, linear_maps(backbone)
        for path in select(self.targets, maps, "targets"):
            shapes = self.part_shapes(*maps[path].weight.shape, path)
            found |= {f"{path}.{part}": shape for part, shape in shapes.items()}
        return found

    def module_lists(self):
        return {"target_modules": list(self.targets)}

    @classmethod
    def of_settings(cls, content, where):
        content = dict(content)
        content["targets"] = content.pop("target_modules")
        return super().of_settings(content, where)

    def attach(self, backbone, weight=None):
        found = {}
        for path in select(self.targets, linear_maps(backbone), "targets"):
            cell = replace(backbone, path, lambda old, path=path: self.wrap(old, path, weight))
            found |= {f"{path}.{part}": getattr(cell, part) for part in self.parts}
        return found

    def differences(self, tensors, base, backbone):
        yield from super().differences(tensors, base, backbone)
        if not self.mergeable:
            return
        for path in dict.fromkeys(n.rpartition(".")[0] for n in tensors if self.brings(n)):
            parts = {part: tensors[f"{path}.{part}"] for part in self.parts}
            yield from self.difference(path, parts, base)

    def difference(
        self, path: str, parts: dict[str, np.ndarray], base: dict[str, np.ndarray]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """The same of one linear map's weight (O, I) and bias (O,); of what can be merged."""
        raise NotImplementedError


class TunedCell(nn.Cell):
    """A Cell and what a method puts beside it.

    Attributes:
        base: the Cell, or one that another method has put something beside.
    """

    def __init__(self, base: nn.Cell):
        super().__init__()
        self.base = base

    @property
    def inmost(self) -> nn.Cell:
        """The Cell itself."""
        return self.base.inmost if isinstance(self.base, TunedCell) else self.base


class TunedLinear(TunedCell):
    """A linear map and what a method puts beside it."""

    @property
    def linear(self) -> Linear:
        """The map itself."""
        return self.base.linear


def linear_maps(backbone: Backbone) -> dict[str, Linear]:
    """The maps that methods may be put beside, by path, whether some are there already or not; a
    modality's embedder is none: it trains fully."""
    found = {}
    for path, cell in backbone.cells_and_names():
        if isinstance(cell, Linear) and not path.startswith("patch_embedders."):
            found[".".join(part for part in path.split(".") if part != "base")] = cell
    return found


def replace(backbone: Backbone, path: str, make: Callable[[nn.Cell], nn.Cell]) -> nn.Cell:
    """Put another Cell in a Cell's place, made of that one; parameters keep their names."""
    parent, last = backbone, path.rpartition(".")[2]
    for part in path.split(".")[:-1]:
        parent = parent[int(part)] if part.isdigit() else getattr(parent, part)
    old = getattr(parent, last)
    names = [(parameter, parameter.name) for parameter in old.get_parameters()]
    made = make(old)
    setattr(parent, last, made)
    for parameter, name in names:
        parameter.name = name
    return made
