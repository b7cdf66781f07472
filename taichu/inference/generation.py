"""Generation: rows are continued token by token, each inside the range of the modality it makes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taichu.data.conversations.tokens import Opening
from taichu.data.layout import Segment, lay_out
from taichu.data.packing import PackedBatch, pack_rows
from taichu.errors import GenerationError
from taichu.inference.answer import Answer, choose_next
from taichu.inference.sampling import Sampling
from taichu.vocabulary import TEXT

ROWS = 256  # rows continued at a time
LENGTHS = 16  # conditions are padded to a multiple of this, so that few graphs are compiled


@dataclass
class Generated:
    """What was made: ``text`` or ``grid``, its ids in the joint vocabulary, and the log-likelihood
    of all that was made with it, as it was guided but at temperature 1."""

    modality: str
    ids: list[int]
    log_likelihood: float
    text: str | None = None
    grid: np.ndarray | None = None
    adapter: object = None

    @property
    def content(self) -> str | np.ndarray:
        """The text or the grid."""
        return self.grid if self.text is None else self.text

    def save(self, path: Path | str) -> Path:
        """Write it as a file of the modality's (text: .txt, UTF-8)."""
        if self.text is not None:
            Path(path).write_text(self.text, encoding="utf-8")
            return Path(path)
        return self.adapter.write(self.grid, path)


