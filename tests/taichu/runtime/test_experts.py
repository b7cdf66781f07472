"""Models whose tokens choose among experts."""

import dataclasses

import mindspore
import numpy as np
import pytest

from taichu import Sampling, Taichu
from taichu.errors import ExportError
from taichu.export.mindir_folder import export_mindir
from taichu.export.onnx_folder import export_onnx
from taichu.inference.generation import generate
from taichu.runtime import Runtime
from taichu.storage.tensor_file import load_tensors, save_tensors


@pytest.fixture(scope="module")
def folder(tiny, tokenizer, tmp_path_factory):
    """Five experts, of which two are taken; balances that change who is chosen."""
    mindspore.set_seed(3)
    config = dataclasses.replace(tiny.config, experts=5, active_experts=2, pieces=0)
    folder = tmp_path_factory.mktemp("experts")
    Taichu(config, tokenizer).save_pretrained(folder)
    tensors, about = load_tensors(folder / "model.safetensors")
    random, balances = np.random.default_rng(0), 0
    for name, array in tensors.items():
        if name.endswith("router.balance"):
            tensors[name] = random.uniform(-0.4, 0.4, array.shape).astype(np.float32)
            balances += 1
    assert balances == 2
    save_tensors(folder / "model.safetensors", tensors, about)
    return folder


def test_the_same_is_computed(folder, contents, tmp_path):
    trained, exported = Taichu.from_pretrained(folder), Runtime(export_onnx(folder, tmp_path))
    given = [{name: content} for name, content in contents.items()]
    expected = trained.embed_many(given)
    np.testing.assert_allclose(exported.embed_many(given), expected, atol=1e-5)
    for into in ("text", "audio"):
        made, same = (generate(m, into, given, Sampling(pieces=8)) for m in (exported, trained))
        assert [one.ids for one in made] == [one.ids for one in same]


def test_mindir_is_refused(folder, tmp_path):
    with pytest.raises(ExportError, match="a model with experts has no MINDIR; export it to onnx"):
        export_mindir(folder, tmp_path)
