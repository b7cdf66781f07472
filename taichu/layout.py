"""Layouts: how a sample's modalities stand in a segment, for each of the three trainings.

A segment is a list of spans. A span is text pieces, observed patches or codes of one modality:

    <text> p1 .. pn </text>        <image> patch patch .. </image>        <image> c1 .. cn </image>

An *observed* span is what the model is given; a *decoded* one is what it learns to write:

    grouped alignment   [observed ...]                     pooled into one embedding
    grouped decoding    [observed ...] [decoded]           softmax over the modality's own range
    joint decoding      [observed ...] [decoded] [decoded] softmax over the whole vocabulary,
                                                           control tokens decoded too

The three combine: the observed spans of a decoding segment may also be pooled.
"""

from dataclasses import dataclass

import numpy as np

from taichu.vocabulary import TEXT, Vocabulary

NOT_DECODED, GROUPED, JOINT = range(3)


@dataclass(frozen=True)
class Span:
    """One modality's stretch of a segment.

    Attributes:
        modality: "text" or a grid modality.
        ids: (n,) piece ids or codes in the joint vocabulary; None for observed patches.
        patches: (n, P) float32 for observed patches, else None.
        coordinates: (n, 3) patch index of each token; None for text.
    """

    modality: str
    ids: np.ndarray | None = None
    patches: np.ndarray | None = None
    coordinates: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids) if self.patches is None else len(self.patches)


@dataclass(frozen=True)
class Segment:
    """A sample's tokens as they will stand in a row.

    Attributes:
        observed: spans given to the model; none of them: the condition is dropped (<null>).
        decoded: spans to be learned, in order.
        decoding: NOT_DECODED, GROUPED or JOINT.
        embedding: number of the batch's embedding that the observed spans' contents are pooled
            into, from 1; 0 for none.
    """

    observed: tuple[Span, ...]
    decoded: tuple[Span, ...] = ()
    decoding: int = NOT_DECODED
    embedding: int = 0

    def __len__(self) -> int:
        length = max(1, sum(len(span) + 2 for span in self.observed))
        for span in self.decoded:
            length += len(span) + 2
        return length + (self.decoding == JOINT)


@dataclass
class Tokens:
    """A segment as arrays of n tokens; the fields are those of `taichu.packing.PackedBatch`.

    ``range`` is, for each target, 0 for the whole vocabulary, else 1 + the modality's index.
    ``patch`` is the index of the token's patch within the span's modality in the segment, or -1.
    """

    ids: np.ndarray
    patch: np.ndarray
    modality: np.ndarray
    coords: np.ndarray
    span: np.ndarray
    pool: np.ndarray
    target: np.ndarray
    range: np.ndarray


def lay_out(segment: Segment, vocabulary: Vocabulary) -> Tokens:
    """Write a segment's tokens. Text takes coordinates (i, i, i); media stand at i + (t, y, x), and
    what follows starts past their largest coordinate (M-RoPE, Qwen2-VL 2409.12191, section 2.1).
    """
    n = len(segment)
    tokens = Tokens(
        ids=np.empty(n, np.int32),
        patch=np.full(n, -1, np.int32),
        modality=np.zeros(n, np.int32),
        coords=np.empty((n, 3), np.int32),
        span=np.zeros(n, np.int32),
        pool=np.zeros(n, np.int32),
        target=np.full(n, -1, np.int32),
        range=np.zeros(n, np.int32),
    )
    place = coordinate = 0
    if not segment.observed:
        tokens.ids[0], tokens.coords[0] = vocabulary.null, 0
        place = coordinate = 1
    for number, span in enumerate(segment.observed, start=1):
        start = place
        place, coordinate = _write(tokens, span, place, coordinate, vocabulary)
        # control tokens say the same of all samples; an empty text has nothing else
        inner = slice(start + 1, place - 1) if len(span) else slice(start, place)
        tokens.pool[inner] = segment.embedding
        if span.patches is not None:
            tokens.span[start + 1 : place - 1] = number
    for span in segment.decoded:
        start, first = place, place + 1
        place, coordinate = _write(tokens, span, place, coordinate, vocabulary)
        is_text = span.modality == TEXT
        # the token before each content token predicts it; text must also learn where to end
        last = place - 1 if is_text or segment.decoding == JOINT else place - 2
        tokens.target[first - 1 : last] = tokens.ids[first : last + 1]
        if segment.decoding == GROUPED:
            index = 0 if is_text else 1 + vocabulary.media.index(span.modality)
            tokens.range[first - 1 : last] = 1 + index
        else:
            tokens.target[start - 1] = tokens.ids[start]
    if segment.decoding == JOINT:
        tokens.ids[place], tokens.coords[place] = vocabulary.end, coordinate
        tokens.target[place - 1] = vocabulary.end
    return tokens


def _write(tokens: Tokens, span: Span, place: int, coordinate: int, vocabulary: Vocabulary):
    """Write one span with its control tokens; returns the next place and coordinate."""
    n = len(span)
    tokens.ids[place] = vocabulary.open(span.modality)
    tokens.coords[place] = coordinate
    content = slice(place + 1, place + 1 + n)
    if span.coordinates is None:
        tokens.coords[content] = coordinate + 1 + np.arange(n)[:, None]
    else:
        tokens.coords[content] = coordinate + 1 + span.coordinates
    if span.patches is None:
        tokens.ids[content] = span.ids
    else:
        tokens.ids[content] = vocabulary.patch(span.modality)
        tokens.patch[content] = np.arange(n)
        tokens.modality[content] = vocabulary.media.index(span.modality)
    end = place + 1 + n
    coordinate = tokens.coords[place:end].max() + 1
    tokens.ids[end] = vocabulary.close(span.modality)
    tokens.coords[end] = coordinate
    return end + 1, coordinate + 1
