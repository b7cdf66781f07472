"""A trained model and its export agree on real test items of every modality."""

import numpy as np
import pytest
from mindspore import Tensor

from ascend.operators import AdamW
from taichu import Sampling, Taichu
from taichu.data.batches import Batches, MixtureConfig
from taichu.data.prepared import prepare
from taichu.export.onnx_folder import export_onnx
from taichu.inference.generation import generate
from taichu.runtime import Runtime
from taichu.training.objectives import Objective
from taichu.training.step import TrainingStep

MODALITIES = ("text", "image", "audio", "video", "shape3d")
GROUPS = {f"text-{name}": 1.0 for name in MODALITIES[1:]}
STEPS, ITEMS = 60, 6


@pytest.fixture(scope="module")
def trained(model_folder, digits, media_cache, tmp_path_factory):
    """Nano with one block after a few steps of all three trainings; its folder is saved."""
    model = Taichu.from_pretrained(model_folder)
    data = prepare(digits, "train", model.config.modalities, media_cache)
    model.measure(data.grids)
    codes = {name: model.encode_grids(name, grids) for name, grids in data.grids.items()}
    mixture = MixtureConfig(GROUPS, rows=6, length=128)
    batches = Batches(data, model.vocabulary, model.adapters, codes, mixture, 0)
    objective = Objective(model.backbone, model.vocabulary)
    step = TrainingStep(objective, AdamW(objective.trainable_params(), 2e-3))
    losses = [float(step(*map(Tensor, batches(k).arrays()))[0].asnumpy()) for k in range(STEPS)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    model.save_pretrained(folder := tmp_path_factory.mktemp("trained"))
    return model, folder


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    return Runtime(export_onnx(trained[1], tmp_path_factory.mktemp("exported")), "cpu")


@pytest.fixture(scope="module")
def items(trained, digits, media_cache):
    """Modality -> what the first rows of the test split hold of it."""
    data = prepare(digits, "test", trained[0].config.modalities, media_cache)
    found = {"text": [data.samples[n].texts[0][1] for n in data.having(("text",))[:ITEMS]]}
    for name, grids in data.grids.items():
        found[name] = list(grids[:ITEMS])
    assert all(len(contents) == ITEMS for contents in found.values())
    return found


@pytest.mark.parametrize("modality", MODALITIES)
def test_embeddings_agree(trained, exported, items, modality):
    given = [{modality: content} for content in items[modality]]
    expected = trained[0].embed_many(given)
    np.testing.assert_allclose(exported.embed_many(given), expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.01  # the items are told apart


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_is_made_of_it_agrees_token_by_token(trained, exported, items, modality):
    given = [{modality: content} for content in items[modality]]
    made, expected = (generate(m, "text", given, Sampling()) for m in (exported, trained[0]))
    assert [one.ids for one in made] == [one.ids for one in expected]
    assert any(one.ids for one in expected)


@pytest.mark.parametrize("modality", MODALITIES[1:])
def test_it_is_made_of_texts_token_by_token(trained, exported, items, modality):
    given = [{"text": text} for text in items["text"]]
    made, expected = (generate(m, modality, given, Sampling()) for m in (exported, trained[0]))
    assert [one.ids for one in made] == [one.ids for one in expected]
    for one, other in zip(made, expected):
        np.testing.assert_allclose(one.grid, other.grid, atol=1e-4)
