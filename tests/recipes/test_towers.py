"""A converted model with towers is trained by the recipes as any other."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from recipes import codecs, pretrain
from taichu.convert.from_hf import convert_from_hf
from taichu.convert.tower_settings import TowerChoice
from taichu.data.batches import MixtureConfig
from taichu.errors import ConfigError
from taichu.tokenizer import train_tokenizer
from taichu.training.log import read_log
from taichu.training.trainer import TrainConfig
from tests.taichu.convert.conftest import publish
from tests.taichu.convert.towers import publish_encoder


@pytest.fixture(scope="module")
def converted(cpu, tmp_path_factory):
    folder, texts = tmp_path_factory.mktemp("converted"), ["a red seven", "a blue three"] * 9
    tokenizer = train_tokenizer(texts, 300, folder / "tokenizer")
    publish(folder / "qwen3", "qwen3", tokenizer.content, tokenizer.size, "float32")
    towers = {}
    for name, modality in (("clip", "image"), ("whisper", "audio")):
        publish_encoder(folder / name, name)
        towers[modality] = TowerChoice(str(folder / name), frozen=modality == "image", pooled=5)
    return convert_from_hf(folder / "qwen3", folder / "out", towers=towers)


def test_training_of_a_converted_model(converted, common, tmp_path):
    settings = {**common, "model": str(converted), "validation_batches": 1}
    made = codecs.Config(
        out=str(tmp_path),
        manifest=common["manifest"],
        model=str(converted),
        cache=common["cache"],
        device="CPU",
        train=TrainConfig(steps=1),
    )
    settings["codecs"] = str(codecs.main(made))
    mixture = MixtureConfig({"text-audio+image": 1.0}, joint_weight=0.0, rows=4, length=96)
    settings["mixture"], every = mixture, []
    for recompute in (False, True):
        out = tmp_path / str(recompute)
        settings["train"] = TrainConfig(steps=5, log_every=1, recompute=recompute)
        settings |= {"start": str(converted), "out": str(out)}
        folder = pretrain.main(pretrain.Config(**settings))
        log = read_log(out / "training" / "backbone" / "metrics.jsonl")
        every.append([row["loss"] for row in log if "loss" in row])
        for modality, changed in (("image", False), ("audio", True)):
            of = [load_file(f / "towers" / f"{modality}.safetensors") for f in (converted, folder)]
            same = [np.array_equal(value, of[1][name]) for name, value in of[0].items()]
            assert all(same) != changed
    assert every[0][-1] < 0.95 * every[0][0]
    np.testing.assert_allclose(*every, rtol=1e-4)  # the same, blocks computed again or not
    with pytest.raises(ConfigError, match="start: the towers of image, audio want a folder"):
        pretrain.main(pretrain.Config(**settings | {"start": None}))
