"""Towers compute what `transformers` does with the published encoders, number by number."""

import dataclasses

import numpy as np
import pytest
import torch

from modality_adapters import create_adapter
from taichu import Taichu
from taichu.convert.from_hf import convert_from_hf
from taichu.convert.tower_settings import TowerChoice
from tests.taichu.convert.towers import ENCODERS, publish_encoder


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Gives a published encoder by its name; nobody changes it."""
    made = {}

    def of(name: str):
        if name not in made:
            made[name] = publish_encoder(tmp_path_factory.mktemp(name), name)
        return made[name]

    return of


@pytest.fixture
def converted(published, encoders, cpu, tmp_path):
    """Gives (the published encoder, the model that has it), of what `TowerChoice` takes."""

    def of(name: str, **choices):
        encoder = encoders(name)
        modality = "audio" if encoder.sound else "image"
        choice = TowerChoice(str(encoder.folder), **({"pooled": 1} | choices))
        out = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        convert_from_hf(published("qwen2").folder, out, towers={modality: choice})
        return encoder, Taichu.from_pretrained(out)

    return of


def draw_inputs(model: Taichu, grids: int):
    """Random grids in a batch's form, and the same as the published encoder reads them."""
    (name, adapter), (tower,) = *model.adapters.items(), model.config.towers.values()
    shape = adapter.geometry.shape
    values = np.random.default_rng(grids).uniform(-1, 1, (grids, *shape)).astype(np.float32)
    patches = adapter.geometry.patchify(values).reshape(-1, adapter.geometry.patch_size)
    read = (values - np.float32(tower.mean)) / np.float32(tower.deviation)
    if name == "audio":
        return patches, read[:, :, 0, :, 0].transpose(0, 2, 1)
    return patches, read[:, 0].transpose(0, 3, 1, 2)


def run_tower(model: Taichu, patches: np.ndarray):
    """What the tower gives, and what its projector makes of that."""
    import mindspore as ms

    embedder, seen = model.backbone.patch_embedders[0], []
    tower = embedder.tower.construct
    embedder.tower.construct = lambda x: seen.append(tower(x)) or seen[-1]
    try:
        projected = embedder(ms.Tensor(patches)).asnumpy()
    finally:
        embedder.tower.construct = tower
    return seen[0].asnumpy(), projected


@pytest.mark.parametrize("name", ENCODERS)
def test_hidden_states(name, converted):
    encoder, model = converted(name)
    hidden = -2 if name.startswith("clip") else None
    for grids in (1, 3):
        patches, read = draw_inputs(model, grids)
        if name == "siglip-uneven":  # the encoder drops what is behind the last whole patch
            read = np.pad(read, [(0, 0), (0, 0), (0, 4), (0, 4)], constant_values=9)
        expected = encoder.read(read, hidden)
        made, _ = run_tower(model, patches)
        assert expected.std() > 0.5
        np.testing.assert_allclose(made, expected.reshape(made.shape), atol=1e-4)
