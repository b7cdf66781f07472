"""The first losses of every recipe that trains: a change of any of them is a change of the method.

The data are made here from a fixed seed, so that the numbers depend on nothing that is downloaded.
"""

import json

import cv2
import numpy as np
import pytest
import soundfile

from recipes import codecs, grouped_alignment, grouped_decoding, joint_decoding, pretrain
from taichu.batches import MixtureConfig
from taichu.trainer import TrainConfig, read_log

SIZE = """
width: 32
depth: 1
heads: 1
key_value_heads: 1
head_size: 32
hidden: 64
embedding: 16
pieces: 300
modalities:
  image: {shape: [1, 16, 16, 3], patch: [1, 8, 8]}
  audio: {shape: [16, 1, 16, 1], patch: [8, 1, 8]}
codecs:
  image: {levels: [5, 4], width: 32, depth: 1}
  audio: {levels: [5, 4], width: 32, depth: 1}
"""
COLOURS = {"red": (230, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 220), "white": (240,) * 3}
PLACES = ("top", "bottom")
FIRST_LOSSES = {
    "codecs.image": [1.508457, 1.716909, 1.655474],
    "codecs.audio": [1.248968, 0.778020, 0.680577],
    "pretrain": [13.867036, 11.539597, 10.408058],
    "grouped_alignment": [4.698929, 4.324014, 3.835287],
    "grouped_decoding": [4.019057, 3.063358, 2.769450],
    "joint_decoding": [5.826819, 4.585131, 4.500937],
}
THREE_STEPS = TrainConfig(steps=3, log_every=1)


@pytest.fixture(scope="module")
def common(cpu, tmp_path_factory) -> dict:
    """What every recipe is given: eight pictures and sounds to train on, four to validate."""
    folder = tmp_path_factory.mktemp("first_losses")
    (folder / "size.yaml").write_text(SIZE, encoding="utf-8")
    random = np.random.default_rng(3)
    rows = []
    for number in range(12):
        colour, place = list(COLOURS)[number % 4], PLACES[number // 4 % 2]
        picture = random.integers(0, 40, (16, 16, 3), np.uint8)
        top = 1 if place == "top" else 9
        picture[top : top + 6, 4:12] = COLOURS[colour][::-1]  # OpenCV writes blue first
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        pitch = 200 + 150 * (number % 4)
        sound = 0.4 * np.sin(2 * np.pi * pitch * np.arange(5120) / 8000)
        sound += 0.01 * random.standard_normal(5120)
        soundfile.write(folder / f"{number}.wav", sound, 8000)
        split = "train" if number < 8 else "test"
        media = {"image": f"{number}.png", "audio": f"{number}.wav"}
        rows.append(
            {"id": str(number), "split": split, "text": f"{colour} at the {place}", **media}
        )
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plain = {"manifest": manifest, "model": folder / "size.yaml", "cache": folder / "cache"}
    return {**{name: str(path) for name, path in plain.items()}, "device": "CPU", "seed": 0}


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
    mixture = MixtureConfig(groups=groups, rows=6, length=64, augment=True)
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
