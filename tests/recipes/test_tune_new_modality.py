"""A trained model is given depth maps: they are learned, and nothing that was known changes."""

import json
from pathlib import Path

import cv2
import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file

from recipes import tune_new_modality
from taichu import Taichu
from taichu.config import CodecConfig, load_size
from taichu.data.batches import MixtureConfig
from taichu.errors import ConfigError
from taichu.inference.adapters import Adapters
from taichu.tokenizer import train_tokenizer
from taichu.training.log import read_log
from taichu.training.trainer import TrainConfig


@pytest.fixture(scope="module")
def settings(common, tmp_path_factory) -> dict:
    """Squares of which one is near and one is far, at the top or the bottom; a model without."""
    folder = tmp_path_factory.mktemp("depth")
    random, rows = np.random.default_rng(4), []
    for number in range(12):
        place, far = ("top", "bottom")[number % 2], number // 2 % 2
        depth = np.zeros((32, 32), np.uint16)
        top = 2 if place == "top" else 18
        depth[top : top + 12, 8:24] = 1200 + 600 * far + random.integers(0, 40, (12, 16))
        cv2.imwrite(str(folder / f"{number}.png"), depth)
        text = f"{('near', 'far')[far]} at the {place}"
        split = "train" if number < 8 else "test"
        rows.append({"id": str(number), "split": split, "text": text, "depth": f"{number}.png"})
    manifest = folder / "depth.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ms.set_seed(1)
    tokenizer = train_tokenizer([row["text"] for row in rows] * 5, 300, folder / "tokenizer")
    Taichu(load_size(common["model"]), tokenizer).save_pretrained(folder / "known")
    return {
        "start": str(folder / "known"),
        "manifest": str(manifest),
        "cache": common["cache"],
        "device": "CPU",
        "modality": "depth",
        "adapter": {"shape": [1, 16, 16, 1], "patch": [1, 8, 8], "nearest": 1.0, "farthest": 2.0},
        "codec": CodecConfig(levels=(4, 3), width=32, depth=1),
        "codec_train": TrainConfig(steps=3),
        "mixture": MixtureConfig(groups={"text-depth": 1.0}, rows=4, length=64),
        "train": TrainConfig(steps=40, rate=2e-2, log_every=1, weight_decay=0.0),
        "validation_batches": 1,
    }


def test_a_model_learns_depth_and_forgets_nothing(settings, tmp_path, capsys):
    config = tune_new_modality.Config(out=str(tmp_path), **settings)
    folder = tune_new_modality.main(config)
    shown = capsys.readouterr().out
    assert "table.trainable_tokens_delta" in shown and "patch_embedders.*.linear.weight" in shown
    rows = read_log(tmp_path / "training/backbone/metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 40 and np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    assert read_log(tmp_path / "training/depth/metrics.jsonl")[-1]["step"] == 3

    known = Taichu.from_pretrained(settings["start"])
    start, model = (Taichu.from_pretrained(f) for f in (tmp_path / "start", folder))
    grid = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    contents = [{"text": "near at the top"}, {"image": grid}]
    np.testing.assert_allclose(model.embed_many(contents), known.embed_many(contents), atol=1e-6)
    file = str(Path(settings["manifest"]).parent / "0.png")
    vector = model.embed(depth=file)
    assert np.abs(vector - start.embed(depth=file)).max() > 0.01
    assert start.backbone.patch_scales[2].measured  # before the training
    Adapters(start).add(tmp_path / "adapter")
    np.testing.assert_allclose(start.embed(depth=file), vector, atol=1e-5)

    before, after = (load_file(f / "model.safetensors") for f in (tmp_path / "start", folder))
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    embedder = {f"patch_embedders.2.{p}" for p in ("linear.weight", "linear.bias", "place")}
    assert changed == {"table.own"} | embedder
    moved = np.flatnonzero((before["table.own"] != after["table.own"]).any(1))
    assert set(moved) <= set(model.vocabulary.of("depth")) and len(moved) > 3

    again = tune_new_modality.main(config)  # of a training that is done nothing is left to do
    for path, tensor in load_file(again / "model.safetensors").items():
        np.testing.assert_array_equal(tensor, after[path], err_msg=path)


def test_what_the_model_has_is_refused(settings, tmp_path):
    config = tune_new_modality.Config(out=str(tmp_path), **{**settings, "modality": "image"})
    with pytest.raises(ConfigError, match="'image': the model has it already"):
        tune_new_modality.main(config)
