"""Batches: draw samples by group, lay them out, pack them.

Batch k is a function of (seed, k) and the place on the data axis alone, so a run that was stopped
goes on with exactly the batches it would have seen. Ranks draw from one group at a time, as pairs
are each other's negatives, and never the same sample in an epoch.
"""

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ascend.device_matrix import Axis, device_matrix
from modality_adapters.grid import widen
from taichu.config import nearest
from taichu.data.layout import GROUPED, JOINT, NOT_DECODED, Segment, Span
from taichu.data.packing import BatchShape, Layout, PackedBatch, pack
from taichu.data.prepared import PreparedData
from taichu.errors import ConfigError
from taichu.vocabulary import TEXT, Vocabulary


@dataclass(frozen=True)
class MixtureConfig:
    """What is drawn for a batch, and what is learned from it.

    A group is two sides of modalities, written "text-image" or "text-audio+image": each side is
    observed and pooled once, and decoded from the other side once. A batch is drawn from one group,
    since only pairs of one group are each other's negatives: the more of them, the more is learned.
    """

    groups: dict[str, float]  # group -> share of the batches
    alignment_weight: float = 1.5  # alpha (VALOR eq. 7); 0 leaves grouped alignment out
    grouped_weight: float = 1.0  # of grouped decoding; 0 leaves it out
    joint_weight: float = 1.0  # of joint decoding; 0 leaves it out
    joint_share: float = 0.2  # share of the draws laid out for joint decoding
    alignment_share: float = 0.0  # share of the other draws that are aligned and not decoded
    dropped_conditions: float = 0.08  # share of decoding segments without their condition
    augment: float = 1.0  # strength of the changes of observed media, 0 (none) to 1
    rows: int = 32  # B
    length: int = 128  # L
    fill: float = 0.95  # share of the B x L positions that the draws are planned to take
    languages: tuple[str, ...] = field(default_factory=tuple)  # texts used; none: all

    def __post_init__(self):
        if not (self.alignment_weight > 0 or self.grouped_weight > 0 or self.joint_weight > 0):
            raise ConfigError("mixture: all three weights are 0; nothing would be learned")
        if not 0 <= self.augment <= 1:
            raise ConfigError(f"mixture.augment: must be from 0 to 1, not {self.augment}")


