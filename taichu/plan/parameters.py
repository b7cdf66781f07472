"""Every parameter of a backbone by its shape, and the share of it that a device holds."""

import math
from dataclasses import dataclass, field, replace

from ascend.device_matrix import ParallelConfig
from taichu.config import ModelConfig
from taichu.model.towers.shapes import projector_shapes, tower_shapes
from taichu.plan.workload import Stage, Workload


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        part: of the model, as tables show it.
        shape: of the whole, or of a tensor rank's share of it.
        split: which dimension tensor ranks share; None: each holds all.
        product: whether a matrix product reads it whose gradient reads it again.
        shared: whether replicas share its rows where parameters are sharded (ZeRO-3).
        trained: False for what is measured from data.
    """

    part: str
    shape: tuple[int, ...]
    split: int | None = None
    product: bool = False
    shared: bool = False
    trained: bool = True

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def of_tensor_rank(self, tensor: int) -> "Parameter":
        if self.split is None:
            return self
        shape = list(self.shape)
        shape[self.split] //= tensor
        return replace(self, shape=tuple(shape))


def of_block(size: ModelConfig) -> list[Parameter]:
    """The parameters of each block."""
    D, H, G, K = size.width, size.heads, size.key_value_heads, size.head_size

    def matrix(part: str, outputs: int, inputs: int, split: int) -> Parameter:
        return Parameter(part, (outputs, inputs), split, product=True, shared=True)

    found = [matrix("attention", heads * K, D, 0) for heads in (H, G, G)]
    found += [matrix("attention", D, H * K, 1)]
    found += of_feed_forward(size) + [Parameter("norms", (D,))] * 2
    if size.bias:
        found += [Parameter("attention", (heads * K,), 0) for heads in (H, G, G)]
    if size.query_key_norm:
        found += [Parameter("norms", (K,))] * 2
    return found


def of_feed_forward(size: ModelConfig) -> list[Parameter]:
    """Those of a block's feed-forward layer, or of its router and experts."""
    part, D, E, F = "feed-forward", size.width, size.experts, size.hidden
    if not E:
        shapes = [((F, D), 0), ((F, D), 0), ((D, F), 1)]
        return [Parameter(part, *matrix, product=True, shared=True) for matrix in shapes]
    shapes = [((E, F, D), 1), ((E, F, D), 1), ((E, D, F), 2)]
    experts = [Parameter(part, *matrices, product=True) for matrices in shapes]
    return [Parameter(part, (E, D)), Parameter(part, (E,)), *experts]


def of_reading(work: Workload) -> list[Parameter]:
    """Those that turn ids and patches into vectors."""
    D, found = work.size.width, of_table(work, "id table")
    for name, (T, P) in zip(work.size.modalities, work.grids):
        tower = work.size.towers.get(name)
        if tower:
            shapes = tower_shapes(tower, T, P).values()
            found += [Parameter("towers", shape, trained=not tower.frozen) for shape in shapes]
            shapes = projector_shapes(tower, D).values()
            found += [Parameter("patch embedders", shape) for shape in shapes]
            continue
        found += [Parameter("patch embedders", (D, P), shared=True)]
        found += [Parameter("patch embedders", (D,)), Parameter("patch embedders", (T, D))]
        found += [Parameter("patch scales", shape, trained=False) for shape in ((T, P), (1,))]
    return found


def of_losses(work: Workload) -> list[Parameter]:
    """Those behind the blocks; of a tied head, none."""
    D, C = work.size.width, work.size.embedding
    projection = Parameter("projection", (C, D), product=work.aligned, shared=True)
    found = [Parameter("norms", (D,)), projection, Parameter("projection", (1,))]
    return found if work.size.tied else found + of_table(work, "decoding head")


def of_table(work: Workload, part: str) -> list[Parameter]:
    """A vector of each id, and of each digit of codes."""
    own = Parameter(part, (work.vocabulary, work.size.width), shared=True)
    return [own, Parameter(part, (work.digits, work.size.width))] if work.digits else [own]


def all_parameters(work: Workload) -> list[Parameter]:
    """Those of the whole backbone."""
    return of_reading(work) + of_block(work.size) * work.size.depth + of_losses(work)


def count_by_part(work: Workload) -> dict[str, int]:
    """Number of parameters of each part."""
    counts: dict[str, int] = {}
    for parameter in all_parameters(work):
        counts[parameter.part] = counts.get(parameter.part, 0) + parameter.count
    return counts


def count_active(work: Workload) -> int:
    """Number of parameters that a token meets: of a block's experts, those that it chooses."""
    size = work.size
    of_expert = 3 * size.width * size.hidden
    passed = max(0, size.experts - size.active_experts) * of_expert * size.depth
    return sum(count_by_part(work).values()) - passed


@dataclass(frozen=True)
class Held:
    """The parameters that the devices of a stage hold, each of a tensor rank's share.

    Attributes:
        block: of each of its blocks. outside: others that are trained. measured: not trained.
        replicas: how many hold the same, or share it.
    """

    work: Workload
    layout: ParallelConfig
    stage: Stage
    replicas: int
    block: list[Parameter] = field(init=False)
    outside: list[Parameter] = field(init=False)
    measured: list[Parameter] = field(init=False)

    def __post_init__(self):
        work, stage = self.work, self.stage
        outside = of_reading(work) if stage.reads else []
        outside += of_losses(work) if stage.ends else []
        if stage.ends and not stage.reads and work.size.tied:
            outside += of_table(work, "id table")
        share = [parameter.of_tensor_rank(self.layout.tensor) for parameter in of_block(work.size)]
        object.__setattr__(self, "block", share)
        object.__setattr__(self, "outside", [p for p in outside if p.trained])
        object.__setattr__(self, "measured", [p for p in outside if not p.trained])

    @property
    def trained(self) -> list[Parameter]:
        return self.outside + self.block * self.stage.blocks

    def shares_parameter(self, parameter: Parameter) -> bool:
        """Whether a replica holds only its share of the rows."""
        fits = parameter.shared and parameter.shape[0] % self.replicas == 0
        return self.layout.shard == "parameters" and self.replicas > 1 and fits

    def shares_update(self, parameter: Parameter) -> bool:
        """Whether a replica holds all of it but updates only its share of the rows."""
        if self.layout.shard == "none" or self.replicas == 1 or self.shares_parameter(parameter):
            return False
        return len(parameter.shape) > 1 and parameter.shape[0] % self.replicas == 0

    def own(self, parameters: list[Parameter]) -> int:
        """Numbers that a replica holds of some parameters."""
        shares = (self.replicas if self.shares_parameter(p) else 1 for p in parameters)
        return sum(p.count // n for p, n in zip(parameters, shares))

    def updated(self) -> int:
        """Numbers that a replica updates, and holds moments of."""
        return sum(p.count // (self.replicas if self.is_split(p) else 1) for p in self.trained)

    def is_split(self, parameter: Parameter) -> bool:
        return self.shares_parameter(parameter) or self.shares_update(parameter)
