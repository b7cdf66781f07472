"""Batches of conversations: laid out by a template, packed several to a row.

Batch k is a function of (seed, k) and the place on the data axis alone; see
`taichu.data.conversations.drawing` for what stands in it.
"""

from dataclasses import dataclass

import numpy as np

from ascend.device_matrix import Axis, device_matrix
from taichu.config import nearest
from taichu.data.conversations.drawing import Drawing
from taichu.data.conversations.laid_out import Layouts, count_tokens
from taichu.data.conversations.overlong import truncate
from taichu.data.conversations.prepared import PreparedConversations
from taichu.data.conversations.template import ChatTemplate
from taichu.data.packing import PackedBatch, pack_into_rows
from taichu.errors import ConfigError, ConversationError, TemplateError
from taichu.vocabulary import Vocabulary

OVERLONG = ("skip", "truncate", "error")


@dataclass(frozen=True)
class ConversationsConfig:
    """How conversations are packed."""

    rows: int = 8  # B
    length: int = 512  # L
    overlong: str = "skip"  # than a row: skip, truncate (at a turn's end where possible) or error
    augment: float = 0.0  # strength of the changes of media, 0 (none) to 1

    def __post_init__(self):
        require_known(self.overlong, OVERLONG)
        if not 0 <= self.augment <= 1:
            raise ConfigError(f"augment: must be from 0 to 1, not {self.augment}")
        if self.rows < 1 or self.length < 2:
            raise ConfigError("rows must be at least 1, length at least 2")


def require_known(overlong: str, ways: tuple[str, ...]):
    """Raises: ConfigError: it is no way to treat what is too long."""
    if overlong not in ways:
        hint = nearest(overlong, ways)
        raise ConfigError(f"overlong: {overlong!r} is none of {', '.join(ways)}{hint}")


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
        spans: of each conversation that is used.
        drawing: what stands where.
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
        self.vocabulary, self.config, self.seed = vocabulary, config, seed
        self.axis = axis or device_matrix().data
        self.layouts = Layouts(data.media, vocabulary, adapters, template, config.augment)
        self.skipped: list[str] = []
        self.truncated = self.overlong = 0
        laid_out = [self._lay_out(conversation) for conversation in data.conversations]
        self.spans = [spans for spans in laid_out if spans]
        if not self.spans:
            raise ConversationError(f"no conversation can be used; {self.skipped[0]}")
        self.drawing = Drawing(self.spans, self.layouts, config.rows, config.length, seed)
        self.shape = self.drawing.shape

    def __call__(self, k: int) -> PackedBatch:
        """Batch k."""
        number = k * self.axis.size + self.axis.index
        random = np.random.default_rng((self.seed, number))
        rows = [
            [self.layouts.segment(self.spans[i], random) for i in row]
            for row in self.drawing.rows_of(number)
        ]
        return pack_into_rows(rows, self.shape, self.vocabulary)

    @property
    def summary(self) -> str:
        count, wrong = len(self.spans), len(self.skipped) - self.overlong
        tokens, learned = int(self.drawing.lengths.sum()), int(self.drawing.targets.sum())
        return (
            f"{count:,} conversations of {tokens:,} tokens, {learned:,} of them learned; longer "
            f"than {self.config.length} tokens: {self.truncated:,} cut, {self.overlong:,} left "
            f"out; {wrong:,} left out that the template refuses"
        )

    def _lay_out(self, conversation) -> list | None:
        """Its spans, cut to a row's length; None where it is left out."""
        try:
            spans = self.layouts.spans(conversation)
        except TemplateError as error:
            self.skipped.append(f"{conversation.place}: {error}")
            return None
        most, length = self.config.length, count_tokens(spans)
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
