"""What the README tells a reader to type works, and both languages tell the same."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from modality_adapters import ADAPTERS

ROOT = Path(__file__).parents[1]
README, README_ZH = ROOT / "README.md", ROOT / "README_zh.md"
SHORT = {  # training that takes as little time as it may
    "codecs": ["train.steps=1"],
    "pretrain": ["train.steps=1", "validation_batches=1", "mixture.rows=4"],
}


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def commands(path: Path) -> list[str]:
    """The lines of the shell blocks, continued lines joined."""
    text = "".join(blocks(path, "bash")).replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def home(model_folder, digits, tmp_path_factory):
    """A folder as the README's reader has it after the demo, data of their own beside."""
    home, data = tmp_path_factory.mktemp("home"), Path(digits).parent
    shutil.copytree(model_folder, home / "runs/demo/model")
    (home / "data").mkdir()
    (home / "data/digits").symlink_to(data)
    (home / "my").symlink_to(data)
    shutil.copy(next(data.glob("test/image/*.png")), home / "seven.png")
    shutil.copy(next(data.glob("test/audio/*.wav")), home / "seven.wav")
    return home


def test_the_python_runs(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    block, _ = blocks(README, "python")
    names = {}
    exec(compile(block, str(README), "exec"), names)
    assert -1 <= float(names["text"] @ names["both"]) <= 1
    assert (home / "three.glb").stat().st_size
    assert len(capsys.readouterr().out.splitlines()) >= 2


def test_the_client_runs(home, serving, monkeypatch, capsys):
    from taichu.export.onnx_folder import export_onnx
    from taichu.runtime import Runtime

    monkeypatch.chdir(home)
    model = Runtime(export_onnx(home / "runs/demo/model", home / "served"), "cpu")
    _, block = blocks(README, "python")
    with serving(model, name="exported") as address:
        exec(compile(block.replace("http://127.0.0.1:8000", address), str(README), "exec"), {})
    *kinds, size = capsys.readouterr().out.splitlines()[1:]
    assert kinds == ["text", "audio_url", "shape3d_url"] and int(size) == model.config.embedding


@pytest.mark.parametrize("command", commands(README))
def test_a_command_runs(command, home, monkeypatch):
    from taichu.command_line import main

    monkeypatch.chdir(home)
    program, *words = shlex.split(command)
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words)
        return
    assert program == "taichu"
    if words[0] == "train":
        words += SHORT[words[1]]
    assert main(words) == 0


def test_the_example_manifest_is_one():
    (block,) = blocks(README, "json")
    for line in block.splitlines():
        assert set(json.loads(line)) <= {"id", "split", *ADAPTERS}


def test_both_languages_tell_the_same():
    def bare(text: str) -> str:
        return re.sub(r"#.*|\"[^\"]*\"", "", text)

    assert [bare(c) for c in commands(README)] == [bare(c) for c in commands(README_ZH)]
    for language in ("python", "json"):
        ours, theirs = blocks(README, language), blocks(README_ZH, language)
        assert [bare(block) for block in ours] == [bare(block) for block in theirs]
