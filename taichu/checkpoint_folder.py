"""The checkpoints of a training: the newest ones, each whole, each enough to go on from."""

from pathlib import Path

import numpy as np

from taichu.checkpoint import load_tensors, save_tensors
from taichu.errors import CheckpointError

KEPT = 2  # a damaged one leaves the one before it


class CheckpointFolder:
    """Saves and finds the checkpoints in a folder.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path

    def save(self, step: int, tensors: dict[str, np.ndarray], notes: dict) -> Path:
        """Write a step's checkpoint; only when it is whole the oldest are deleted.

        Raises:
            DiskFullError: there is no room for it.
        """
        path = self.path / f"step-{step:08d}.safetensors"
        save_tensors(path, tensors, notes)
        for old in self._newest_first()[KEPT:]:
            old.unlink()
        return path

    def load(self) -> tuple[dict[str, np.ndarray], dict, Path] | None:
        """The newest checkpoint that is not damaged, with its notes and path; None: there are none.

        Raises:
            CheckpointError: all are damaged.
        """
        for pattern in ("*.partial", ".tmp*"):  # what a killed process, or safetensors in it, left
            for left in self.path.glob(pattern):
                left.unlink()
        paths = self._newest_first()
        for path in paths:
            try:
                return *load_tensors(path), path
            except CheckpointError as error:
                print(error, flush=True)
        if paths:
            raise CheckpointError(
                f"{self.path}: every checkpoint is damaged; restore one from a copy, or delete the "
                "folder to train from the start"
            )
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.path.glob("step-*.safetensors"), reverse=True)
