"""Every test item's unit vector, made once and used by all figures that compare embeddings."""

import numpy as np

from taichu.data.digits.captions import known
from taichu.evaluation.judge import distinct
from taichu.vocabulary import TEXT


class Embeddings:
    """Vectors of one split.

    Attributes:
        samples: modality -> numbers of the samples that hold it, each file once.
        vectors: modality -> (n, C).
        digits: modality -> (n,).
        facts: modality -> what a whole caption of the item says, a tuple; for
            text what it does say.
        texts: (sample, language, text) of each text vector; `samples["text"]` repeats.
    """

    def __init__(self, model, data):
        self.model, self.data = model, data
        self.samples, self.vectors, self.digits, self.facts = {}, {}, {}, {}
        for modality in model.adapters:
            samples, rows = distinct(data, modality)
            grids = data.grids[modality]
            self._add(modality, samples, [{modality: grids[row]} for row in rows])
        self.texts = [
            (i, *pair) for i, sample in enumerate(data.samples) for pair in sample.captions(0)
        ]
        samples = np.array([i for i, _, _ in self.texts])
        self._add(TEXT, samples, [{TEXT: text} for _, _, text in self.texts])

    def _add(self, modality: str, samples: np.ndarray, contents: list[dict]):
        labels = [self.data.samples[i].labels for i in samples]
        self.samples[modality] = samples
        self.vectors[modality] = self.model.embed_many(contents)
        self.digits[modality] = np.array([label["digit"] for label in labels])
        self.facts[modality] = [
            tuple(sorted(known(label, modality).items(), key=str)) for label in labels
        ]
