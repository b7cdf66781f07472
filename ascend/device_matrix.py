"""The device matrix: which ranks share a matrix, a row's tokens, or a copy of the parameters.

Ranks are numbered with the tensor axis fastest, then sequence, data and pipeline: what talks most
stands closest. The loss of a job is the mean of its replicas' losses, a replica being one place
along data and sequence; every collective has its true adjoint as gradient, so nothing else is
scaled.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ascend.errors import HardwareError
from ascend.ranks import Ranks, join

SHARDS = ("none", "optimizer", "parameters")


class DeviceMatrixError(HardwareError):
    """A device matrix does not fit the ranks or the model; one line names the key."""


@dataclass(frozen=True)
class ParallelConfig:
    """How a job's ranks are laid out; what the other axes leave is the data axis."""

    tensor: int = 1  # ranks that share each matrix of the blocks (Megatron-LM, 1909.08053)
    sequence: int = 1  # ranks that share each row's tokens (Ulysses, 2309.14509)
    pipeline: int = 1  # stages, each of a share of the blocks (GPipe, 1811.06965)
    shard: str = "none"  # over replicas: optimizer (ZeRO-1, 1910.02054), or parameters too (ZeRO-3)
    expert: int = 1  # data ranks that share the experts of each block (GShard, 2006.16668)

    def __post_init__(self):
        for name in ("tensor", "sequence", "pipeline", "expert"):
            if getattr(self, name) < 1:
                raise DeviceMatrixError(f"parallel.{name}: must be 1 or more")
        if self.shard not in SHARDS:
            raise DeviceMatrixError(f"parallel.shard: must be one of {', '.join(SHARDS)}")

    def data(self, ranks: int) -> int:
        """Data ranks among so many.

        Raises:
            DeviceMatrixError: they are no multiple of the ranks of the other axes, or the data
                ranks no multiple of those that share experts.
        """
        others = self.tensor * self.sequence * self.pipeline
        if ranks < 1 or ranks % others:
            raise DeviceMatrixError(
                f"parallel: tensor={self.tensor} times sequence={self.sequence} times "
                f"pipeline={self.pipeline} must divide the {ranks} ranks"
            )
        data = ranks // others
        if data % self.expert:
            raise DeviceMatrixError(
                f"parallel.expert: {self.expert} must divide the {data} data ranks"
            )
        return data


@dataclass(frozen=True)
class Axis:
    """One axis of the device matrix, as this rank sees it.

    Attributes:
        name: a field of `DeviceMatrix`.
        ranks: those along it, this one among them.
        index: this rank's place among them.
        group: what MindSpore's collectives call them; empty where the rank is alone.
    """

    name: str
    ranks: tuple[int, ...] = (0,)
    index: int = 0
    group: str = ""

    @property
    def size(self) -> int:
        return len(self.ranks)

    @property
    def first(self) -> bool:
        return self.index == 0

    @property
    def last(self) -> bool:
        return self.index == self.size - 1


@dataclass(frozen=True)
class DeviceMatrix:
    """The device matrix, as this rank sees it.

    Beside the axes that are chosen, ``replica`` is data and sequence together. Experts are shared
    out over ``expert``, neighbours of the data axis; ``expert_replica`` is the replicas that hold
    the same ones. Of a pipeline, ``ends`` is its first and last stage, ``before`` this stage and
    the one before it, ``behind`` this one and the one behind it.
    """

    ranks: Ranks = Ranks()
    shard: str = "none"
    data: Axis = Axis("data")
    sequence: Axis = Axis("sequence")
    tensor: Axis = Axis("tensor")
    pipeline: Axis = Axis("pipeline")
    replica: Axis = Axis("replica")
    expert: Axis = Axis("expert")
    expert_replica: Axis = Axis("expert_replica")
    ends: Axis = Axis("ends")
    before: Axis = Axis("before")
    behind: Axis = Axis("behind")

    @property
    def axes(self) -> list[Axis]:
        return [value for value in vars(self).values() if isinstance(value, Axis)]


_chosen: dict[str, DeviceMatrix] = {}


def device_matrix() -> DeviceMatrix:
    """The matrix chosen; one rank alone where none was."""
    return _chosen.get("matrix", DeviceMatrix())


def choose_device_matrix(config: ParallelConfig) -> DeviceMatrix:
    """Meet the other ranks and choose the matrix of what is built from now on.

    To be called when the device is chosen.

    Raises:
        DeviceMatrixError: the ranks cannot be laid out so.
    """
    _chosen["matrix"] = made = lay_out_ranks(config, join())
    for axis in made.axes:
        if axis.size > 1 and axis.group not in _created and axis.size < made.ranks.size:
            import mindspore
            from mindspore import communication

            on_cpu = mindspore.get_context("device_target") == "CPU"
            if axis.name in ("before", "behind") and not on_cpu:
                continue  # devices send within the pipeline's group: each group takes memory
            communication.create_group(axis.group, list(axis.ranks))
            _created.add(axis.group)
    return made


_created: set[str] = set()


@contextmanager
def one_rank():
    """What is built meanwhile is built as for one rank alone: each rank holds all of it."""
    before = _chosen.get("matrix")
    _chosen["matrix"] = DeviceMatrix()
    try:
        yield
    finally:
        del _chosen["matrix"]
        if before:
            _chosen["matrix"] = before


def lay_out_ranks(config: ParallelConfig, ranks: Ranks) -> DeviceMatrix:
    """Where a rank stands.

    Raises:
        DeviceMatrixError: the axes do not divide the number of ranks.
    """
    sizes = config.pipeline, config.data(ranks.size), config.sequence, config.tensor
    number_PDST = np.arange(ranks.size).reshape(sizes)
    p, d, s, t = (int(place[0]) for place in np.nonzero(number_PDST == ranks.rank))
    stages = number_PDST[:, d, s, t]
    first = d // config.expert * config.expert

    def axis(name: str, members: np.ndarray) -> Axis:
        members = tuple(members.flatten().tolist())
        if len(members) == 1 or ranks.rank not in members:
            return Axis(name)
        # groups of all ranks are there without being made
        joined = "-".join(map(str, members))
        group = _all_ranks() if len(members) == ranks.size else f"taichu-{joined}"
        return Axis(name, members, members.index(ranks.rank), group)

    return DeviceMatrix(
        ranks,
        config.shard if sizes[1] * sizes[2] > 1 else "none",
        axis("data", number_PDST[p, :, s, t]),
        axis("sequence", number_PDST[p, d, :, t]),
        axis("tensor", number_PDST[p, d, s, :]),
        axis("pipeline", stages),
        axis("replica", number_PDST[p, :, :, t]),
        axis("expert", number_PDST[p, first : first + config.expert, s, t]),
        axis("expert_replica", number_PDST[p, d % config.expert :: config.expert, :, t]),
        axis("ends", np.unique(stages[[0, -1]])),
        axis("before", stages[max(0, p - 1) : p + 1]),
        axis("behind", stages[p : p + 2]),
    )


def _all_ranks() -> str:
    from mindspore.communication import GlobalComm

    return GlobalComm.WORLD_COMM_GROUP or "mccl_world_group"
