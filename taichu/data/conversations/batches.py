"""Batches of conversations: laid out by a template, packed several to a row.

Batch k is a function of (seed, k) and the place on the data axis alone. Epochs are permutations,
one behind the other without a gap; each conversation goes into the first row that has room for it,
and what finds none in a batch, of the next few batches' worth of them, comes first in the next.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ascend.device_matrix import Axis, device_matrix
from modality_adapters.grid import widen
from taichu.config import nearest
from taichu.data.conversations.overlong import truncate
from taichu.data.conversations.prepared import PreparedConversations
from taichu.data.conversations.template import ChatTemplate
from taichu.data.conversations.tokens import Medium, to_segment, to_spans
from taichu.data.layout import Segment, Span
from taichu.data.packing import BatchShape, PackedBatch, pack_into_rows
from taichu.errors import ConfigError, ConversationError, TemplateError
from taichu.vocabulary import Vocabulary

WINDOW = 4  # batches' worth of conversations that one is filled from
OVERLONG = ("skip", "truncate", "error")


@dataclass(frozen=True)
class ConversationsConfig:
    """How conversations are packed."""

    rows: int = 8  # B
    length: int = 512  # L
    overlong: str = "skip"  # than a row: skip, truncate (at a turn's end where possible) or error
    augment: float = 0.0  # strength of the changes of media, 0 (none) to 1

    def __post_init__(self):
        if self.overlong not in OVERLONG:
            known = ", ".join(OVERLONG)
            hint = nearest(self.overlong, OVERLONG)
            raise ConfigError(f"overlong: {self.overlong!r} is none of {known}{hint}")
        if not 0 <= self.augment <= 1:
            raise ConfigError(f"augment: must be from 0 to 1, not {self.augment}")
        if self.rows < 1 or self.length < 2:
            raise ConfigError("rows must be at least 1, length at least 2")


@dataclass(frozen=True)
class _Seen:
    """A medium among a conversation's spans, not yet looked up."""

    modality: str
    row: int
    places: int
    given: bool = True
    bare: bool = False


