"""The checkpoints of a training: the newest ones, each whole, each enough to go on from.

Of several ranks each writes a file with the parts that it holds first; together they are a
checkpoint, which any number of ranks can read, each the parts that it needs.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from ascend.ranks import Ranks
from ascend.sharding import Place, is_first_holder, place_of
from taichu.errors import CheckpointError
from taichu.storage.tensor_file import load_tensors, save_tensors

KEPT = 2  # a damaged one leaves the one before it
NAME = re.compile(r"step-(\d+)(?:-rank-(\d+)-of-(\d+))?\.safetensors")


@dataclass(frozen=True, order=True)
class CheckpointFile:
    """What a file's name says: its step, and which rank's it is of how many."""

    step: int
    size: int
    rank: int
    path: Path


class CheckpointFolder:
    """Saves and finds the checkpoints in a folder.

    Args:
        path: the folder.
        ranks: this process's place among those that save here.
    """

    def __init__(self, path: Path, ranks: Ranks):
        self.path, self.ranks = path, ranks

    def save(self, step: int, state: dict[str, ms.Parameter], notes: dict) -> Path:
        """Write a step's checkpoint; only when it is whole the oldest are deleted.

        Raises:
            DiskFullError: there is no room for it.
        """
        rank, size = self.ranks.rank, self.ranks.size
        of = f"-rank-{rank:04d}-of-{size:04d}" if size > 1 else ""
        held = {name: value for name, value in state.items() if is_first_holder(value)}
        places = {name: place_of(value) for name, value in held.items()}
        notes = notes | {"places": {n: [p.shape, p.start] for n, p in places.items()}}
        path = self.path / f"step-{step:08d}{of}.safetensors"
        save_tensors(path, {name: value.asnumpy() for name, value in held.items()}, notes)
        own = [f for f in self._newest_first() if (f.size, f.rank) == (size, rank)]
        for old in own[KEPT:]:
            old.path.unlink()
        if self.ranks.first and len(own) >= KEPT:  # then those of another number of ranks go, too
            oldest = own[KEPT - 1].step
            for file in self._newest_first():
                if file.size != size and file.step < oldest:
                    file.path.unlink(missing_ok=True)
        return path

    def load(
        self, state: dict[str, ms.Parameter], elsewhere: set[str] = frozenset()
    ) -> tuple[dict[str, np.ndarray], dict, str]:
        """The parts that ``state`` names of the newest checkpoint that is whole and not damaged.

        Args:
            state: name -> parameter that is wanted.
            elsewhere: names that may be there too, of what other ranks hold alone.

        Returns:
            name -> array, the notes, and what to call the checkpoint; nothing in it, if there is
            none: {}, {} and "".

        Raises:
            CheckpointError: all are damaged, or the newest whole one does not hold what is named.
        """
        for pattern in ("*.partial", ".tmp*"):  # what a killed process, or safetensors in it, left
            for left in self.path.glob(pattern):
                left.unlink(missing_ok=True)
        sets: dict[tuple[int, int], list[Path]] = {}
        for file in self._newest_first():
            sets.setdefault((file.step, file.size), []).append(file.path)
        for (_, size), paths in sets.items():
            if len(paths) < size:
                print(f"{paths[0]}: {size - len(paths)} of {size} ranks' files are missing")
                continue
            try:
                return *_read(sorted(paths), state, elsewhere), str(
                    paths[-1] if size == 1 else self.path
                )
            except _Damaged as error:
                print(error, flush=True)
        if sets:
            raise CheckpointError(
                f"{self.path}: every checkpoint is damaged; restore one from a copy, or delete the "
                "folder to train from the start"
            )
        return {}, {}, ""

    def _newest_first(self) -> list[CheckpointFile]:
        found = []
        for path in self.path.glob("step-*.safetensors"):
            if match := NAME.fullmatch(path.name):
                step, rank, size = match.groups()
                found.append(CheckpointFile(int(step), int(size or 1), int(rank or 0), path))
        return sorted(found, reverse=True)


class _Damaged(Exception):
    """A file of a checkpoint cannot be read."""


def _read(paths: list[Path], state: dict[str, ms.Parameter], elsewhere: set[str]):
    """The named parts, from files that each hold some; one file is in memory at a time."""
    wanted = {name: (place_of(value), value.shape) for name, value in state.items()}
    made, filled, notes = {}, dict.fromkeys(wanted, 0), {}
    for path in paths:
        try:
            tensors, notes = load_tensors(path)
        except CheckpointError as error:
            raise _Damaged(str(error)) from None
        places = notes.pop("places", {})
        for name, tensor in tensors.items():
            if name in elsewhere:
                continue
            if name not in wanted:
                raise CheckpointError(f"{path}: tensor {name!r} is not part of this model")
            whole, start = places.get(name, (tensor.shape, (0,) * tensor.ndim))
            place, shape = wanted[name]
            if tuple(whole) != place.shape:
                raise CheckpointError(
                    f"{path}: tensor {name!r} has shape {list(whole)}, "
                    f"the model wants {list(place.shape)}"
                )
            part = made.setdefault(name, np.empty(shape, tensor.dtype))
            filled[name] += _copy_overlap(tensor, Place(place.shape, tuple(start)), part, place)
    for name, (_, shape) in wanted.items():
        if filled[name] < int(np.prod(shape)):
            raise CheckpointError(f"{paths[0]}: tensor {name!r} is missing")
    return made, notes


def _copy_overlap(source, source_place: Place, target, target_place: Place) -> int:
    """Copy what two parts of one whole have in common; returns how many numbers that is."""
    from_source, to_target = [], []
    for s, n, t, m in zip(source_place.start, source.shape, target_place.start, target.shape):
        first, end = max(s, t), min(s + n, t + m)
        if end <= first:
            return 0
        from_source.append(slice(first - s, end - s))
        to_target.append(slice(first - t, end - t))
    target[tuple(to_target)] = source[tuple(from_source)]
    return target[tuple(to_target)].size
