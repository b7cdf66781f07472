"""Exact search, and candidates that stand once each."""

import numpy as np
import pytest

from taichu import Taichu
from taichu.data.prepared import prepare
from taichu.errors import GenerationError
from taichu.inference.retrieval import Candidates, search


def test_search_is_exact_and_ties_keep_their_order():
    random = np.random.default_rng(2)
    queries, vectors = random.standard_normal((4, 8)), random.standard_normal((50, 8))
    vectors[30] = vectors[10]
    numbers, scores = search(queries, vectors, 50)
    for query, row, score in zip(queries, numbers, scores):
        np.testing.assert_allclose(score, sorted(vectors @ query, reverse=True))
        np.testing.assert_allclose(score, vectors[row] @ query)
        assert row.tolist().index(10) + 1 == row.tolist().index(30)
    few, _ = search(queries, vectors, 3)
    np.testing.assert_array_equal(few, numbers[:, :3])


def test_candidates(model_folder, digits, media_cache, monkeypatch):
    monkeypatch.setattr("taichu.inference.retrieval.CHUNK", 7)
    model = Taichu.from_pretrained(model_folder)
    data = prepare(digits, "test", model.config.modalities, media_cache)
    for modality in ("text", "image"):
        found = Candidates.of(model, data, modality)
        if modality == "text":
            expected = {text for sample in data.samples for _, text in sample.texts}
        else:
            expected = {str(s.media["image"]) for s in data.samples if "image" in s.media}
        assert len(found.shown) == len(expected) and set(found.shown) == expected
        assert found.vectors.shape == (len(expected), model.config.embedding)
        direct = model.embed(**{modality: found.shown[5:9]})
        np.testing.assert_allclose(found.vectors[5:9], direct, atol=1e-5)
    with pytest.raises(GenerationError, match="no modality 'smell'"):
        Candidates.of(model, data, "smell")