def generate(
    model, into: str | tuple[str, ...], contents: list[dict], sampling: Sampling
) -> list[Generated] | list[list[Generated]]:
    """Make one result a condition.

    Args:
        model: a `taichu.inference.unified_model.UnifiedModel`.
        into: "text" or a grid modality; or several, made one behind the other in this order.
        contents: modality -> grid or string; an empty dict means from nothing. Or an `Opening` of
            a conversation, where text is made.
        sampling: how tokens are chosen.

    Returns:
        what was made of each condition; where ``into`` names several, a list of them.

    Raises:
        GenerationError: ``into`` is not a modality of the model, or all candidates would be equal.
    """
    wanted = check_wanted(model, into, sampling)
    made = []
    # a power of two, so that few graphs are compiled
    room, needed = max(1, ROWS // sampling.candidates), 2 ** (len(contents) - 1).bit_length()
    together = min(room, needed)
    for start in range(0, len(contents), together):
        part = contents[start : start + together]
        missing = together - len(part)
        decoding = Decoding(model, wanted, part + part[-1:] * missing, sampling, start)
        while not decoding.done:
            decoding.step()
        made += finish(model, part, decoding.answers)
    return [row[0] for row in made] if isinstance(into, str) else made


def check_wanted(model, into: str | tuple[str, ...], sampling: Sampling) -> tuple[str, ...]:
    """The modalities that are to be made.

    Raises:
        GenerationError: see `generate`.
    """
    wanted = (into,) if isinstance(into, str) else tuple(into)
    for name in wanted:
        if name != TEXT and name not in model.adapters:
            known = ", ".join((TEXT, *model.adapters))
            raise GenerationError(f"this model cannot make {name!r}; it makes {known}")
    if not wanted:
        raise GenerationError("no modality to be made is named")
    if sampling.candidates > 1 and sampling.temperature <= 0:
        raise GenerationError("candidates need a temperature above 0; without it they are equal")
    return wanted


def finish(model, contents: list, answers: list[Answer]) -> list[list[Generated]]:
    """What was made of each condition, of its candidates the best.

    Args:
        contents: conditions, as `taichu.inference.unified_model.UnifiedModel.observe` takes them.
        answers: of the rows, those of a condition side by side; of more than there are conditions,
            the first.
    """
    rows, count = turn_into_content(model, answers), answers[0].sampling.candidates
    candidates = [rows[i : i + count] for i in range(0, len(rows), count)][: len(contents)]
    return _best(model, contents, candidates)


def turn_into_content(model, answers: list[Answer]) -> list[list[Generated]]:
    """What each row has made, its codes decoded; those of one modality together."""
    rows = [
        [Generated(modality, ids, answer.log_likelihood) for modality, ids in answer.spans]
        for answer in answers
    ]
    by_modality: dict[str, list[Generated]] = {}
    for answer, row in zip(answers, rows):
        for one in row:
            if one.modality == TEXT:
                one.text = answer.cut(model.vocabulary.decode(one.ids))
            else:
                by_modality.setdefault(one.modality, []).append(one)
    for modality, ones in by_modality.items():
        codes = np.array([one.ids for one in ones]) - model.vocabulary.codes(modality).start
        for one, grid in zip(ones, model.decode_codes(modality, codes)):
            one.grid, one.adapter = grid, model.adapters[modality]
    return rows


def _best(model, contents: list, made: list[list[list[Generated]]]):
    """Of each condition's candidates the nearest to it, by alignment's softmax (cosine times its
    scale); of texts the likeliest, by that and decoding's together. Of media it would be the
    plainest: most of their codes' likelihood is about strokes that no caption speaks of. Without a
    condition, the first."""
    chosen = [candidates[0] for candidates in made]
    conditioned = [i for i, content in enumerate(contents) if content and len(made[i]) > 1]
    if not conditioned:
        return chosen
    wanted_EC = model.embed_many([contents[i] for i in conditioned])
    flat = [{one.modality: one.content for one in row} for i in conditioned for row in made[i]]
    made_EcC = model.embed_many(flat).reshape(len(conditioned), -1, wanted_EC.shape[-1])
    score_Ec = model.score_scale * np.einsum("ec,erc->er", wanted_EC, made_EcC)
    if all(one.modality == TEXT for one in chosen[0]):
        score_Ec += [[row[0].log_likelihood for row in made[i]] for i in conditioned]
    for i, best in zip(conditioned, score_Ec.argmax(1)):
        chosen[i] = made[i][best]
    return chosen


class Decoding:
    """Rows on their way, ``candidates`` rows a condition; a step feeds a token of each.

    Args:
        model: a `taichu.inference.unified_model.UnifiedModel`.
        into: modalities, in the order in which they are made.
        contents: conditions.
        sampling: how tokens are chosen.
        first: number of the first condition, which its draws depend on.

    Attributes:
        answers: what each row makes.
    """

    def __init__(self, model, into: tuple[str, ...], contents, sampling: Sampling, first: int = 0):
        observed = [model.observe(content) for content in contents]
        self.answers = [
            answer
            for i, (content, spans) in enumerate(zip(contents, observed))
            for answer in begin_answers(model, into, spans, sampling, first + i, content)
        ]
        self.guidance = sampling.guidance
        self.guided = sampling.guidance != 1.0 and any(observed)
        if self.guided:
            observed += [()] * len(contents)
        # where a row stands without its condition is another place
        starts = [first_coordinate(model, spans) for spans in observed]
        offsets = np.repeat(starts, sampling.candidates)
        self.offsets = offsets - np.tile(offsets[: len(self.answers)], 1 + self.guided)
        batch = pack_conditions(model, observed)
        most = self.answers[0].most_tokens
        self.next_logits, self.made = model.start_reading(batch, len(offsets), most), 0

    @property
    def done(self) -> bool:
        """Whether no row has anything more to make."""
        return all(answer.done for answer in self.answers)

    def step(self):
        """Feed a token of each row, and choose the next where one is to be chosen."""
        fed, times = [answer.feed() for answer in self.answers], 1 + self.guided
        ids = np.tile(np.array([token for token, _ in fed], np.int32), times)
        coords = np.tile(np.array([place for _, place in fed], np.int32), (times, 1))
        coords = (coords + self.offsets[:, None]).astype(np.int32)
        logits = self.next_logits(ids, coords, self.made)
        self.made += 1
        if self.guided:
            with_condition, without = np.split(logits, 2)
            logits = without + self.guidance * (with_condition - without)
        choose_next(self.answers, logits)


def pack_conditions(model, observed: list[tuple]) -> PackedBatch:
    """What conditions observe, one a row."""
    segments = [Segment(spans) for spans in observed]
    length = -(-max(map(len, segments)) // LENGTHS) * LENGTHS
    return pack_rows(segments, length, model.vocabulary, model.grids)


def begin_answers(
    model, into, spans: tuple, sampling: Sampling, number: int = 0, content=None
) -> list[Answer]:
    """The candidates' answers to one condition, nothing made yet.

    Args:
        into: modalities, in the order in which they are made.
        spans: what the condition observes.
        number: of the condition, which its draws depend on.
        content: the condition, where it is an `Opening` of a conversation.
    """
    start = first_coordinate(model, spans)
    how = (content.token, content.end) if isinstance(content, Opening) else ()
    return [
        Answer(
            model.vocabulary,
            model.adapters,
            into,
            sampling,
            np.random.default_rng((sampling.seed, number, candidate)),
            start,
            *how,
        )
        for candidate in range(sampling.candidates)
    ]


def stream(model, content: dict, sampling: Sampling) -> Iterator[str]:
    """A text, piece by piece, as `generate` makes it.

    What may still change is held back: bytes of a character that is not whole, and what may be the
    beginning of a stop string.
    """
    decoding, said = Decoding(model, (TEXT,), [content], sampling), ""
    (answer,) = decoding.answers
    while not decoding.done:
        decoding.step()
        ids = answer.spans[0][1] if answer.done else answer.ids
        text = answer.cut(model.vocabulary.decode(ids))
        if not answer.done:
            text = settled(text, sampling.stop)
        if len(text) > len(said):
            yield text[len(said) :]
            said = text


def settled(text: str, stop: tuple[str, ...]) -> str:
    """The part of a text that what follows cannot change."""
    text = text.rstrip("\ufffd")
    held = [n for end in stop for n in range(1, len(end)) if text.endswith(end[:n])]
    return text[: len(text) - max(held, default=0)]


def first_coordinate(model, spans: tuple) -> int:
    """Where what follows a condition begins."""
    return int(lay_out(Segment(spans), model.vocabulary).coords[-1].max()) + 1
