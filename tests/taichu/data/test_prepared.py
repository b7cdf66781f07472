"""Prepared data: bad rows are left out and listed, and media are read once."""

import json
import os

import numpy as np
import pytest

from modality_adapters import create_adapter
from taichu.data import prepared
from taichu.data.prepared import prepare
from taichu.errors import ManifestError

MODALITIES = {
    "image": {"shape": [1, 16, 16, 3], "patch": [1, 8, 8]},
    "audio": {"shape": [64, 1, 32, 1], "patch": [8, 1, 16]},
}


@pytest.fixture
def manifest(tmp_path):
    """Six rows, of which three cannot be used."""
    image, audio = (create_adapter(name, MODALITIES[name]) for name in MODALITIES)
    random = np.random.default_rng(3)
    for name in ("0", "1", "4", "5"):
        image.write(random.uniform(-1, 1, (1, 16, 16, 3)), tmp_path / f"{name}.png")
    for name in ("0", "2", "5"):
        audio.write(random.uniform(-1, 1, (64, 1, 32, 1)), tmp_path / f"{name}.wav")
    (tmp_path / "3.png").write_text("this is no picture")
    rows = [
        {"id": "0", "text": "one", "image": "0.png", "audio": "0.wav"},
        {"id": "1", "text": {"en": "one", "zh": "一"}, "image": "1.png"},
        {"id": "2", "text": "two", "image": "missing.png", "audio": "2.wav"},
        {"id": "3", "text": "two", "image": "3.png"},
        {"id": "4", "image": "4.png", "colour": "red"},
        {"id": "5", "text": "一", "image": "5.png", "audio": "5.wav"},
        {"id": "6", "split": "test", "text": "three"},
    ]
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(manifest, split="train"):
    return prepare(manifest, split, MODALITIES, manifest.parent / "cache", workers=1)


def test_bad_rows_are_left_out_and_listed_and_nothing_else_is_lost(manifest):
    data = read(manifest)
    assert [sample.id for sample in data.samples] == ["0", "1", "5"]
    folder = manifest.parent
    assert len(data.skipped) == 3
    assert data.skipped[0] == f"{manifest}:5: unknown key 'colour'"
    assert data.skipped[1] == f"{manifest}:3: {folder / 'missing.png'}: no such file"
    assert data.skipped[2].startswith(f"{manifest}:4: {folder / '3.png'}: ")
    for name, settings in MODALITIES.items():
        adapter = create_adapter(name, settings)
        for sample, row in zip(data.samples, data.rows[name]):
            assert (row >= 0) == (name in sample.media)
            if row >= 0:
                expected = adapter.read(sample.media[name])
                np.testing.assert_array_equal(data.grids[name][row], expected)


def test_groups_and_captions(manifest):
    data = read(manifest)
    assert data.having(("text", "image")).tolist() == [0, 1, 2]
    assert data.having(("image", "audio")).tolist() == [0, 2]
    # 0 and 1 share "one", 1 and 5 share "一": all three are alike
    assert len(set(data.captions())) == 1
    test = read(manifest, "test")
    assert [sample.id for sample in test.samples] == ["6"]
    assert test.having(("image",)).size == 0 and len(test.grids["image"]) == 0


def test_a_file_that_several_rows_name_is_kept_once(manifest):
    row = {"id": "7", "text": ["seven", "two"], "image": "1.png", "audio": "0.wav"}
    with manifest.open("a") as file:
        file.write(json.dumps(row) + "\n")
    data = read(manifest)
    assert {name: len(grids) for name, grids in data.grids.items()} == {"image": 5, "audio": 3}
    assert data.rows["image"][3] == data.rows["image"][1]
    assert data.rows["audio"].tolist() == [0, -1, 2, 0]


def test_captions_are_told_apart_by_their_number(tmp_path):
    rows = [
        {"id": "0", "text": ["a red one", "one"]},
        {"id": "1", "text": {"en": ["a blue one", "one"], "zh": "一"}},
        {"id": "2", "text": "one"},
        {"id": "3", "text": "a blue one"},
    ]
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read(path)
    a, b, c, d = data.captions(0)
    assert b == d and len({a, b, c}) == 3
    a, b, c, d = data.captions(1)
    assert a == b == c != d


def test_a_second_time_reads_nothing(manifest, monkeypatch):
    first = read(manifest)
    monkeypatch.setattr(prepared, "_read_all", None)
    second = read(manifest)
    assert second.skipped == first.skipped
    assert [s.id for s in second.samples] == [s.id for s in first.samples]
    np.testing.assert_array_equal(second.grids["image"], first.grids["image"])


def test_a_changed_file_is_read_again(manifest):
    before = np.array(read(manifest).grids["image"])
    adapter = create_adapter("image", MODALITIES["image"])
    path = manifest.parent / "1.png"
    times = os.stat(path)
    adapter.write(np.zeros((1, 16, 16, 3)), path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    after = read(manifest).grids["image"]
    assert np.abs(after[1]).max() < 0.01 and np.abs(before[1]).max() > 0.5
    np.testing.assert_array_equal(after[0], before[0])


def test_a_mended_file_is_used(manifest):
    adapter = create_adapter("image", MODALITIES["image"])
    adapter.write(np.ones((1, 16, 16, 3)), manifest.parent / "missing.png")
    data = read(manifest)
    assert [sample.id for sample in data.samples] == ["0", "1", "2", "5"]
    assert float(data.grids["image"][data.rows["image"][2]].min()) == 1


def test_a_reading_that_was_cut_off_starts_again(manifest, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(prepared.shutil, "rmtree", _interrupt_after(1))
        with pytest.raises(KeyboardInterrupt):
            read(manifest)
    assert [path.suffix for path in (manifest.parent / "cache").glob("[!.]*")] == [".partial"]
    assert [sample.id for sample in read(manifest).samples] == ["0", "1", "5"]
    assert [path.suffix for path in (manifest.parent / "cache").glob("[!.]*")] == [""]


def _interrupt_after(calls):
    """Stands for the function that is called just before the cache takes its name."""
    left = iter(range(calls))

    def interrupt(*arguments, **settings):
        if next(left, None) is None:
            raise KeyboardInterrupt

    return interrupt


def test_no_usable_row(manifest):
    manifest.write_text('{"id": "a", "image": "no.png"}\n')
    with pytest.raises(ManifestError, match="no usable row with split 'train'.*no such file"):
        read(manifest)
