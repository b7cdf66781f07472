"""Manifests: what a row may hold, and what is wrong with it, by line."""

import json

import pytest

from taichu.data.manifest import read_manifest
from taichu.errors import ManifestError

MODALITIES = ("image", "audio")


def write(folder, *rows):
    path = folder / "manifest.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_rows(tmp_path):
    path = write(
        tmp_path,
        {"id": "a", "text": "one"},
        "",  # an empty line is no row, but counts as a line
        {"id": "b", "split": "test", "text": ["one", "eins"], "image": "x/b.png"},
        {"id": "c", "text": {"en": ["one", "a one"], "zh": "一"}, "labels": {"digit": 1}},
        {"id": "d", "audio": "d.wav"},
    )
    a, b, c, d = read_manifest(path, MODALITIES)
    assert (a.line, a.split, a.texts, a.media) == (1, "train", (("", "one"),), {})
    assert (b.line, b.split, b.texts) == (3, "test", (("", "one"), ("", "eins")))
    assert b.media == {"image": tmp_path / "x/b.png"}
    assert c.texts == (("en", "one"), ("en", "a one"), ("zh", "一"))
    assert c.captions(0) == [("en", "one"), ("zh", "一")]
    assert c.captions(1) == c.captions(2) == [("en", "a one"), ("zh", "一")]
    assert (b.captions(1), b.most_captions, c.most_captions) == ([("", "eins")], 2, 2)
    assert c.labels == {"digit": 1}
    assert (d.captions(0), d.most_captions) == ([], 0)
    assert d.texts == () and list(d.media) == ["audio"]


@pytest.mark.parametrize(
    "row, reason",
    [
        ("{", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('"' + "x" * (1 << 20) + '"', "the line is longer than 1048576 characters"),
        ({"text": "x"}, "'id' must be a string"),
        ({"id": 3, "text": "x"}, "'id' must be a string"),
        ({"id": "a", "text": "x", "split": "dev"}, "'split' must be 'train' or 'test', not 'dev'"),
        ({"id": "a", "text": "x", "labels": 3}, "'labels' must be an object"),
        ({"id": "a", "imgae": "x.png"}, "unknown key 'imgae'; did you mean 'image'?"),
        ({"id": "a"}, "holds none of text, image, audio"),
        ({"id": "a", "image": 3}, "'image' must be a path"),
        ({"id": "a", "image": ""}, "'image' must be a path"),
        ({"id": "a", "image": "a\0b"}, "'image' must be a path"),
        ({"id": "a", "image": "../x.png"}, "'image': '../x.png' leaves the manifest's folder"),
        ({"id": "a", "image": "/etc/x"}, "'image': '/etc/x' leaves the manifest's folder"),
        ({"id": "a", "text": 3}, "'text' must be a string, a list, or an object of languages"),
        ({"id": "a", "text": ""}, "'text' must hold strings that are not empty"),
        ({"id": "a", "text": []}, "'text' must hold strings that are not empty"),
        ({"id": "a", "text": {"en": [3]}}, "'text' must hold strings that are not empty"),
        ({"id": "first", "text": "x"}, "id 'first' stands in line 1 too"),
    ],
)
def test_a_bad_row_is_named_and_costs_no_other(tmp_path, row, reason):
    first, last = {"id": "first", "text": "x"}, {"id": "last", "text": "x"}
    path = write(tmp_path, first, row, last)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, MODALITIES)
    assert str(caught.value) == f"{path}:2: {reason}"
    problems = []
    assert [s.id for s in read_manifest(path, MODALITIES, problems)] == ["first", "last"]
    assert problems == [f"{path}:2: {reason}"]


def test_a_link_does_not_lead_out_of_the_folder(tmp_path):
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    path = write(inside, {"id": "a", "image": "link/x.png"})
    with pytest.raises(ManifestError, match="leaves the manifest's folder"):
        read_manifest(path, MODALITIES)


def test_files_that_are_no_manifest(tmp_path):
    with pytest.raises(ManifestError, match="no such file"):
        read_manifest(tmp_path / "no.jsonl", MODALITIES)
    with pytest.raises(ManifestError, match="directory"):
        read_manifest(tmp_path, MODALITIES)
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"id": "a", "text": "é"}'.encode("latin-1"))
    with pytest.raises(ManifestError, match="not UTF-8 text"):
        read_manifest(latin, MODALITIES)
