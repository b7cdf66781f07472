"""`taichu plan`: what it prints."""

import json
import re
from pathlib import Path

import pytest
import yaml

from taichu.command_line import main

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "ascend" / "plan_3.8b.md"


def test_text(capsys):
    assert main(["plan", "pretrain", "model=base", "--devices", "16"]) == 0
    text = capsys.readouterr().out
    assert "parameters 326,986,757" in text
    for line in ("layouts of 16 910B2", "moments", "peak", "AllReduce among 16 replica ranks"):
        assert line in text
    keys = yaml.safe_load(text[text.index("\nparallel:") :])
    assert set(keys["parallel"]) == {"tensor", "sequence", "shard"}
    assert isinstance(keys["train"]["recompute"], bool)


def test_the_keys_are_a_recipes(capsys):
    main(["plan", "pretrain", "model=3.8b", "mixture.rows=1", "mixture.length=2048"])
    text = capsys.readouterr().out
    keys = yaml.safe_load(text[text.index("\nparallel:") :])
    changes = [f"{part}.{key}={v}" for part, inner in keys.items() for key, v in inner.items()]
    assert main(["train", "pretrain", *changes, "--dry-run"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["parallel"] == {"pipeline": 1, "expert": 1, **keys["parallel"]}


def test_json(capsys):
    assert main(["plan", "pretrain", "--devices", "2", "--device-type", "A3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    memory = found["memory"]
    at_loss = memory["activations"] + memory["casts"] + memory["temporaries"]
    lasting = sum(memory[part] for part in ("weights", "moments", "batch", "constants"))
    lasting += memory["gathered"] + memory["communication"] + memory["workspace"]
    assert memory["peak"] == lasting + max(at_loss, memory["gradients"])
    assert found["device_type"] == "A3" and found["plans"][0]["data"] == 2
    assert {row["kind"] for row in found["collectives"]} >= {"AllReduce", "AllGather"}


@pytest.mark.parametrize(
    "words, message",
    [
        (["--device-type", "TPU"], "device type 'TPU' is unknown; there are 910A"),
        (["--devices", "12"], "--devices 12: a node of 910B2 has 8"),
        (["mixture.rows=4000", "model=base"], "nothing fits: .* lower mixture.rows"),
    ],
)
def test_errors_are_one_line(capsys, words, message):
    assert main(["plan", "pretrain", *words]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, line)


def test_the_table_of_the_documentation_is_what_its_command_prints(capsys):
    text = TABLE.read_text(encoding="utf-8")
    (command,) = re.findall(r"^    taichu (plan .*)$", text, re.MULTILINE)
    assert main(command.split()) == 0
    assert text[text.index("| devices") :] == capsys.readouterr().out
