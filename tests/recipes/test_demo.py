"""The demo as a whole is run by `make demo`; here, what decides whether it runs again."""

import json
from dataclasses import asdict, replace

import pytest

from recipes import demo
from taichu.data.batches import MixtureConfig
from taichu.errors import ConfigError
from taichu.evaluation import EvaluationConfig
from taichu.training.trainer import TrainConfig


@pytest.fixture
def config(tmp_path):
    mixture = MixtureConfig(groups={"text-image": 1.0}, languages=("en",))
    return demo.Config(
        data=str(tmp_path / "digits"),
        out=str(tmp_path / "out"),
        model="nano",
        codecs=TrainConfig(steps=1),
        mixture=mixture,
        alignment=TrainConfig(steps=1),
        train=TrainConfig(steps=1),
        evaluation=EvaluationConfig(limit=2),
    )


def test_a_finished_run_is_left_as_it_is_and_other_settings_are_not(config, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    (out / "report.html").touch()
    (out / "model" / "config.json").touch()
    assert not demo.is_done(out, asdict(config))
    (out / "metrics.json").write_text(json.dumps({"settings": asdict(config)}))
    assert demo.is_done(out, asdict(config))
    assert demo.main(config) == out and not (tmp_path / "digits").exists()
    assert str(out / "report.html") in capsys.readouterr().out
    assert not demo.is_done(out, asdict(replace(config, seed=1)))
    (out / "report.html").unlink()
    assert not demo.is_done(out, asdict(config))


def test_floors_are_known_by_name(config):
    with pytest.raises(ConfigError, match="floors: must be demo or full, not 'half'"):
        replace(config, floors="half")


def test_an_earlier_run_is_named_from_here_or_beside_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert demo.read_earlier(None) is None
    assert demo.read_earlier("demo_earlier.json")["zero_shot"]["image"]["accuracy"] > 0.1
    (tmp_path / "metrics.json").write_text('{"zero_shot": {}}')
    assert demo.read_earlier("metrics.json") == {"zero_shot": {}}
    with pytest.raises(ConfigError, match="earlier: lost.json: no such file"):
        demo.read_earlier("lost.json")
    for damaged in ("[1]", "{"):
        (tmp_path / "metrics.json").write_text(damaged)
        with pytest.raises(ConfigError, match="metrics.json: must be the metrics.json of a run"):
            demo.read_earlier("metrics.json")
