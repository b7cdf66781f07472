"""Trainable tokens: chosen rows of the tables alone, of digits or not; ids by name; the folder."""

import dataclasses
import json

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file

from taichu import Taichu
from taichu.errors import ConfigError, TuningError
from taichu.inference.adapters import Adapters, merge
from taichu.storage.checkpoint import named_parameters
from taichu.tuning.methods import create_method
from taichu.tuning.peft_folder import CONFIG, TENSORS, save_adapter
from taichu.tuning.trainable_tokens import TrainableTokens, _PutRows
from taichu.tuning.tuned import tune
from tests.taichu.conftest import TINY


def tables(model) -> list[np.ndarray]:
    """What ids are looked up in, and what they are decoded with."""
    backbone = model.backbone
    V = backbone.vocabulary_size
    cells = [backbone.table] if backbone.head is None else [backbone.table, backbone.head]
    return [cell().asnumpy()[:V] for cell in cells]


@pytest.fixture(params=["tied", "untied"])
def folder(request, tiny, tiny_folder, tokenizer, tmp_path):
    if request.param == "tied":
        return tiny_folder
    ms.set_seed(2)
    model = Taichu(dataclasses.replace(TINY, tied=False), tokenizer)
    model.save_pretrained(tmp_path / "untied")
    return tmp_path / "untied"


def test_the_named_rows_stand_in_the_tables_and_merge_into_them(folder, tmp_path, contents):
    model = Taichu.from_pretrained(folder)
    plain = tables(model)
    tuned = tune(model.backbone, TrainableTokens(tokens=("audio", 5, 7, 5)))
    ids = [*model.vocabulary.of("audio"), 5, 7]
    random = np.random.default_rng(0)
    assert len(tuned.trained) == len(plain)
    for before, after in zip(plain, tables(model)):
        np.testing.assert_allclose(after, before, atol=1e-6)
    for parameter in tuned.trained.values():
        assert parameter.shape == (len(ids), 32)
        parameter.set_data(ms.Tensor(random.standard_normal(parameter.shape), ms.float32))
    wanted = [before.copy() for before in plain]
    for table, parameter in zip(wanted, tuned.trained.values()):
        table[ids] = parameter.asnumpy()
    for made, table in zip(tables(model), wanted):
        np.testing.assert_allclose(made, table, atol=1e-6)

    adapter = save_adapter(tuned, tmp_path / "adapter", str(folder))
    merged = Taichu.from_pretrained(merge(folder, adapter, tmp_path / "merged"))
    half = Adapters(Taichu.from_pretrained(folder))
    half.use({half.add(adapter): 0.5})
    tuned.merge()
    for made in (merged, model):
        for table, expected in zip(tables(made), wanted):
            np.testing.assert_allclose(table, expected, atol=1e-5)
    for table, before, after in zip(tables(half.model), plain, wanted):
        np.testing.assert_allclose(table, (before + after) / 2, atol=1e-5)
    left = {**named_parameters(Taichu.from_pretrained(folder).backbone)}
    for path, parameter in named_parameters(merged.backbone).items():
        changed = not np.array_equal(parameter.asnumpy(), left[path].asnumpy())
        assert changed == (path in ("table.own", "head.own")), path


def test_gradients_of_put_rows(seeded):
    """Those of the rows that were put, and of the table what is left."""
    ids = np.array([4, 1])
    table, rows, pull = (
        seeded.standard_normal(s).astype(np.float32) for s in ((6, 3), (2, 3), (6, 3))
    )
    put = _PutRows(ids, 6)

    def loss(table, rows):
        return (put(table, rows) * ms.Tensor(pull)).sum()

    expected = table.copy()
    expected[ids] = rows
    np.testing.assert_array_equal(put(ms.Tensor(table), ms.Tensor(rows)).asnumpy(), expected)
    of_table, of_rows = ms.grad(loss, (0, 1))(ms.Tensor(table), ms.Tensor(rows))
    np.testing.assert_allclose(of_rows.asnumpy(), pull[ids])
    left = pull.copy()
    left[ids] = 0
    np.testing.assert_allclose(of_table.asnumpy(), left)


def test_wrong_tokens_are_named(tiny_folder, tmp_path):
    backbone = Taichu.from_pretrained(tiny_folder).backbone
    V = backbone.vocabulary_size
    for tokens, said in [
        (("imagge",), "the model has no modality 'imagge'; did you mean 'image'"),
        ((V,), f"tokens: {V} is no id; they are 0 to {V - 1}"),
        ((-1,), "tokens: -1 is no id"),
    ]:
        with pytest.raises(TuningError, match=said):
            tune(backbone, TrainableTokens(tokens=tokens))
    for settings, said in [
        ({"tokens": []}, "at least one"),
        ({"tokens": [1.5]}, r"tokens\[0\]: must be int"),
        ({"tokens": [1], "targets": ["tables"]}, "'tables' is none of table, head; did you mean"),
        ({}, "method.tokens: missing"),
    ]:
        with pytest.raises(ConfigError, match=said):
            create_method({"name": "trainable_tokens", **settings}, steps=1)
    method = create_method({"name": "trainable_tokens", "tokens": ["image", 3]}, steps=1)
    assert method.tokens == ("image", 3)
    with pytest.raises(TuningError, match="changes nothing"):
        save_adapter(tune(backbone, method), tmp_path)


def test_the_folder_is_in_peft_s_layout(tiny_folder, tmp_path):
    tuned = tune(Taichu.from_pretrained(tiny_folder).backbone, TrainableTokens(tokens=(3, 9)))
    (parameter,) = tuned.trained.values()
    parameter.set_data(parameter + 1)
    folder = save_adapter(tuned, tmp_path)
    content = json.loads((folder / CONFIG).read_text())
    assert content["peft_type"] == "TRAINABLE_TOKENS" and content["token_indices"] == [3, 9]
    assert content["target_modules"] == ["embed_tokens"]  # the head is tied to it
    (key,) = load_file(folder / TENSORS)
    assert key == "base_model.model.model.embed_tokens.trainable_tokens_delta"
