"""Batches of preferences: of each pair both conversations, which do not see each other."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ascend.device_matrix import Axis, device_matrix
from taichu.data.conversations.batches import require_known
from taichu.data.conversations.drawing import Drawing
from taichu.data.conversations.laid_out import Layouts, count_tokens
from taichu.data.conversations.prepared import PreparedConversations
from taichu.data.conversations.template import ChatTemplate
from taichu.data.packing import PackedBatch, pack_into_rows
from taichu.errors import ConfigError, ConversationError, TemplateError
from taichu.vocabulary import Vocabulary


@dataclass(frozen=True)
class PairsConfig:
    """How pairs of conversations are packed."""

    rows: int = 8  # B
    length: int = 512  # L
    overlong: str = "skip"  # than a row, a conversation or a single row's two: skip or error

    def __post_init__(self):
        require_known(self.overlong, ("skip", "error"))
        if self.rows < 1 or self.length < 2:
            raise ConfigError("rows must be at least 1, length at least 2")


@dataclass
class PreferenceBatch:
    """A packed batch that knows its answers. M targets, E pairs.

    Attributes:
        packed: the conversations; ``pair_group`` is 0 for each pair and -1 for unused places.
        answers: (M,) int32, whose token each target is: 2e of pair e's chosen answer, 2e + 1 of its
            rejected one.
        reference: (E, 2) float32, log-probabilities of both under the reference model.
        pairs: numbers of the pairs, in order.
    """

    packed: PackedBatch
    answers: np.ndarray
    reference: np.ndarray
    pairs: list[int]

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Those of `PackedBatch`, the answers and the reference before the patches."""
        packed = self.packed.arrays()
        before = len(packed) - len(self.packed.patches)
        return (*packed[:before], self.answers, self.reference, *packed[before:])

    @property
    def padding(self) -> float:
        """Share of positions that hold nothing."""
        return self.packed.padding


class PreferenceBatches:
    """Packed batches of preferences; batch k is a function of (seed, k) and the place on the data
    axis alone, as of `taichu.data.conversations.batches.ConversationBatches`.

    Args:
        data: what `prepare_preferences` gives.
        others: as there.

    Attributes:
        shape: of every batch.
        count: pairs that are used.
        reference: (count, 2) float32, log-probabilities of the chosen and the rejected answer under
            the reference model, 0 until they are set; what batches made from then on carry.
        skipped: one line for each pair that was left out here, with the reason.
        summary: one line: pairs, what was left out, tokens.

    Raises:
        ConversationError: a conversation is too long and that is an error, or no pair is left.
    """

    def __init__(
        self,
        data: PreparedConversations,
        vocabulary: Vocabulary,
        adapters: dict,
        template: ChatTemplate,
        config: PairsConfig,
        seed: int,
        axis: Axis | None = None,
    ):
        self.vocabulary, self.config = vocabulary, config
        self.axis = axis or device_matrix().data
        self.layouts = Layouts(data.media, vocabulary, adapters, template)
        self.skipped: list[str] = []
        self.overlong = 0
        self.spans: list = []  # of the chosen and the rejected conversation in turn
        for pair in zip(data.conversations[::2], data.conversations[1::2]):
            self.spans += self._lay_out(pair)
        if not self.spans:
            raise ConversationError(f"no pair can be used; {self.skipped[0]}")
        self.drawing = Drawing(self.spans, self.layouts, config.rows, config.length, seed, 2)
        self.shape, self.count = self.drawing.shape, self.drawing.units
        self.reference = np.zeros((self.count, 2), np.float32)

    def __call__(self, k: int) -> PreferenceBatch:
        """Batch k."""
        return self._pack(self.drawing.rows_of(k * self.axis.size + self.axis.index))

    def first(self, batches: int) -> list[int]:
        """Numbers of the pairs that stand in any rank's first batches."""
        drawn = (self.drawing.rows_of(number) for number in range(batches * self.axis.size))
        return sorted({number // 2 for rows in drawn for row in rows for number in row})

    def once(self, pairs: list[int]) -> Iterator[PreferenceBatch]:
        """Batches of the same shape that hold these pairs once; on every rank all of them."""
        return map(self._pack, self.drawing.once(pairs))

    @property
    def summary(self) -> str:
        wrong = len(self.skipped) - self.overlong
        tokens, learned = int(self.drawing.lengths.sum()), int(self.drawing.targets.sum())
        return (
            f"{self.count:,} pairs of {tokens:,} tokens, {learned:,} of them answers; left out: "
            f"{self.overlong:,} longer than {self.config.length} tokens, {wrong:,} that the "
            "template refuses"
        )

    def _lay_out(self, pair) -> list:
        """Spans of both; none where the pair is left out."""
        place, most = pair[0].place, self.config.length
        try:
            both = [self.layouts.spans(conversation) for conversation in pair]
        except TemplateError as error:
            self.skipped.append(f"{place}: {error}")
            return []
        alone = max if self.config.rows > 1 else sum  # a single row is to hold both
        length = alone(map(count_tokens, both))
        if length <= most:
            return both
        what = f"{place}: {length} tokens are more than length={most}"
        if self.config.overlong == "error":
            raise ConversationError(what)
        self.skipped.append(what)
        self.overlong += 1
        return []

    def _pack(self, rows: list[list[int]]) -> PreferenceBatch:
        unchanged = np.random.default_rng(0)  # media are not varied, so nothing is drawn
        segments = [[self.layouts.segment(self.spans[i], unchanged) for i in row] for row in rows]
        packed = pack_into_rows(segments, self.shape, self.vocabulary)
        # where an epoch ends and the next begins a pair may stand in a batch twice
        pairs = sorted(number // 2 for row in rows for number in row if number % 2 == 0)
        packed.pair_group[: len(pairs)] = 0
        reference = np.zeros((self.shape.pairs, 2), np.float32)
        reference[: len(pairs)] = self.reference[pairs]
        return PreferenceBatch(packed, self._answers(packed, rows, pairs), reference, pairs)

    def _answers(self, packed: PackedBatch, rows: list[list[int]], pairs: list[int]) -> np.ndarray:
        """Of each target, by the segment that it stands in."""
        seen, places = Counter(), [[] for _ in rows]
        for row, numbers in enumerate(rows):
            for number in numbers:
                e = pairs.index(number // 2) + seen[number]
                places[row].append(2 * e + number % 2)
                seen[number] += 1
        answers = np.zeros(self.shape.targets, np.int32)
        for m in np.flatnonzero(packed.weights):
            row, column = divmod(int(packed.positions[m]), self.shape.length)
            answers[m] = places[row][packed.segment[row, column] - 1]
        return answers
