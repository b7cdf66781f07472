"""A published language model is trained on media and written back."""

import numpy as np
import pytest
from safetensors import numpy, torch

from recipes import codecs, pretrain
from taichu.convert.from_hf import convert_from_hf
from taichu.convert.to_hf import convert_to_hf
from taichu.data.batches import MixtureConfig
from taichu.tokenizer import train_tokenizer
from taichu.training.log import read_log
from taichu.training.trainer import TrainConfig
from tests.taichu.convert.conftest import publish


@pytest.fixture(scope="module")
def folder(common, tmp_path_factory):
    """A converted Qwen2 with the recipes' pictures and sounds."""
    folder = tmp_path_factory.mktemp("converted")
    tokenizer = train_tokenizer(["red at the top", "blue at the bottom"] * 9, 290, folder / "text")
    publish(folder / "published", "qwen2", tokenizer.content, tokenizer.size, "bfloat16")
    names = "image", "audio"
    return convert_from_hf(folder / "published", folder / "model", names, common["model"])


def test_training(folder, common, tmp_path):
    settings = {**common, "model": str(folder)}
    trained = codecs.main(
        codecs.Config(out=str(tmp_path / "codecs"), train=TrainConfig(steps=1), **settings)
    )
    groups = {"text-image": 1.0, "text-audio": 1.0}
    mixture = MixtureConfig(groups=groups, rows=4, length=64)
    out = pretrain.main(
        pretrain.Config(
            codecs=str(trained),
            start=str(folder),
            out=str(tmp_path / "out"),
            mixture=mixture,
            train=TrainConfig(steps=12, rate=3e-3, log_every=1),
            validation_batches=1,
            **settings,
        )
    )
    rows = read_log(tmp_path / "out/training/backbone/metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.isfinite(losses).all() and np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    tensors = numpy.load_file(out / "model.safetensors")
    for n in range(2):  # which the conversion left to be measured
        assert tensors[f"patch_scales.{n}.mean"].any()
        assert tensors[f"patch_scales.{n}.deviation"] != 1
    folders = folder.parent / "published", convert_to_hf(out, tmp_path / "back")
    first, back = (torch.load_file(path / "model.safetensors") for path in folders)
    assert {name: value.shape for name, value in back.items()} == {
        name: value.shape for name, value in first.items()
    }
    assert (back["model.norm.weight"] != first["model.norm.weight"]).any()
