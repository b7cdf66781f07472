"""Retrieval: how often the right item is among the first, between any two modalities."""

import numpy as np

from taichu.vocabulary import TEXT

QUERIES = 1000  # of a pair at most


def retrieval(embeddings, trained) -> dict[str, dict]:
    """R@1, R@5, n and chance (of R@1) for each pair.

    Text and media belong together when the whole caption is true of the medium; two media, of a
    pair that was never trained together, when they show the same digit.

    Args:
        embeddings: of the test split.
        trained: the groups of the training, as pairs of sides.
    """
    figures = {}
    for modality in embeddings.model.adapters:
        same = equal(embeddings.facts[TEXT], embeddings.facts[modality])
        asked, found = embeddings.vectors[TEXT], embeddings.vectors[modality]
        figures[f"{TEXT}->{modality}"] = recall(asked @ found.T, same)
        figures[f"{modality}->{TEXT}"] = recall(found @ asked.T, same.T)
    for left in embeddings.model.adapters:
        for right in embeddings.model.adapters:
            if left != right and not together(left, right, trained):
                same = embeddings.digits[left][:, None] == embeddings.digits[right]
                similarity = embeddings.vectors[left] @ embeddings.vectors[right].T
                figures[f"{left}->{right}"] = recall(similarity, same)
    if {"audio", "image", "video"} <= set(embeddings.model.adapters):
        figures["audio+image->video"] = _group_query(embeddings)
    return figures


def recall(similarity: np.ndarray, relevant: np.ndarray) -> dict:
    """Recall of queries (rows) among candidates (columns); queries with no right item are left out.

    Args:
        similarity: (q, n). relevant: (q, n) bool.
    """
    kept = np.flatnonzero(relevant.any(1))
    if len(kept) > QUERIES:
        kept = np.sort(np.random.default_rng(0).choice(kept, QUERIES, replace=False))
    if not len(kept):
        return {"R@1": None, "R@5": None, "n": 0, "chance": None}
    similarity, relevant = similarity[kept], relevant[kept]
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :5]
    hits = np.take_along_axis(relevant, best, axis=1)
    return {
        "R@1": float(hits[:, 0].mean()),
        "R@5": float(hits.any(1).mean()),
        "n": len(kept),
        "chance": float(relevant.mean()),
    }


def equal(left: list[tuple], right: list[tuple]) -> np.ndarray:
    """(left, right) bool: which facts are the same."""
    number: dict[tuple, int] = {}
    a, b = (np.array([number.setdefault(f, len(number)) for f in side]) for side in (left, right))
    return a[:, None] == b


def together(left: str, right: str, trained) -> bool:
    """Whether some group held both modalities."""
    return any({left, right} <= set(one + other) for one, other in trained)


def _group_query(embeddings) -> dict:
    """A sound and a picture of the same digit, of different samples, embedded as one group."""
    data, random = embeddings.data, np.random.default_rng(0)
    contents, digits = [], []
    for digit in range(10):
        audio, image = (
            embeddings.samples[m][embeddings.digits[m] == digit] for m in ("audio", "image")
        )
        for a, i in zip(random.permutation(audio)[:40], random.permutation(image)[:40]):
            grids = {m: data.grids[m][data.rows[m][s]] for m, s in (("audio", a), ("image", i))}
            contents.append(grids)
            digits.append(digit)
    vectors = embeddings.model.embed_many(contents)
    same = np.array(digits)[:, None] == embeddings.digits["video"]
    return recall(vectors @ embeddings.vectors["video"].T, same)
