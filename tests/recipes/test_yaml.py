"""Every shipped YAML builds, and comments every key."""

import re
from pathlib import Path

import pytest

from taichu.command_line.train import as_plain, load_recipe, shipped

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("name", shipped(".yaml"))
def test_it_builds(name):
    program, config = load_recipe(name, [])
    assert callable(program.main) and isinstance(config, program.Config)


@pytest.mark.parametrize("name", shipped(".yaml"))
def test_every_key_is_commented_and_the_launch_line_is_on_top(name):
    lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    top = [line for line in lines[:12] if line.startswith("#")]
    assert any(re.search(rf"taichu (train (recipes/)?)?{name}\b", line) for line in top)
    for before, line in zip(["", *lines], lines):
        if re.match(r" *[\w]+: \S", line) and "-" not in line.partition(":")[0]:
            assert "#" in line or before.lstrip().startswith("#"), line


@pytest.mark.parametrize("name", ["codecs", "pretrain"])
def test_every_setting_stands_in_the_yaml(name):
    content = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    settings = as_plain(load_recipe(name, [])[1])
    keys = [key for key, value in settings.items()]
    keys += [key for value in settings.values() if isinstance(value, dict) for key in value]
    for key in keys:
        assert re.search(rf"^ *{key}:", content, re.MULTILINE), key


@pytest.mark.parametrize(
    "name, kept",
    [
        ("grouped_alignment", "alignment_weight"),
        ("grouped_decoding", "grouped_weight"),
        ("joint_decoding", "joint_weight"),
    ],
)
def test_the_single_trainings_leave_the_others_out(name, kept, monkeypatch):
    from recipes import pretrain

    monkeypatch.setattr(pretrain, "main", lambda config: config.mixture)
    program, config = load_recipe(name, ["mixture.rows=5"])
    mixture = program.main(config)
    assert mixture.rows == 5 and mixture.groups == config.mixture.groups
    for weight in ("alignment_weight", "grouped_weight", "joint_weight"):
        assert (getattr(mixture, weight) > 0) == (weight == kept)
