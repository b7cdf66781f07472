"""`taichu launch`: what it refuses, and a recipe that is run by it; tests/ascend has the rest."""

import subprocess
import sys

import pytest
import yaml

from taichu.config import SIZES

PLACE = ["--nodes", "2", "--node-rank", "1", "--master"]


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "the following arguments are required: --devices"),
        (["--devices", "0"], "--devices=0 must be at least 1"),
        (["--devices", "8", "--nodes", "0"], "--nodes=0 must be at least 1"),
        (
            ["--devices", "8", "--nodes", "2"],
            "--nodes above 1 needs --master HOST and --node-rank N",
        ),
        (
            ["--devices", "8", "--nodes", "2", "--master", "a"],
            "needs --master HOST and --node-rank",
        ),
        (
            ["--devices", "8", "--node-rank", "0"],
            "--master and --node-rank are for --nodes above 1",
        ),
        (["--devices", "8", "--master", "a"], "--master and --node-rank are for --nodes above 1"),
        (["--devices", "8", *PLACE, "a:b"], "--master must be HOST or HOST:PORT, not a:b"),
        (["--devices", "8", *PLACE, ":8118"], "--master must be HOST or HOST:PORT, not :8118"),
        (["--devices", "8", *PLACE, "a:80"], "--port=80 must be 1024 to 65000"),
        (
            ["--devices", "8", "--nodes", "2", "--node-rank", "2", "--master", "a"],
            "--node-rank=2 must be 0 to 1",
        ),
        (["--devices", "1", "--restarts", "-1"], "--restarts and --timeout must be at least 0"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(taichu, words, message):
    result = taichu("launch", "codecs", *words)
    assert result.code == 2 and message in result.error and result.error.count("\n") == 1


def test_a_wrong_recipe_is_told_before_anything_starts(taichu, tmp_path):
    result = taichu("launch", "codecs", "--devices", "2", "train.stepz=3", "out=out")
    assert result.code == 1 and "train.stepz: unknown key" in result.error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", ["demo", "digits_full"])
def test_the_demo_is_for_one_process(taichu, tmp_path, recipe):
    result = taichu("launch", recipe, "--devices", "2", "out=out")
    assert result.code == 1 and result.error.count("\n") == 1
    assert "recipe 'demo' runs in one process, not as 2 ranks; launch codecs" in result.error
    assert not list(tmp_path.iterdir())


def test_a_rank_of_the_demo_refuses_too(taichu, monkeypatch):
    for name, value in {"RANK_SIZE": "2", "RANK_ID": "1", "MS_ROLE": "MS_WORKER"}.items():
        monkeypatch.setenv(name, value)
    result = taichu("demo")
    assert result.code == 1 and "runs in one process, not as 2 ranks" in result.error


def test_codecs_are_trained_by_data_ranks_alone(taichu, tmp_path):
    """Their recipe has no key that lays ranks out in another way."""
    result = taichu("launch", "codecs", "--devices", "2", "parallel.tensor=2", "out=out")
    assert result.code == 1 and "parallel: unknown key" in result.error
    assert not list(tmp_path.iterdir())


def test_options_reach_the_launch(taichu, monkeypatch, tmp_path):
    def note(command, logs, cluster, *settings, **more):
        calls.append((command, logs, cluster, settings, more))
        return succeeds

    monkeypatch.setattr("ascend.launch.launch", note)
    words = ["--devices", "8", *PLACE, "10.0.0.1:9000", "--device", "Ascend", "seed=3"]
    words += ["--restarts", "2", "--bind-cores", "--timeout", "1.5", "out=runs/x"]
    calls, succeeds = [], True
    assert taichu("launch", "codecs", *words).code == 0
    succeeds = False
    assert taichu("launch", "codecs", *words, "--log-dir", "else").code == 1
    (command, logs, cluster, settings, more), (_, other, *_) = calls
    assert command[1:] == [
        *("-m", "taichu.command_line", "train", "codecs"),
        *("seed=3", "out=runs/x", "device=Ascend"),
    ]
    assert str(logs) == "runs/x/logs" and str(other) == "else"
    assert (cluster.devices, cluster.nodes, cluster.node_rank) == (8, 2, 1)
    assert (cluster.master, cluster.port) == ("10.0.0.1", 9000)
    assert settings == (2, True) and more == {"silence": 90.0}


def test_a_recipe_runs(digits, media_cache, tmp_path):
    """Relative paths mean what they mean to `taichu train`."""
    size = yaml.safe_load((SIZES / "nano.yaml").read_text(encoding="utf-8"))
    for part in ("modalities", "codecs"):
        size[part] = {"image": size[part]["image"]}
    (tmp_path / "size.yaml").write_text(yaml.safe_dump(size))
    settings = [f"manifest={digits}", f"cache={media_cache}", "model=size.yaml", "out=run"]
    words = ["codecs", *settings, "train.steps=1", "--devices", "1", "--device", "CPU"]
    result = subprocess.run(
        [sys.executable, "-m", "taichu.command_line", "launch", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run/codecs/image.safetensors").is_file()
    assert (tmp_path / "run/logs/1/rank_0.log").read_text() == result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"run", "size.yaml"}
