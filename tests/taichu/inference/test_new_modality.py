"""A model is given another modality: what it knew is there bit for bit, at its new places."""

import dataclasses

import mindspore as ms
import numpy as np
import pytest

from taichu import Sampling, Taichu
from taichu.config import CodecConfig
from taichu.errors import ConfigError
from taichu.inference.new_modality import add_modality
from taichu.storage.checkpoint import named_parameters
from taichu.vocabulary import new_places
from tests.taichu.conftest import TINY

ADAPTER = {"shape": [1, 16, 16, 1], "patch": [1, 8, 8], "nearest": 1.0, "farthest": 3.0}
CODEC = CodecConfig(levels=(3, 4), width=32, depth=1)
TEXT_ALONE = dataclasses.replace(TINY, modalities={}, codecs={}, tied=False)
SIZES = {
    "tied": TINY,
    "untied": dataclasses.replace(TINY, tied=False, rows_multiple=1),
    "small table": dataclasses.replace(TINY, scaled_ids=False),
    "text alone": TEXT_ALONE,
}


def vectors(table) -> np.ndarray:
    return table().asnumpy()


@pytest.mark.parametrize("name", SIZES)
def test_what_the_model_knew_is_as_it_was(name, tokenizer, cpu, contents):
    ms.set_seed(3)
    model = Taichu(SIZES[name], tokenizer)
    if name == "small table":
        for part in (model.backbone.table.own, model.backbone.table.digits):
            part.set_data(part * 0.1)
    before = {n: p.asnumpy().copy() for n, p in named_parameters(model.backbone).items()}
    grown = add_modality(model, "depth", ADAPTER, CODEC)
    for path, parameter in named_parameters(model.backbone).items():
        np.testing.assert_array_equal(parameter.asnumpy(), before[path])

    old, new = model.vocabulary, grown.vocabulary
    places, V = new_places(old, new), old.size
    assert new.size == V + 3 + 12 and len(set(places)) == V
    assert set(range(new.size)) - set(places) == set(new.of("depth"))
    for modality in old.media:
        for ids in (old.open, old.close, old.patch):
            assert places[ids(modality)] == getattr(new, ids.__name__)(modality)
        assert list(places[list(old.codes(modality))]) == list(new.codes(modality))
    np.testing.assert_array_equal(places[: old.end + 1], np.arange(old.end + 1))
    after = {n: p.asnumpy() for n, p in named_parameters(grown.backbone).items()}
    assert after["table.own"].shape[0] == grown.config.table_rows(new.size)
    tables = ["table"] if model.config.tied else ["table", "head"]
    for table in tables:
        np.testing.assert_array_equal(after[f"{table}.own"][places], before[f"{table}.own"][:V])
        found, wanted = (vectors(getattr(m.backbone, table)) for m in (grown, model))
        np.testing.assert_allclose(found[places], wanted[:V], atol=1e-6)
        fresh = found[new.of("depth")].std()  # as the model's own are
        assert 0.7 < fresh / wanted[:V].std() < 1.4
    for path, value in before.items():
        if not path.startswith(("table.", "head.")):
            np.testing.assert_array_equal(after[path], value, err_msg=path)
    n = len(model.adapters)
    added = {path for path in after if path not in before} - {"table.digits", "head.digits"}
    assert all(path.startswith((f"patch_embedders.{n}.", f"patch_scales.{n}.")) for path in added)
    for modality, codec in model.codecs.items():
        for path, parameter in named_parameters(codec).items():
            same = named_parameters(grown.codecs[modality])[path]
            np.testing.assert_array_equal(same.asnumpy(), parameter.asnumpy())

    known = [{m: contents[m]} for m in ("text", *model.adapters)]
    np.testing.assert_allclose(grown.embed_many(known), model.embed_many(known), atol=1e-6)


def test_it_makes_the_same_tokens_and_knows_the_new_modality(tiny, contents, tmp_path):
    grown = add_modality(tiny, "depth", ADAPTER, CODEC)
    greedy, condition = Sampling(temperature=0, pieces=8), {"image": contents["image"]}
    for modality in ("text", "audio"):
        a, b = (model_makes(model, modality, condition, greedy) for model in (tiny, grown))
        assert a.text == b.text if modality == "text" else np.array_equal(a.grid, b.grid)
        assert b.log_likelihood == pytest.approx(a.log_likelihood, abs=1e-4)
    file = grown.adapters["depth"].write(np.zeros((1, 16, 16, 1)), tmp_path / "a.png")
    vector = grown.embed(depth=str(file))
    made = grown.generate("depth", text="a red seven")
    assert made.grid.shape == (1, 16, 16, 1)
    grown.save_pretrained(tmp_path / "grown")
    back = Taichu.from_pretrained(tmp_path / "grown")
    assert list(back.adapters) == [*tiny.adapters, "depth"]
    np.testing.assert_allclose(back.embed(depth=str(file)), vector, atol=1e-6)


def model_makes(model, modality, condition, sampling):
    from taichu.inference.generation import generate

    return generate(model, modality, [condition], sampling)[0]


@pytest.mark.parametrize(
    ("name", "adapter", "said"),
    [
        ("image", ADAPTER, "has it already"),
        ("text", ADAPTER, "has it already"),
        ("dept", ADAPTER, "did you mean 'depth'"),
        ("depth", {"shape": [1, 16, 16, 1]}, "'patch' is missing"),
    ],
)
def test_what_cannot_be_added_is_refused(tiny, name, adapter, said):
    with pytest.raises(ConfigError, match=said):
        add_modality(tiny, name, adapter, CODEC)
