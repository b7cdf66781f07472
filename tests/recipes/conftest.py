"""Small data for recipes, made here from a fixed seed: nothing is downloaded."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from taichu.data.batches import MixtureConfig

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
MIXTURE = MixtureConfig(groups={"text-image": 1.0, "text-audio": 1.0}, rows=4, length=64)


@pytest.fixture(scope="session")
def common(cpu, tmp_path_factory) -> dict:
    """What every recipe is given: eight pictures and sounds to train on, four to validate."""
    folder = tmp_path_factory.mktemp("recipes")
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


@pytest.fixture(scope="session")
def base(common, tmp_path_factory):
    """The folder of a model that has hardly been trained."""
    from recipes import codecs, pretrain
    from taichu.training.trainer import TrainConfig

    out = tmp_path_factory.mktemp("base")
    once, rest = TrainConfig(steps=1), {"mixture": MIXTURE, "validation_batches": 1}
    trained = codecs.main(codecs.Config(out=str(out / "codecs"), train=once, **common))
    config = pretrain.Config(codecs=str(trained), out=str(out), train=once, **rest, **common)
    return pretrain.main(config)


@pytest.fixture(scope="session")
def questions(common) -> Path:
    """Two questions about each of the eight pictures."""
    path = Path(common["manifest"]).with_name("questions.jsonl")
    rows = []
    for number in range(8):
        colour, place = list(COLOURS)[number % 4], PLACES[number // 4 % 2]
        said = ("<image>red, green, blue or white?", colour, "where?", place)
        roles = ("user", "assistant") * 2
        messages = [{"role": role, "content": text} for role, text in zip(roles, said)]
        rows.append(json.dumps({"messages": messages, "images": [f"{number}.png"]}) + "\n")
    path.write_text("".join(rows), encoding="utf-8")
    return path
