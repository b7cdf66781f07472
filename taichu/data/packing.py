"""Packing: segments of many samples share a batch of fixed shape (NaViT 2307.06304)."""

from dataclasses import dataclass, fields

import numpy as np

from taichu.data.layout import JOINT, Segment, Span, Tokens, lay_out
from taichu.vocabulary import Vocabulary, modality_of

PLANES = ("ids", "source", "coords", "segment", "span")


@dataclass(frozen=True)
class BatchShape:
    """The fixed shape of every batch of a run, so that one graph is compiled.

    Attributes:
        rows, length: B and L.
        targets: M, positions with a decoding target.
        pairs: embedding pairs; the batch holds twice as many embeddings.
        patches: (modality, tokens, patch size) of each grid modality, in the model's order; room
            for whole grids.
    """

    rows: int
    length: int
    targets: int
    pairs: int
    patches: tuple[tuple[str, int, int], ...]


@dataclass
class PackedBatch:
    """The only thing that passes from data to model. B rows, L tokens, M targets, E pairs.

    Attributes:
        ids: (B, L) int32, ids of the joint vocabulary.
        source: (B, L) int32, 0 for the id, else 1 + the row of the patch, counted through
            ``patches`` laid end to end, whose embedding stands in its place.
        coords: (B, L, 3) int32, (t, y, x) for the rotary position.
        segment: (B, L) int32, number of the segment in the row; 0 is padding.
        span: (B, L) int32, tokens of one observed media span; 0 elsewhere.
        pool: (B, L) int32, number of the embedding a token is pooled into; 0 for none. Pair e is
            embeddings 2e + 1 and 2e + 2.
        positions: (M,) int32, flat positions b * L + l that have a target.
        targets: (M,) int32. weights: (M,) float32, 0 for unused places.
        ranges: (M, 2) int32, [low, high) of the ids that the softmax runs over.
        pair_group: (E,) int32, number of the pair's group, -1 for unused places.
        pair_caption: (E,) int32, equal for pairs that must not be each other's negatives.
        patches: one (tokens, P) float32 array a grid modality; observed patches.
    """

    ids: np.ndarray
    source: np.ndarray
    coords: np.ndarray
    segment: np.ndarray
    span: np.ndarray
    pool: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    ranges: np.ndarray
    pair_group: np.ndarray
    pair_caption: np.ndarray
    patches: tuple[np.ndarray, ...]

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The fields in order, the patches last, one by one."""
        plain = [getattr(self, field.name) for field in fields(self)[:-1]]
        return (*plain, *self.patches)

    @property
    def planes(self) -> tuple[np.ndarray, ...]:
        """The five that say what stands at each place of the rows, as `PLANES` names them."""
        return tuple(getattr(self, name) for name in PLANES)

    @property
    def padding(self) -> float:
        """Share of positions that hold nothing."""
        return float((self.segment == 0).mean())


@dataclass(frozen=True)
class Layout:
    """Segments of one drawn sample that stay in one batch.

    Attributes:
        segments: where ``aligned``, the first two are the two sides of a pair.
        group: number of the group the sample was drawn for.
        caption: identity of what the sample says; equal captions are no negatives.
        aligned: whether the observed spans of the first two segments form a pair.
    """

    segments: tuple[Segment, ...]
    group: int
    caption: int
    aligned: bool = False


def empty_batch(shape: BatchShape) -> PackedBatch:
    """A batch of padding."""
    B, L, M, E = shape.rows, shape.length, shape.targets, shape.pairs
    plane = [np.zeros((B, L), np.int32) for _ in range(5)]
    return PackedBatch(
        ids=plane[0],
        source=plane[1],
        coords=np.zeros((B, L, 3), np.int32),
        segment=plane[2],
        span=plane[3],
        pool=plane[4],
        positions=np.zeros(M, np.int32),
        targets=np.zeros(M, np.int32),
        weights=np.zeros(M, np.float32),
        ranges=np.tile(np.array([0, 1], np.int32), (M, 1)),
        pair_group=np.full(E, -1, np.int32),
        pair_caption=np.full(E, -1, np.int32),
        patches=tuple(np.zeros((n, size), np.float32) for _, n, size in shape.patches),
    )


def pack(
    layouts: list[Layout],
    shape: BatchShape,
    vocabulary: Vocabulary,
    grouped_weight: float = 1.0,
    joint_weight: float = 1.0,
) -> tuple[PackedBatch, list[Layout]]:
    """Fill one batch; longest segments first, each into the fullest row that still holds it.

    Each training's targets share its weight: the decoding loss is, for each training, the mean
    over the modalities it decodes of the mean over their tokens.

    Returns:
        The batch, and the layouts that found no place.
    """
    batch = empty_batch(shape)
    batch.ids[:] = vocabulary.pad
    packer = _Packer(batch, shape, vocabulary)
    order = sorted(range(len(layouts)), key=lambda i: -max(len(s) for s in layouts[i].segments))
    left = [layouts[i] for i in order if not packer.add(layouts[i])]
    packer.finish(grouped_weight, joint_weight)
    return batch, left


def pack_rows(
    segments: list[Segment],
    length: int,
    vocabulary: Vocabulary,
    grids: dict[str, tuple[int, int]],
) -> PackedBatch:
    """One segment a row, in order: the form that generation continues.

    The batch holds room for every row to observe what the widest row observes, and for one grid of
    what none observes.

    Args:
        grids: (tokens, patch size) of each grid modality.
    """
    widest = dict.fromkeys(grids, 0)
    for segment in segments:
        for name, n in _count_patches(Layout((segment,), 0, 0)).items():
            widest[name] = max(widest[name], n)
    sizes = tuple((m, widest[m] * len(segments) or T, P) for m, (T, P) in grids.items())
    shape = BatchShape(len(segments), length, 1, 1, sizes)
    return _fill([[segment] for segment in segments], shape, vocabulary).batch


def pack_into_rows(
    rows: list[list[Segment]], shape: BatchShape, vocabulary: Vocabulary
) -> PackedBatch:
    """Segments in the rows that were chosen for them; the caller knows that all have room. Their
    grouped decoding has the weight 1."""
    packer = _fill(rows, shape, vocabulary)
    packer.finish(1.0, 1.0)
    return packer.batch


def _fill(rows: list[list[Segment]], shape: BatchShape, vocabulary: Vocabulary) -> "_Packer":
    batch = empty_batch(shape)
    batch.ids[:] = vocabulary.pad
    packer = _Packer(batch, shape, vocabulary)
    for row, segments in enumerate(rows):
        for segment in segments:
            packer._write(row, segment, lay_out(segment, vocabulary), 0)
    return packer


class _Packer:
    def __init__(self, batch: PackedBatch, shape: BatchShape, vocabulary: Vocabulary):
        self.batch, self.shape, self.vocabulary = batch, shape, vocabulary
        self.free = np.full(shape.rows, shape.length)
        self.count = np.zeros(shape.rows, np.int32)  # segments in a row
        self.pairs = 0
        self.decoded: list[tuple[int, Tokens, bool]] = []  # flat start, tokens, joint
        self.places = 0
        self.first = np.cumsum([0] + [tokens for _, tokens, _ in shape.patches])
        self.used = {modality: 0 for modality, _, _ in shape.patches}
        self.capacity = {modality: tokens for modality, tokens, _ in shape.patches}

    def add(self, layout: Layout) -> bool:
        """Place all segments of a layout, or none."""
        rows = self._rows_for([len(segment) for segment in layout.segments])
        patches = _count_patches(layout)
        if (
            rows is None
            or (layout.aligned and self.pairs == self.shape.pairs)
            or any(self.used[m] + n > self.capacity[m] for m, n in patches.items())
        ):
            return False
        all_tokens = [lay_out(segment, self.vocabulary) for segment in layout.segments]
        targets = sum(int((tokens.target >= 0).sum()) for tokens in all_tokens)
        if self.places + targets > self.shape.targets:
            return False
        self.places += targets
        for side, (row, segment, tokens) in enumerate(zip(rows, layout.segments, all_tokens)):
            embedding = 2 * self.pairs + 1 + side if layout.aligned and side < 2 else 0
            self._write(row, segment, tokens, embedding)
        if layout.aligned:
            self.batch.pair_group[self.pairs] = layout.group
            self.batch.pair_caption[self.pairs] = layout.caption
            self.pairs += 1
        return True

    def _rows_for(self, lengths: list[int]) -> list[int] | None:
        free = self.free.copy()
        rows = []
        for length in lengths:
            row = int(np.argmin(np.where(free >= length, free, self.shape.length + 1)))
            if free[row] < length:
                return None
            free[row] -= length
            rows.append(row)
        return rows

    def _write(self, row: int, segment: Segment, tokens: Tokens, embedding: int):
        batch, n = self.batch, len(tokens.ids)
        start = self.shape.length - self.free[row]
        place = (row, slice(start, start + n))
        self.free[row] -= n
        self.count[row] += 1
        batch.ids[place] = tokens.ids
        batch.coords[place] = tokens.coords
        batch.segment[place] = self.count[row]
        batch.span[place] = tokens.span
        batch.pool[place] = (tokens.pool > 0) * embedding
        for index, (modality, _, _) in enumerate(self.shape.patches):
            here = (tokens.patch >= 0) & (tokens.modality == index)
            first = 1 + self.first[index] + self.used[modality]
            batch.source[place][here] = first + tokens.patch[here]
        for span in segment.spans:
            if span.patches is not None:
                self._write_patches(span)
        if segment.decoded:
            self.decoded.append(
                (row * self.shape.length + start, tokens, segment.decoding == JOINT)
            )

    def _write_patches(self, span: Span):
        index = self.vocabulary.media.index(span.modality)
        used, n = self.used[span.modality], len(span)
        self.batch.patches[index][used : used + n] = span.patches
        self.used[span.modality] += n

    def finish(self, grouped_weight: float, joint_weight: float):
        """Write the targets and share out the weights."""
        batch, m = self.batch, 0
        whole, pieces = (0, self.vocabulary.size), (0, self.vocabulary.pieces)
        ranges = [(ids.start, ids.stop) for ids in self.vocabulary.ranges]
        bounds = np.array([whole, *ranges, pieces])
        joint_kind = np.zeros(self.shape.targets, bool)
        for start, tokens, joint in self.decoded:
            here = np.flatnonzero(tokens.target >= 0)
            part = slice(m, m + len(here))
            batch.positions[part] = start + here
            batch.targets[part] = tokens.target[here]
            batch.ranges[part] = bounds[tokens.range[here]]
            joint_kind[part] = joint
            m += len(here)
        modality = modality_of(self.vocabulary)[batch.targets]
        modality[m:] = -1
        for kind, weight in ((False, grouped_weight), (True, joint_weight)):
            present = [
                chosen
                for index in range(len(self.vocabulary.ranges) + 1)
                if (chosen := (joint_kind == kind) & (modality == index)).any()
            ]
            for chosen in present:
                batch.weights[chosen] = weight / len(present) / chosen.sum()


def _count_patches(layout: Layout) -> dict[str, int]:
    count: dict[str, int] = {}
    for segment in layout.segments:
        for span in segment.spans:
            if span.patches is not None:
                count[span.modality] = count.get(span.modality, 0) + len(span)
    return count
