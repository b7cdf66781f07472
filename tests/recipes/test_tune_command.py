"""One command tunes a model on data as they are."""

import json

import numpy as np
import yaml
from safetensors.numpy import load_file

from taichu import Taichu
from taichu.command_line import main
from taichu.command_line.train import load_recipe


def test_conversations_become_a_model(common, base, questions, tmp_path, capsys):
    out = tmp_path / "out"
    given = ["tune", str(base), str(questions), str(out), "--device", "CPU", "--memory", "8"]
    cache = f"cache={common['cache']}"
    assert main([*given, "--dry-run", "method.name=dora", cache]) == 0
    shown = capsys.readouterr().out
    assert not out.exists() and "messages: 1 has 'messages'" in shown
    chosen = yaml.safe_load(shown[shown.index("#") :])
    assert chosen["recipe"] == "tune_chat" and chosen["method"]["name"] == "dora"

    assert main([*given, "train.steps=3", cache]) == 0
    shown = capsys.readouterr().out
    for name in ("tune.yaml", "adapter/adapter_config.json", "model/model.safetensors"):
        assert (out / name).is_file()
    _, kept = load_recipe(str(out / "tune.yaml"), [])
    assert kept.train.steps == 3 and kept.start == str(base)
    assert json.loads((out / "adapter/adapter_config.json").read_text())["r"] == kept.method["rank"]
    assert Taichu.from_pretrained(out / "model").template is not None

    # again: the choice is kept, the training is done
    before = load_file(out / "model/model.safetensors")
    assert main(given) == 0
    assert "goes on with the choice that was made" in capsys.readouterr().out
    after = load_file(out / "model/model.safetensors")
    assert all(np.array_equal(tensor, after[name]) for name, tensor in before.items())


def test_a_method_beside_the_weights_is_not_merged(common, base, tmp_path, capsys):
    out = tmp_path / "out"
    given = ["tune", str(base), common["manifest"], str(out), f"cache={common['cache']}"]
    more = ["method.name=prompt", "train.steps=2", "validation_batches=1", "--device", "CPU"]
    assert main([*given, *more]) == 0
    shown = capsys.readouterr().out
    assert "recipe: tune_lora" in shown and "not merged: prompt stands beside" in shown
    assert (out / "adapter/adapter_config.json").is_file() and not (out / "model").exists()
