"""MINDIR graphs compute what the model does, and without its code."""

import numpy as np
import pytest

from taichu.errors import ExportError
from taichu.export.mindir_folder import export_mindir
from taichu.inference.generation import generate
from taichu.inference.mindir_model import MindirModel
from taichu.inference.sampling import Sampling

MODALITIES = ("text", "image", "audio", "video", "shape3d")


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory):
    return export_mindir(tiny_folder, tmp_path_factory.mktemp("mindir"))


@pytest.fixture(scope="module")
def exported(folder):
    return MindirModel(folder)


@pytest.mark.parametrize("modality", MODALITIES)
def test_embeddings_are_equal(tiny, exported, contents, modality):
    given = [{modality: contents[modality]}, {modality: contents[modality], "text": "a red"}]
    np.testing.assert_allclose(exported.embed_many(given), tiny.embed_many(given), atol=1e-5)


@pytest.mark.parametrize("into", MODALITIES)
def test_the_same_is_made_token_by_token(tiny, exported, contents, into):
    given = [{m: contents[m]} for m in MODALITIES[:2]] + [{}]
    made, expected = (generate(model, into, given, Sampling()) for model in (exported, tiny))
    assert [one.ids for one in made] == [one.ids for one in expected]
    if into != "text":
        np.testing.assert_allclose(made[0].grid, expected[0].grid, atol=1e-5)


def test_codes_are_equal(tiny, exported, contents):
    grids = np.stack([contents["image"], contents["image"][::-1]])
    codes = exported.encode_grids("image", grids)
    np.testing.assert_array_equal(codes, tiny.encode_grids("image", grids))


def test_what_is_missing_is_named(folder, tmp_path):
    for name in ("config.json", "preprocessor_config.json", "tokenizer.model", "export.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ExportError, match="embed.mindir: no such file"):
        MindirModel(tmp_path).embed(text="a")
    (tmp_path / "export.json").write_text('{"format": "onnx"}')
    with pytest.raises(ExportError, match="format must be 'mindir'"):
        MindirModel(tmp_path)
