"""Layouts: how a sample's modalities stand in a segment, for each of the three trainings.

A segment is a list of spans. A span is text pieces, observed patches or codes of one modality:

    <text> p1 .. pn </text>        <image> patch patch .. </image>        <image> c1 .. cn </image>

An *observed* span is what the model is given; a *decoded* one is what it learns to write:

    grouped alignment   [observed ...]                     pooled into one embedding
    grouped decoding    [observed ...] [decoded]           softmax over the modality's own range
    joint decoding      [observed ...] [decoded] [decoded] softmax over the whole vocabulary,
                                                           control tokens decoded too

The three combine: the observed spans of a decoding segment may also be pooled.

A conversation is grouped decoding that goes on: among its decoded spans, the answers, stand *given*
ones, the turns between them. Where a published chat template delimits the turns itself, spans of
text are *bare*, without control tokens, and side by side they are the published sequence.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

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
        given: among decoded spans, that this one is not to be learned.
        bare: a text without the control tokens around it.
    """

    modality: str
    ids: np.ndarray | None = None
    patches: np.ndarray | None = None
    coordinates: np.ndarray | None = None
    given: bool = False
    bare: bool = False

    def __len__(self) -> int:
        return len(self.ids) if self.patches is None else len(self.patches)

    @property
    def places(self) -> int:
        """Tokens that it takes in a row."""
        return len(self) if self.bare else len(self) + 2


@dataclass(frozen=True)
class Segment:
    """A sample's tokens as they will stand in a row.

    Attributes:
        observed: spans given to the model; none of them: the condition is dropped (<null>).
        decoded: spans to be learned, in order, and given ones between them.
        decoding: NOT_DECODED, GROUPED or JOINT.
        embedding: number of the batch's embedding that the observed spans' contents are pooled
            into, from 1; 0 for none.
    """

    observed: tuple[Span, ...]
    decoded: tuple[Span, ...] = ()
    decoding: int = NOT_DECODED
    embedding: int = 0

    def __len__(self) -> int:
        return self._length

    @property
    def spans(self) -> tuple[Span, ...]:
        """All of them, in order."""
        return self.observed + self.decoded

    @cached_property
    def _length(self) -> int:
        length = max(1, sum(span.places for span in self.observed))
        for span in self.decoded:
            length += span.places
        return length + (self.decoding == JOINT)


@dataclass
class Tokens:
    """A segment as arrays of n tokens; the fields are those of `taichu.data.packing.PackedBatch`.

    ``range`` is, for each target, 0 for the whole vocabulary, else 1 + the modality's index; of a
    bare text it comes behind these, for the pieces alone.
    ``patch`` is the index of the token's patch among those of its modality in the segment, or -1.
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

    All but ``ids`` and ``target`` is shared by segments of the same form, and not to be changed.
    """
    kinds = tuple(map(_kind, segment.observed)), tuple(map(_kind, segment.decoded))
    # hardly two conversations are of one form
    conversation = any(span.given or span.bare for span in segment.spans)
    make = _form.__wrapped__ if conversation else _form
    form = make(*kinds, segment.decoding, segment.embedding, vocabulary)
    ids = form.ids.copy()
    for content, span in zip(form.contents, segment.spans):
        if span.patches is None:
            ids[content] = span.ids
    target = np.full(len(ids), -1, np.int32)
    target[form.predicting] = ids[form.predicting + 1]
    return Tokens(ids, target=target, **form.shared)


@dataclass(frozen=True)
class _Form:
    """What segments share whose spans are of the same kinds and lengths.

    ``ids`` has control tokens and patch ids in place, ``contents`` says where each span's content
    stands, ``predicting`` which tokens have the next one as their target.
    """

    ids: np.ndarray
    contents: list[slice]
    predicting: np.ndarray
    shared: dict[str, np.ndarray]


def _kind(span: Span) -> tuple:
    """(modality, length, whether it is of patches, coordinates as bytes, given, bare): what a form
    hangs on."""
    where = span.coordinates
    return (
        span.modality,
        len(span),
        span.patches is not None,
        None if where is None else np.ascontiguousarray(where, np.int32).tobytes(),
        span.given,
        span.bare,
    )


@lru_cache(4096)
def _form(
    observed: tuple, decoded: tuple, decoding: int, embedding: int, vocabulary: Vocabulary
) -> _Form:
    content = sum(n if bare else n + 2 for _, n, _, _, _, bare in (*observed, *decoded))
    n = content + (not observed) + (decoding == JOINT)
    ids = np.empty(n, np.int32)
    shared = {
        "patch": np.full(n, -1, np.int32),
        "modality": np.zeros(n, np.int32),
        "coords": np.empty((n, 3), np.int32),
        "span": np.zeros(n, np.int32),
        "pool": np.zeros(n, np.int32),
        "range": np.zeros(n, np.int32),
    }
    contents, predicting = [], np.zeros(n, bool)
    patches = dict.fromkeys(vocabulary.media, 0)  # so far
    place = coordinate = 0
    if not observed:
        ids[0], shared["coords"][0] = vocabulary.null, 0
        place = coordinate = 1
    for number, kind in enumerate((*observed, *decoded), start=1):
        modality, length, of_patches, _, given, bare = kind
        start, first = place, place if bare else place + 1
        inner = slice(first, first + length)
        place, coordinate = _write(ids, shared, kind, place, coordinate, vocabulary)
        contents.append(inner)
        if number <= len(observed) or given:
            if number <= len(observed):
                # control tokens say the same of all samples; an empty text has nothing else
                shared["pool"][inner if length else slice(start, place)] = embedding
            if of_patches:
                shared["span"][inner] = number
                shared["patch"][inner] = patches[modality] + np.arange(length)
                patches[modality] += length
            continue
        # the token before each content token predicts it; text must also learn where to end
        learns_end = modality == TEXT or decoding == JOINT
        last = place - 1 if learns_end else place - 2
        predicting[first - 1 : last] = True
        if decoding == GROUPED:
            index = 0 if modality == TEXT else 1 + vocabulary.media.index(modality)
            index = 1 + len(vocabulary.media) if bare else index
            shared["range"][first - 1 : last] = 1 + index
        else:
            predicting[start - 1] = True
    if decoding == JOINT:
        ids[place], shared["coords"][place] = vocabulary.end, coordinate
        predicting[place - 1] = True
    for array in shared.values():
        array.setflags(write=False)
    return _Form(ids, contents, np.flatnonzero(predicting), shared)


def _write(ids, shared, kind: tuple, place: int, coordinate: int, vocabulary: Vocabulary):
    """Write one span's form with its control tokens; returns the next place and coordinate."""
    modality, n, of_patches, where, _, bare = kind
    coords = shared["coords"]
    if bare:
        coords[place : place + n] = coordinate + np.arange(n)[:, None]
        return place + n, coordinate + n
    ids[place], coords[place] = vocabulary.open(modality), coordinate
    content = slice(place + 1, place + 1 + n)
    if where is None:
        coords[content] = coordinate + 1 + np.arange(n)[:, None]
    else:
        coords[content] = coordinate + 1 + np.frombuffer(where, np.int32).reshape(n, 3)
    if of_patches:
        ids[content] = vocabulary.patch(modality)
        shared["modality"][content] = vocabulary.media.index(modality)
    end = place + 1 + n
    coordinate = coords[place:end].max() + 1
    ids[end], coords[end] = vocabulary.close(modality), coordinate
    return end + 1, coordinate + 1
