"""embed, retrieve, generate and info on a model folder: the command says what Python would."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from taichu import Taichu


@pytest.fixture(scope="module")
def model(model_folder):
    return Taichu.from_pretrained(model_folder)


@pytest.fixture
def loaded(model, monkeypatch):
    """The commands get this model, whose graphs are compiled once for all tests."""
    monkeypatch.setattr(Taichu, "from_pretrained", lambda folder: model)


@pytest.fixture(scope="module")
def media(digits):
    folder = digits.parent / "test"
    return {name: sorted((folder / name).iterdir())[:2] for name in ("image", "audio")}


def test_embed(taichu, loaded, model_folder, model, media):
    one, two = media["image"]
    result = taichu(
        "embed", model_folder, "--image", one, "--text", "七", "--image", two, "--text", "b"
    )
    assert result.code == 0
    rows = json.loads(result.out)
    assert [row["text"] for row in rows] == ["七", "b"]
    assert [row["image"] for row in rows] == [str(one), str(two)]
    expected = model.embed(image=[one, two], text=["七", "b"])
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=2e-6)
    result = taichu("embed", model_folder, "--image", one, "--out", "v.npy")
    assert (result.code, result.out) == (0, "v.npy\n")
    np.testing.assert_allclose(np.load("v.npy"), model.embed(image=[one]), atol=1e-6)


def test_retrieve_finds_the_query_itself(taichu, loaded, model_folder, digits, media, media_cache):
    query = media["image"][1]
    words = ["retrieve", model_folder, digits, "--into", "image", "--image", query]
    words += ["--cache", media_cache]
    result = taichu(*words, "--top", 3, "--json")
    assert result.code == 0
    rows = json.loads(result.out)
    assert len(rows) == 3 and rows[0]["image"] == str(query) and rows[0]["cosine"] == 1
    assert rows[0]["cosine"] >= rows[1]["cosine"] >= rows[2]["cosine"]
    table = taichu(*words, "--top", 3).out.splitlines()
    assert [line.split()[2] for line in table] == [row["id"] for row in rows]
    words[4] = "text"
    found = json.loads(taichu(*words, "--audio", media["audio"][0], "--json").out)
    assert len(found) == 5 and len({row["text"] for row in found}) == 5


def test_generate(taichu, loaded, model_folder, model, media):
    words = ["generate", model_folder, "--into", "image", "--text", "a red seven", "--seed", 3]
    words += ["--temperature", 1, "--top-k", 50]
    for name in ("a.png", "b.png"):
        assert taichu(*words, "--out", name).out == f"{name}\n"
    with open("a.png", "rb") as one, open("b.png", "rb") as other:
        assert one.read() == other.read()
    result = taichu("generate", model_folder, "--into", "text", "--image", media["image"][0])
    assert result.out == model.generate(into="text", image=media["image"][0]).text + "\n"


def test_generate_several(taichu, loaded, model_folder, model, media):
    """In the order of --into, whatever the order of --out."""
    words = ["generate", model_folder, "--into", "text", "--into", "video", "--into", "image"]
    words += ["--audio", media["audio"][0], "--out", "a.png", "--out", "a.gif"]
    text, video, image = model.generate(("text", "video", "image"), audio=media["audio"][0])
    assert taichu(*words).out == f"{text.text}\na.gif\na.png\n"
    for one, name in ((video, "a.gif"), (image, "a.png")):
        assert one.save(f"same-{name}").read_bytes() == Path(name).read_bytes()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--into", "image", "--out", "x.mp9"], "x.mp9: has '.mp9'; supported are .png"),
        (["--into", "image", "--image", "no.png", "--out", "x.png"], "no.png: no such file"),
        (["--into", "image", "--out", "no/x.png"], "no/x.png: cannot be written"),
    ],
)
def test_generate_refuses(taichu, loaded, model_folder, words, message):
    result = taichu("generate", model_folder, *words)
    assert result.code == 1 and result.error.splitlines()[-1].startswith(f"taichu: {message}")


def test_info_of_a_folder(taichu, model_folder, model):
    result = taichu("info", model_folder)
    assert result.code == 0
    parameters = sum(p.size for p in model.backbone.get_parameters())
    assert f"{parameters:,} parameters, 1 blocks" in result.out
    assert f"{model.vocabulary.size:,} ids" in result.out
    assert all(f"\n{name}" in result.out for name in model.adapters)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.model", "model.safetensors", "codecs/audio.safetensors"]
)
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_folder_is_named(taichu, model_folder, tmp_path, name, damage):
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    if damage == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:50])
    for words in (["embed", folder, "--text", "a"], ["info", folder]):
        result = taichu(*words)
        line = result.error.splitlines()[-1]
        assert result.code == 1 and line.startswith("taichu: ") and name in line
