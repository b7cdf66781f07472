"""Any method by name tunes a model on a manifest; its adapter is what was taught."""

import numpy as np
import pytest
from safetensors import numpy

from recipes import tune_lora
from taichu import Taichu
from taichu.command_line import main
from taichu.errors import ConfigError
from taichu.inference.adapters import Adapters
from taichu.training.log import read_log
from taichu.training.trainer import TrainConfig
from tests.recipes.conftest import MIXTURE


def settings(common, base, out, **method):
    rest = {name: value for name, value in common.items() if name != "model"}
    train = TrainConfig(steps=40, rate=2e-2, log_every=1)
    return tune_lora.Config(
        start=str(base), out=str(out), method=method, mixture=MIXTURE, train=train, **rest
    )


@pytest.mark.parametrize(
    "method", [{"name": "lora", "rank": 4, "modules_to_save": ["projection"]}, {"name": "adalora"}]
)
def test_tuning(common, base, tmp_path, capsys, method):
    folder = tune_lora.main(settings(common, base, tmp_path, **method))
    shown = capsys.readouterr().out
    assert "attention.query" in shown and "%" in shown
    rows = read_log(tmp_path / "training/backbone/metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 40 and np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])
    tuned = Taichu.from_pretrained(base)
    plain = tuned.embed(text="red at the top")
    Adapters(tuned).add(folder, "new")
    assert np.abs(tuned.embed(text="red at the top") - plain).max() > 1e-3
    assert main(["merge", str(base), str(folder), str(tmp_path / "merged")]) == 0
    merged = Taichu.from_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(
        merged.embed(text="red at the top"), tuned.embed(text="red at the top"), atol=1e-5
    )
    kept = sum(
        tensor.size for tensor in numpy.load_file(folder / "adapter_model.safetensors").values()
    )
    assert kept < 0.5 * sum(p.size for p in tuned.backbone.get_parameters())


@pytest.mark.parametrize(
    "method, message",
    [
        ({"name": "lore"}, "method.name: 'lore' is unknown; did you mean 'lora'"),
        ({}, "method.name: None is unknown"),
        ({"name": "ia3", "rank": 4}, "method.rank: unknown key"),
    ],
)
def test_wrong_methods_are_named(common, base, tmp_path, method, message):
    with pytest.raises(ConfigError, match=message):
        tune_lora.main(settings(common, base, tmp_path, **method))