class ConversationBatches:
    """Packed batches of conversations.

    Args:
        data: prepared conversations.
        vocabulary: the joint vocabulary.
        adapters: name -> adapter, in the model's order.
        template: that writes them.
        config: how they are packed.
        seed: of all draws.
        axis: the data axis, along which each rank has batches of its own.

    Attributes:
        shape: of every batch.
        skipped: one line for each conversation that was left out here, with the reason.
        summary: one line: conversations, what was left out or cut, tokens.

    Raises:
        ConversationError: a conversation is too long and that is an error, or none is left.
    """

    def __init__(
        self,
        data: PreparedConversations,
        vocabulary: Vocabulary,
        adapters: dict,
        template: ChatTemplate,
        config: ConversationsConfig,
        seed: int,
        axis: Axis | None = None,
    ):
        self.data, self.vocabulary, self.adapters = data, vocabulary, adapters
        self.template, self.config, self.seed = template, config, seed
        self.axis = axis or device_matrix().data
        self.coordinates = {n: a.geometry.coordinates() for n, a in adapters.items()}
        self.skipped: list[str] = []
        self.truncated = self.overlong = 0
        laid_out = [self._lay_out(conversation) for conversation in data.conversations]
        self.spans = [spans for spans in laid_out if spans]
        if not self.spans:
            raise ConversationError(f"no conversation can be used; {self.skipped[0]}")
        self.lengths = np.array([_length(spans) for spans in self.spans])
        self.targets = np.array([_targets(spans) for spans in self.spans])
        self.patches = np.array([self._count_patches(spans) for spans in self.spans], np.int64)
        self.shape = self._shape()
        self._plan = self._draw(self.shape)
        self._planned: list[list[list[int]]] = []

    def __call__(self, k: int) -> PackedBatch:
        """Batch k."""
        number = k * self.axis.size + self.axis.index
        while len(self._planned) <= number:
            self._planned.append(next(self._plan))
        random = np.random.default_rng((self.seed, number))
        rows = [[self._segment(i, random) for i in row] for row in self._planned[number]]
        return pack_into_rows(rows, self.shape, self.vocabulary)

    @property
    def summary(self) -> str:
        count, wrong = len(self.spans), len(self.skipped) - self.overlong
        tokens, learned = int(self.lengths.sum()), int(self.targets.sum())
        return (
            f"{count:,} conversations of {tokens:,} tokens, {learned:,} of them learned; longer "
            f"than {self.config.length} tokens: {self.truncated:,} cut, {self.overlong:,} left "
            f"out; {wrong:,} left out that the template refuses"
        )

    def _lay_out(self, conversation) -> list | None:
        """Its spans, cut to a row's length; None where it is left out."""
        media = [
            _Seen(name, self.data.media.rows[name][path], self.adapters[name].geometry.tokens + 2)
            for name, path in conversation.media
        ]
        try:
            rendered = self.template.render(conversation.turns)
        except TemplateError as error:
            self.skipped.append(f"{conversation.place}: {error}")
            return None
        spans = [
            media[span.number] if isinstance(span, Medium) else span
            for span in to_spans(rendered, self.template, self.vocabulary)
        ]
        most, length = self.config.length, _length(spans)
        if length <= most:
            return spans
        what = f"{conversation.place}: {length} tokens are more than length={most}"
        if self.config.overlong == "error":
            raise ConversationError(what)
        cut = None
        if self.config.overlong == "truncate":
            cut = truncate(spans, most, self.vocabulary)
            what = f"{what}, and leave no room for an answer"
        if cut is None:
            self.skipped.append(what)
            self.overlong += 1
        else:
            self.truncated += 1
        return cut

    def _segment(self, number: int, random: np.random.Generator) -> Segment:
        return to_segment(
            [
                self._observed(span, random) if isinstance(span, _Seen) else span
                for span in self.spans[number]
            ]
        )

    def _observed(self, seen: _Seen, random: np.random.Generator) -> Span:
        adapter = self.adapters[seen.modality]
        grid = self.data.media.grids[seen.modality][seen.row]
        if self.config.augment:
            grid = adapter.augment(widen(grid), random, self.config.augment)
        patches = adapter.geometry.patchify(grid)
        where = self.coordinates[seen.modality]
        return Span(seen.modality, patches=patches, coordinates=where, given=True)

    def _count_patches(self, spans: list) -> list[int]:
        """Of each modality."""
        seen = [span for span in spans if isinstance(span, _Seen)]
        return [sum(s.places - 2 for s in seen if s.modality == name) for name in self.adapters]

    def _shape(self) -> BatchShape:
        """Room for what an epoch's batches hold, and for any conversation."""
        rows, length = self.config.rows, self.config.length
        geometries = {name: adapter.geometry for name, adapter in self.adapters.items()}
        anything = tuple((name, 1 << 62, g.patch_size) for name, g in geometries.items())
        drawn, first = 0, self._draw(BatchShape(rows, length, 1 << 62, 1, anything))
        targets, patches = int(self.targets.max()), self.patches.max(0)
        while drawn < len(self.spans):
            numbers = [number for row in next(first) for number in row]
            drawn += len(numbers)
            targets = max(targets, int(self.targets[numbers].sum()))
            patches = np.maximum(patches, self.patches[numbers].sum(0))
        room = tuple(
            (name, max(int(n), g.tokens), g.patch_size)
            for n, (name, g) in zip(patches, geometries.items())
        )
        return BatchShape(rows, length, min(rows * length, -(-targets // 64) * 64), 1, room)

    def _draw(self, shape: BatchShape) -> Iterator[list[list[int]]]:
        """Numbers of the conversations in each row of batch after batch."""
        stream, waiting = self._numbers(), []
        most = WINDOW * -(-shape.rows * shape.length // int(self.lengths.mean()))
        room = np.array([shape.targets, *(n for _, n, _ in shape.patches)])
        needs, shortest = np.column_stack([self.targets, self.patches]), self.lengths.min()
        while True:
            waiting += [next(stream) for _ in range(most - len(waiting))]
            rows: list[list[int]] = [[] for _ in range(shape.rows)]
            free, left, missed = np.full(shape.rows, shape.length), room.copy(), []
            for place, number in enumerate(waiting):
                length = self.lengths[number]
                row = int(np.argmax(free >= length))
                if free[row] < length or (needs[number] > left).any():
                    missed.append(number)
                    continue
                rows[row].append(number)
                free[row] -= length
                left -= needs[number]
                if free.max() < shortest:
                    missed += waiting[place + 1 :]
                    break
            yield rows
            waiting = missed

    def _numbers(self) -> Iterator[int]:
        """Conversations, epoch after epoch."""
        epoch = 0
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.spans))
            yield from map(int, order)
            epoch += 1


def _length(spans: list) -> int:
    return sum(span.places for span in spans) + (not spans[0].given)


def _targets(spans: list) -> int:
    """Tokens that are learned: of an answer its own, and the one that closes it."""
    return sum(len(span) + (not span.bare) for span in spans if not span.given)
