"""`taichu data`: faults that are planted in a manifest are all found, by line."""

import json

import numpy as np

from modality_adapters import create_adapter


def test_check_finds_every_fault(taichu, tmp_path):
    image = create_adapter("image", {"shape": [1, 32, 32, 3], "patch": [1, 8, 8]})
    data = tmp_path / "data"
    data.mkdir()
    image.write(np.zeros((1, 32, 32, 3)), data / "good.png")
    image.write(np.zeros((1, 32, 32, 3)), tmp_path / "outside.png")
    (data / "text.png").write_text("this is text")
    (data / "empty.wav").touch()
    rows = [
        {"id": "1", "text": "good", "image": "good.png"},
        {"id": "2", "text": "missing", "image": "missing.png"},
        {"id": "3", "text": "text named .png", "image": "text.png"},
        {"id": "1", "text": "id again"},
        {"id": "5", "text": "outside", "image": "../outside.png"},
        {"id": "6", "text": "unknown key", "imgae": "good.png"},
        {"id": "7", "text": "two faults", "image": "text.png", "audio": "empty.wav"},
        {"id": "8", "text": "good too", "split": "test"},
    ]
    path = data / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = taichu("data", "check", path)
    assert result.code == 1
    found = result.out.splitlines()
    expected = [
        (2, "image", "missing.png: no such file"),
        (3, "image", "text.png: "),
        (4, "", "id '1' stands in line 1 too"),
        (5, "image", "'../outside.png' leaves the manifest's folder"),
        (6, "", "unknown key 'imgae'; did you mean 'image'?"),
        (7, "audio", "empty.wav: is empty"),
        (7, "image", "text.png: "),
    ]
    assert len(found) == len(expected)
    for line, (number, modality, reason) in zip(found, expected):
        assert line.startswith(f"{path}:{number}: ") and modality in line and reason in line
    assert f"{path}: 2 good rows, 7 problems" in result.error


def test_check_of_conversations(taichu, tmp_path):
    image = create_adapter("image", {"shape": [1, 32, 32, 3], "patch": [1, 8, 8]})
    image.write(np.zeros((1, 32, 32, 3)), tmp_path / "good.png")
    (tmp_path / "text.png").write_text("this is text")

    def row(file, asked="<image>?"):
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": "x"}]
        return {"image": file, "conversations": turns}

    path = tmp_path / "rows" / "x.json"
    path.parent.mkdir()
    rows = [row("good.png"), row("text.png"), row("good.png", "?"), row("no.png")]
    path.write_text(json.dumps(rows))
    result = taichu("data", "check", path, "--folder", tmp_path)
    assert result.code == 1
    expected = ["image: ", "0 <image> in the text, 1 in 'image'", "image: "]
    found = result.out.splitlines()
    assert len(found) == 3
    for number, line, reason in zip((2, 3, 4), found, expected):
        assert line.startswith(f"{path}: entry {number}: {reason}")
    assert "text.png: " in found[0] and found[2].endswith("no.png: no such file")
    assert f"{path}: llava: entry 1 has 'conversations' and 'image'" in result.error
    assert f"{path}: 1 good rows, 3 problems" in result.error


def test_check_of_good_data(taichu, digits):
    result = taichu("data", "check", digits)
    rows = len(digits.read_text(encoding="utf-8").splitlines())
    assert (result.code, result.out) == (0, "")
    assert f"{digits}: {rows} good rows, 0 problems" in result.error


def test_build_leaves_other_files_alone(taichu, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    result = taichu("data", "build", "digits", "mine")
    assert result.code == 1
    assert result.error == "taichu: mine: holds other files; name a new or an empty folder\n"
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
