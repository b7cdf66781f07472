"""A small vocabulary and samples of two grid modalities that the tests of this folder share."""

import numpy as np
import pytest

from taichu.layout import Span
from taichu.vocabulary import Vocabulary, train_tokenizer

LINES = [
    "a red seven at the top left",
    "左上角的红色七",
    "a blue three moves right",
    "蓝色的三",
] * 5


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> bytes:
    return train_tokenizer(LINES, 400, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def vocabulary(tokenizer) -> Vocabulary:
    return Vocabulary(tokenizer, {"image": 8, "audio": 5})


class Samples:
    """Draws spans: an image is 2 x 2 patches of 6 numbers, a sound 3 x 1 patches of 4."""

    sizes = {"image": 6, "audio": 4}
    coordinates = {
        "image": np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]], np.int32),
        "audio": np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], np.int32),
    }

    def __init__(self, vocabulary: Vocabulary, seed: int = 0):
        self.vocabulary, self.random = vocabulary, np.random.default_rng(seed)

    def text(self, n: int | None = None) -> Span:
        n = n or int(self.random.integers(1, 9))
        return Span("text", ids=self.random.integers(0, self.vocabulary.pieces, n, np.int32))

    def patches(self, modality: str) -> Span:
        where = self.coordinates[modality]
        drawn = self.random.standard_normal((len(where), self.sizes[modality]), np.float32)
        return Span(modality, patches=drawn, coordinates=where)

    def codes(self, modality: str) -> Span:
        where, known = self.coordinates[modality], self.vocabulary.codes(modality)
        ids = self.random.integers(known.start, known.stop, len(where), np.int32)
        return Span(modality, ids=ids, coordinates=where)


@pytest.fixture
def samples(vocabulary) -> Samples:
    return Samples(vocabulary)
