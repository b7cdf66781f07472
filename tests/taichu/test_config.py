"""Settings: types, overrides, and errors that name the right key."""

import dataclasses

import pytest

from taichu.config import (
    SIZES,
    CodecConfig,
    ModelConfig,
    apply_overrides,
    build,
    load_size,
    load_yaml,
)
from taichu.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class Outer:
    steps: int
    name: str | None = None
    fast: bool = False
    inner: Inner = Inner()
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    levels: tuple[int, ...] = ()
    axes: tuple[float, float] = (0.0, 0.0)


def test_build_fills_nested_settings():
    content = {
        "steps": 3,
        "name": None,
        "inner": {"rate": "1e-3"},  # what YAML makes of 1e-3
        "shares": {"a": 1},
        "levels": [4, 5],
        "axes": [1, 2.5],
    }
    made = build(Outer, content)
    assert made == Outer(3, None, False, Inner(0.001), {"a": 1.0}, (4, 5), (1.0, 2.5))
    assert isinstance(made.shares["a"], float)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"steps": 3, "nmae": "x"}, "nmae: unknown key; did you mean 'name'?"),
        ({"steps": 3, "inner": {"rat": 1}}, "inner.rat: unknown key; did you mean 'rate'?"),
        ({"name": "x"}, "steps: missing"),
        ({"steps": "3"}, "steps: must be int, not '3'"),
        ({"steps": True}, "steps: must be int, not True"),
        ({"steps": 3.0}, "steps: must be int, not 3.0"),
        ({"steps": 3, "fast": 1}, "fast: must be bool, not 1"),
        ({"steps": 3, "inner": 4}, "inner: must hold keys and values, not 4"),
        ({"steps": 3, "inner": {"rate": "fast"}}, "inner.rate: must be float, not 'fast'"),
        ({"steps": 3, "shares": {"a": "b"}}, "shares.a: must be float, not 'b'"),
        ({"steps": 3, "levels": 4}, "levels: must be a list, not 4"),
        ({"steps": 3, "levels": [4, "x"]}, "levels[1]: must be int, not 'x'"),
        ({"steps": 3, "axes": [1.0]}, "axes: must hold 2 values, not 1"),
    ],
)
def test_build_refuses(content, message):
    with pytest.raises(ConfigError) as caught:
        build(Outer, content)
    assert str(caught.value) == message


def test_overrides_reach_nested_keys_and_leave_the_original_alone():
    content = {"steps": 3, "inner": {"rate": 0.5}}
    changed = apply_overrides(content, ["inner.rate=0.25", "levels=[1, 2]", "name=a=b", "new.x=1"])
    assert changed == {
        "steps": 3,
        "inner": {"rate": 0.25},
        "levels": [1, 2],
        "name": "a=b",
        "new": {"x": 1},
    }
    assert content == {"steps": 3, "inner": {"rate": 0.5}}


@pytest.mark.parametrize(
    "override, message",
    [
        ("steps", "'steps': an override is written key=value"),
        ("=3", "'=3': an override is written key=value"),
        ("steps.x=3", "steps.x: steps holds a value, not keys"),
        ("steps=[1", "'steps=[1': the value is not YAML"),
    ],
)
def test_overrides_refuse(override, message):
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"steps": 3}, [override])
    assert str(caught.value) == message


@pytest.mark.parametrize("content", ["a: [1", "- 1\n- 2\n", "", "\x00"])
def test_load_yaml_refuses(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_load_yaml_of_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "no.yaml")


@pytest.mark.parametrize("name", sorted(path.stem for path in SIZES.glob("*.yaml")))
def test_shipped_sizes(name):
    from modality_adapters import create_adapter

    size = load_size(name)
    assert list(size.modalities) == ["image", "audio", "video", "shape3d"]
    for modality, settings in size.modalities.items():
        tokens = create_adapter(modality, settings).geometry.tokens
        assert 0 < tokens <= 1024
        assert size.codecs[modality].width % 32 == 0  # see taichu.model.codec


def test_load_size_names_the_nearest():
    with pytest.raises(ConfigError, match="'nanno' is unknown; did you mean 'nano'"):
        load_size("nanno")


def test_load_size_takes_a_file_and_changes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text((SIZES / "nano.yaml").read_text())
    assert load_size(str(path), width=64) == load_size("nano", width=64)
    assert load_size("nano", width=64).width == 64


@pytest.mark.parametrize(
    "change, message",
    [
        ({"key_value_heads": 3}, "key_value_heads=3 must divide heads=4"),
        ({"head_size": 31}, "head_size=31 must be even"),
        ({"rows_multiple": 0}, "rows_multiple=0 must be at least 1"),
        ({"codecs": {}}, "modalities .* and codecs .* differ"),
    ],
)
def test_model_config_refuses(change, message):
    with pytest.raises(ConfigError, match=message):
        load_size("nano", **change)


def test_codec_config_counts_its_codes():
    assert CodecConfig((8, 5, 5, 5)).codes == 1000
    assert ModelConfig.__dataclass_fields__["codecs"].default_factory() == {}
