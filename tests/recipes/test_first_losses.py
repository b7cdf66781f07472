"""The first losses of every recipe that trains: a change of any of them is a change of the method.

The data are made here from a fixed seed, so that the numbers depend on nothing that is downloaded.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from recipes import codecs, grouped_alignment, grouped_decoding, joint_decoding, pretrain
from taichu.data.batches import MixtureConfig
from taichu.errors import ConfigError
from taichu.training.log import read_log
from taichu.training.trainer import TrainConfig

FIRST_LOSSES = {
    "codecs.image": [0.416274, 0.338572, 0.340602],
    "codecs.audio": [0.242201, 0.173180, 0.174655],
    "pretrain": [17.040331, 15.599074, 12.528665],
    "grouped_alignment": [6.741700, 6.283680, 3.941070],
    "grouped_decoding": [5.905373, 4.784584, 4.371378],
    "joint_decoding": [6.960905, 6.109797, 5.793257],
}
THREE_STEPS = TrainConfig(steps=3, log_every=1)


@pytest.fixture(scope="module")
def codec_folder(common, tmp_path_factory):
    out = tmp_path_factory.mktemp("codecs")
    return codecs.main(codecs.Config(out=str(out), train=THREE_STEPS, **common))


def losses(folder) -> list[float]:
    return [row["loss"] for row in read_log(folder / "metrics.jsonl") if "loss" in row]


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_codecs(codec_folder, modality):
    measured = losses(codec_folder / "training" / modality)
    np.testing.assert_allclose(measured, FIRST_LOSSES[f"codecs.{modality}"], rtol=1e-3)


@pytest.mark.parametrize(
    "recipe",
    [pretrain, grouped_alignment, grouped_decoding, joint_decoding],
    ids=lambda r: r.__name__,
)
def test_backbone(codec_folder, common, recipe, tmp_path):
    groups = {"text-image": 2.0, "text-audio": 1.0, "text-audio+image": 1.0}
    mixture = MixtureConfig(groups=groups, rows=6, length=64, augment=1.0)
    config = pretrain.Config(
        codecs=str(codec_folder),
        out=str(tmp_path),
        mixture=mixture,
        train=THREE_STEPS,
        validation_batches=1,
        **common,
    )
    folder = recipe.main(config)
    assert (folder / "model.safetensors").is_file()
    measured = losses(tmp_path / "training" / "backbone")
    name = recipe.__name__.removeprefix("recipes.")
    np.testing.assert_allclose(measured, FIRST_LOSSES[name], rtol=1e-3)


def test_a_run_starts_from_the_model_of_another(codec_folder, common, tmp_path):
    """At a rate of 0 the second run keeps the first one's parameters; another size is refused."""
    mixture = MixtureConfig(groups={"text-image": 1.0}, rows=4, length=64)
    settings = {"codecs": str(codec_folder), "mixture": mixture, "validation_batches": 1, **common}
    one_step = TrainConfig(steps=1)
    first = grouped_alignment.main(
        pretrain.Config(out=str(tmp_path / "first"), train=one_step, **settings)
    )
    settings |= {"start": str(first), "train": replace(one_step, rate=0.0)}
    second = pretrain.main(pretrain.Config(out=str(tmp_path / "second"), **settings))
    kept, expected = (load_file(folder / "model.safetensors") for folder in (second, first))
    assert kept.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(kept[name], value, err_msg=name)
    tokenizers = [(folder / "tokenizer.model").read_bytes() for folder in (first, second)]
    assert tokenizers[0] == tokenizers[1]
    with pytest.raises(ConfigError, match="is not of the size that `model` names"):
        pretrain.main(pretrain.Config(out=str(tmp_path / "third"), **{**settings, "model": "nano"}))


def test_data_without_a_modality_and_without_a_test_split(common, tmp_path, capsys):
    """Somebody's own pictures with captions: the other modalities' parts stay as they start."""
    folder = Path(common["manifest"]).parent
    rows = map(json.loads, Path(common["manifest"]).read_text(encoding="utf-8").splitlines())
    manifest = folder / "own.jsonl"
    kept = [{k: row[k] for k in ("id", "text", "image")} | {"split": "train"} for row in rows]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    settings = {**common, "manifest": str(manifest), "train": TrainConfig(steps=1)}
    made = codecs.main(codecs.Config(out=str(tmp_path / "codecs"), **settings))
    assert "the data has no audio; it stays untrained" in capsys.readouterr().out
    mixture = MixtureConfig(groups={"text-image": 1.0}, rows=4, length=64)
    settings |= {"codecs": str(made), "mixture": mixture}
    model = pretrain.main(pretrain.Config(out=str(tmp_path / "out"), **settings))
    assert (model / "model.safetensors").is_file()
    said = capsys.readouterr().out
    assert f"no validation: {manifest}: no usable row with split 'test'" in said
