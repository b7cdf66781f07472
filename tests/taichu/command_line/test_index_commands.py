"""index and retrieve: made by a model folder on MindSpore, asked by what was exported from it."""

import json
import shutil

import numpy as np
import pytest

from taichu.index import Index
from taichu.runtime import Runtime


@pytest.fixture(scope="module")
def home(digits, tmp_path_factory):
    """Two manifests over pictures of the digits; one of the second's is none."""
    home = tmp_path_factory.mktemp("home")
    paths = sorted((digits.parent / "test" / "image").iterdir())[:6]
    for number, path in enumerate(paths):
        shutil.copy(path, home / f"{number}.png")
    (home / "6.png").write_bytes(b"none")
    for name, numbers in (("few", range(3)), ("more", range(2, 7))):
        rows = [{"id": f"r{n}", "image": f"{n}.png", "text": f"digit {n}"} for n in numbers]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (home / f"{name}.jsonl").write_text(lines)
    return home


def test_from_building_to_deleting(taichu, home, tiny_folder, exported, tmp_path):
    found = tmp_path / "found"
    built = taichu("index", "build", home / "few.jsonl", found, "--model", tiny_folder)
    assert built.code == 0, built.error
    assert "6 entries added, 0 were there already\ntext      3 entries\nimage     3" in built.out
    again = taichu("index", "build", home / "few.jsonl", found, "--model", tiny_folder)
    assert again.code == 1 and "holds an index; taichu index add adds to it" in again.error

    added = taichu("index", "add", found, home / "more.jsonl", "--model", exported)
    assert "1 rows were skipped:\n" in added.out and f"{home / 'more.jsonl'}:5: " in added.out
    assert "6 entries added, 2 were there already\ntext      6 entries\nimage     6" in added.out
    info = taichu("index", "info", found)
    assert info.out.splitlines() == [
        "text      6 entries",
        "image     6 entries",
        f"model     {tiny_folder}",
        "embedding 16 numbers",
    ]

    query = ["retrieve", found, "--image", home / "4.png", "--model", exported]
    rows = json.loads(taichu(*query, "--into", "image", "--top", 2, "--json").out)
    assert rows[0] == {"id": "r4", "image": str(home / "4.png"), "cosine": 1}
    table = taichu(*query, "--top", 12).out.splitlines()
    assert len(table) == 12 and table[0].split()[2:] == ["r4", "image", str(home / "4.png")]

    missing = taichu("index", "delete", found, "r4", "r9")
    assert missing.code == 1 and missing.error == "taichu: not in the index: 'r9'\n"
    assert "2 entries deleted" in taichu("index", "delete", found, "r4").out
    table = taichu(*query, "--top", 12).out.splitlines()
    assert len(table) == 10 and not any("r4" in line for line in table)
    # the model that made it is asked where nothing else is said
    assert taichu("retrieve", found, "--text", "digit 1").out.split()[2] == "r1"


def test_weights(taichu, home, exported, tmp_path):
    words = ["index", "build", home / "few.jsonl", "found", "--model", exported]
    assert taichu(*words, "--modalities", "image").code == 0
    given = {"text": "digit 0", "image": str(home / "1.png")}
    query = ["--text", given["text"], "--image", given["image"], "--weights", "image=1,text=-0.3"]
    rows = json.loads(taichu("retrieve", "found", *query, "--top", 3, "--json").out)
    model = Runtime(exported, "cpu")
    text, image = (model.embed(**{m: v}).astype(np.float64) for m, v in given.items())
    summed = image - 0.3 * text
    pictures = [str(home / f"{n}.png") for n in range(3)]
    cosines = model.embed(image=pictures) @ summed / np.linalg.norm(summed)
    order = np.argsort(-cosines)
    assert [row["image"] for row in rows] == [pictures[n] for n in order]
    np.testing.assert_allclose([row["cosine"] for row in rows], cosines[order], atol=2e-4)
    # of a manifest it is the same
    query += ["--into", "image", "--split", "train", "--json"]
    rows = json.loads(taichu("retrieve", exported, home / "few.jsonl", *query).out)
    assert [row["image"] for row in rows] == [pictures[n] for n in order]


def test_another_model_is_refused(taichu, home, exported, model_folder, tmp_path):
    taichu("index", "build", home / "few.jsonl", "found", "--model", exported)
    before = (tmp_path / "found" / "index.safetensors").read_bytes()
    for words in (["retrieve", "found", "--text", "a"], ["index", "add", "found", "x.jsonl"]):
        result = taichu(*words, "--model", model_folder)
        assert result.code == 1
        line = result.error.splitlines()[-1]
        assert line.startswith("taichu: found: was made with another model than ")
        result = taichu(*words, "--model", "gone")
        assert (result.code, result.error) == (
            1,
            "taichu: gone: no such model; --model FOLDER says where it is now\n",
        )
    assert (tmp_path / "found" / "index.safetensors").read_bytes() == before


def test_an_index_of_no_model(taichu, exported, tmp_path):
    Index(16).save("found")
    result = taichu("retrieve", "found", "--text", "a", "--model", exported)
    assert result.code == 1 and "found: does not say which model made its vectors" in result.error


@pytest.mark.parametrize(
    "words",
    [
        ["index", "info", "nowhere"],
        ["index", "add", "nowhere", "m.jsonl"],
        ["index", "delete", "nowhere", "a"],
        ["retrieve", "nowhere", "--text", "a"],
    ],
)
def test_no_index(taichu, tmp_path, words):
    result = taichu(*words)
    message = "taichu: nowhere: not an index; it holds no index.safetensors\n"
    assert (result.code, result.error) == (1, message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words, message",
    [
        (["x", "--weights", "text=1", "--image", "a"], "--weights must be of what is given: image"),
        (["x", "--weights", "text=much", "--text", "a"], "'text=much' must be MODALITY=NUMBER"),
        (["x", "--weights", "text=nan", "--text", "a"], "'text=nan' must be MODALITY=NUMBER"),
        (["x", "--weights", "smell=1", "--text", "a"], "'smell=1' must be MODALITY=NUMBER"),
        (["x", "--weights", "text=1,text=2", "--text", "a"], "'text=2' must be MODALITY=NUMBER"),
        (["x", "m.jsonl", "--text", "a"], "--into is needed"),
        (["x", "m.jsonl", "--into", "text", "--text", "a", "--model", "y"], "--model goes with an"),
        (["x", "--text", "a", "--top", "0"], "--top must be at least 1"),
    ],
)
def test_wrong_usage(taichu, words, message):
    result = taichu("retrieve", *words)
    assert result.code == 2 and message in result.error and result.error.count("\n") == 1


def test_a_missing_package_is_named(taichu, monkeypatch):
    import sys

    for name in [n for n in sys.modules if n.startswith("taichu.index")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "faiss", None)
    result = taichu("index", "info", "found")
    message = "taichu: faiss is not installed: pip install 'taichu[index]'\n"
    assert (result.code, result.error) == (1, message)
