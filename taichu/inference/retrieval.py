"""Retrieval: queries, and exact search by cosine among the embeddings of a split's contents."""

from dataclasses import dataclass

import numpy as np

from taichu.data.manifest import Sample
from taichu.data.prepared import PreparedData
from taichu.errors import GenerationError
from taichu.vocabulary import TEXT

CHUNK = 512  # grids in memory at a time


@dataclass(frozen=True)
class Candidates:
    """What can be found: n texts or media files, each once.

    Attributes:
        samples: (n) the first row that holds each.
        shown: (n) the text, or the file's path.
        vectors: (n, C) float32, unit length.
    """

    samples: list[Sample]
    shown: list[str]
    vectors: np.ndarray

    @classmethod
    def of(cls, model, data: PreparedData, modality: str) -> "Candidates":
        """Embed all texts, or all files of a modality.

        Args:
            model: a `taichu.Taichu`.
            data: a split, prepared with the model's modalities.
            modality: "text" or a grid modality.

        Raises:
            GenerationError: the model lacks the modality, or the split holds none of it.
        """
        if modality != TEXT and modality not in model.adapters:
            known = ", ".join((TEXT, *model.adapters))
            raise GenerationError(f"this model has no modality {modality!r}; it has {known}")
        first: dict[str, tuple[Sample, object]] = {}
        for number in data.having((modality,)):
            sample = data.samples[number]
            if modality == TEXT:
                for _, text in sample.texts:
                    first.setdefault(text, (sample, text))
            else:
                row = data.rows[modality][number]
                first.setdefault(str(sample.media[modality]), (sample, row))
        if not first:
            raise GenerationError(f"no row of the split holds {modality}")
        samples, contents = zip(*first.values())
        parts = []
        for start in range(0, len(contents), CHUNK):
            part = contents[start : start + CHUNK]
            if modality != TEXT:
                part = data.grids[modality][list(part)]
            parts.append(model.embed_many([{modality: content} for content in part]))
        return cls(list(samples), list(first), np.concatenate(parts))


def embed_query(model, inputs: dict, weights: dict[str, float] | None = None) -> np.ndarray:
    """The unit vector of what is looked for.

    Args:
        model: a `UnifiedModel`.
        inputs: modality -> text or path.
        weights: modality -> weight, of all modalities given: each is embedded alone, and the query
            is the sum of their unit vectors times these, as ImageBind composes them (2305.05665).
            Without weights they form one group, embedded together.

    Returns:
        (C,) float32.

    Raises:
        MediaError: a file cannot be read. GenerationError: an unknown modality, weights of others
            than are given, or a sum of length zero.
    """
    if weights is None:
        return model.embed(**inputs)
    if set(weights) != set(inputs):
        raise GenerationError(f"weights must be of what is given: {', '.join(inputs)}")
    vectors = [weights[name] * model.embed(**{name: value}) for name, value in inputs.items()]
    summed = np.sum(vectors, axis=0, dtype=np.float64)
    length = np.linalg.norm(summed)
    if not 1e-6 < length < np.inf:
        raise GenerationError("the weighted sum has no direction; change the weights")
    return (summed / length).astype(np.float32)


def search(queries: np.ndarray, vectors: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest vectors of each query, best first; equal ones in their order.

    Args:
        queries: (q, C), unit length. vectors: (n, C), unit length.
        top: how many; all n where there are fewer.

    Returns:
        Numbers (q, top) int64 and cosines (q, top) float32.
    """
    scores = queries @ vectors.T
    numbers = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return numbers, np.take_along_axis(scores, numbers, 1)
