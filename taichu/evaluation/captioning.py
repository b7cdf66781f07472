"""Captions written from media, read back by the data set's own grammar."""

import numpy as np

from taichu.data.digits.captions import VALUES, known, parse
from taichu.evaluation.judge import distinct
from taichu.inference.generation import generate
from taichu.inference.sampling import Sampling
from taichu.vocabulary import TEXT


def captioning(model, data, judges, limit: int, sampling: Sampling) -> dict[str, dict]:
    """For each modality: share of captions that are exact up to the template, that name the digit,
    that name each attribute, and that are captions at all; ``chance`` of the digit and
    ``chance_exact`` of guessing each detail; ``baseline``: how often the judge, a logistic
    regression trained for just this, names the digit of the same items."""
    figures = {}
    for modality in model.adapters:
        samples, rows = distinct(data, modality)
        chosen = np.sort(np.random.default_rng(0).permutation(len(samples))[:limit])
        grids = data.grids[modality][rows[chosen]]
        made = generate(model, TEXT, [{modality: grid} for grid in grids], sampling)
        wanted = [known(data.samples[i].labels, modality) for i in samples[chosen]]
        named = judges[modality](grids)
        baseline = np.mean([digit == want["digit"] for digit, want in zip(named, wanted)])
        figures[modality] = score([g.text for g in made], wanted) | {"baseline": float(baseline)}
    return figures


def score(texts: list[str], wanted: list[dict]) -> dict:
    """Compare captions with what they should say."""
    read = [parse(text) or {} for text in texts]
    figures = {
        "exact": float(np.mean([r == w for r, w in zip(read, wanted)])),
        "valid": float(np.mean([bool(r) for r in read])),
        "n": len(texts),
        "chance": 1 / 10,
        "chance_exact": float(np.mean([guess(w) for w in wanted])),
    }
    for name in sorted({name for w in wanted for name in w}):
        hits = [r.get(name) == w[name] for r, w in zip(read, wanted) if name in w]
        figures[name] = float(np.mean(hits))
    return figures


def guess(wanted: dict) -> float:
    """Probability that details drawn evenly, each for itself, are all right."""
    return float(np.prod([1 / len(VALUES.get(name, range(10))) for name in wanted]))


def text_from_nothing(model, n: int, seed: int) -> dict:
    """Share of texts made without any condition that are captions."""
    made = generate(model, TEXT, [{}] * n, Sampling(temperature=1.0, seed=seed))
    return {"valid": float(np.mean([parse(g.text) is not None for g in made])), "n": n}
