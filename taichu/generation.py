"""Generation: continue segments token by token inside the range of the modality that is made."""

from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from taichu.errors import GenerationError
from taichu.layout import GROUPED, Segment, Span
from taichu.packing import pack_rows
from taichu.vocabulary import TEXT

ROWS = 64  # segments continued at a time
LENGTHS = 16  # rows are padded to a multiple of this, so that few graphs are compiled


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely one; otherwise logits are divided by it.
        top_k: choose among this many of the most likely; 0: among all.
        top_p: choose among the fewest whose probabilities reach this (1904.09751).
        guidance: classifier-free guidance scale (2207.12598): 1 leaves the condition as it is.
        seed: of the draws; each result's draws depend on the seed and its place alone.
        pieces: longest text, in pieces.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    seed: int = 0
    pieces: int = 32


@dataclass
class Generated:
    """What was made: ``text`` or ``grid``, and its ids in the joint vocabulary."""

    modality: str
    ids: list[int]
    text: str | None = None
    grid: np.ndarray | None = None
    adapter: object = None

    def save(self, path: Path | str) -> Path:
        """Write it as a file of the modality's (text: .txt, UTF-8)."""
        if self.text is not None:
            Path(path).write_text(self.text, encoding="utf-8")
            return Path(path)
        return self.adapter.write(self.grid, path)


def generate(model, into: str, contents: list[dict], sampling: Sampling) -> list[Generated]:
    """Make one result a condition.

    Args:
        model: a `taichu.Taichu`.
        into: "text" or a grid modality.
        contents: modality -> grid or string; an empty dict means from nothing.
        sampling: how tokens are chosen.

    Raises:
        GenerationError: ``into`` is not a modality of the model.
    """
    if into != TEXT and into not in model.adapters:
        known = ", ".join((TEXT, *model.adapters))
        raise GenerationError(f"this model cannot make {into!r}; it makes {known}")
    n = sampling.pieces if into == TEXT else model.adapters[into].geometry.tokens
    rows = 1 if len(contents) == 1 else ROWS
    ids = []
    for start in range(0, len(contents), rows):
        part = contents[start : start + rows]
        made = _continue(model, into, part + part[-1:] * (rows - len(part)), n, sampling, start)
        ids += made[: len(part)]
    if into == TEXT:
        return [Generated(TEXT, row, text=model.vocabulary.decode(row)) for row in ids]
    codes = np.array(ids) - model.vocabulary.codes(into).start
    grids = model.decode_codes(into, codes)
    adapter = model.adapters[into]
    return [Generated(into, row, grid=g, adapter=adapter) for row, g in zip(ids, grids)]


def _continue(model, into: str, contents: list[dict], n: int, sampling: Sampling, first: int):
    """Ids of one batch of segments, each continued by at most ``n`` tokens."""
    vocabulary = model.vocabulary
    if into == TEXT:
        allowed, coordinates = vocabulary.ranges[0], None
    else:
        allowed = vocabulary.codes(into)
        coordinates = model.adapters[into].geometry.coordinates()
    blank = Span(into, ids=np.full(n, allowed.start, np.int32), coordinates=coordinates)
    conditions = [model.observe(content) for content in contents]
    guided = sampling.guidance != 1.0 and any(conditions)
    if guided:
        conditions += [()] * len(contents)
    segments = [Segment(condition, (blank,), GROUPED) for condition in conditions]
    longest = max(len(segment) for segment in segments)
    length = -(-longest // LENGTHS) * LENGTHS
    batch = pack_rows(segments, length, vocabulary, model.patch_sizes)
    # the opening token of the decoded span is the first whose successor is chosen
    starts = np.array([len(segment) - n - 2 for segment in segments])
    base = np.arange(len(segments)) * length
    fixed = [ms.Tensor(a) for a in (batch.source, batch.coords, batch.segment, batch.span)]
    patches = [ms.Tensor(a) for a in batch.patches]
    run = model.compiled("next_logits", model.next_logits)
    randoms = [np.random.default_rng((sampling.seed, first + i)) for i in range(len(contents))]
    results: list[list[int]] = [[] for _ in contents]
    ended = np.zeros(len(contents), bool)
    for step in range(n):
        positions = (base + starts + step).astype(np.int32)
        logits = run(ms.Tensor(batch.ids), *fixed, ms.Tensor(positions), *patches).asnumpy()
        logits = logits[:, allowed.start : allowed.stop]
        if guided:
            with_condition, without = np.split(logits, 2)
            logits = without + sampling.guidance * (with_condition - without)
        for i, random in enumerate(randoms):
            if ended[i]:
                continue
            chosen = allowed.start + choose(logits[i], sampling, random)
            if into == TEXT and chosen == vocabulary.close(TEXT):
                ended[i] = True
                continue
            results[i].append(chosen)
            batch.ids[i, starts[i] + 1 + step] = chosen
            if guided:
                twin = i + len(contents)
                batch.ids[twin, starts[twin] + 1 + step] = chosen
        if ended.all():
            break
    return results


def choose(logits: np.ndarray, sampling: Sampling, random: np.random.Generator) -> int:
    """Index of the next token, from logits (n,)."""
    if sampling.temperature <= 0:
        return int(np.argmax(logits))
    scaled = logits.astype(np.float64) / sampling.temperature
    order = np.argsort(-scaled, kind="stable")
    p = np.exp(scaled[order] - scaled[order[0]])
    p /= p.sum()
    keep = np.cumsum(p) - p < sampling.top_p
    keep[0] = True  # whatever top_p is
    if sampling.top_k > 0:
        keep[sampling.top_k :] = False
    p = np.where(keep, p, 0)
    return int(order[random.choice(len(p), p=p / p.sum())])
