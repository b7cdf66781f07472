"""Continuous batching: answers join the rows that are being decoded, and leave when they are done
(Orca, OSDI 2022, section 3.1, iteration-level scheduling).

A step feeds one token of every row, whatever the rows make and however far they are; a row that
leaves gives its place to the last one, so the rows in use are always the cache's first.
"""

from dataclasses import dataclass, field

import numpy as np

from taichu.data.layout import Segment, Span
from taichu.errors import GenerationError
from taichu.inference.answer import Answer, choose_next
from taichu.inference.generation import first_coordinate, pack_conditions
from taichu.runtime.cache import Cache
from taichu.runtime.runtime import Runtime


@dataclass(eq=False)
class Prompt:
    """A condition and the answers that are made to it.

    Attributes:
        spans: what the condition observes.
        answers: with nothing made yet, all of one sampling.
    """

    spans: tuple[Span, ...]
    answers: list[Answer]

    @property
    def guided(self) -> bool:
        """Whether each answer takes a second row, which does not see the condition."""
        return self.answers[0].sampling.guidance != 1.0 and bool(self.spans)

    @property
    def rows(self) -> int:
        """Rows that it takes."""
        return len(self.answers) * (1 + self.guided)

    @property
    def length(self) -> int:
        """Tokens of the condition."""
        return len(Segment(self.spans))

    @property
    def most_tokens(self) -> int:
        """Tokens that a row holds in the end at the most."""
        return self.length + self.answers[0].most_tokens


@dataclass(eq=False)
class _Row:
    """An answer's places in the cache, the one that sees the condition first, and what is added to
    coordinates in each, since without its condition a row begins elsewhere."""

    answer: Answer
    offsets: list[int]
    places: list[int] = field(default_factory=list)


class ContinuousBatching:
    """Rows that are decoded together.

    Args:
        model: an exported model.
        rows: most rows at a time.
        room: most tokens of a row, its condition's and those that are made.

    Attributes:
        free: rows that nothing is made in.
    """

    def __init__(self, model: Runtime, rows: int, room: int):
        self.model, self.most = model, rows
        self.cache = Cache(model.sessions, model.config, rows, room)
        self.rows: list[_Row] = []
        self.owners: list[_Row] = []  # of each place in use

    @property
    def free(self) -> int:
        return self.most - len(self.owners)

    def check(self, prompt: Prompt):
        """Refuse what will never fit.

        Raises:
            GenerationError: it asks for more rows or longer ones than there are.
        """
        if prompt.rows > self.most:
            asked = f"{prompt.rows} rows (answers x candidates, twice where they are guided)"
            raise GenerationError(f"{asked} are more than the {self.most} there are")
        if prompt.most_tokens > self.cache.room:
            asked = f"{prompt.length} tokens given and {prompt.answers[0].most_tokens} to be made"
            raise GenerationError(f"{asked} are more than the {self.cache.room} that a row holds")

    def join(self, prompts: list[Prompt]):
        """Read conditions, together, and begin their answers; there must be rows free for them."""
        seen = [p.spans for p in prompts] + [()] * any(p.guided for p in prompts)
        read, lengths = self.model.read_conditions(pack_conditions(self.model, seen))
        starts = [first_coordinate(self.model, spans) for spans in seen]
        for number, prompt in enumerate(prompts):
            conditions = [number, len(seen) - 1] if prompt.guided else [number]
            for answer in prompt.answers:
                row = _Row(answer, [starts[c] - starts[number] for c in conditions])
                self.rows.append(row)
                for condition in conditions:
                    place = len(self.owners)
                    self.cache.fill(place, int(lengths[condition]), read, condition)
                    row.places.append(place)
                    self.owners.append(row)

    def step(self):
        """Feed a token of each row, choose the next where one is to be chosen; what is done
        leaves."""
        ids = np.empty(len(self.owners), np.int32)
        coords = np.empty((len(self.owners), 3), np.int32)
        for row in self.rows:
            token, place = row.answer.feed()
            for at, offset in zip(row.places, row.offsets):
                ids[at], coords[at] = token, np.add(place, offset)
        logits = self.cache.step(ids, coords)
        guided_RV = np.stack([self._guide(row, logits) for row in self.rows])
        choose_next([row.answer for row in self.rows], guided_RV)
        self.leave([row.answer for row in self.rows if row.answer.done])

    def leave(self, answers: list[Answer]):
        """Give up the rows of answers, whether they are done or not."""
        for row in [row for row in self.rows if row.answer in answers]:
            self.rows.remove(row)
            for place in sorted(row.places, reverse=True):
                last = len(self.owners) - 1
                if place != last:
                    self.cache.move(last, place)
                    owner = self.owners[place] = self.owners[last]
                    owner.places[owner.places.index(last)] = place
                self.owners.pop()

    @staticmethod
    def _guide(row: _Row, logits: np.ndarray) -> np.ndarray:
        seen = logits[row.places[0]]
        if len(row.places) == 1:
            return seen
        without = logits[row.places[1]]
        return without + row.answer.sampling.guidance * (seen - without)
