"""`taichu train`: which program runs, with which settings."""

import pytest
import yaml

from taichu.command_line.train import load_recipe
from taichu.errors import ConfigError


def test_overrides_stand_anywhere(taichu):
    words = ("mixture.rows=4", "--device", "CPU", "train.steps=7", "--dry-run", "seed=3")
    result = taichu("train", "pretrain", *words)
    assert result.code == 0
    settings = yaml.safe_load(result.out)
    assert settings["mixture"]["rows"] == 4 and settings["train"]["steps"] == 7
    assert settings["device"] == "CPU" and settings["seed"] == 3
    assert settings["train"]["beta2"] == 0.98


def test_a_file_of_ones_own(taichu, tmp_path):
    _, shipped = load_recipe("codecs", [])
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{recipe: codecs, manifest: m, out: o, cache: c, model: nano, train: {steps: 5}}"
    )
    program, config = load_recipe(str(path), ["train.rate=1e-4"])
    assert program.__name__ == "recipes.codecs" and type(config) is type(shipped)
    assert config.train.steps == 5 and config.train.rate == 1e-4


def test_a_key_that_is_null_can_be_given_its_inner_keys():
    for recipe in ("codecs", "pretrain", "demo"):
        assert load_recipe(recipe, [])[1].profile is None
        _, config = load_recipe(recipe, ["profile.steps=[10,12]"])
        assert config.profile.steps == (10, 12)
    with pytest.raises(ConfigError, match="profile.steps: must hold 2 values, not 1"):
        load_recipe("codecs", ["profile.steps=[10]"])
    with pytest.raises(ConfigError, match="seed.x: seed holds a value, not keys"):
        load_recipe("codecs", ["seed.x=1"])


@pytest.mark.parametrize(
    "content, message",
    [
        ("model: nano", "the key 'recipe' is missing; it names one of"),
        ("recipe: os", "recipe 'os' is unknown"),
        ("recipe: codec", "recipe 'codec' is unknown; did you mean 'codecs'?"),
        ("recipe: ../x", "is unknown"),
        ("recipe: [1]", "is unknown"),
        ("recipe: __init__", "is unknown"),
    ],
)
def test_only_shipped_programs_run(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path), [])
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


def test_the_launch_line_of_a_recipe_works_in_any_folder(taichu):
    assert taichu("train", "recipes/codecs.yaml", "--dry-run").code == 0
