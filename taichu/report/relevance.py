"""Whether what was found or said is right: by the digits' labels where a sample has them.

What a caption says must all be true of a medium; two media are of a kind when they show one digit.
Samples without such labels belong together where they share a text.
"""

import numpy as np

from taichu.data.digits.captions import ATTRIBUTES, known, parse
from taichu.data.manifest import Sample
from taichu.vocabulary import TEXT


class Relevance:
    """Judges the samples of one split, given as their numbers.

    Args:
        samples: the split's.
        captions: (samples,) int, equal for samples that share a text; `PreparedData.captions`.
    """

    def __init__(self, samples: list[Sample], captions: np.ndarray):
        self.samples = samples
        self.caption_of = {sample.id: int(c) for sample, c in zip(samples, captions)}

    def found(self, query: Sample, asked: str, result: Sample, given: str) -> bool:
        """Whether `result` in modality `given` answers `query` in modality `asked`."""
        wanted, has = facts(query, asked), facts(result, given)
        if wanted is None or has is None:
            return self.caption_of[query.id] == self.caption_of[result.id]
        if TEXT not in (asked, given):
            return wanted["digit"] == has["digit"]
        said, true = (wanted, has) if asked == TEXT else (has, wanted)
        return said.items() <= true.items()

    def said(self, sample: Sample, text: str) -> bool:
        """Whether a text says what the sample's own does, in whatever words."""
        wanted = facts(sample, TEXT)
        if wanted is None:
            return text in [own for _, own in sample.texts]
        return parse(text) == wanted


def subject(sample: Sample) -> str | None:
    """The medium that a sample's text is about, "digit" for the digit alone, None if untold."""
    named = sample.labels.get("caption")
    return named if isinstance(named, str) and named in ATTRIBUTES else None


def facts(sample: Sample, modality: str) -> dict | None:
    """What is known of a sample's medium or text, flat; None without the digits' labels."""
    try:
        return known(sample.labels, modality)
    except (KeyError, TypeError):
        return None
