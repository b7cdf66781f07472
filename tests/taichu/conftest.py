"""A small vocabulary, samples of two grid modalities and a tiny model of all five, to share."""

import numpy as np
import pytest

from taichu.config import CodecConfig, ModelConfig
from taichu.data.layout import Span
from taichu.tokenizer import Tokenizer, train_tokenizer
from taichu.vocabulary import Vocabulary

LINES = [
    "a red seven at the top left",
    "左上角的红色七",
    "a blue three moves right",
    "蓝色的三",
] * 5


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
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


TINY = ModelConfig(
    width=32,
    depth=2,
    heads=2,
    key_value_heads=1,
    head_size=16,
    hidden=48,
    embedding=16,
    pieces=0,
    rows_multiple=64,
    modalities={
        "image": {"shape": [1, 16, 16, 3], "patch": [1, 8, 8]},
        "audio": {"shape": [16, 1, 16, 1], "patch": [8, 1, 8]},
        "video": {"shape": [4, 16, 16, 3], "patch": [2, 16, 16]},
        "shape3d": {"shape": [12, 12, 12, 1], "patch": [6, 6, 6]},
    },
    codecs={
        "image": CodecConfig(levels=(5, 4), width=32, depth=1),
        "audio": CodecConfig(levels=(4, 4), width=32, depth=1),
        "video": CodecConfig(levels=(3, 5), width=32, depth=1),
        "shape3d": CodecConfig(levels=(4, 3), width=32, depth=1),
    },
)


@pytest.fixture(scope="session")
def tiny(cpu, tokenizer):
    """A model of five modalities with parameters as they were drawn; nobody changes it."""
    import mindspore

    from taichu import Taichu

    mindspore.set_seed(7)
    return Taichu(TINY, tokenizer)


@pytest.fixture(scope="session")
def tiny_folder(tiny, tmp_path_factory):
    """The folder of the tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def contents(tiny) -> dict:
    """One string and one grid of each modality of the tiny model; the solid is a ball."""
    random = np.random.default_rng(5)
    made = {"text": "a red seven"}
    for name, adapter in tiny.adapters.items():
        made[name] = random.uniform(-1, 1, adapter.geometry.shape).astype(np.float16)
    place = np.indices((12, 12, 12)) - 5.5
    distance = np.sqrt((place**2).sum(0)) - 3.5
    made["shape3d"] = np.clip(distance / 3, -1, 1)[..., None].astype(np.float16)
    return made


@pytest.fixture(scope="session")
def exported(tiny_folder, tmp_path_factory):
    """Folder of the tiny model's export."""
    from taichu.export.onnx_folder import export_onnx

    return export_onnx(tiny_folder, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def runtime(exported):
    """The tiny model on ONNX Runtime."""
    from taichu.runtime import Runtime

    return Runtime(exported, "cpu")
