"""How a model and its batches are laid out over devices: which ranks share what."""

from dataclasses import dataclass

from ascend.errors import HardwareError

SHARDS = ("none", "optimizer", "parameters")


class LayoutError(HardwareError):
    """The layout that was asked for is impossible; one line says why."""


@dataclass(frozen=True)
class Layout:
    """Ranks by what they share; what is left over are data ranks, each with batches of its own.

    Ranks are numbered with the tensor axis fastest, then sequence, data and pipeline: what sends
    most stays within a node. A replica is one place along data and sequence.
    """

    tensor: int = 1  # ranks that share each matrix: heads and hidden width (Megatron, 1909.08053)
    sequence: int = 1  # ranks that share each row's tokens (Ulysses, 2309.14509)
    pipeline: int = 1  # stages of blocks; microbatches are the accumulated batches
    shard: str = "none"  # over replicas: optimizer (ZeRO-1, 1910.02054), or parameters too (ZeRO-3)

    def __post_init__(self):
        for name in ("tensor", "sequence", "pipeline"):
            if getattr(self, name) < 1:
                raise LayoutError(f"parallel.{name}: must be at least 1, not {getattr(self, name)}")
        if self.shard not in SHARDS:
            raise LayoutError(f"parallel.shard: must be one of {', '.join(SHARDS)}")

    def data(self, devices: int) -> int:
        """Data ranks among so many devices.

        Raises:
            LayoutError: they are no multiple of the ranks of the other axes.
        """
        others = self.tensor * self.sequence * self.pipeline
        if devices < 1 or devices % others:
            raise LayoutError(
                f"parallel: tensor={self.tensor} times sequence={self.sequence} times "
                f"pipeline={self.pipeline} must divide the {devices} devices"
            )
        return devices // others
