"""Conversations as spans: what a template has written, in tokens, and media in their places.

Where the template itself ends an answer, text is *bare*: a conversation of text alone is exactly
the tokens of what the template has written, as a published model knows it, and an answer ends with
the template's end-of-turn. Where it does not, the stretches between answers and media, and the
answers, are spans of their own, ``<text> .. </text>``, and ``</text>`` ends an answer:

    <text> user: </text> <image> .. </image> <text> What is it? </text> <text> A seven </text>
"""

from dataclasses import dataclass, replace

import numpy as np

from taichu.data.conversations.template import MEDIUM, ChatTemplate, Rendered
from taichu.data.layout import GROUPED, Segment, Span
from taichu.errors import TemplateError
from taichu.vocabulary import TEXT, Vocabulary


@dataclass(frozen=True)
class Medium:
    """Stands for the n-th medium of a conversation."""

    number: int


def to_spans(
    rendered: Rendered, template: ChatTemplate, vocabulary: Vocabulary
) -> list[Span | Medium]:
    """Spans of text, given ones and answers, and where media stand between them."""
    write = _bare if template.end else _delimited
    spans: list[Span | Medium] = []
    text, start = rendered.text, 0
    for match in (*MEDIUM.finditer(text), None):
        stop = match.start() if match else len(text)
        inside = [
            (max(a, start) - start, min(b, stop) - start, learned)
            for a, b, learned in rendered.answers
            if a < stop and b > start
        ]
        spans += write(text[start:stop], inside, vocabulary)
        if match:
            spans.append(Medium(int(match[1])))
            start = match.end()
    return spans


def to_segment(spans: list[Span]) -> Segment:
    """The segment of a whole conversation; what comes before the first answer is observed."""
    first = next((i for i, span in enumerate(spans) if not span.given), len(spans))
    return Segment(tuple(spans[:first]), tuple(spans[first:]), GROUPED)


@dataclass(frozen=True)
class Opening:
    """A conversation whose next answer is to be made.

    Attributes:
        spans: what is observed.
        token: that is fed next, after which the answer begins; None: the one that opens a text.
        end: ids that end the answer; none: the one that closes a text.
    """

    spans: tuple[Span, ...]
    token: int | None = None
    end: tuple[int, ...] = ()


def open_answer(
    rendered: Rendered, media: list[Span], template: ChatTemplate, vocabulary: Vocabulary
) -> Opening:
    """What `ChatTemplate.open` has written, as training lays it out up to an answer.

    Args:
        media: of the conversation, in order.

    Raises:
        TemplateError: nothing that a model could go on from is written before the answer.
    """
    spans = [
        media[span.number] if isinstance(span, Medium) else span
        for span in to_spans(rendered, template, vocabulary)
    ]
    if not template.end:
        return Opening(tuple(spans))
    if not spans or spans[-1].modality != TEXT:
        raise TemplateError(f"{template.name}: writes nothing before an answer")
    # the last token is fed, and the answer's first comes out
    *before, last = spans
    if len(last) > 1:
        before.append(replace(last, ids=last.ids[:-1]))
    return Opening(tuple(before), int(last.ids[-1]), tuple(vocabulary.encode(template.end)))


def _delimited(text: str, answers: list[tuple], vocabulary: Vocabulary) -> list[Span]:
    spans = []
    for start, stop, given in _stretches(len(text), answers):
        said = text[start:stop]
        if said.strip():
            spans.append(Span(TEXT, ids=_encode(said, vocabulary), given=given))
    return spans


def _bare(text: str, answers: list[tuple], vocabulary: Vocabulary) -> list[Span]:
    """Tokens of the whole text, cut where the answers begin and end."""
    ids, stretches = _encode(text, vocabulary), _stretches(len(text), answers)
    parts = [(_encode(text[start:stop], vocabulary), given) for start, stop, given in stretches]
    if not np.array_equal(np.concatenate([part for part, _ in parts]), ids):
        # tokens reach over the cuts
        cuts = []
        for start, stop, learned in answers:
            first, _ = _cut(ids, text, start, vocabulary)
            last, whole = _cut(ids, text, stop, vocabulary)
            cuts.append((first, last if whole else last + 1, learned))
        parts = [(ids[start:stop], given) for start, stop, given in _stretches(len(ids), cuts)]
    return [Span(TEXT, ids=part, given=given, bare=True) for part, given in parts if len(part)]


def _cut(ids: np.ndarray, text: str, place: int, vocabulary: Vocabulary) -> tuple[int, bool]:
    """How many tokens of a text come before a place in it, and whether the place is between two:
    where one reaches over it, that one is not counted."""
    before, behind = (_encode(part, vocabulary) for part in (text[:place], text[place:]))
    n = min(len(before), len(ids))
    same = int(np.argmin(np.append(before[:n] == ids[:n], False)))
    if same < len(before) and np.array_equal(ids[len(ids) - len(behind) :], behind):
        same = len(ids) - len(behind)  # what is before is cut up otherwise when more follows
        return same, True
    return same, same == len(before)


def _stretches(length: int, answers: list[tuple]) -> list[tuple[int, int, bool]]:
    """(start, stop, whether it is given): the answers and what is between them."""
    stretches, place = [], 0
    for start, stop, learned in answers:
        stretches += [(place, start, True), (start, stop, not learned)]
        place = stop
    return [*stretches, (place, length, True)]


def _encode(text: str, vocabulary: Vocabulary) -> np.ndarray:
    return np.array(vocabulary.encode(text), np.int32)
