"""What a published model lacks starts as a new model's does, as small as the published table is."""

import dataclasses
import json

import mindspore
import numpy as np
import pytest

from taichu import Taichu
from taichu.convert.from_hf import convert_from_hf
from taichu.export.onnx_folder import export_onnx
from taichu.runtime import Runtime
from taichu.storage.checkpoint import named_parameters
from taichu.storage.tensor_file import load_tensors
from tests.taichu.conftest import TINY

MEDIA = ("image", "audio", "video", "shape3d")


@pytest.fixture(scope="module", params=["mistral", "qwen3-tied"])
def models(request, published, cpu, tmp_path_factory):
    """(the published tensors, the converted model, a new one of its config)."""
    source = published(request.param)
    folder = convert_from_hf(source.folder, tmp_path_factory.mktemp("new") / "out", MEDIA)
    converted = Taichu.from_pretrained(folder)
    mindspore.set_seed(3)
    new = Taichu(converted.config, converted.vocabulary.tokenizer)
    return load_tensors(source.folder / "model.safetensors")[0], converted, new


def arrays(cell) -> dict[str, np.ndarray]:
    return {name: parameter.asnumpy() for name, parameter in named_parameters(cell).items()}


def test_codecs_start_as_new_ones(models):
    _, converted, new = models
    for name in MEDIA:
        ours, theirs = arrays(converted.codecs[name]), arrays(new.codecs[name])
        for key, value in ours.items():
            assert value.std() == pytest.approx(theirs[key].std(), rel=5 * value.size**-0.5), key
            assert abs(value.mean() - theirs[key].mean()) < 0.2, key


def test_the_backbone_s_parts_are_as_small_as_the_table(models):
    published, converted, new = models
    table = published["model.embed_tokens.weight"]
    ours, theirs, pieces = arrays(converted.backbone), arrays(new.backbone), converted.config.pieces
    np.testing.assert_array_equal(ours["table.own"][:pieces], table)
    for key, value in ours.items():
        if key.startswith(("patch_embedders", "table.digits")) and value.any():
            unit = converted.config.width**0.5 if "table" in key else 1  # of a new model's rows
            expected = theirs[key].std() * unit * table.std()
            assert value.std() == pytest.approx(expected, rel=5 * value.size**-0.5), key
        elif key.startswith(("projection", "patch_scales", "log_scale")):
            assert value.std() == pytest.approx(theirs[key].std(), rel=5 * value.size**-0.5), key
            assert value.mean() == pytest.approx(theirs[key].mean(), abs=0.05), key
    rows = converted.backbone.table().asnumpy()[pieces:]
    assert rows.std() == pytest.approx(table.std(), rel=0.05)
    if not converted.config.tied:
        head = published["lm_head.weight"]
        rows = converted.backbone.head().asnumpy()[pieces:]
        assert rows.std() == pytest.approx(head.std(), rel=0.05)


def test_the_same_again(published, tmp_path):
    folder = published("qwen2").folder
    first, second = (
        convert_from_hf(folder, tmp_path / name, ("image",)) / "model.safetensors" for name in "ab"
    )
    assert first.read_bytes() == second.read_bytes()


def test_it_is_a_model_like_others(published, contents, tmp_path):
    """It embeds and makes text and media, of the sizes that it was given."""
    size = dataclasses.asdict(TINY)
    del size["published"], size["rope_scaling"]
    (tmp_path / "size.yaml").write_text(json.dumps(size))
    source = published("mistral").folder
    folder = convert_from_hf(source, tmp_path / "out", MEDIA[:2], str(tmp_path / "size.yaml"))
    model = Runtime(export_onnx(folder, tmp_path / "exported"), "cpu", threads=1)
    config = model.config
    assert tuple(config.modalities) == MEDIA[:2]
    assert (config.embedding, config.width, config.spare_pieces) == (16, 64, 11)
    vector = model.embed(text="a red seven")
    assert vector.shape == (16,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert model.generate(into="image", text="a red seven").grid.shape == (1, 16, 16, 3)
