"""Which conversations stand in which row of which batch.

Batch after batch is a function of the seed alone. Epochs are permutations, one behind the other
without a gap; each conversation goes into the first row that has room for it, and what finds none
in a batch, of the next few batches' worth of them, comes first in the next.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from taichu.data.conversations.laid_out import Layouts, count_targets, count_tokens
from taichu.data.packing import BatchShape

WINDOW = 4  # batches' worth of conversations that one is filled from


class Drawing:
    """Draws numbers of conversations for the rows of batches.

    Args:
        spans: of each conversation, none longer than a row.
        layouts: that made them.
        rows, length: B and L.
        seed: of the permutations.
        together: how many conversations, one behind the other, are one unit: they stand in the same
            batch, of one row or several, or none of them does.

    Attributes:
        lengths, targets, patches: of each conversation: its tokens, those of them that are learned,
            and patches of each modality.
        shape: of every batch: room for what an epoch's batches hold, and for any unit; its pairs
            are the most units of a batch.
    """

    def __init__(
        self, spans: list, layouts: Layouts, rows: int, length: int, seed: int, together: int = 1
    ):
        self.seed, self.together, self.units = seed, together, len(spans) // together
        self.lengths = np.array([count_tokens(one) for one in spans])
        self.targets = np.array([count_targets(one) for one in spans])
        self.patches = np.array([layouts.count_patches(one) for one in spans], np.int64)
        needs = np.column_stack([np.ones_like(self.targets), self.targets, self.patches])
        self._needs = needs.reshape(self.units, together, -1).sum(1)
        self._needs[:, 0] = 1
        self.shape = self._shape(rows, length, layouts)
        self._plan = self._draw(self.shape, self.numbers())
        self._planned: list[list[list[int]]] = []

    def rows_of(self, number: int) -> list[list[int]]:
        """Numbers of the conversations in each row of a batch."""
        while len(self._planned) <= number:
            self._planned.append(next(self._plan))
        return self._planned[number]

    def once(self, units: Iterable[int]) -> Iterator[list[list[int]]]:
        """Rows of batches of the same shape that hold these units once."""
        return self._draw(self.shape, iter(units))

    def numbers(self) -> Iterator[int]:
        """Units, epoch after epoch."""
        epoch = 0
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.units)
            yield from map(int, order)
            epoch += 1

    def _shape(self, rows: int, length: int, layouts: Layouts) -> BatchShape:
        geometries = {name: adapter.geometry for name, adapter in layouts.adapters.items()}
        anything = tuple((name, 1 << 62, g.patch_size) for name, g in geometries.items())
        any_number = BatchShape(rows, length, 1 << 62, 1 << 62, anything)
        drawn, first, most = 0, self._draw(any_number, self.numbers()), self._needs.max(0)
        while drawn < self.units:
            held = [number for row in next(first) for number in row]
            drawn += len(held) // self.together
            # of each unit its first conversation stands for all of it
            units = [n // self.together for n in held if n % self.together == 0]
            most = np.maximum(most, self._needs[units].sum(0))
        pairs, targets, *patches = map(int, most)
        room = tuple(
            (name, max(n, g.tokens), g.patch_size)
            for n, (name, g) in zip(patches, geometries.items())
        )
        return BatchShape(rows, length, min(rows * length, -(-targets // 64) * 64), pairs, room)

    def _draw(self, shape: BatchShape, units: Iterator[int]) -> Iterator[list[list[int]]]:
        """The rows of batch after batch, until there are no more units."""
        waiting: list[int] = []
        most = WINDOW * -(-shape.rows * shape.length * self.units // int(self.lengths.sum()))
        room = np.array([shape.pairs, shape.targets, *(n for _, n, _ in shape.patches)])
        shortest = self.lengths.min()
        while True:
            waiting += islice(units, most - len(waiting))
            if not waiting:
                return
            rows: list[list[int]] = [[] for _ in range(shape.rows)]
            free, left, missed = np.full(shape.rows, shape.length), room.copy(), []
            for place, unit in enumerate(waiting):
                members = range(unit * self.together, (unit + 1) * self.together)
                chosen = _place(free, self.lengths[members])
                if chosen is None or (self._needs[unit] > left).any():
                    missed.append(unit)
                    continue
                for row, number in zip(chosen, members):
                    rows[row].append(number)
                    free[row] -= self.lengths[number]
                left -= self._needs[unit]
                if free.max() < shortest:
                    missed += waiting[place + 1 :]
                    break
            yield rows
            waiting = missed


def _place(free: np.ndarray, lengths: np.ndarray) -> list[int] | None:
    """The first row with room for each, one after the other; None where one finds none."""
    free, rows = free.copy(), []
    for length in lengths:
        row = int(np.argmax(free >= length))
        if free[row] < length:
            return None
        free[row] -= length
        rows.append(row)
    return rows
