"""One row's way through what it makes: a token is fed, and the next one chosen where it is free.

A row makes spans one behind the other, each inside its modality's own range of ids and of its
right length; tokens that open and close spans are not chosen. The tokens stand as
`taichu.data.layout.lay_out` writes them.
"""

from collections import deque

import numpy as np

from taichu.inference.sampling import Sampling, choose, log_likelihood, penalise
from taichu.vocabulary import TEXT, Vocabulary


class Answer:
    """What a row makes.

    Args:
        vocabulary: the joint vocabulary.
        adapters: of the grid modalities, by name.
        into: modalities, in the order in which they are made.
        sampling: how tokens are chosen.
        draws: numbers in [0, 1) for it.
        start: the coordinate of the first token, behind the condition's last.
        opening: the first token, where it is not the one that opens a span.
        end: ids that end a text, where it is not the one that closes a span.

    Attributes:
        spans: (modality, ids) of those that are whole.
        log_likelihood: of all that was chosen.
        done: whether there is nothing more to make.
        cut_off: whether a text ended because it was as long as it may be.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        adapters: dict,
        into: tuple[str, ...],
        sampling: Sampling,
        draws: np.random.Generator,
        start: int,
        opening: int | None = None,
        end: tuple[int, ...] = (),
    ):
        self.vocabulary, self.adapters, self.sampling = vocabulary, adapters, sampling
        self.draws, self.coordinate, self.waiting = draws, start, deque(into)
        self.opening, self.end = opening, end or (vocabulary.close(TEXT),)
        self.text_ids = range(vocabulary.pieces) if end else vocabulary.ranges[0]
        self.spans: list[tuple[str, list[int]]] = []
        self.log_likelihood, self.done, self.cut_off = 0.0, False, False
        self.fed = vocabulary.pad, (0, 0, 0)  # of a row that is done: it must feed something
        self.queue: deque = deque()
        self._open()

    def feed(self) -> tuple[int, tuple[int, int, int]]:
        """The next token and its (t, y, x)."""
        if self.queue:
            self.fed = self.queue.popleft()
        return self.fed

    @property
    def free(self) -> range | None:
        """The ids of which one is to be chosen after what was fed; None where none is."""
        return None if self.done or self.queue else self.allowed

    def take(self, token: int, log_likelihood: float):
        """Note the token that was chosen."""
        self.log_likelihood += log_likelihood
        self.ids.append(token)
        if self.modality == TEXT and tuple(self.ids[-len(self.end) :]) == self.end:
            del self.ids[-len(self.end) :]
            self._close()
            return
        self.queue.append((token, self._place(len(self.ids) - 1)))
        stopped = self.modality == TEXT and self._is_stopped()
        if stopped or len(self.ids) == self.length:
            self.cut_off |= self.modality == TEXT and not stopped
            self._close()

    def cut(self, text: str) -> str:
        """A text without what stopped it."""
        ends = [text.find(stop) for stop in self.sampling.stop if stop in text]
        return text[: min(ends)] if ends else text

    @property
    def most_tokens(self) -> int:
        """Tokens that a row feeds at the most: of each span its content and what opens it, and what
        closes it where another follows; the last one made is not fed."""
        lengths = [self._length_of(name) for name in (self.modality, *self.waiting)]
        return sum(lengths) + 2 * len(lengths) - 2

    def _open(self):
        self.modality, self.ids = self.waiting.popleft(), []
        self.length = self._length_of(self.modality)
        if self.modality == TEXT:
            self.allowed = self.text_ids
        else:
            self.allowed = self.vocabulary.codes(self.modality)
            self.coordinates = self.adapters[self.modality].geometry.coordinates()
        opening, self.opening = self.opening, None
        if opening is None:
            opening = self.vocabulary.open(self.modality)
        self.queue.append((opening, (self.coordinate,) * 3))

    def _length_of(self, modality: str) -> int:
        if modality == TEXT:
            return self.sampling.pieces
        return self.adapters[modality].geometry.tokens

    def _place(self, number: int) -> tuple[int, int, int]:
        first = self.coordinate + 1
        if self.modality == TEXT:
            return (first + number,) * 3
        t, y, x = (int(c) for c in self.coordinates[number])
        return first + t, first + y, first + x

    def _close(self):
        self.spans.append((self.modality, self.ids))
        if not self.waiting:
            self.done = True
            self.queue.clear()  # the last token is not read
            return
        places = [self._place(n) for n in range(len(self.ids))]
        last = max([self.coordinate, *(c for place in places for c in place)]) + 1
        self.queue.append((self.vocabulary.close(self.modality), (last,) * 3))
        self.coordinate = last + 1
        self._open()

    def _is_stopped(self) -> bool:
        text = self.vocabulary.decode(self.ids) if self.sampling.stop else ""
        return any(stop in text for stop in self.sampling.stop)


def choose_next(answers: list[Answer], logits_RV: np.ndarray):
    """Choose a token for each row that has a choice; rows of one range together.

    Args:
        answers: of each row.
        logits_RV: after what each has fed, with guidance.
    """
    groups: dict[range, list[int]] = {}
    for row, answer in enumerate(answers):
        if answer.free is not None:
            groups.setdefault(answer.free, []).append(row)
    for allowed, rows in groups.items():
        ours = [answers[row] for row in rows]
        logits = logits_RV[rows, allowed.start : allowed.stop]
        samplings = [answer.sampling for answer in ours]
        made = [[i - allowed.start for i in answer.ids] for answer in ours]
        uniform = np.array([answer.draws.random() for answer in ours])
        chosen = choose(penalise(logits, made, samplings), samplings, uniform)
        for answer, token, log in zip(ours, chosen, log_likelihood(logits, chosen)):
            answer.take(allowed.start + int(token), float(log))
