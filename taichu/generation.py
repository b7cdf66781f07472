"""Generation: continue segments token by token inside the range of the modality that is made."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taichu.errors import GenerationError
from taichu.layout import Segment, Span, lay_out
from taichu.packing import pack_rows
from taichu.sampling import Sampling, choose, log_likelihood
from taichu.vocabulary import TEXT

ROWS = 256  # rows continued at a time
LENGTHS = 16  # conditions are padded to a multiple of this, so that few graphs are compiled


@dataclass
class Generated:
    """What was made: ``text`` or ``grid``, its ids in the joint vocabulary, and the log-likelihood
    of these ids, as they were guided but at temperature 1."""

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


def generate(model, into: str, contents: list[dict], sampling: Sampling) -> list[Generated]:
    """Make one result a condition.

    Args:
        model: a `taichu.unified_model.UnifiedModel`.
        into: "text" or a grid modality.
        contents: modality -> grid or string; an empty dict means from nothing.
        sampling: how tokens are chosen.

    Raises:
        GenerationError: ``into`` is not a modality of the model, or all candidates would be equal.
    """
    if into != TEXT and into not in model.adapters:
        known = ", ".join((TEXT, *model.adapters))
        raise GenerationError(f"this model cannot make {into!r}; it makes {known}")
    if sampling.candidates > 1 and sampling.temperature <= 0:
        raise GenerationError("candidates need a temperature above 0; without it they are equal")
    made = []
    # a power of two, so that few graphs are compiled
    room, needed = max(1, ROWS // sampling.candidates), 2 ** (len(contents) - 1).bit_length()
    together = min(room, needed)
    for start in range(0, len(contents), together):
        part = contents[start : start + together]
        missing = together - len(part)
        candidates = _make(model, into, part + part[-1:] * missing, sampling, start)[: len(part)]
        made += _best(model, into, part, candidates)
    return made


def _best(model, into: str, contents: list[dict], made: list[list[Generated]]):
    """Of each condition's candidates the nearest to it, by alignment's softmax (cosine times its
    scale); of texts the likeliest, by that and decoding's together. Of media it would be the
    plainest: most of their codes' likelihood is about strokes that no caption speaks of. Without a
    condition, the first."""
    chosen = [candidates[0] for candidates in made]
    conditioned = [i for i, content in enumerate(contents) if content and len(made[i]) > 1]
    if not conditioned:
        return chosen
    wanted_EC = model.embed_many([contents[i] for i in conditioned])
    flat = [{into: c.content} for i in conditioned for c in made[i]]
    made_EcC = model.embed_many(flat).reshape(len(conditioned), -1, wanted_EC.shape[-1])
    score_Ec = model.score_scale * np.einsum("ec,erc->er", wanted_EC, made_EcC)
    if into == TEXT:
        score_Ec += [[c.log_likelihood for c in made[i]] for i in conditioned]
    for i, best in zip(conditioned, score_Ec.argmax(1)):
        chosen[i] = made[i][best]
    return chosen


def _make(model, into: str, contents: list[dict], sampling: Sampling, first: int):
    """The candidates of each of one batch of conditions."""
    ids, likelihoods = _continue(model, into, contents, sampling, first)
    made = [Generated(into, row, float(of)) for row, of in zip(ids, likelihoods)]
    if into == TEXT:
        for one in made:
            one.text = model.vocabulary.decode(one.ids)
    else:
        codes = np.array(ids) - model.vocabulary.codes(into).start
        for one, grid in zip(made, model.decode_codes(into, codes)):
            one.grid, one.adapter = grid, model.adapters[into]
    c = sampling.candidates
    return [made[i : i + c] for i in range(0, len(made), c)]


def _continue(model, into: str, contents: list[dict], sampling: Sampling, first: int):
    """Ids of each row and their log-likelihoods, ``candidates`` rows a condition."""
    vocabulary = model.vocabulary
    if into == TEXT:
        allowed, coordinates, n = vocabulary.ranges[0], None, sampling.pieces
    else:
        coordinates = model.adapters[into].geometry.coordinates()
        allowed, n = vocabulary.codes(into), len(coordinates)
    observed = [model.observe(content) for content in contents]
    rows = len(contents) * sampling.candidates
    guided = sampling.guidance != 1.0 and any(observed)
    if guided:
        observed += [()] * len(contents)
    blank = Span(into, ids=np.full(n, allowed.start, np.int32), coordinates=coordinates)
    # the opening token is read first; the last token made is not read
    coords_CnX = np.stack(
        [lay_out(Segment(o, (blank,)), vocabulary).coords[-n - 2 : -2] for o in observed]
    )
    coords_RnX = np.repeat(coords_CnX, sampling.candidates, 0)
    segments = [Segment(o) for o in observed]
    length = -(-max(map(len, segments)) // LENGTHS) * LENGTHS
    batch = pack_rows(segments, length, vocabulary, model.grids)
    next_logits = model.start_reading(batch, len(coords_RnX), n)
    uniform_Rn = np.stack(
        [
            np.random.default_rng((sampling.seed, first + i, candidate)).random(n)
            for i in range(len(contents))
            for candidate in range(sampling.candidates)
        ]
    )
    newest = np.full(rows, vocabulary.open(into), np.int32)
    results: list[list[int]] = [[] for _ in range(rows)]
    ended, likelihoods = np.zeros(rows, bool), np.zeros(rows)
    for step in range(n):
        logits = next_logits(np.tile(newest, 1 + guided), coords_RnX[:, step], step)
        logits = logits[:, allowed.start : allowed.stop]
        if guided:
            with_condition, without = np.split(logits, 2)
            logits = without + sampling.guidance * (with_condition - without)
        chosen = choose(logits, sampling, uniform_Rn[:, step])
        likelihoods += np.where(ended, 0, log_likelihood(logits, chosen))
        newest = allowed.start + chosen
        if into == TEXT:
            ended |= newest == vocabulary.close(TEXT)
            if ended.all():
                break
        for row in np.flatnonzero(~ended):
            results[row].append(int(newest[row]))
    return results, likelihoods
