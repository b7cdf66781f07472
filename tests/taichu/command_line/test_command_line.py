"""The command: help, exit codes, and errors in one line."""

import subprocess
import sys

import pytest

import taichu as package
from taichu.command_line import COMMANDS, info

WITHOUT_MINDSPORE = """
import sys
from taichu.command_line import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"mindspore", "numpy", "cv2", "librosa"} & set(sys.modules)
    assert not heavy, heavy
"""


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["data", "--help"]])
def test_light_commands_import_nothing_heavy(words):
    command = [sys.executable, "-c", WITHOUT_MINDSPORE, *words]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_help_lists_every_command(taichu):
    result = taichu("--help")
    assert result.code == 0 and "examples:" in result.out and "exit codes:" in result.out
    assert all(f"\n    {name} " in result.out for name in COMMANDS)
    assert taichu("--version").out == f"taichu {package.__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        *([name] for name in COMMANDS),
        ["data", "build"],
        ["data", "check"],
        *(["index", name] for name in ("build", "add", "delete", "info")),
    ],
    ids=" ".join,
)
def test_every_command_has_help_with_examples(taichu, words):
    result = taichu(*words, "--help")
    assert result.code == 0
    assert f"examples:\n  taichu {' '.join(words)}" in result.out


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "taichu: the following arguments are required: COMMAND; see taichu --help"),
        (["tarin"], "taichu: unknown command 'tarin'; did you mean 'train'?; see taichu --help"),
        (["train", "pretrain", "--rate", "3"], "unrecognized arguments: --rate"),
        (["info", "a", "b"], "unrecognized arguments: b"),
        (["data", "build", "letters", "x"], "invalid choice: 'letters'"),
        (["embed", "x"], "taichu embed: nothing to embed; give --text"),
        (["embed", "x", "--text", "a", "--image", "b", "--text", "c"], "given equally often"),
        (["retrieve", "x", "y", "--into", "image"], "taichu retrieve: nothing to look for"),
        (["generate", "x", "--into", "picture"], "invalid choice: 'picture'"),
        (["generate", "x", "--into", "image"], "--out is needed: image is written as a file"),
        (["generate", "x", "--into", "text", "--into", "text"], "--into: each may be named once"),
        (
            ["generate", "x", "--into", "image", "--into", "text", "--out", "a.wav"],
            "--out a.wav: none of --into is written as .wav",
        ),
        (["serve", "x", "--rows", "0"], "--rows must be above 0"),
        (["serve", "x", "--port", "70000"], "--port must be from 0 to 65535"),
        (["serve", "x", "--api-key", ""], "--api-key (or TAICHU_API_KEY) is empty"),
        (["generate", "x", "--into", "text", "--top-p", "0"], "--top-p must be above 0"),
        (["generate", "x", "--into", "text", "--temperature", "-1"], "must be at least 0"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(taichu, words, message):
    result = taichu(*words)
    assert result.code == 2 and message in result.error and result.error.count("\n") == 1


@pytest.mark.parametrize(
    "words, message",
    [
        (["train", "pretrian"], "no such file, nor a shipped recipe; did you mean 'pretrain'?"),
        (
            ["train", "pretrain", "mixture.rowz=3"],
            "mixture.rowz: unknown key; did you mean 'rows'?",
        ),
        (["train", "pretrain", "train.steps=soon"], "train.steps: must be int, not 'soon'"),
        (["train", "pretrain", "rows"], "'rows': an override is written key=value"),
        (["train", "pretrain", "model=nanno"], "'nanno' is unknown; did you mean 'nano'?"),
        (["train", "codecs"], "data/digits/manifest.jsonl: no such file"),
        (["train", "codecs", "--device", "GPX"], "unknown device 'GPX'"),
        (["data", "check", "no.jsonl"], "no.jsonl: no such file"),
        (["embed", "no", "--text", "a"], "no/config.json: no such file"),
        (["embed", "no", "--text", "a", "--out", "x.txt"], "x.txt: must be a .npy file"),
        (["eval", "no", "x", "--out", "no/x.json"], "no/x.json: its folder does not exist"),
        (["info", "no"], "no/config.json: no such file"),
    ],
)
def test_an_error_is_one_line_and_code_1(taichu, cpu, words, message):
    result = taichu(*words)
    assert result.code == 1
    line = result.error.splitlines()[-1]
    assert line.startswith("taichu: ") and message in line and "Traceback" not in result.error


def test_debug_shows_the_traceback(taichu):
    from taichu.errors import TaichuError

    with pytest.raises(TaichuError):
        taichu("data", "check", "no.jsonl", "--debug")


@pytest.mark.parametrize(
    "error, code, line",
    [
        (KeyboardInterrupt(), 130, "taichu: interrupted"),
        (PermissionError(13, "Permission denied", "x.png"), 1, "taichu: x.png: Permission denied"),
        (FileExistsError("out: holds other files"), 1, "taichu: out: holds other files"),
        (TypeError("a\nb"), 1, "taichu: TypeError: a b (--debug shows where)"),
    ],
)
def test_exit_codes(taichu, monkeypatch, error, code, line):
    def fail(device):
        raise error

    monkeypatch.setattr(info, "show_machine", fail)
    result = taichu("info")
    assert (result.code, result.error) == (code, line + "\n")


def test_info_of_this_machine(taichu, cpu):
    result = taichu("info")
    assert result.code == 0
    lines = dict(line.split(maxsplit=1) for line in result.out.splitlines())
    assert lines["device"].startswith("CPU: ")
    assert "pretrain" in lines["recipes"]
    sizes = [line for line in result.out.splitlines() if line.startswith("size ")]
    assert [line.split()[1] for line in sizes] == ["nano", "tiny", "base", "3.8b"]
