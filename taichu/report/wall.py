"""The retrieval wall: queries, and the five nearest of what was looked for."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from taichu.data.manifest import Sample
from taichu.data.prepared import PreparedData
from taichu.inference.retrieval import Candidates, search
from taichu.report.pictures import Shown, show_text
from taichu.report.relevance import Relevance, subject
from taichu.vocabulary import TEXT

SAMPLES = 600  # that candidates are taken from
TOP = 5
# What is asked, in which modality answers are looked for, and the language of a text query.
WITH_TEXT = (
    ((TEXT,), "image", "en"),
    ((TEXT,), "video", "zh"),
    ((TEXT,), "audio", "en"),
    ((TEXT,), "shape3d", "zh"),
    (("image",), TEXT, ""),
    (("audio",), TEXT, ""),
)
WITHOUT_TEXT = (
    (("image",), "video", ""),
    (("audio",), "shape3d", ""),
    (("audio", "image"), "video", ""),
    (("video",), "audio", ""),
)


@dataclass(frozen=True)
class Found:
    """One answer, its cosine to the query, and whether it is right."""

    shown: Shown
    cosine: float
    right: bool


@dataclass(frozen=True)
class Search:
    """One query with its answers, best first, out of ``among`` candidates."""

    asked: tuple[str, ...]
    into: str
    query: list[Shown]
    found: list[Found]
    among: int

    @property
    def key(self) -> str:
        """What the metrics call this direction, e.g. "audio+image->video"."""
        return f"{'+'.join(self.asked)}->{self.into}"


def retrieval_wall(
    model, data: PreparedData, show: Callable[[str, np.ndarray], Shown], seed: int
) -> tuple[list[Search], list[Search]]:
    """Searches with text on one side, and between media.

    Args:
        model: a `taichu.Taichu`.
        data: a split; a part of it is searched, so that a large one takes no longer.
        show: (modality, grid) -> what the page shows of it.
        seed: of the choice of queries.

    A search whose modalities the split or the model lacks is left out.
    """
    random = np.random.default_rng(seed)
    data = thinned(data, SAMPLES, random)
    relevance = Relevance(data.samples, data.captions())
    candidates: dict[str, Candidates] = {}
    walls = []
    for plans in (WITH_TEXT, WITHOUT_TEXT):
        searches = []
        for asked, into, language in plans:
            known = all(name == TEXT or name in data.grids for name in (*asked, into))
            if not known or not len(data.having(asked)) or not len(data.having((into,))):
                continue
            if into not in candidates:
                candidates[into] = Candidates.of(model, data, into)
            number = int(random.choice(queries(data, asked, into)))
            content = contents(data, number, asked, language)
            made = _search(model, data, show, relevance, number, content, candidates[into], into)
            searches.append(made)
        walls.append(searches)
    return walls[0], walls[1]


def thinned(data: PreparedData, most: int, random: np.random.Generator) -> PreparedData:
    """The same grids with at most so many of the samples, drawn evenly."""
    if len(data.samples) <= most:
        return data
    kept = np.sort(random.permutation(len(data.samples))[:most])
    samples = [data.samples[i] for i in kept]
    rows = {name: row[kept] for name, row in data.rows.items()}
    return dataclasses.replace(data, samples=samples, rows=rows)


def queries(data: PreparedData, asked: tuple[str, ...], into: str) -> np.ndarray:
    """Numbers of the samples that make a good query: a text is asked for what it is about."""
    numbers = data.having(asked)
    if TEXT not in (*asked, into):
        return numbers
    medium = into if asked == (TEXT,) else asked[0]
    about = {"audio": "digit"}.get(medium, medium)
    fitting = [n for n in numbers if subject(data.samples[n]) in (about, None)]
    return np.array(fitting) if fitting else numbers


def contents(data: PreparedData, number: int, asked, language: str = "") -> dict:
    """Modality -> grid or string of one sample; the text in a language, where it has one in it."""
    made = {}
    for name in asked:
        if name == TEXT:
            made[name] = text_of(data.samples[number], language)
        else:
            made[name] = data.grids[name][data.rows[name][number]]
    return made


def text_of(sample: Sample, language: str = "") -> str:
    """A sample's text in a language, or its first."""
    of_language = [text for known, text in sample.texts if known == language]
    return (of_language or [sample.texts[0][1]])[0]


def _search(model, data, show, relevance, number, content, candidates, into) -> Search:
    query = data.samples[number]
    nearest, cosines = search(model.embed_many([content]), candidates.vectors, TOP)
    numbers = {sample.id: i for i, sample in enumerate(data.samples)}
    asked = tuple(content)
    found = []
    for place, cosine in zip(nearest[0], cosines[0]):
        sample = candidates.samples[place]
        if into == TEXT:
            shown = show_text(candidates.shown[place])
        else:
            shown = show(into, data.grids[into][data.rows[into][numbers[sample.id]]])
        right = relevance.found(query, asked[0], sample, into)
        found.append(Found(shown, float(cosine), right))
    shown = [show_text(c) if name == TEXT else show(name, c) for name, c in content.items()]
    return Search(asked, into, shown, found, len(candidates.vectors))
