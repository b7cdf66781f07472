"""The device matrix: which ranks share a matrix, a row's tokens, or a copy of the parameters.

Ranks are numbered with the tensor axis fastest, then sequence, then data: what talks most stands
closest. The loss of a job is the mean of its replicas' losses, a replica being one place along
data and sequence; every collective has its true adjoint as gradient, so nothing else is scaled.
"""

from contextlib import contextmanager
from dataclasses import dataclass

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
    shard: str = "none"  # over replicas: optimizer (ZeRO-1, 1910.02054), or parameters too (ZeRO-3)

    def __post_init__(self):
        for name in ("tensor", "sequence"):
            if getattr(self, name) < 1:
                raise DeviceMatrixError(f"parallel.{name}: must be 1 or more")
        if self.shard not in SHARDS:
            raise DeviceMatrixError(f"parallel.shard: must be one of {', '.join(SHARDS)}")


@dataclass(frozen=True)
class Axis:
    """One axis of the device matrix, as this rank sees it.

    Attributes:
        name: "data", "sequence", "tensor", or "replica" for data and sequence together.
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


@dataclass(frozen=True)
class DeviceMatrix:
    """The device matrix, as this rank sees it."""

    ranks: Ranks = Ranks()
    shard: str = "none"
    data: Axis = Axis("data")
    sequence: Axis = Axis("sequence")
    tensor: Axis = Axis("tensor")
    replica: Axis = Axis("replica")


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
    for axis in (made.data, made.sequence, made.tensor, made.replica):
        if axis.size > 1 and axis.group not in _created and axis.size < made.ranks.size:
            from mindspore import communication

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
    t, s = config.tensor, config.sequence
    if ranks.size % (t * s):
        raise DeviceMatrixError(
            f"parallel: tensor={t} times sequence={s} must divide the {ranks.size} ranks"
        )
    d, place, rank = ranks.size // (t * s), {}, ranks.rank
    place["tensor"], place["sequence"], place["data"] = rank % t, rank // t % s, rank // (t * s)

    def number(data: int, sequence: int, tensor: int) -> int:
        return (data * s + sequence) * t + tensor

    def axis(name: str, members: list[int]) -> Axis:
        # groups of all ranks are there without being made
        group = f"taichu-{name}-{'-'.join(map(str, members))}"
        if len(members) == ranks.size:
            group = {1: ""}.get(ranks.size, _all_ranks())
        return Axis(name, tuple(members), members.index(rank), group)

    here = place["data"], place["sequence"], place["tensor"]
    return DeviceMatrix(
        ranks,
        config.shard if d * s > 1 else "none",
        axis("data", [number(i, here[1], here[2]) for i in range(d)]),
        axis("sequence", [number(here[0], i, here[2]) for i in range(s)]),
        axis("tensor", [number(here[0], here[1], i) for i in range(t)]),
        axis("replica", [number(i, j, here[2]) for i in range(d) for j in range(s)]),
    )


def _all_ranks() -> str:
    from mindspore.communication import GlobalComm

    return GlobalComm.WORLD_COMM_GROUP or "mccl_world_group"
