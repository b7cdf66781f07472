"""What the model makes: media from captions, captions from media, and codec reconstructions."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from taichu.data.prepared import PreparedData
from taichu.inference.generation import generate
from taichu.inference.sampling import Sampling
from taichu.report.pictures import Shown, show_text
from taichu.report.relevance import Relevance
from taichu.report.wall import contents, queries, text_of
from taichu.vocabulary import TEXT

MADE = 8  # media a modality: half from English captions, half from Chinese ones
FROM_MEDIA = 2  # captions a modality
RECONSTRUCTED = 4  # grids a modality
LANGUAGES = ("en", "zh")

Show = Callable[[str, np.ndarray], Shown]


@dataclass(frozen=True)
class Made:
    """A medium that was generated, and the caption it was generated from."""

    caption: Shown
    shown: Shown


@dataclass(frozen=True)
class Caption:
    """A caption that was generated, its media, a true caption, and whether it says the same."""

    query: list[Shown]
    true: Shown
    made: Shown
    right: bool


@dataclass(frozen=True)
class Pair:
    """A grid, and what its codes give back."""

    original: Shown
    rebuilt: Shown


def generated_media(
    model,
    data: PreparedData,
    modality: str,
    show: Show,
    random: np.random.Generator,
    sampling: Sampling,
) -> list[Made]:
    """Media made from captions of the split, of different digits as far as it has them."""
    if not len(data.having((TEXT,))):
        return []
    numbers = varied(data, queries(data, (TEXT,), modality), MADE, random)
    texts = [text_of(data.samples[n], LANGUAGES[i % 2]) for i, n in enumerate(numbers)]
    sampling = dataclasses.replace(sampling, seed=int(random.integers(1 << 30)))
    made = generate(model, modality, [{TEXT: text} for text in texts], sampling)
    return [Made(show_text(t), show(modality, m.grid)) for t, m in zip(texts, made)]


def generated_captions(
    model, data: PreparedData, show: Show, random: np.random.Generator, sampling: Sampling
) -> list[Caption]:
    """Captions made from each modality of the split, and from a sound and a picture together."""
    relevance = Relevance(data.samples, data.captions())
    groups = [(name,) for name in data.grids]
    if {"audio", "image"} <= set(data.grids):
        groups.append(("audio", "image"))
    chosen = []
    for group in groups:
        fitting = queries(data, group, TEXT) if len(data.having((*group, TEXT))) else []
        fitting = np.intersect1d(fitting, data.having((*group, TEXT)))
        chosen += [(group, n) for n in varied(data, fitting, FROM_MEDIA, random)]
    if not chosen:
        return []
    media = [contents(data, number, group) for group, number in chosen]
    captions = []
    made_texts = generate(model, TEXT, media, sampling)
    for (_, number), content, made in zip(chosen, media, made_texts):
        sample = data.samples[number]
        shown = [show(name, grid) for name, grid in content.items()]
        text = show_text(made.text)
        true = show_text(text_of(sample, text.language))
        captions.append(Caption(shown, true, text, relevance.said(sample, made.text)))
    return captions


def reconstructions(
    model, data: PreparedData, modality: str, show: Show, random: np.random.Generator
) -> list[Pair]:
    """Grids of the split beside what their codes give back."""
    rows = data.rows[modality][varied(data, data.having((modality,)), RECONSTRUCTED, random)]
    if not len(rows):
        return []
    grids = data.grids[modality][np.sort(rows)]
    rebuilt = model.decode_codes(modality, model.encode_grids(modality, grids))
    return [Pair(show(modality, a), show(modality, b)) for a, b in zip(grids, rebuilt)]


def varied(
    data: PreparedData, numbers: np.ndarray, count: int, random: np.random.Generator
) -> list[int]:
    """At most so many of the samples, of as many different digits as there are."""
    drawn = [int(n) for n in random.permutation(np.asarray(numbers, np.int64))]
    seen: dict = {}
    turn = {}
    for number in drawn:  # the first of each digit, then the second of each, ...
        digit = str(data.samples[number].labels.get("digit"))
        turn[number] = seen[digit] = seen.get(digit, -1) + 1
    chosen = sorted(drawn, key=lambda number: turn[number])[:count]
    return sorted(chosen, key=lambda n: (str(data.samples[n].labels.get("digit")), n))