class Batches:
    """Packed batches of one split.

    Args:
        data: prepared samples.
        vocabulary: the joint vocabulary.
        adapters: name -> adapter, in the model's order.
        codes: name -> (n, T) codes of ``data.grids``; may be empty where nothing is decoded.
        mixture: what is drawn.
        seed: of all draws.
        axis: the data axis, along which each rank draws batches of its own.

    Raises:
        ConfigError: a group names an unknown modality, or no sample holds all of a group.
    """

    def __init__(
        self,
        data: PreparedData,
        vocabulary: Vocabulary,
        adapters: dict,
        codes: dict[str, np.ndarray],
        mixture: MixtureConfig,
        seed: int,
        axis: Axis | None = None,
    ):
        self.axis = axis or device_matrix().data
        self.data, self.vocabulary, self.adapters, self.codes = data, vocabulary, adapters, codes
        self.mixture, self.seed = mixture, seed
        self.groups = [parse_group(name, adapters) for name in mixture.groups]
        self.coordinates = {n: a.geometry.coordinates() for n, a in adapters.items()}
        numbers = range(max([1, *(sample.most_captions for sample in data.samples)]))
        self.captions = [data.captions(number) for number in numbers]
        encode = cache(lambda text: np.array(vocabulary.encode(text), np.int32))
        self.pieces = [
            [
                [
                    encode(text)
                    for language, text in sample.captions(number)
                    if not mixture.languages or language in mixture.languages
                ]
                for number in numbers
            ]
            for sample in data.samples
        ]
        self.members = [self._members(left + right) for left, right in self.groups]
        for name, members in zip(mixture.groups, self.members):
            if not len(members):
                raise ConfigError(f"mixture.groups.{name}: no sample of the data holds all of it")
        self._orders = [(-1, None)] * len(self.groups)  # each group's epoch and its permutation
        self._turns: list[tuple[int, int]] = []  # of each batch so far: see `turn`
        self._batches = [0] * len(self.groups)  # of each group so far
        self.joint = mixture.joint_weight > 0
        self.decoding = mixture.grouped_weight > 0 or self.joint
        self.aligned = mixture.alignment_weight > 0
        self.quotas = self._plan()
        self.shape = self._shape()

    def __call__(self, k: int) -> PackedBatch:
        """Batch k."""
        place = (self.axis.index,) if self.axis.index else ()
        random = np.random.default_rng((self.seed, k, *place))
        group, turn = self.turn(k)
        # one caption number a batch: "seven" beside "a red seven" would be a false negative
        cycle, number = divmod(turn, len(self.captions))
        quotas = self.quotas[group]
        first = cycle * sum(quotas) + sum(quotas[:number])
        first = first * self.axis.size + self.axis.index * quotas[number]
        layouts = [
            self.draw(group, self._sample(group, first + i), number, random)
            for i in range(quotas[number])
        ]
        weights = self.mixture.grouped_weight, self.mixture.joint_weight
        return pack(layouts, self.shape, self.vocabulary, *weights)[0]

    def turn(self, k: int) -> tuple[int, int]:
        """Group of batch k, and how many earlier batches were the group's. The groups take turns as
        their shares say: the next is always the one that is furthest behind its share."""
        shares = np.array(list(self.mixture.groups.values()), float)
        shares /= shares.sum()
        while len(self._turns) <= k:
            group = int(np.argmax(shares * (len(self._turns) + 1) - self._batches))
            self._turns.append((group, self._batches[group]))
            self._batches[group] += 1
        return self._turns[k]

    def draw(self, group: int, sample: int, number: int, random: np.random.Generator) -> Layout:
        """Lay out one sample for one group, observing its caption of a number; what is decoded is
        the first."""
        left, right = self.groups[group]
        caption = int(self.captions[number][sample])
        observed, decoded = (
            texts[random.integers(len(texts))] if texts else None
            for texts in (self.pieces[sample][number], self.pieces[sample][0])
        )
        text = observed, decoded
        if self.joint and random.random() < self._joint_share():
            order = [str(m) for m in random.permutation(left + right)]
            cut = int(random.integers(1, len(order)))
            sides = order[:cut], order[cut:]
            segments = tuple(
                self._segment(sample, text, seen, made, JOINT, random)
                for seen, made in (sides, sides[::-1])
            )
            return Layout(segments, group, caption)
        grouped = self.mixture.grouped_weight > 0
        if self.aligned and grouped and random.random() < self.mixture.alignment_share:
            grouped = False
        decoding = GROUPED if grouped else NOT_DECODED
        segments = []
        for seen, made in ((left, right), (right, left)):
            one = [made[random.integers(len(made))]] if decoding else []
            segments.append(self._segment(sample, text, seen, one, decoding, random))
        aligned = self.aligned and all(segment.observed for segment in segments)
        return Layout(tuple(segments), group, caption, aligned)

    def _joint_share(self) -> float:
        only_joint = self.mixture.grouped_weight <= 0 and not self.aligned
        return 1.0 if only_joint else self.mixture.joint_share

    def _segment(self, sample, text, seen, made, decoding, random) -> Segment:
        observed = tuple(self._observed(sample, text[0], m, random) for m in seen)
        if decoding and random.random() < self.mixture.dropped_conditions:
            observed = ()
        decoded = tuple(self._decoded(sample, text[1], m) for m in made)
        return Segment(observed, decoded, decoding, embedding=1)

    def _observed(self, sample: int, text, modality: str, random) -> Span:
        if modality == TEXT:
            return Span(TEXT, ids=text)
        adapter = self.adapters[modality]
        grid = self.data.grids[modality][self.data.rows[modality][sample]]
        if self.mixture.augment:
            grid = adapter.augment(widen(grid), random, self.mixture.augment)
        patches = adapter.geometry.patchify(grid)
        return Span(modality, patches=patches, coordinates=self.coordinates[modality])

    def _decoded(self, sample: int, text, modality: str) -> Span:
        if modality == TEXT:
            return Span(TEXT, ids=text)
        codes = self.codes[modality][self.data.rows[modality][sample]]
        ids = codes + self.vocabulary.codes(modality).start
        return Span(modality, ids=ids, coordinates=self.coordinates[modality])

    def _members(self, modalities: tuple[str, ...]) -> np.ndarray:
        """Numbers of the samples that hold all these modalities, text in one of the languages."""
        members = self.data.having(modalities)
        if TEXT not in modalities:
            return members
        return members[np.array([bool(self.pieces[sample][0]) for sample in members], bool)]

    def _sample(self, group: int, number: int) -> int:
        """The number-th draw of a group: each epoch is a permutation of its members."""
        members = self.members[group]
        epoch, place = divmod(number, len(members))
        return int(members[self._permutation(group, epoch)[place]])

    def _permutation(self, group: int, epoch: int) -> np.ndarray:
        if self._orders[group][0] != epoch:
            order = np.random.default_rng((self.seed, group, epoch))
            self._orders[group] = epoch, order.permutation(len(self.members[group]))
        return self._orders[group][1]

    def _plan(self) -> list[list[int]]:
        """Draws of a batch of each group and caption number: as many as fill it as planned."""
        places = self.mixture.fill * self.mixture.rows * self.mixture.length
        quotas = []
        for name, examples in zip(self.mixture.groups, self._examples()):
            lengths = [
                np.mean([sum(len(segment) for segment in layout.segments) for layout in layouts])
                for layouts in examples
            ]
            quotas.append([int(places / length) for length in lengths])
            if not all(quotas[-1]):
                size = f"{self.mixture.rows} x {self.mixture.length}"
                raise ConfigError(
                    f"mixture.groups.{name}: a batch of {size} does not hold a sample"
                )
        return quotas

    def _examples(self) -> list[list[list[Layout]]]:
        """Some layouts of each group and caption number, to plan by."""
        random = np.random.default_rng(self.seed)
        return [
            [
                [self.draw(group, int(s), number, random) for s in random.choice(members, 64)]
                for number in range(len(self.captions))
            ]
            for group, members in enumerate(self.members)
        ]

    def _shape(self) -> BatchShape:
        """Room for a batch of any group."""
        patches = []
        for name, adapter in self.adapters.items():
            sides = zip(self.quotas, self.groups)
            most = max((max(q) for q, (left, right) in sides if name in left + right), default=1)
            patches.append((name, most * adapter.geometry.tokens, adapter.geometry.patch_size))
        places = self.mixture.rows * self.mixture.length
        return BatchShape(
            self.mixture.rows,
            self.mixture.length,
            min(places, self._most_targets()) if self.decoding else 1,
            max(map(max, self.quotas)) if self.aligned else 1,
            tuple(patches),
        )

    def _most_targets(self) -> int:
        """Decoded tokens of a batch, with room for chance."""
        totals = [
            quota
            * np.mean([sum(len(d) + 2 for s in x.segments for d in s.decoded) for x in layouts])
            for quotas, examples in zip(self.quotas, self._examples())
            for quota, layouts in zip(quotas, examples)
        ]
        return int(np.ceil(max(totals) * 1.15 / 64)) * 64


def parse_group(name: str, modalities) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """ "text-audio+image" -> (("text",), ("audio", "image")).

    Raises:
        ConfigError: not two sides, or an unknown modality.
    """
    sides = [tuple(side.split("+")) for side in name.split("-")]
    if len(sides) != 2:
        raise ConfigError(f"mixture.groups.{name}: a group is written left-right, as text-image")
    for modality in sides[0] + sides[1]:
        if modality != TEXT and modality not in modalities:
            known = (TEXT, *modalities)
            raise ConfigError(
                f"mixture.groups.{name}: unknown modality {modality!r}{nearest(modality, known)}"
            )
    return sides[0], sides[1]
