"""Conversations laid out by a template, their media looked up only when a segment is wanted."""

from dataclasses import dataclass

import numpy as np

from modality_adapters.grid import widen
from taichu.data.conversations.conversation import Conversation
from taichu.data.conversations.template import ChatTemplate
from taichu.data.conversations.tokens import Medium, to_segment, to_spans
from taichu.data.layout import Segment, Span
from taichu.data.prepared import Media
from taichu.vocabulary import Vocabulary


@dataclass(frozen=True)
class _Seen:
    """A medium among a conversation's spans, not yet looked up."""

    modality: str
    row: int
    places: int
    given: bool = True
    bare: bool = False


class Layouts:
    """From conversations to spans, and from these to segments.

    Args:
        media: of the conversations.
        vocabulary: the joint vocabulary.
        adapters: name -> adapter, in the model's order.
        template: that writes them.
        augment: strength of the changes of media, 0 (none) to 1.
    """

    def __init__(
        self,
        media: Media,
        vocabulary: Vocabulary,
        adapters: dict,
        template: ChatTemplate,
        augment: float = 0.0,
    ):
        self.media, self.vocabulary, self.adapters = media, vocabulary, adapters
        self.template, self.augment = template, augment
        self.coordinates = {n: a.geometry.coordinates() for n, a in adapters.items()}

    def spans(self, conversation: Conversation) -> list:
        """What a conversation is in tokens, however long.

        Raises:
            TemplateError: the template refuses it.
        """
        media = [
            _Seen(name, self.media.rows[name][path], self.adapters[name].geometry.tokens + 2)
            for name, path in conversation.media
        ]
        rendered = self.template.render(conversation.turns)
        return [
            media[span.number] if isinstance(span, Medium) else span
            for span in to_spans(rendered, self.template, self.vocabulary)
        ]

    def segment(self, spans: list, random: np.random.Generator) -> Segment:
        """The same with its media."""
        return to_segment([self._observed(s, random) if isinstance(s, _Seen) else s for s in spans])

    def count_patches(self, spans: list) -> list[int]:
        """Of each modality."""
        seen = [span for span in spans if isinstance(span, _Seen)]
        return [sum(s.places - 2 for s in seen if s.modality == name) for name in self.adapters]

    def _observed(self, seen: _Seen, random: np.random.Generator) -> Span:
        adapter = self.adapters[seen.modality]
        grid = self.media.grids[seen.modality][seen.row]
        if self.augment:
            grid = adapter.augment(widen(grid), random, self.augment)
        patches = adapter.geometry.patchify(grid)
        where = self.coordinates[seen.modality]
        return Span(seen.modality, patches=patches, coordinates=where, given=True)


def count_tokens(spans: list) -> int:
    """That they take in a row."""
    return sum(span.places for span in spans) + (not spans[0].given)


def count_targets(spans: list) -> int:
    """Tokens that are learned: of an answer its own, and the one that closes it."""
    return sum(len(span) + (not span.bare) for span in spans if not span.given)
